"""The schema of ``status.json``, which is also what `harness status --json` prints."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict

from harness.campaign.conditions import Conditions
from harness.campaign.policy import Counted


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RowState(StrEnum):
    """NOTHING: the team handed in nothing that was taken. ABSENT: what is to be run is not in the
    submissions folder. IMPORTING: an image is read or built. GIVEN_UP: nothing more is tried by
    itself, and there is no result."""

    NOTHING = "nothing"
    QUEUED = "queued"
    ABSENT = "absent"
    IMPORTING = "importing"
    RUNNING = "running"
    DONE = "done"
    GIVEN_UP = "given_up"
    DROPPED = "dropped"


class TaskRow(_Record):
    """One team's work on one task; ``task`` None while no task is known. ``doing``: what is under
    way, such as "3/8 pairs". ``upload`` is what it is called in the folder, of the published
    result or of what waits to be run. ``attempts``: of that upload, so far.

    What follows is of the published result, None or empty where there is none: ``verdict`` (how
    the run ended, or what else became of the attempt), ``reason``, ``run_id``,
    ``median_runtime_s`` over the task's pairs, ``gain``, ``metrics`` (means over the cases that
    have a field) and ``lacking`` (how many have none, so that these means are not those of
    others), ``suspect`` (why its runtimes are not ranked), ``published`` (why it is the one that
    counts). Texts may be a submission's own words.
    """

    team: str
    display_name: str | None
    task: str | None
    state: RowState
    doing: str | None = None
    place: str | None = None
    upload: str | None = None
    upload_id: str | None = None
    attempts: int = 0
    verdict: str | None = None
    reason: str | None = None
    run_id: str | None = None
    valid_fields: int | None = None
    expected_fields: int | None = None
    median_runtime_s: float | None = None
    gain: float | None = None
    metrics: dict[str, float | None] = {}
    lacking: int = 0
    suspect: str | None = None
    published: str | None = None
    notes: tuple[str, ...] = ()


class OutstandingRow(_Record):
    """In the order in which they are run."""

    team: str
    upload: str
    upload_id: str
    number: int
    why: str


class RigRow(_Record):
    """A machine, or one GPU of it. ``drift_ratio``: of its last good calibration, see
    docs/campaign-rules.md; ``uncalibrated``: timed attempts since; ``under_way``: teams."""

    rig: str
    machine_digest: str | None
    attempts: int
    calibrations: int
    drift_ratio: float | None
    uncalibrated: int
    under_way: tuple[str, ...]
    unusable: str | None


class RejectedRow(_Record):
    entry: str
    team: str | None
    reason: str


class StatusRecord(_Record):
    """``journal_lines``: how many this is the sum of. ``teams``: how many are in each state.
    ``exit_code``: of the command that ended by itself, None while one goes on or was killed.
    ``warnings``: what must be known before runtimes are compared. ``requests``: asked for, and not
    yet taken up."""

    schema_version: Literal[1] = 1
    journal_lines: int
    title: str | None
    counted: Counted
    conditions: Conditions | None
    teams: dict[RowState, int]
    rows: tuple[TaskRow, ...]
    outstanding: tuple[OutstandingRow, ...]
    rejected: tuple[RejectedRow, ...]
    rigs: tuple[RigRow, ...]
    warnings: tuple[str, ...]
    requests: tuple[str, ...] = ()
    exit_code: int | None = None
