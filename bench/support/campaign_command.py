"""`harness campaign` in a process of its own, with a stopwatch.

``python -m bench.support.campaign_command FOLDER RUNS SCHEDULER [UNSCORED]`` takes up the campaign
in FOLDER (submissions/, test/, truth/, tiny.yaml, campaign.yaml) and prints what it measured as
JSON, last.
SCHEDULER is ``-`` for this machine alone; with UNSCORED nothing is scored.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from harness import campaigning
from harness.cache import CacheMode
from harness.campaign import job
from harness.campaign.scorer import Scorer
from harness.engine.base import Isolation

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(kw_only=True)
class Stopwatch:
    """``wall_s``: of the whole command, but for Python's start. The others: of each run, of what
    is done in this process."""

    code: int = -1
    wall_s: float = 0.0
    bare_s: list[float] = field(default_factory=list)
    preparing_s: list[float] = field(default_factory=list)
    scoring_s: list[float] = field(default_factory=list)


def request(folder: Path, runs: str = "runs", scheduler: str | None = None) -> campaigning.Request:
    return campaigning.Request(
        submissions=folder / "submissions",
        data=folder / "test",
        truth=folder / "truth",
        runs=folder / runs,
        policy=folder / "campaign.yaml",
        challenge=str(folder / "tiny.yaml"),
        engine="docker",
        base_image=None,
        cache=CacheMode.WARM,
        gpu=None,
        limits=(),
        isolation=Isolation(),
        seed=None,
        watch=False,
        scheduler=scheduler,
        tls_files=(None, None, None),
        plain=True,
    )


def measure(asked: campaigning.Request) -> Stopwatch:
    watch = Stopwatch()
    for owner, name, into in (
        (job, "execute", watch.bare_s),
        (job, "obtain", watch.preparing_s),
        (Scorer, "_found", watch.scoring_s),
    ):
        setattr(owner, name, _timed(getattr(owner, name), into))
    begin_s = time.perf_counter()
    watch.code = campaigning.run_campaign(asked)
    watch.wall_s = time.perf_counter() - begin_s
    return watch


def _timed(function: Callable[..., object], into: list[float]) -> Callable[..., object]:
    def call(*args: object, **kwargs: object) -> object:
        begin_s = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            into.append(time.perf_counter() - begin_s)

    return call


def main() -> None:
    folder, runs, scheduler, *unscored = sys.argv[1:]
    if unscored:
        setattr(Scorer, "_is_to_be_scored", lambda *_: False)  # noqa: B010
    asked = request(Path(folder), runs, None if scheduler == "-" else scheduler)
    print(json.dumps(asdict(measure(asked))))


if __name__ == "__main__":
    main()
