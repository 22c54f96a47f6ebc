"""Results as they come: a line a case, so that what was done is never done again."""

from __future__ import annotations

import fcntl
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from pydantic import ValidationError

from harness.errors import OutputError
from harness.evaluate.record import CaseRecord, Record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Place = tuple[str, bool, str]  # task, is it the zero field, key of the case


class JournalLine(Record):
    """``zero``: of the zero field, beside which a method is shown."""

    task: str
    zero: bool
    case: CaseRecord

    @property
    def place(self) -> Place:
        return self.task, self.zero, self.case.key


class Journal:
    """``known``: what earlier commands left, the latest of each place."""

    def __init__(self, file: TextIO, known: dict[Place, CaseRecord]) -> None:
        self._file = file
        self.known = known

    def add(self, task: str, case: CaseRecord, *, zero: bool) -> None:
        line = JournalLine(task=task, zero=zero, case=case)
        self._file.write(line.model_dump_json() + "\n")
        self._file.flush()


@contextmanager
def open_journal(path: Path) -> Iterator[Journal]:
    """Raises OutputError where it cannot be written, or another command is writing it.

    A line that is no result (the last one, of a command that was killed) is left out.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror})") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise OutputError(
                f"{path}: another command is evaluating the same; wait for it, or name another "
                "--output"
            ) from error
        known = {line.place: line.case for line in _lines(file)}
        yield Journal(file, known)


class SharedJournal:
    """One that several commands may add to at once, each of them opening it for a line at a time.

    ``known``: what was in it when it was first looked at, the latest of each place. Without a path
    there is none, and nothing is kept.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.known: dict[Place, CaseRecord] = {}
        if path is not None and path.exists():
            with self._open(path) as file:
                self.known = {line.place: line.case for line in _lines(file)}

    def add(self, task: str, case: CaseRecord, *, zero: bool) -> None:
        """Raises OutputError where it cannot be written."""
        if self._path is None:
            return
        line = JournalLine(task=task, zero=zero, case=case)
        with self._open(self._path) as file:
            file.write(line.model_dump_json() + "\n")

    @staticmethod
    @contextmanager
    def _open(path: Path) -> Iterator[TextIO]:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a+", encoding="utf-8") as file:
                fcntl.flock(file, fcntl.LOCK_EX)  # held while a line is written, or all are read
                yield file
        except OSError as error:
            raise OutputError(f"{path}: cannot be written ({error.strerror})") from error


def _lines(file: TextIO) -> Iterator[JournalLine]:
    file.seek(0)
    text = ""
    for text in file:
        try:
            yield JournalLine.model_validate_json(text)
        except ValidationError:
            continue
    if text and not text.endswith("\n"):
        file.write("\n")
