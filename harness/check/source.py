"""Where fields are taken from to be checked: a folder, the folder of a run, an uploaded zip."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Protocol

from harness.challenge.model import FieldFormat
from harness.check.archive import open_archive_source
from harness.errors import DataError
from harness.store import LOCAL_SUBMISSION, RunDirectory

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from harness.challenge.pairs import TaskPairs
    from harness.check.findings import Finding

_MAX_FILES = 100_000
_MAX_DEPTH = 32  # folders in folders


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
        """Every file, relative to the top, in the order of their names."""

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
    run = runs_dir / LOCAL_SUBMISSION / path
    folder = path if path.exists() or not run.is_dir() else run
    if folder.is_dir():
        fields = RunDirectory(folder).fields_dir
        is_run = RunDirectory(folder).record_path.is_file()
        yield FolderSource(fields if is_run else folder, label=str(path))
        return
    if path.exists() or path.is_symlink():
        with open_archive_source(path, tasks) as source:
            yield source
        return
    raise DataError(
        f"{path}: expected a folder of fields, a run or a zip, found no such file or folder, nor a "
        f"run in {runs_dir / LOCAL_SUBMISSION}/"
    )


def _is_field(name: str) -> bool:
    return name.endswith(tuple(suffix for kind in FieldFormat for suffix in kind.suffixes))


class FolderSource:
    """A folder of fields. Links are listed, and never followed; so is a folder that is called as a
    field is. Raises DataError when there is no
    such folder, or far too much in it."""

    is_upload = False
    refused: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()

    def __init__(self, folder: Path, label: str | None = None) -> None:
        self._folder = folder.resolve()
        self.label = label or str(folder)
        if not self._folder.is_dir():
            raise DataError(f"{folder}: expected a folder of fields or a zip, found none")
        self.names = tuple(sorted(self._walk()))

    def _walk(self) -> Iterator[PurePosixPath]:
        count = 0
        for parent, folders, files in os.walk(self._folder):
            here = Path(parent).relative_to(self._folder)
            links = [name for name in folders if Path(parent, name).is_symlink()]
            # A folder that is called as a field is, which is told when it is to be read.
            fields = [name for name in folders if name not in links and _is_field(name)]
            folders[:] = [name for name in folders if name not in fields]
            if len(here.parts) >= _MAX_DEPTH:
                raise DataError(f"{self.label}: expected fields, found folders {_MAX_DEPTH} deep")
            for name in (*files, *links, *fields):
                count += 1
                if count > _MAX_FILES:
                    raise DataError(
                        f"{self.label}: expected a folder of fields, found more than {_MAX_FILES} "
                        "files; is it the right folder?"
                    )
                yield PurePosixPath(here / name)

    @contextmanager
    def file(self, name: PurePosixPath) -> Iterator[Path]:
        yield self._folder / name
