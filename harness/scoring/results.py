"""Where an evaluation's results lie, in a run directory or beside any other fields."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.errors import OutputError
from harness.store import write_json

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import BaseModel


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
