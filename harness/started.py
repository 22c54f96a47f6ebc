"""``started.json``: all that must be known of a run should the harness that runs it die.

It is written when the submission's container is made and not yet started, and removed once
``run.json`` is there. A run directory that holds it, and whose harness is dead, can be finished:
see :mod:`harness.recover`.
"""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from harness import __version__
from harness.cache import CacheRecord
from harness.challenge.model import Challenge
from harness.challenge.pairs import Pair, TaskPairs
from harness.engine.base import EngineInfo, Image, Isolation
from harness.engine.owner import Owner
from harness.errors import OutputError
from harness.image_record import ImageRecord
from harness.machine.fingerprint import Fingerprint
from harness.plan import Plan
from harness.store import RepeatRecord, sync_folder

if TYPE_CHECKING:
    from harness.store import RunDirectory


class StartRecord(BaseModel):
    """``started.json``. ``challenge`` is the whole challenge as it was read, limits changed by an
    option included: its file may be another one later.

    ``run_name`` labels everything that the engine started for this run. ``started`` is UTC, ISO
    8601; ``monotonic_ns`` the same moment on the trace's clock and ``wall_offset_ns`` what to add
    to that for UTC: after a restart of the machine nobody else knows it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    harness_version: str
    owner: Owner
    run_name: str
    started: str
    monotonic_ns: int
    wall_offset_ns: int
    engine: EngineInfo
    image: Image
    isolation: Isolation
    image_facts: ImageRecord | None = None
    challenge: Challenge
    challenge_digest: str
    challenge_file: Path | None
    data_dir: Path
    gpus: tuple[str, ...] | None = None
    submission: str
    pairs: tuple[Pair, ...]
    reserved_cpu: int | None
    cache: CacheRecord
    machine: Fingerprint
    repeat: RepeatRecord | None

    @classmethod
    def of(
        cls,
        plan: Plan,
        engine: EngineInfo,
        *,
        run_name: str,
        reserved_cpu: int | None,
        cache: CacheRecord,
        machine: Fingerprint,
        repeat: RepeatRecord | None,
    ) -> Self:
        """Of a run that starts now, by this process."""
        monotonic_ns = time.monotonic_ns()
        return cls(
            harness_version=__version__,
            owner=Owner.current(),
            run_name=run_name,
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            monotonic_ns=monotonic_ns,
            wall_offset_ns=time.time_ns() - monotonic_ns,
            engine=engine,
            image=plan.image,
            isolation=plan.isolation,
            image_facts=plan.image_facts,
            challenge=plan.challenge,
            challenge_digest=plan.challenge.digest,
            challenge_file=plan.challenge_file,
            data_dir=plan.data_dir,
            gpus=plan.gpus,
            submission=plan.submission,
            pairs=plan.pairs,
            reserved_cpu=reserved_cpu,
            cache=cache,
            machine=machine,
            repeat=repeat,
        )

    def plan(self) -> Plan:
        """The plan that was carried out, without looking anything up again."""
        names = dict.fromkeys(pair.task for pair in self.pairs)
        return Plan(
            challenge=self.challenge,
            challenge_file=self.challenge_file,
            data_dir=self.data_dir,
            tasks=tuple(
                TaskPairs(
                    task=self.challenge.task(name),
                    pairs=tuple(pair for pair in self.pairs if pair.task == name),
                )
                for name in names
            ),
            image=self.image,
            submission=self.submission,
            cache=self.cache.asked,
            isolation=self.isolation,
            image_facts=self.image_facts,
            gpus=self.gpus,
        )


def write_start(run_dir: RunDirectory, start: StartRecord) -> None:
    """All of it or nothing, on the disk before this returns. Raises OutputError."""
    # ASCII with escapes: a path may be any bytes, which pydantic's own JSON refuses.
    text = json.dumps(start.model_dump(mode="json", by_alias=True), indent=1) + "\n"
    part = run_dir.started_path.with_suffix(".part")
    try:
        with part.open("w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(run_dir.started_path)
        sync_folder(run_dir.path)
    except OSError as error:
        raise OutputError(
            f"{run_dir.started_path}: cannot be written ({error.strerror})"
        ) from error


def read_start(run_dir: RunDirectory) -> StartRecord:
    """Raises OutputError when there is none, or it is no such record."""
    path = run_dir.started_path
    try:
        return StartRecord.model_validate(json.loads(path.read_bytes()))
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise OutputError(
            f"{path}: expected what this version of the harness ({__version__}) writes when a run "
            f"starts, found another content ({where}: {first['msg']}); finish the run with the "
            "version that began it"
        ) from error
    except ValueError as error:
        raise OutputError(f"{path}: expected JSON, found a damaged file ({error})") from error
