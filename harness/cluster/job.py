"""The process of one attempt: ``python -m harness.cluster.job SETTINGS``, with the attempt's folder
as a line on stdin, once there is one.

It shares nothing with its worker but the work folder: a crash in here is one attempt that failed.
Each line it prints is an AttemptNews.
"""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from harness.campaign.content import Contents
from harness.campaign.job import perform
from harness.campaign.order import JobEnd, JobOrder
from harness.campaign.site import Site
from harness.cluster.bench import JobSettings, failed
from harness.cluster.dead import engine_of
from harness.cluster.facts import AttemptNews, Stage
from harness.errors import HarnessError, Interrupted
from harness.store import write_json

if TYPE_CHECKING:
    from types import FrameType

    from harness.campaign.crew import Progressed


def main() -> None:
    logging.basicConfig(level=logging.WARNING)  # to stderr, which the worker keeps in a file
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    settings = JobSettings.model_validate_json(sys.argv[1])
    try:
        line = sys.stdin.readline().rstrip("\n")
    except KeyboardInterrupt:  # its worker is ended
        return
    if not line:
        return
    folder = Path(line)
    order = JobOrder.model_validate_json((folder / "order.json").read_bytes())
    write_json(folder / "end.json", make(order, settings))


def make(order: JobOrder, settings: JobSettings) -> JobEnd:
    """What stops a campaign on one machine is here the end of one attempt, for others to make."""
    try:
        return perform(order, site_of(settings), _tell)
    except HarnessError as error:
        return failed(f"worker {settings.place.name}: {error}", exit_code=error.exit_code)
    except KeyboardInterrupt:
        return failed(
            f"worker {settings.place.name} was ended before the run began",
            exit_code=Interrupted.exit_code,
        )


def site_of(settings: JobSettings) -> Site:
    """Raises EngineError when the engine does not answer."""
    contents = Contents(settings.work_dir / "contents.json")
    return Site(
        place=settings.place,
        runs_dir=settings.runs_dir,
        data_dir=settings.data_dir,
        engine=engine_of(settings.engine),
        data_digest=contents.data_digest,
        scratch_dir=settings.work_dir / "challenges",
    )


def _tell(progressed: Progressed) -> None:
    news = AttemptNews(
        team=progressed.team,
        run_id=progressed.run_id,
        stage=Stage.UNDER_WAY,
        doing=progressed.doing,
        progress=progressed.progress,
        pairs=progressed.pairs,
    )
    sys.stdout.write(news.model_dump_json() + "\n")
    sys.stdout.flush()


def _interrupt(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
