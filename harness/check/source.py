"""Where fields are taken from to be checked: a folder, the folder of a run, an uploaded zip."""

from __future__ import annotations

import os
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from harness.beneath import open_folder_beneath, shown, walk
from harness.challenge.field_error import unreadable
from harness.challenge.model import FieldFormat
from harness.check.archive import open_archive_source
from harness.errors import DataError, OutputError
from harness.store import LOCAL_SUBMISSION, RunDirectory

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import PurePosixPath

    from harness.beneath import Seen
    from harness.challenge.pairs import TaskPairs
    from harness.check.findings import Finding

_SUFFIXES = tuple(suffix for kind in FieldFormat for suffix in kind.suffixes)
_MAX_ENTRIES = 100_000  # files and folders
_MAX_RECORD_BYTES = 1 << 26  # a pair takes some hundred


class FieldSource(Protocol):
    """Files somebody else wrote. Nothing in them is believed."""

    @property
    def label(self) -> str:
        """What the user called it."""

    @property
    def is_upload(self) -> bool:
        """Is it what is uploaded, a zip, rather than a folder that one is made from?"""

    @property
    def names(self) -> tuple[PurePosixPath, ...]:
        """Every file, and a folder that is named like a field, relative to the top, sorted."""

    @property
    def refused(self) -> tuple[str, ...]:
        """Files that are there and cannot be used, by the names they have; ``findings`` say why."""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is wrong with the whole rather than with one field."""

    def file(self, name: PurePosixPath) -> AbstractContextManager[Path]:
        """A file with the bytes of ``name``, to be read by a reader that follows no links."""


@contextmanager
def open_source(path: Path, runs_dir: Path, tasks: Sequence[TaskPairs]) -> Iterator[FieldSource]:
    """The fields of a folder, of a run (by its directory, or the id of a dry run) or of a zip.

    Of a zip ``tasks`` tell how large its members may be.

    Raises DataError when ``path`` is none of these.
    """
    folder = _folder(path, runs_dir)
    if folder is not None:
        yield FolderSource(folder, label=str(path))
        return
    with open_archive_source(path, tasks) as source:
        yield source


def _folder(path: Path, runs_dir: Path) -> Path | None:
    """The folder that holds the fields; None for what is no folder."""
    try:
        run = runs_dir / LOCAL_SUBMISSION / path
        folder = path if path.exists() or not run.is_dir() else run
        if folder.is_dir():
            return RunDirectory(folder).fields_dir if _is_run(RunDirectory(folder)) else folder
        if not path.exists() and not path.is_symlink():
            raise DataError(
                f"{path}: expected a folder of fields, a run or a zip, found no such file or "
                f"folder, nor a run in {runs_dir / LOCAL_SUBMISSION}/"
            )
    except OSError as error:
        raise DataError(f"{path}: cannot be looked at ({error.strerror})") from error
    return None


def find_run(path: Path, runs_dir: Path) -> RunDirectory | None:
    """The run that :func:`open_source` takes ``path`` for, if it is one."""
    try:
        for folder in (path, runs_dir / LOCAL_SUBMISSION / path):
            if folder.is_dir():
                return RunDirectory(folder) if _is_run(RunDirectory(folder)) else None
    except OSError as error:
        raise DataError(f"{path}: cannot be looked at ({error.strerror})") from error
    return None


def _is_run(run: RunDirectory) -> bool:
    """Is it a run that ended, with fields of its own, or one of fields that were handed in?

    A folder that only says so, or whose fields are a link to somebody else's, is a plain folder.
    """
    fields = run.fields_dir
    if not fields.is_dir() or fields.is_symlink():
        return False
    try:
        if _is_record(run.record_path):
            run.read_record()
        elif _is_record(run.fields_record_path):
            run.read_fields_record()
        else:
            return False
    except OutputError:
        return False
    return True


def _is_record(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and path.stat().st_size <= _MAX_RECORD_BYTES


class FolderSource:
    """A folder of fields. Links are listed, and never followed; so is a folder that has a field's
    name. Raises DataError when there is no such folder, part of it cannot be looked at, or there
    is far too much in it."""

    is_upload = False
    refused: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()

    def __init__(
        self, folder: Path, label: str | None = None, *, max_entries: int = _MAX_ENTRIES
    ) -> None:
        self.label = label or str(folder)
        try:
            self._folder = folder.resolve()
            is_folder = self._folder.is_dir()
        except OSError as error:
            raise DataError(f"{folder}: cannot be looked at ({error.strerror})") from error
        if not is_folder:
            raise DataError(f"{folder}: expected a folder of fields or a zip, found none")
        with closing(walk(self._folder)) as everything:
            self.names = tuple(sorted(self._files(everything, max_entries)))

    def _files(self, everything: Iterable[Seen], max_entries: int) -> Iterator[PurePosixPath]:
        fields: set[PurePosixPath] = set()  # folders that have a field's name
        for count, seen in enumerate(everything):
            if seen.unseen is not None:
                raise DataError(
                    f"{self.label}: expected fields in folders that can be looked into, found "
                    f"{shown(seen.path)}, which cannot ({seen.unseen}); is it the right folder?"
                )
            if count >= max_entries:
                raise DataError(
                    f"{self.label}: expected a folder of fields, found more than {max_entries} "
                    "files and folders; is it the right folder?"
                )
            if not fields.isdisjoint(seen.path.parents):
                continue
            if seen.is_folder and not seen.path.name.endswith(_SUFFIXES):
                continue
            if seen.is_folder:
                fields.add(seen.path)
            yield seen.path

    @contextmanager
    def file(self, name: PurePosixPath) -> Iterator[Path]:
        """By way of its folder's descriptor: a folder that became a link since it was listed is not
        followed. (A system without /proc can only be trusted.) Raises FieldError."""
        try:
            parent = open_folder_beneath(self._folder, name.parent)
        except OSError as error:
            raise unreadable(
                expected="a regular file reached without links", found=f"none ({error.strerror})"
            ) from error
        try:
            here = Path(f"/proc/self/fd/{parent}")
            yield (here if here.exists() else self._folder / name.parent) / name.name
        finally:
            os.close(parent)
