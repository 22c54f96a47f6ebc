"""The run directory: every path in it, and every JSON schema.

::

    runs/<submission>/<run id>/
      run.json          written last: a directory without it is a run that did not end
      trace.jsonl.gz    what the witness saw
      log.txt           the submission's stdout and stderr, capped
      fields/task_0X/   the fields, as the submission wrote them
      repeat.json       in the first run of a group that --repeat made: its summary
      evaluation.json   what the fields are worth (harness.evaluate.record has its schema)
      evaluation.cases.jsonl   the same case by case, as they came
      check.json        what `harness check` finds (harness.check.report has its schema)

Of an upload of fields, which is never run, there is fields.json in place of run.json; of one that
cannot be run, refused.json.
"""

from __future__ import annotations

import gzip
import logging
import os
import shutil
import subprocess
import time
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.cache import CacheRecord
from harness.challenge.field_file import FieldState
from harness.challenge.model import Limits
from harness.ending import EndingRecord
from harness.engine.base import EngineName
from harness.errors import Blame, OutputError
from harness.image_record import ImageRecord
from harness.machine.contamination import Contamination
from harness.machine.fingerprint import Fingerprint
from harness.probe.realtime import Precision
from harness.probe.trace import Placement
from harness.timing import Flag

if TYPE_CHECKING:
    from pathlib import PurePosixPath

_logger = logging.getLogger(__name__)
_R = TypeVar("_R", bound="_Record")

LOCAL_SUBMISSION = "local"  # the name dry runs are kept under


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


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PairRecord(_Record):
    """One pair of a run. Times in seconds; None means not measured.

    ``inside_runtime_s`` is the reference runner's own witness, kept to be compared.
    ``field_problem`` says why a field is not valid; ``field_sha256`` is of the file's bytes;
    ``field_path`` is its place below ``fields/``, None when there was no file; ``expected_path``
    the name, below the output folder, that counts before others.
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


class TaskRecord(_Record):
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


class WitnessRecord(_Record):
    """How far the runtimes can be trusted. They may be ranked only when ``complete``.

    ``reserved_cpu``: the CPU that was the witness's alone; None when there was none.
    """

    placement: Placement = Placement.HOST
    precision: Precision
    complete: bool
    lost: tuple[str, ...] = ()
    reserved_cpu: int | None = None


class RepeatRecord(_Record):
    """Which run of a group this is: 1 to ``of``. The group has the name of its first run."""

    group: str
    index: int
    of: int


class RunRecord(_Record):
    """``run.json``. ``created`` is UTC, ISO 8601; ``duration_s`` from the submission's start to its
    end; ``blame`` is None when the run succeeded; ``changed_limits``: the names of those that are
    not the challenge's own; ``image``: None for the process engine and in older records; ``gpu``:
    the UUID of the one that it was given, None where nobody chose one. Version 1 had no ``ending``
    and no ``changed_limits``."""

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


class FindingRecord(_Record):
    """A finding of the check, made harmless: see :class:`harness.check.findings.Finding`."""

    severity: str
    kind: str
    pair: str | None
    expected: str
    found: str
    fix: str


class FieldsRecord(_Record):
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


class RefusedRecord(_Record):
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


class PairSpread(_Record):
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


class RepeatSummary(_Record):
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


class RunDirectory:
    """Paths of one run. ``create`` makes a new one, whose name is the time it began (UTC)."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, runs_dir: Path, submission: str) -> RunDirectory:
        parent = runs_dir / submission
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        for attempt in range(1000):
            path = parent / (f"{stamp}-{attempt}" if attempt else stamp)
            try:
                # What a submission wrote is nobody else's business, and may be anything.
                path.mkdir(parents=True, mode=0o700)
            except FileExistsError:
                continue
            except OSError as error:
                raise OutputError(f"run directory {path}: {error.strerror}") from error
            return cls(path)
        raise OutputError(f"run directory {parent / stamp}: a thousand runs began in one second")

    @classmethod
    def make(cls, runs_dir: Path, submission: str, run_id: str) -> RunDirectory:
        """A new one of this name. Raises OutputError, also when it is there already."""
        path = runs_dir / submission / run_id
        try:
            path.mkdir(parents=True, mode=0o700)
        except OSError as error:
            raise OutputError(f"run directory {path}: {error.strerror}") from error
        return cls(path)

    @classmethod
    def find(cls, name: str, runs_dir: Path) -> RunDirectory:
        """By its path, or by the id of a dry run. Raises OutputError when there is none."""
        for path in (Path(name), runs_dir / LOCAL_SUBMISSION / name):
            if path.is_dir():
                return cls(path)
        raise OutputError(
            f"no run {name}: expected a run directory, or the name of one in "
            f"{runs_dir / LOCAL_SUBMISSION}/"
        )

    @property
    def run_id(self) -> str:
        return self.path.name

    @property
    def submission(self) -> str:
        return self.path.parent.name

    @property
    def record_path(self) -> Path:
        return self.path / "run.json"

    @property
    def repeat_path(self) -> Path:
        """Only in the first run of a group."""
        return self.path / "repeat.json"

    @property
    def started_path(self) -> Path:
        """Only while the run goes on, or when its harness died: see :mod:`harness.started`."""
        return self.path / "started.json"

    @property
    def evaluation_path(self) -> Path:
        """Absent until `harness evaluate` was here."""
        return self.path / "evaluation.json"

    @property
    def check_path(self) -> Path:
        """Absent until a campaign had the fields checked."""
        return self.path / "check.json"

    @property
    def fields_record_path(self) -> Path:
        """In place of run.json, of fields that were handed in."""
        return self.path / "fields.json"

    @property
    def refused_path(self) -> Path:
        """In place of run.json, of an upload that cannot be run."""
        return self.path / "refused.json"

    @property
    def log_path(self) -> Path:
        return self.path / "log.txt"

    @property
    def growing_trace(self) -> Path:
        """The trace while the run goes on."""
        return self.path / "trace.jsonl"

    @property
    def trace_path(self) -> Path:
        return self.path / "trace.jsonl.gz"

    @property
    def output_dir(self) -> Path:
        """What the submission sees as its output folder; gone once the fields are collected."""
        return self.path / "output"

    @property
    def reserve_path(self) -> Path:
        """Room for the record, while the run goes on: see :mod:`harness.disk`."""
        return self.path / ".reserve"

    @property
    def fields_dir(self) -> Path:
        return self.path / "fields"

    def field_path(self, field: PurePosixPath) -> Path:
        return self.fields_dir / field

    def compress_trace(self) -> None:
        """Without room for that, the trace stays as it grew."""
        part = self.trace_path.with_suffix(".part")
        try:
            with self.growing_trace.open("rb") as plain, part.open("wb") as file:
                with gzip.open(file, "wb") as packed:
                    shutil.copyfileobj(plain, packed)
                os.fsync(file.fileno())  # before the growing one goes
            part.replace(self.trace_path)
        except OSError as error:
            _logger.warning("%s: not compressed (%s)", self.growing_trace, error.strerror)
            part.unlink(missing_ok=True)
            return
        self.growing_trace.unlink()

    def put_away(self, record: RunRecord) -> None:
        """Remove what only an unfinished run has, when its record is on the disk. Fields that could
        not be copied stay where they are."""
        if not any(pair.field_state is FieldState.UNCOLLECTED for pair in record.pairs):
            self.discard_output()
        leftovers = (
            self.started_path,
            self.reserve_path,
            *(path.with_suffix(".part") for path in (self.record_path, self.started_path)),
            self.trace_path.with_suffix(".part"),
            *self.fields_dir.rglob(".*.part"),  # copies that were cut short
        )
        for path in leftovers:
            path.unlink(missing_ok=True)

    def discard_output(self) -> None:
        """Remove the submission's output folder; what cannot be removed stays and is logged.

        What is left by shutil.rmtree, which recurses into each folder, is left to rm, which comes
        down any depth, but takes 15 ms to start.
        """
        with suppress(RecursionError):
            shutil.rmtree(self.output_dir, ignore_errors=True)
        if self.output_dir.exists():
            command = ["rm", "-rf", "--", str(self.output_dir)]
            nowhere = subprocess.DEVNULL
            subprocess.run(command, stdin=nowhere, stderr=nowhere, check=False)
        if self.output_dir.exists():
            _logger.warning(
                "%s: some of it belongs to another user and cannot be removed; try `sudo rm -rf`",
                self.output_dir,
            )

    def sync(self) -> None:
        """All that was made of the run is on the disk when this returns, contents and names, and
        its own name; but what the submission left in its output folder, should that be there
        still. Raises OutputError."""
        try:
            for folder, folders, files in os.walk(self.path):
                if folder == str(self.path) and self.output_dir.name in folders:
                    folders.remove(self.output_dir.name)
                for name in files:
                    _sync_file(Path(folder, name))
                sync_folder(Path(folder))
            sync_folder(self.path.parent)
            sync_folder(self.path.parent.parent)
        except OSError as error:
            raise OutputError(f"{error.filename or self.path}: {error.strerror}") from error

    def write_record(self, record: RunRecord) -> None:
        write_json(self.record_path, record)

    def read_record(self) -> RunRecord:
        """Raises OutputError when the run did not end or the file is no run record."""
        return _read(self.record_path, RunRecord, "run record", "so this run did not end")

    def write_fields_record(self, record: FieldsRecord) -> None:
        write_json(self.fields_record_path, record)

    def read_fields_record(self) -> FieldsRecord:
        """Raises OutputError when there is none or the file is no such record."""
        kind = "record of fields"
        return _read(self.fields_record_path, FieldsRecord, kind, "so no fields were handed in")

    def write_refusal(self, record: RefusedRecord) -> None:
        write_json(self.refused_path, record)

    def read_refusal(self) -> RefusedRecord:
        """Raises OutputError when there is none or the file is no such record."""
        kind = "record of a refusal"
        return _read(self.refused_path, RefusedRecord, kind, "so the upload was not refused")

    def read_challenge_name(self) -> str:
        """Of the challenge that the fields are of, run or handed in. Raises OutputError."""
        if not self.record_path.exists() and self.fields_record_path.exists():
            return self.read_fields_record().challenge
        return self.read_record().challenge

    def write_repeat(self, summary: RepeatSummary) -> None:
        write_json(self.repeat_path, summary)

    def read_repeat(self) -> RepeatSummary:
        """Raises OutputError when this is not the first run of a group, or the file is broken."""
        try:
            return RepeatSummary.model_validate_json(self.repeat_path.read_bytes())
        except (OSError, ValidationError) as error:
            raise OutputError(f"{self.repeat_path}: not a summary of runs: {error}") from error


def _read(path: Path, model: type[_R], what: str, absent: str) -> _R:
    try:
        return model.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise OutputError(f"{path.parent}: no {path.name}, {absent}") from error
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise OutputError(f"{path}: not a {what}: {where}: {first['msg']}") from error


def write_json(path: Path, record: BaseModel) -> None:
    """All of it or nothing, and on the disk when this returns."""
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8") as file:
        file.write(record.model_dump_json(indent=1, by_alias=True) + "\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    sync_folder(path.parent)


def _sync_file(path: Path) -> None:
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def sync_folder(path: Path) -> None:
    """The names in it are on the disk when this returns: a file's new name is its folder's."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
