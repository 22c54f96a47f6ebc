"""An evaluation's results: where they lie, in a run directory or beside any other fields, and the
exit code that they give."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.errors import FieldError, OutputError
from harness.evaluate.record import CaseState
from harness.store import write_json

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import BaseModel

    from harness.evaluate.record import EvaluationRecord


def cases_path(result: Path) -> Path:
    """The journal beside an evaluation's result, from which one that was interrupted goes on."""
    return result.with_name(result.name.removesuffix(".json") + ".cases.jsonl")


def initial_cases_path(folder: Path) -> Path:
    """The journal of the zero field, which all results in a folder (or runs below it) share."""
    return folder / "initial.cases.jsonl"


def write_result(path: Path, record: BaseModel) -> None:
    """All of it or nothing. Raises OutputError where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, record)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror})") from error


def exit_code_of(record: EvaluationRecord) -> int:
    """Of a submission: nothing at all of it can be scored, or not all that it attempted."""
    if not record.tasks or record.has(CaseState.MISSING, CaseState.INVALID):
        return FieldError.exit_code
    return 0


def worse(first: int, second: int) -> int:
    """What kept us from evaluating counts more than what is wrong with a submission."""
    codes = {first, second} - {0}
    others = codes - {FieldError.exit_code}
    return min(others, default=max(codes, default=0))
