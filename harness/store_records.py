"""What the files of a run directory hold: every JSON schema of :mod:`harness.store`.

None means not measured, zero is a measurement.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict

from harness.cache import CacheRecord
from harness.challenge.field_file import FieldState
from harness.challenge.model import Limits
from harness.ending import EndingRecord
from harness.engine.base import EngineName
from harness.errors import Blame
from harness.gpu_figures import GpusRecord, GpuStretch
from harness.image_record import ImageRecord
from harness.machine.contamination import Contamination
from harness.machine.fingerprint import Fingerprint
from harness.probe.realtime import Precision
from harness.probe.trace import Placement
from harness.timing import Flag


class RunStatus(StrEnum):
    """How a run ended. The first recorded reason wins."""

    SUCCEEDED = "succeeded"
    INCOMPLETE = "incomplete"
    CRASHED = "crashed"
    OUT_OF_MEMORY = "out_of_memory"
    TIMED_OUT = "timed_out"
    OUTPUT_LIMIT = "output_limit"
    REJECTED = "rejected"
    INTERRUPTED = "interrupted"
    INFRASTRUCTURE = "infrastructure"

    @property
    def exit_code(self) -> int:
        """Exit code of a command that executed one run."""
        return _EXIT_CODES[self]


_EXIT_CODES = {
    RunStatus.SUCCEEDED: 0,
    RunStatus.INCOMPLETE: 40,
    RunStatus.CRASHED: 41,
    RunStatus.OUT_OF_MEMORY: 42,
    RunStatus.TIMED_OUT: 43,
    RunStatus.OUTPUT_LIMIT: 44,
    RunStatus.REJECTED: 45,
    RunStatus.INFRASTRUCTURE: 46,
    RunStatus.INTERRUPTED: 130,
}


class Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PairRecord(Record):
    """One pair of a run. Times in seconds; None means not measured.

    ``inside_runtime_s`` is the reference runner's own witness, kept to be compared.
    ``field_problem`` says why a field is not valid; ``field_sha256`` is of the file's bytes;
    ``field_path`` is its place below ``fields/``, None when there was no file; ``expected_path``
    the name, below the output folder, that counts before others. ``gpu``: what its GPUs did
    meanwhile; None without one, or without a runtime.
    """

    key: str
    task: str
    fixed_id: int
    moving_id: int
    field_state: FieldState
    field_problem: str | None = None
    field_path: str | None = None
    expected_path: str | None = None
    field_sha256: str | None = None
    runtime_s: float | None = None
    exclusive_s: float | None = None
    inside_runtime_s: float | None = None
    flags: tuple[Flag, ...] = ()
    gpu: GpuStretch | None = None


class TaskRecord(Record):
    """One task of a run. ``overlap_ratio`` is 1.0 when its pairs came one after the other.

    ``first_runtime_s`` is of the pair that finished first, which may have paid for what a method
    prepares once; ``median_rest_s`` of all the others. ``uncovered_s`` is the time between the
    task's first access and its last field that no pair covers.
    """

    name: str
    attempted: bool
    pairs: int
    valid_fields: int
    median_runtime_s: float | None = None
    first_runtime_s: float | None = None
    median_rest_s: float | None = None
    makespan_per_pair_s: float | None = None
    overlap_ratio: float | None = None
    uncovered_s: float | None = None


class WitnessRecord(Record):
    """How far the runtimes can be trusted. They may be ranked only when ``complete``.

    ``reserved_cpu``: the CPU that was the witness's alone; None when there was none.
    """

    placement: Placement = Placement.HOST
    precision: Precision
    complete: bool
    lost: tuple[str, ...] = ()
    reserved_cpu: int | None = None


class RepeatRecord(Record):
    """Which run of a group this is: 1 to ``of``. The group has the name of its first run."""

    group: str
    index: int
    of: int


class RunRecord(Record):
    """``run.json``. ``created`` is UTC, ISO 8601; ``duration_s`` from the submission's start to its
    end; ``blame`` is None when the run succeeded; ``changed_limits``: the names of those that are
    not the challenge's own; ``image``: None for the process engine and in older records; ``gpu``:
    the UUID of the one that it was given, None where it was not one alone; ``gpus``: None where
    nobody chose any and in older records, without devices where none were given. Version 1 had no
    ``ending`` and no ``changed_limits``."""

    schema_version: Literal[1, 2] = 2
    harness_version: str
    run_id: str
    submission: str
    created: str
    challenge: str
    challenge_digest: str
    engine: EngineName
    engine_version: str
    image_id: str
    image_reference: str
    image: ImageRecord | None = None
    limits: Limits
    changed_limits: tuple[str, ...] = ()
    status: RunStatus
    reason: str
    blame: Blame | None
    exit_code: int | None
    ending: EndingRecord | None = None
    duration_s: float
    witness: WitnessRecord
    cache: CacheRecord
    machine: Fingerprint
    machine_digest: str
    gpu: str | None = None
    gpus: GpusRecord | None = None
    contamination: Contamination
    tasks: tuple[TaskRecord, ...]
    pairs: tuple[PairRecord, ...]
    repeat: RepeatRecord | None = None
    warnings: tuple[str, ...] = ()

    def ranked_runtime_s(self, pair: PairRecord) -> float | None:
        """The runtime that may be ranked: of a valid field, by a witness that missed nothing."""
        valid = pair.field_state is FieldState.VALID
        return pair.runtime_s if valid and self.witness.complete else None

    def task(self, name: str) -> TaskRecord:
        return next(task for task in self.tasks if task.name == name)


class FindingRecord(Record):
    """A finding of the check, made harmless: see :class:`harness.check.findings.Finding`."""

    severity: str
    kind: str
    pair: str | None
    expected: str
    found: str
    fix: str


class FieldsRecord(Record):
    """``fields.json``: fields that were handed in as a zip, and lie in ``fields/`` as a run's do.

    ``created`` is UTC, ISO 8601. ``source_sha256`` and ``source_bytes`` are of the zip, ``entry``
    what it was called. ``tasks`` and ``pairs`` have no times, as nothing was run. ``findings``: of
    the zip and the fields' format.
    """

    schema_version: Literal[1] = 1
    harness_version: str
    submission: str
    run_id: str
    created: str
    challenge: str
    challenge_digest: str
    data_digest: str
    entry: str
    source_sha256: str
    source_bytes: int
    tasks: tuple[TaskRecord, ...]
    pairs: tuple[PairRecord, ...]
    findings: tuple[FindingRecord, ...] = ()


class RefusedRecord(Record):
    """``refused.json``: why an upload cannot be run, which is its team's to mend.

    All texts are made harmless. ``error``: the name of the class in :mod:`harness.errors`, whose
    ``exit_code`` it is; ``log_tail``: the last lines that its build printed.
    """

    schema_version: Literal[1] = 1
    harness_version: str
    submission: str
    run_id: str
    created: str
    entry: str
    source_sha256: str
    error: str
    exit_code: int
    reason: str
    findings: tuple[str, ...] = ()
    log_tail: tuple[str, ...] = ()


class IntervalOf(StrEnum):
    """What an interval bounds: see :mod:`harness.spread`."""

    MEDIAN = "median"
    MEAN = "mean"


class PairSpread(Record):
    """One pair over several runs. ``runtimes_s``: one a run, None where there is none that counts;
    ``spread_ratio`` from the shortest to the longest, as a share of the median."""

    key: str
    task: str
    runtimes_s: tuple[float | None, ...]
    median_s: float | None = None
    shortest_s: float | None = None
    longest_s: float | None = None
    spread_ratio: float | None = None
    interval_s: tuple[float, float] | None = None
    interval_of: IntervalOf | None = None


class RepeatSummary(Record):
    """``repeat.json``. ``asked`` runs were to be made; ``runs`` and ``statuses`` are those that
    ended, in their order."""

    schema_version: Literal[1] = 1
    group: str
    submission: str
    asked: int
    runs: tuple[str, ...]
    statuses: tuple[RunStatus, ...]
    pairs: tuple[PairSpread, ...]
    warnings: tuple[str, ...] = ()
