"""What the journal holds: one event a line. Old lines stay readable: fields are only added."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.campaign.conditions import Conditions
from harness.campaign.order import AttemptKind, JobEnd, Place
from harness.campaign.upload import Sha256, Team, TeamInfo, Upload


class _Event(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Opened(_Event):
    """A command took the campaign up. ``conditions`` hold until the next of these; ``seed``: of the
    teams' order, None where they are not shuffled."""

    event: Literal["opened"] = "opened"
    conditions: Conditions
    seed: int | None = None


class UploadSeen(_Event):
    """An upload is complete and will be run. Once for each upload; again if what its team says of
    itself has changed, or its file has another name."""

    event: Literal["upload_seen"] = "upload_seen"
    upload: Upload
    info: TeamInfo = TeamInfo()


class UploadRejected(_Event):
    """Something in the submissions folder is no upload, or came too late for a limit: ``reason``.
    Told once for each ``entry`` and content; ``team`` None where it has no proper name."""

    event: Literal["upload_rejected"] = "upload_rejected"
    entry: str
    reason: str
    team: str | None = None
    sha256: Sha256 | None = None
    arrived_s: float | None = None


class AttemptStarted(_Event):
    """Written before anything of the attempt is done. ``team`` is ``_calibration`` for the
    reference image, whose ``upload`` is None. Its conditions are those of the last Opened before
    it. ``number``: 1, 2, ... of this upload. ``why``: what made it necessary, when it is not the
    first."""

    event: Literal["attempt_started"] = "attempt_started"
    kind: AttemptKind
    team: str
    run_id: str
    place: Place
    upload: str | None = None
    number: int = 1
    why: str | None = None


class AttemptEnded(_Event):
    event: Literal["attempt_ended"] = "attempt_ended"
    team: str
    run_id: str
    end: JobEnd


class Suspected(_Event):
    """The machine was not as it should be while this attempt was made: it is made again, as long as
    the campaign's file allows, and its runtimes are not ranked."""

    event: Literal["suspected"] = "suspected"
    team: str
    run_id: str
    reason: str


class Scored(_Event):
    """``exit_code``: that of `harness evaluate`. ``findings``: errors of `harness check`.
    ``gains``: of each task, how much of the way from the zero field to a perfect one its fields
    go, 1 at best (see :mod:`.rules`), None where the zero field was not scored. ``truth_digest``:
    of the truth it was scored by. ``metrics``: means of each task over the cases that have a field,
    for the table; ``lacking``: how many cases of it have none, where some have."""

    event: Literal["scored"] = "scored"
    team: str
    run_id: str
    exit_code: int
    findings: int
    truth_digest: str | None
    harness_version: str
    gains: dict[str, float | None] = {}
    metrics: dict[str, dict[str, float | None]] = {}
    lacking: dict[str, int] = {}
    problem: str | None = None


class TeamDropped(_Event):
    """Nothing of the team is run any more; what there is stays. TeamRetried takes it back."""

    event: Literal["team_dropped"] = "team_dropped"
    team: Team
    reason: str | None = None


class TeamRetried(_Event):
    """The team's latest upload is run once more, whatever came of it before."""

    event: Literal["team_retried"] = "team_retried"
    team: Team


class Closed(_Event):
    """The command ended by itself: nothing was outstanding, or it was asked to stop."""

    event: Literal["closed"] = "closed"
    exit_code: int
    outstanding: int


Event = Annotated[
    Opened
    | UploadSeen
    | UploadRejected
    | AttemptStarted
    | AttemptEnded
    | Suspected
    | Scored
    | TeamDropped
    | TeamRetried
    | Closed,
    Field(discriminator="event"),
]


class Line(BaseModel):
    """One line of the journal. ``n`` counts from 1 without a gap; ``at``: UTC, ISO 8601."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n: int
    at: str
    event: Event
