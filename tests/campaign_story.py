"""Campaigns told event by event, for tests: what the journal would hold, without a disk."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from harness.campaign.conditions import Conditions
from harness.campaign.events import (
    AttemptEnded,
    AttemptStarted,
    Line,
    Opened,
    Scored,
    UploadSeen,
)
from harness.campaign.order import AttemptKind, JobEnd, Outcome, Place
from harness.campaign.state import CampaignState
from harness.campaign.upload import CALIBRATION, TeamInfo, Upload, UploadKind
from harness.challenge.model import load_challenge
from harness.engine.base import EngineName
from harness.errors import Blame
from harness.store import RunStatus

if TYPE_CHECKING:
    from harness.campaign.decide import Assignment
    from harness.campaign.events import Event

DAY_S = 86_400.0
HERE = Place(name="here", machine="box", machine_digest="m1")


@cache
def conditions(version: str = "1", **limits: int) -> Conditions:
    challenge = load_challenge()
    return Conditions(
        harness_version=version,
        challenge=challenge.name,
        challenge_digest=challenge.digest,
        limits=challenge.limits.model_copy(update=limits),
        data_digest=challenge.digest,
        engine=EngineName.DOCKER,
    )


def upload(
    team: str,
    number: int = 1,
    *,
    kind: UploadKind = UploadKind.ARCHIVE,
    arrived_s: float | None = None,
    tasks: tuple[str, ...] | None = None,
) -> Upload:
    """``number`` is of its content, and of the second when it arrived."""
    return Upload(
        team=team,
        kind=kind,
        entry=f"{team}-{number}.tar",
        path=Path(f"/submissions/{team}-{number}.tar"),
        sha256=f"sha256:{number:016x}" + 48 * "0",
        size_bytes=1,
        arrived_s=float(number) if arrived_s is None else arrived_s,
        tasks=tasks,
    )


def ran(*, runtime_s: float = 1.0, digest: str | None = "m1", **changes: object) -> JobEnd:
    """A run with valid fields of two pairs."""
    end = JobEnd(
        outcome=Outcome.RAN,
        reason="every field is valid",
        status=RunStatus.SUCCEEDED,
        image_id="sha256:1",
        valid_fields=2,
        expected_fields=2,
        runtimes_s={"task_01/0001_0002": runtime_s, "task_01/0003_0004": 2 * runtime_s},
        is_timed=True,
        machine_digest=digest,
    )
    return end.model_copy(update=changes)


def crashed() -> JobEnd:
    return JobEnd(
        outcome=Outcome.RAN,
        reason="exit code 1; see the log",
        status=RunStatus.CRASHED,
        blame=Blame.SUBMISSION,
        exit_code=41,
    )


def fault(blame: Blame = Blame.MACHINE, exit_code: int = 46) -> JobEnd:
    return JobEnd(
        outcome=Outcome.RAN,
        reason="the engine went away",
        status=RunStatus.INFRASTRUCTURE,
        blame=blame,
        exit_code=exit_code,
    )


def interrupted() -> JobEnd:
    return JobEnd(
        outcome=Outcome.NEVER_STARTED,
        reason="the harness died",
        blame=Blame.MACHINE,
        exit_code=130,
        recovered=True,
    )


class Story:
    """A journal in memory, and the state that it adds up to."""

    def __init__(self, first: Conditions | None = None) -> None:
        self.state = CampaignState()
        self.lines: list[Line] = []
        self.tell(Opened(conditions=first or conditions()))

    def tell(self, event: Event) -> None:
        line = Line(n=len(self.lines) + 1, at="2026-01-01T00:00:00Z", event=event)
        self.lines.append(line)
        self.state.apply(line)

    def see(self, *uploads: Upload, info: TeamInfo | None = None) -> None:
        for one in uploads:
            self.tell(UploadSeen(upload=one, info=info or TeamInfo()))

    def start(self, one: Upload | None, place: Place = HERE, *, why: str | None = None) -> str:
        """None: a calibration. The run's id."""
        run_id = f"r{len(self.lines) + 1}"
        self.tell(
            AttemptStarted(
                kind=AttemptKind.CALIBRATION if one is None else AttemptKind.SUBMISSION,
                team=CALIBRATION if one is None else one.team,
                run_id=run_id,
                place=place,
                upload=None if one is None else one.id,
                why=why,
            )
        )
        return run_id

    def end(self, one: Upload | None, run_id: str, end: JobEnd) -> None:
        team = CALIBRATION if one is None else one.team
        self.tell(AttemptEnded(team=team, run_id=run_id, end=end))

    def run(self, one: Upload | None, end: JobEnd, place: Place = HERE) -> str:
        run_id = self.start(one, place)
        self.end(one, run_id, end)
        return run_id

    def begin(self, assignment: Assignment) -> str:
        return self.start(assignment.upload, assignment.place, why=assignment.why)

    def score(self, one: Upload, run_id: str, **gains: float | None) -> None:
        self.tell(
            Scored(
                team=one.team,
                run_id=run_id,
                exit_code=0,
                findings=0,
                truth_digest="sha256:1",
                harness_version="1",
                gains=gains,
            )
        )
