"""`harness campaign` in a process of its own, with a stopwatch: or with a crew that makes nothing.

``python -m bench.support.campaign_command real|simulated FOLDER`` takes up the campaign in FOLDER
(submissions/, test/, truth/, tiny.yaml, campaign.yaml) and prints what it measured as JSON, last.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.support.campaign_simulation import _DIGEST
from bench.support.simulated_crew import SimulatedCrew
from harness import __version__, campaigning
from harness.cache import CacheMode
from harness.campaign import job
from harness.campaign.events import Scored
from harness.campaign.scorer import Scorer
from harness.engine.base import Isolation
from harness.store import RunDirectory

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.campaign.order import JobEnd, JobOrder
    from harness.campaign.state import Attempt


def request(folder: Path) -> campaigning.Request:
    return campaigning.Request(
        submissions=folder / "submissions",
        data=folder / "test",
        truth=folder / "truth",
        runs=folder / "runs",
        policy=folder / "campaign.yaml",
        challenge=str(folder / "tiny.yaml"),
        engine="process",
        base_image=None,
        cache=CacheMode.WARM,
        limits=(),
        isolation=Isolation(),
        seed=None,
        watch=False,
        scheduler=None,
        tls_files=(None, None, None),
        plain=True,
    )


def simulate(folder: Path) -> None:
    """Finished and scored runs in no time, where the real command looks for them."""

    def made(order: JobOrder, end: JobEnd) -> JobEnd:
        directory = RunDirectory.make(folder / "runs", order.team, order.run_id)
        directory.record_path.write_text("{}\n")
        return end

    def scoring(_c: object, _p: object, _s: object, digest: str) -> Callable[[Attempt], Scored]:
        return lambda attempt: Scored(
            team=attempt.started.team,
            run_id=attempt.started.run_id,
            exit_code=0,
            findings=0,
            truth_digest=digest or _DIGEST,
            harness_version=__version__,
            gains={"task_01": 0.5, "task_02": 0.5},
            metrics={name: {"dice": 0.8, "sdlogj": 0.05} for name in ("task_01", "task_02")},
        )

    setattr(campaigning, "_crew", lambda *_: SimulatedCrew(1, made=made))  # noqa: B010
    setattr(campaigning, "_scoring", scoring)  # noqa: B010
    campaigning.run_campaign(request(folder))


def measure(folder: Path) -> dict[str, Any]:
    """The seconds of the campaign, of the bare runs in it, of whole attempts, and of scoring."""
    sums: dict[str, list[float]] = {"bare_s": [], "attempt_s": [], "scoring_s": []}

    def timed(owner: object, name: str, into: str) -> None:
        function = getattr(owner, name)

        def call(*args: object, **kwargs: object) -> object:
            begin_s = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                sums[into].append(time.perf_counter() - begin_s)

        setattr(owner, name, call)

    timed(job, "execute", "bare_s")
    timed(campaigning.LocalCrew, "poll", "attempt_s")
    timed(Scorer, "score", "scoring_s")
    begin_s = time.perf_counter()
    code = campaigning.run_campaign(request(folder))
    return {"code": code, "wall_s": time.perf_counter() - begin_s, **sums}


if __name__ == "__main__":
    if sys.argv[1] == "simulated":
        simulate(Path(sys.argv[2]))
    else:
        print(json.dumps(measure(Path(sys.argv[2]))))
