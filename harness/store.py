"""The run directory: every path in it; what its files hold, :mod:`harness.store_records` says.

::

    runs/<submission>/<run id>/
      run.json          written last: a directory without it is a run that did not end
      trace.jsonl.gz    what the witness saw
      gpu.jsonl.gz      what the sampler saw of its GPUs (harness.sampler.records has its schema)
      log.txt           the submission's stdout and stderr, capped
      fields/task_0X/   the fields, as the submission wrote them
      repeat.json       in the first run of a group that --repeat made: its summary
      evaluation.json   what the fields are worth (harness.evaluate.record has its schema)
      evaluation.cases.jsonl   the same case by case, as they came
      timeline.svg      the picture that `harness show --timeline` draws
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
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from harness.challenge.field_file import FieldState
from harness.errors import OutputError
from harness.store_records import (
    FieldsRecord,
    FindingRecord,
    IntervalOf,
    PairRecord,
    PairSpread,
    Record,
    RefusedRecord,
    RepeatRecord,
    RepeatSummary,
    RunRecord,
    RunStatus,
    TaskRecord,
    WitnessRecord,
)

if TYPE_CHECKING:
    from pathlib import PurePosixPath

    from pydantic import BaseModel

__all__ = (
    "LOCAL_SUBMISSION",
    "FieldsRecord",
    "FindingRecord",
    "IntervalOf",
    "PairRecord",
    "PairSpread",
    "RefusedRecord",
    "RepeatRecord",
    "RepeatSummary",
    "RunDirectory",
    "RunRecord",
    "RunStatus",
    "TaskRecord",
    "WitnessRecord",
    "sync_folder",
    "write_json",
)

_logger = logging.getLogger(__name__)
_R = TypeVar("_R", bound="Record")

LOCAL_SUBMISSION = "local"  # the name dry runs are kept under


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
    def growing_samples(self) -> Path:
        """What is seen of its GPUs while the run goes on; absent where it has none."""
        return self.path / "gpu.jsonl"

    @property
    def samples_path(self) -> Path:
        return self.path / "gpu.jsonl.gz"

    @property
    def timeline_path(self) -> Path:
        """The picture of its course, absent until `harness show --timeline` drew it."""
        return self.path / "timeline.svg"

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
        """And the samples of its GPUs. Without room for that, they stay as they grew."""
        grown = (self.growing_trace, self.trace_path), (self.growing_samples, self.samples_path)
        for growing, packed in grown:
            if growing.exists():
                _compress(growing, packed)

    def put_away(self, record: RunRecord) -> None:
        """Remove what only an unfinished run has, when its record is on the disk. Fields that could
        not be copied stay where they are."""
        if not any(pair.field_state is FieldState.UNCOLLECTED for pair in record.pairs):
            self.discard_output()
        leftovers = (
            self.started_path,
            self.reserve_path,
            *(path.with_suffix(".part") for path in (self.record_path, self.started_path)),
            *(path.with_suffix(".part") for path in (self.trace_path, self.samples_path)),
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


def _compress(growing: Path, packed: Path) -> None:
    part = packed.with_suffix(".part")
    try:
        with growing.open("rb") as plain, part.open("wb") as file:
            with gzip.open(file, "wb") as target:
                shutil.copyfileobj(plain, target)
            os.fsync(file.fileno())  # before the growing one goes
        part.replace(packed)
    except OSError as error:
        _logger.warning("%s: not compressed (%s)", growing, error.strerror)
        part.unlink(missing_ok=True)
        return
    growing.unlink()


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
