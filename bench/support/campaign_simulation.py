"""A whole campaign whose attempts take no time: conductor, decisions and journal are the real ones.

``python -m bench.support.campaign_simulation MACHINES RUNS FOLDER [NO_SYNC]`` prints what it
measured as JSON: in a process of its own, so that its memory is its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, ParamSpec, TypeVar, cast

from bench.support.image import ROOT
from bench.support.results import percentile
from bench.support.simulated_crew import SimulatedCrew
from harness import __version__
from harness.campaign import conduct, decide, means
from harness.campaign.breaks import Breaks
from harness.campaign.conditions import Conditions
from harness.campaign.events import Scored
from harness.campaign.folder import CampaignFolder
from harness.campaign.intake import Arrived, Scan
from harness.campaign.order import JobEnd, Source
from harness.campaign.policy import Calibration, Counted, Policy
from harness.campaign.scorer import Scorer
from harness.campaign.upload import TeamInfo, Upload, UploadKind
from harness.challenge.model import load_challenge
from harness.engine.base import EngineName

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.campaign.crew import Progressed
    from harness.campaign.events import Line
    from harness.campaign.intake import Intake
    from harness.campaign.state import Attempt, CampaignState
    from harness.campaign.status import StatusRecord
    from harness.scoring.pool import Pool
    from harness.store import RunDirectory

_P = ParamSpec("_P")
_T = TypeVar("_T")

UPLOADS_PER_TEAM = 10
_DIGEST = "sha256:" + 64 * "0"


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """``attempts``: calibrations and repeated ones included. ``decision_s``: of one question for
    the next work. ``sync_s``, ``status_s``: sums, of waiting for the disk, and of writing down
    time."""

    machines: int
    runs: int
    attempts: int
    wall_s: float
    decision_s: float
    decision_p99_s: float
    decisions: int
    sync_s: float
    status_s: float
    journal_bytes: int
    peak_bytes: int

    @property
    def attempts_per_s(self) -> float:
        return self.attempts / self.wall_s


def simulate_apart(machines: int, runs: int, folder: Path, *, sync: bool = True) -> Simulated:
    command = [sys.executable, "-m", "bench.support.campaign_simulation"]
    arguments = [str(machines), str(runs), str(folder), *([] if sync else ["NO_SYNC"])]
    done = subprocess.run(
        [*command, *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    return Simulated(**json.loads(done.stdout))


def simulate(machines: int, runs: int, folder: Path, *, sync: bool) -> Simulated:
    sync_s = _timed(os, "fsync", None if sync else _nothing)
    decision_s = _timed(decide, "next_work")
    status_s = _timed(conduct, "campaign_status")
    written_s = _timed(conduct, "refreshed")
    crew = SimulatedCrew(machines)
    campaign = _campaign(folder)
    begin_s = time.perf_counter()
    conductor = conduct.Conductor(campaign, _means(crew, runs), _Silence(), Breaks())
    conductor.conduct()
    wall_s = time.perf_counter() - begin_s
    done = sum(1 for one in conductor.state.attempts.values() if one.end is not None)
    if len(decide.outstanding(conductor.state, campaign.policy)) > runs // 100:
        raise RuntimeError(f"{done} attempts, and the campaign is not done")
    return Simulated(
        machines=machines,
        runs=runs,
        attempts=done,
        wall_s=wall_s,
        decision_s=median(decision_s),
        decision_p99_s=percentile(decision_s, 99),
        decisions=len(decision_s),
        sync_s=sum(sync_s),
        status_s=sum(status_s) + sum(written_s),
        journal_bytes=campaign.folder.journal_path.stat().st_size,
        peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


def _nothing(_: int) -> None:
    """In place of fsync: what is left is what the campaign takes without waiting for a disk."""


def _timed(owner: object, name: str, instead: Callable[..., object] | None = None) -> list[float]:
    """Seconds of each call from now on."""
    function: Callable[..., object] = instead or getattr(owner, name)
    seconds: list[float] = []

    def timed(*args: object, **kwargs: object) -> object:
        begin_s = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            seconds.append(time.perf_counter() - begin_s)

    setattr(owner, name, timed)
    return seconds


def _campaign(folder: Path) -> means.Campaign:
    challenge = load_challenge()
    return means.Campaign(
        folder=CampaignFolder(folder),
        policy=Policy(counted=Counted.BEST, seed=2021, calibration=Calibration(every=25)),
        conditions=Conditions(
            harness_version=__version__,
            challenge=challenge.name,
            challenge_digest=challenge.digest,
            limits=challenge.limits,
            data_digest=challenge.digest,
            engine=EngineName.DOCKER,
        ),
        challenge=challenge,
        calibration=Source(kind=UploadKind.IMAGE, sha256=_DIGEST, entry="reference"),
    )


def _means(crew: SimulatedCrew, runs: int) -> means.Means:
    return means.Means(
        crew=crew,
        intake=cast("Intake", _FixedIntake(runs)),
        scorer=Scorer(_score, _DIGEST),
        ready=lambda: None,
        find_out=_never,
    )


def _never(directory: RunDirectory) -> JobEnd:
    raise RuntimeError(f"{directory.path}: nothing was left under way")


class _FixedIntake:
    """What a real one finds, found at once."""

    def __init__(self, runs: int) -> None:
        self._scan = Scan(uploads=tuple(_arrived(number) for number in range(runs)))

    def scan(self, *, watching: bool, now_s: float, may_read: bool = True) -> Scan:
        del watching, now_s, may_read
        return self._scan


def _arrived(number: int) -> Arrived:
    team = f"team{number // UPLOADS_PER_TEAM:05d}"
    entry = f"{team}/upload{number}.tar.gz"
    return Arrived(
        upload=Upload(
            team=team,
            kind=UploadKind.ARCHIVE,
            entry=entry,
            path=Path("/submissions") / entry,
            sha256=f"sha256:{hashlib.sha256(entry.encode()).hexdigest()}",
            size_bytes=3 << 30,
            arrived_s=float(number),
        ),
        info=TeamInfo(display_name=f"Team {number // UPLOADS_PER_TEAM}"),
    )


@cache
def _task_names() -> tuple[str, ...]:
    return tuple(task.name for task in load_challenge().tasks)


def _score(attempt: Attempt, _: Pool) -> Scored:
    names = _task_names()
    return Scored(
        team=attempt.started.team,
        run_id=attempt.started.run_id,
        exit_code=0,
        findings=0,
        truth_digest=_DIGEST,
        harness_version=__version__,
        gains=dict.fromkeys(names, 0.5),
        metrics={name: {"dice": 0.8, "hd95": 2.0, "sdlogj": 0.05} for name in names},
    )


class _Silence:
    """Nobody looks on."""

    def happened(self, line: Line, state: CampaignState) -> None: ...
    def progressed(self, report: Progressed) -> None: ...
    def scoring(self, team: str, run_id: str) -> None: ...
    def refreshed(self, status: StatusRecord) -> None: ...
    def noticed(self, text: str) -> None: ...
    def warned(self, text: str) -> None: ...
    def waits(self, entries: Sequence[str]) -> None: ...


def main() -> None:
    machines, runs, folder, *no_sync = sys.argv[1:]
    found = simulate(int(machines), int(runs), Path(folder), sync=not no_sync)
    print(json.dumps(asdict(found)))


if __name__ == "__main__":
    main()
