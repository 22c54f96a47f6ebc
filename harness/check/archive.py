"""An uploaded zip as a source of fields to check."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from harness.challenge.archive import open_archive
from harness.check.findings import Finding, FindingKind, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path, PurePosixPath

    from harness.challenge.archive import FieldArchive
    from harness.challenge.archive_rules import ArchiveProblem
    from harness.challenge.pairs import TaskPairs


class ArchiveSource:
    """The fields of a zip; what is wrong with it as findings."""

    is_upload = True

    def __init__(self, archive: FieldArchive, label: str) -> None:
        self._archive = archive
        self.label = label
        self.names = archive.names
        self.refused = archive.refused
        self.findings = tuple(map(_finding, archive.problems))

    def file(self, name: PurePosixPath) -> AbstractContextManager[Path]:
        return self._archive.file(name)


@contextmanager
def open_archive_source(
    path: Path, tasks: Sequence[TaskPairs], label: str | None = None
) -> Iterator[ArchiveSource]:
    """Raises DataError when ``path`` is no regular file."""
    expected = {
        name: found.task.field
        for found in tasks
        for pair in found.pairs
        for name in pair.field_names
    }
    with open_archive(path, expected) as archive:
        yield ArchiveSource(archive, label or str(path))


def _finding(problem: ArchiveProblem) -> Finding:
    return Finding(
        severity=Severity.WARNING if problem.harmless else Severity.ERROR,
        kind=FindingKind.ARCHIVE,
        pair=None,
        expected=problem.expected,
        found=problem.found,
        fix=problem.fix,
    )
