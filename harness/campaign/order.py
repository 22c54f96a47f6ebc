"""What the job function is told, and what it says came of it: the same here and on a cluster.

Both cross processes and machines, so they hold no open file, no engine and no path that only one
machine knows, but for the place of an upload, which a worker may find or be sent.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from harness.campaign.conditions import Conditions
from harness.campaign.policy import Exclusive
from harness.campaign.upload import Sha256, UploadKind
from harness.challenge.model import Challenge
from harness.errors import Blame
from harness.machine.contamination import MachineVerdict
from harness.store import RunStatus


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AttemptKind(StrEnum):
    """CALIBRATION: of the reference image, to see whether the machine is still as fast."""

    SUBMISSION = "submission"
    CALIBRATION = "calibration"


class Place(_Record):
    """``name`` is unique in a crew; ``machine`` is the host's name: two places on one machine have
    that in common. ``gpu``: its UUID, None where runs get none. ``machine_digest``: of the
    machine's fingerprint (:mod:`harness.machine.fingerprint`)."""

    name: str
    machine: str
    gpu: str | None = None
    machine_digest: str | None = None

    @property
    def rig(self) -> str:
        """What a calibration is of: one GPU of a machine, or the machine where runs get none."""
        return self.machine if self.gpu is None else f"{self.machine} ({self.gpu})"


class Source(_Record):
    """Where the image comes from, or the fields. ``path``: on a machine that may be another;
    ``reference``: the name of an image, for UploadKind.IMAGE."""

    kind: UploadKind
    sha256: Sha256
    entry: str
    path: Path | None = None
    reference: str | None = None
    size_bytes: int | None = None


class KnownRun(_Record):
    """A finished run of the team under the same conditions: not to be made again for this image."""

    image_id: str
    run_id: str


class JobOrder(_Record):
    """One attempt, to be made. ``team`` is :data:`.upload.CALIBRATION` for the reference image.

    ``challenge_text``: the challenge file's, None for a built-in challenge. ``changed_limits``: as
    in :class:`harness.plan.Plan`. ``tasks``: None for all that the data folder has. ``gpu``: the
    UUID of the GPU that the run is for. ``exclusive``: what it has for itself, as the campaign's
    file says.
    """

    kind: AttemptKind
    team: str
    run_id: str
    source: Source
    conditions: Conditions
    challenge: Challenge
    challenge_text: str | None = None
    changed_limits: tuple[str, ...] = ()
    tasks: tuple[str, ...] | None = None
    known: tuple[KnownRun, ...] = ()
    gpu: str | None = None
    exclusive: Exclusive = Exclusive.MACHINE


class Outcome(StrEnum):
    """What became of an attempt.

    RAN            there is a run.json: whatever its status, it is a result
    FIELDS         there is a fields.json: of a zip, which is never run
    REFUSED        the upload cannot be run, which is its team's to mend: there is a refused.json
    SAME           its image has a finished run under these conditions, ``same_as``: not run again
    FAILED         the machine, or what the organiser gave it, was in the way: nothing began
    NEVER_STARTED  the harness died before the submission started
    """

    RAN = "ran"
    FIELDS = "fields"
    REFUSED = "refused"
    SAME = "same"
    FAILED = "failed"
    NEVER_STARTED = "never_started"


class JobEnd(_Record):
    """What came of one attempt. None: does not apply, or not known.

    ``reason``: for people, may be a submission's text made harmless. ``exit_code``: that of
    `harness run` in this case. ``runtimes_s``: of each pair that may be ranked.
    ``machine_verdict``: whether the machine was quiet. ``recovered``: the harness that made the run
    died, and what was there was recorded later. ``record_sha256``: of run.json, fields.json or
    refused.json.
    """

    schema_version: Literal[1] = 1
    outcome: Outcome
    reason: str
    blame: Blame | None = None
    exit_code: int = 0
    image_id: str | None = None
    same_as: str | None = None
    status: RunStatus | None = None
    valid_fields: int | None = None
    expected_fields: int | None = None
    runtimes_s: dict[str, float] = {}
    is_timed: bool = False
    machine_digest: str | None = None
    machine_verdict: MachineVerdict | None = None
    gpu: str | None = None
    recovered: bool = False
    record_sha256: Sha256 | None = None

    @property
    def is_final(self) -> bool:
        """A result that is not to be had again: the team's success, or its own fault."""
        if self.outcome in {Outcome.FAILED, Outcome.NEVER_STARTED}:
            return False
        return self.blame is None or self.blame is Blame.SUBMISSION

    @property
    def is_interrupted(self) -> bool:
        """No result, since the harness was stopped or died: nobody's fault that is known."""
        if self.is_final:
            return False
        stopped = self.outcome is Outcome.NEVER_STARTED or self.status is RunStatus.INTERRUPTED
        return stopped or self.recovered
