"""One case as a worker gets it, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path, PurePosixPath

    from harness.challenge.pairs import TaskPairs
    from harness.evaluate.record import CaseRecord
    from harness.evaluate.rules import Case, TaskRules


@dataclass(frozen=True, kw_only=True)
class SourceSpec:
    """Where fields are: what :func:`harness.check.source.open_source` takes."""

    path: Path
    runs_dir: Path
    tasks: tuple[TaskPairs, ...]


@dataclass(frozen=True, kw_only=True)
class FieldPlace:
    """A field of a source, by its name below the top."""

    source: SourceSpec
    name: PurePosixPath


@dataclass(frozen=True, kw_only=True)
class Job:
    """``field``: None for the zero field. ``known``: a result that an earlier command left; where
    nothing it was computed from has changed, it is the answer."""

    rules: TaskRules
    case: Case
    field: FieldPlace | None
    extras: bool = False
    known: CaseRecord | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """``exit_code``: of the error that kept the case from being evaluated, 0 if none did.
    ``reused``: is it the known result?"""

    record: CaseRecord
    exit_code: int = 0
    reused: bool = False


@dataclass(frozen=True, kw_only=True)
class Compiling:
    """What a worker says before it compiles the metrics for this machine, which happens once."""
