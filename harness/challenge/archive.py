"""An uploaded zip of fields: all that its directory claims is checked before a byte is inflated.

Nothing is extracted under a name that the archive chose; a member's content goes to a private
folder, one member at a time, and never more of it than the task's field may be large.
"""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from harness.challenge.archive_rules import (
    ArchiveProblem,
    collisions,
    is_folder,
    is_junk,
    limited,
    member_problem,
    other_kind,
    overlaps,
    shown,
    top_folder,
)
from harness.challenge.field_error import unreadable
from harness.challenge.field_file import max_file_bytes
from harness.challenge.inflate import DamagedError
from harness.challenge.model import FieldFormat
from harness.challenge.zip_directory import ZipEnd, ZipEntry, open_entry, read_end, read_entries
from harness.errors import DataError, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from harness.challenge.model import FieldSpec

# Beside three members a field (itself, its folder, macOS's shadow of it): fields of other pairs.
_FREE_MEMBERS = 1000
_DIRECTORY_BYTES = 1 << 10  # a member on average: name, extra fields, comment
_FREE_BYTES = 1 << 30  # may be promised beside the fields and ...
_MAX_EXPANSION = 4  # ... so many times the zip's own size; fields are compressed already
_COPY_BYTES = 1 << 18
_FOUR_GIB = 1 << 32
_ENDINGS = tuple(ending for kind in FieldFormat for ending in kind.suffixes)


class FieldArchive:
    """The members of a zip that can be used, and what is wrong with the others and the whole.

    ``names``: files that can be read, sorted, each once, relative and without ``..``; below the
    folder that all lie in, if there is one, which is a problem. ``refused``: names, as the zip has
    them, of members that break a rule. ``problems``: in one pass, all.
    """

    names: tuple[PurePosixPath, ...]
    refused: tuple[str, ...]
    problems: tuple[ArchiveProblem, ...]

    def __init__(self, descriptor: int, expected: Mapping[PurePosixPath, FieldSpec]) -> None:
        self._descriptor = descriptor
        self._expected = expected
        self._end = ZipEnd(n_entries=0, directory_offset=0, directory_bytes=0)
        self._file_bytes = os.fstat(descriptor).st_size
        self.refused = ()
        problems: list[ArchiveProblem] = []
        try:
            usable = self._read(problems)
        except DamagedError as error:
            usable = {}
            problems = [_damaged(error, _PositionedFile(descriptor), self._file_bytes)]
        self._entries = self._below_top_folder(usable, problems)
        self.names = tuple(sorted(self._entries))
        self.problems = tuple(limited(problems))

    @contextmanager
    def file(self, name: PurePosixPath) -> Iterator[Path]:
        """A private copy of a member of ``names``, gone afterwards; threads may do so at a time.

        Raises FieldError when the member is larger than the task's field may be, or damaged, and
        OutputError when the copy cannot be written.
        """
        entry = self._entries[name]
        limit = self._limit(name)
        if entry.n_bytes > limit:
            raise unreadable(
                expected=f"at most {limit} bytes",
                found=str(entry.n_bytes),
                fix="is it at full resolution, or in double precision?",
            )
        with _private_folder() as folder:
            ending = next((one for one in _ENDINGS if name.name.endswith(one)), "")
            copy = folder / f"field{ending}"
            self._extract(entry, copy)
            yield copy

    def _extract(self, entry: ZipEntry, copy: Path) -> None:
        try:
            with copy.open("xb") as target:
                stream = open_entry(_PositionedFile(self._descriptor), entry, self._end)
                # At most what the directory promised: for more the stream raises.
                while chunk := stream.read(_COPY_BYTES):
                    target.write(chunk)
        except DamagedError as error:
            raise unreadable(
                expected="an intact member of the zip", found=f"a damaged one ({error})"
            ) from error
        except OSError as error:
            raise _no_room(copy.parent, error) from error

    def _limit(self, name: PurePosixPath) -> int:
        """In bytes; of a file that no pair expects, that of the largest field."""
        if spec := self._expected.get(name):
            return max_file_bytes(spec)
        return max(map(max_file_bytes, self._expected.values()), default=0)

    def _read(self, problems: list[ArchiveProblem]) -> dict[PurePosixPath, ZipEntry]:
        """The usable members under the names they have, with problems added to the list."""
        file = _PositionedFile(self._descriptor)
        self._end = read_end(file, self._file_bytes)
        n_allowed = 3 * len(self._expected) + _FREE_MEMBERS
        if self._end.n_entries > n_allowed:
            problems.append(_too_many(n_allowed, self._end.n_entries))
            return {}
        if self._end.directory_bytes > n_allowed * _DIRECTORY_BYTES:
            raise DamagedError(f"a directory of {self._end.directory_bytes} bytes")
        entries = read_entries(file, self._end)
        bad: dict[int, ArchiveProblem] = {}
        for i, entry in enumerate(entries):
            if problem := member_problem(entry):
                bad[i] = problem
        named_well = {i: entry for i, entry in enumerate(entries) if i not in bad}
        for i, problem in (*collisions(named_well), *overlaps(file, entries, self._end)):
            bad.setdefault(i, problem)
        problems += [bad[i] for i in sorted(bad)]
        self.refused = tuple(entries[i].name for i in sorted(bad))
        problems += self._too_large(entries)
        if junk := [entry for entry in entries if is_junk(entry)]:
            problems.append(_left_behind(junk))
        return {
            PurePosixPath(entry.name): entry
            for i, entry in enumerate(entries)
            if i not in bad and not is_junk(entry) and not is_folder(entry)
        }

    def _too_large(self, entries: Sequence[ZipEntry]) -> Iterator[ArchiveProblem]:
        limit = sum(map(max_file_bytes, self._expected.values()))
        limit = max(limit, _MAX_EXPANSION * self._file_bytes) + _FREE_BYTES
        total = sum(entry.n_bytes for entry in entries)
        if total > limit:
            yield ArchiveProblem(
                kind="total",
                expected=f"at most {limit} bytes in all members together",
                found=f"{total} bytes",
                fix="zip the fields only",
            )

    def _below_top_folder(
        self, usable: dict[PurePosixPath, ZipEntry], problems: list[ArchiveProblem]
    ) -> dict[PurePosixPath, ZipEntry]:
        """The members as they would be called without the folder that all of them lie in."""
        top = top_folder(usable, self._expected)
        if top is None:
            return usable
        inner = {name for name in usable if name.parts[0] == top and len(name.parts) > 1}
        first = min(name.relative_to(top) for name in inner)
        problems.append(
            ArchiveProblem(
                kind="top folder",
                expected=f"{shown(str(first))} at the top level of the zip",
                found=f"everything in a folder {shown(top)}",
                fix="zip what is in the folder, not the folder; `harness pack` does",
            )
        )
        moved = {name.relative_to(top): usable[name] for name in inner}
        return {name: usable[name] for name in usable if name not in inner} | moved


@contextmanager
def open_archive(path: Path, expected: Mapping[PurePosixPath, FieldSpec]) -> Iterator[FieldArchive]:
    """A zip of fields, of which nothing is believed. ``expected``: the fields' names and tasks.

    Whatever is wrong inside is told by ``problems``, also when it is no zip at all. Raises
    DataError when ``path`` is no regular file that can be read: a link, pipe, device or folder.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if path.is_symlink():
            raise DataError(f"{path}: expected a zip file, found a symbolic link") from error
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise DataError(f"{path}: expected a zip file, found a folder, pipe or device")
        yield FieldArchive(descriptor, expected)
    finally:
        os.close(descriptor)


@contextmanager
def _private_folder() -> Iterator[Path]:
    """A temporary folder that only we enter. Raises OutputError where none can be made."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="harness-field-")
    except OSError as error:
        raise _no_room(None, error) from error
    with folder as name:
        yield Path(name)


def _no_room(folder: Path | None, error: OSError) -> OutputError:
    place = "a temporary folder" if folder is None else str(folder.parent)
    return OutputError(
        f"{place}: expected room for one field of the zip, found none ({error.strerror}); "
        "free some, or name another folder: TMPDIR=/somewhere harness check ..."
    )


class _PositionedFile:
    """A file that is open already, with a position of its own: several may be read at a time."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._position = 0

    def seek(self, offset: int, /) -> int:
        self._position = offset
        return offset

    def read(self, size: int, /) -> bytes:
        try:
            data = os.pread(self._descriptor, size, self._position)
        except OSError as error:
            raise DamagedError(f"it cannot be read: {error.strerror}") from error
        self._position += len(data)
        return data


def _damaged(error: DamagedError, file: _PositionedFile, file_bytes: int) -> ArchiveProblem:
    if other := other_kind(file, file_bytes):
        return ArchiveProblem(
            kind="archive", expected="a zip file", found=other, fix="make a zip with `harness pack`"
        )
    fix = "make the zip again, and test it with unzip -t"
    if file_bytes > _FOUR_GIB:
        fix += (
            "; some programs, macOS's Finder among them, write none beyond 4 GiB that others read"
        )
    return ArchiveProblem(
        kind="archive",
        expected="a zip file",
        found=f"a damaged or truncated one ({error})",
        fix=fix,
    )


def _too_many(n_allowed: int, found: int) -> ArchiveProblem:
    return ArchiveProblem(
        kind="members",
        expected=f"at most {n_allowed} members",
        found=str(found),
        fix="zip the fields only",
    )


def _left_behind(junk: Sequence[ZipEntry]) -> ArchiveProblem:
    files = "1 file" if len(junk) == 1 else f"{len(junk)} files"
    return ArchiveProblem(
        kind="junk",
        expected="fields only",
        found=f"{files} that a file manager left behind, such as {shown(junk[0].name)}",
        fix="nothing needs to be done; `harness pack` leaves them out",
        harmless=True,
    )
