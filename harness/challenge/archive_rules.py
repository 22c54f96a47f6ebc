"""What the members of an uploaded zip may be: rules over its directory, without its content.

A zip is untrusted text: names are shown escaped, and every rule holds for all members, so that one
look tells everything that is wrong.
"""

from __future__ import annotations

import re
import stat
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.challenge.inflate import DamagedError, RandomAccess
from harness.challenge.zip_directory import DEFLATED, STORED, ZipEnd, ZipEntry, data_span

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import PurePosixPath

_MAX_NAME_BYTES = 255
_MAX_PARTS = 16  # folders in folders
_MAX_SHOWN = 80  # characters of a member's name that a message repeats
_MAX_ALIKE = 5  # problems of one kind that are told one by one
_DRIVE = re.compile(r"[A-Za-z]:")
_ARCHIVES = (
    *(".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar"),
    *(".tbz2", ".txz", ".lz4", ".jar", ".whl"),
)
_JUNK_FOLDER = "__MACOSX"
_JUNK = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})
_HARNESS_PACK = "make the zip with `harness pack`"
_START_BYTES = 262  # a tar's mark ends there
_ZIP_START, _ZIP_END = b"PK", b"PK\5\6"
_MAX_END_BYTES = 22 + (1 << 16)  # a zip's end and its comment
# What is sent in a zip's place, by where its mark is and what it is.
_OTHER_KINDS = (
    (0, b"\x1f\x8b", "a .tar.gz"),
    (257, b"ustar", "a .tar"),
    (0, b"7z\xbc\xaf\x27\x1c", "a .7z"),
    (0, b"Rar!", "a .rar"),
    (0, b"BZh", "a .tar.bz2"),
    (0, b"\xfd7zXZ\0", "a .tar.xz"),
    (0, b"\x28\xb5\x2f\xfd", "a .tar.zst"),
    (0, b"\x93NUMPY", "an .npy"),
)


@dataclass(frozen=True, kw_only=True)
class ArchiveProblem:
    """One thing that is wrong with a zip. ``kind``: the same for the same rule. ``harmless``: the
    zip can be used all the same."""

    kind: str
    expected: str
    found: str
    fix: str
    harmless: bool = False


def other_kind(file: RandomAccess, file_bytes: int) -> str | None:
    """What a file is that cannot be read as a zip; None where it is a damaged one."""
    if file_bytes == 0:
        return "an empty file"
    file.seek(0)
    start = file.read(_START_BYTES)
    for place, mark, kind in _OTHER_KINDS:
        if start[place:].startswith(mark):
            return f"{kind}, not a zip"
    file.seek(max(0, file_bytes - _MAX_END_BYTES))
    is_zip = start.startswith(_ZIP_START) or _ZIP_END in file.read(_MAX_END_BYTES)
    return None if is_zip else "not a zip at all"


def is_folder(entry: ZipEntry) -> bool:
    return entry.name.endswith("/")


def is_junk(entry: ZipEntry) -> bool:
    """Is it what file managers leave behind?"""
    parts = entry.name.rstrip("/").split("/")
    return parts[0] == _JUNK_FOLDER or parts[-1] in _JUNK or parts[-1].startswith("._")


def shown(name: str) -> str:
    """A member's name, fit for a terminal: control and format characters are escaped."""
    text = repr(name)
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "..."


def member_problem(entry: ZipEntry) -> ArchiveProblem | None:
    """The first rule that a member breaks by itself."""
    return _name_problem(entry) or _type_problem(entry) or _content_problem(entry)


def _name_problem(entry: ZipEntry) -> ArchiveProblem | None:
    name = entry.name
    parts = name.removesuffix("/").split("/")
    fix = _HARNESS_PACK
    if not name.isprintable() or not name:
        found, kind = "control characters, or none at all", "characters"
    elif "\\" in name:
        found, kind = "a backslash", "backslash"
        fix = f"Windows PowerShell's old Compress-Archive writes those; {_HARNESS_PACK}"
    elif name.startswith("/") or _DRIVE.match(name):
        found, kind = "an absolute path", "absolute"
    elif ".." in parts:
        found, kind = "a path that leads outside", "outside"
    elif "." in parts or "" in parts:
        found, kind = "a path with empty parts", "empty"
    elif len(entry.raw_name) > _MAX_NAME_BYTES:
        found, kind = f"one of {len(entry.raw_name)} bytes", "long"
    elif len(parts) > _MAX_PARTS:
        found, kind = f"a path of {len(parts)} parts", "deep"
    else:
        return None
    return ArchiveProblem(
        kind=kind,
        expected="names such as task_01/disp_0012_0012.npz",
        found=f"{found}: {shown(name)}",
        fix=fix,
    )


def _type_problem(entry: ZipEntry) -> ArchiveProblem | None:
    kind = stat.S_IFMT(entry.mode)
    if kind == stat.S_IFLNK:
        found, fix = "a symbolic link", "zip the file that it leads to (without --symlinks)"
    elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        found, fix = "a device, pipe or socket", "leave it out"
    elif kind == stat.S_IFDIR and not is_folder(entry):
        found, fix = "a folder under a file's name", _HARNESS_PACK
    elif is_folder(entry) and (entry.n_bytes or kind == stat.S_IFREG):
        found, fix = "a file under a folder's name", _HARNESS_PACK
    else:
        return None
    return ArchiveProblem(
        kind=found, expected="files and folders", found=f"{found}: {shown(entry.name)}", fix=fix
    )


def _content_problem(entry: ZipEntry) -> ArchiveProblem | None:
    name = entry.name.casefold()
    if entry.encrypted:
        expected, found = "members that anybody can read", "an encrypted one"
        fix = "make the zip without a password"
    elif entry.method not in (STORED, DEFLATED):
        expected, found = "members stored or deflated", f"compression method {entry.method}"
        fix = _HARNESS_PACK
    elif entry.method == STORED and entry.packed_bytes != entry.n_bytes:
        expected, found = "sizes that agree", "a stored member with two sizes"
        fix = _HARNESS_PACK
    elif name.endswith(_ARCHIVES) and not name.endswith(".nii.gz"):
        expected, found = "the fields themselves", "an archive in the archive"
        fix = "unpack it, and zip its fields"
    else:
        return None
    return ArchiveProblem(
        kind=found, expected=expected, found=f"{found}: {shown(entry.name)}", fix=fix
    )


def collisions(entries: Mapping[int, ZipEntry]) -> Iterator[tuple[int, ArchiveProblem]]:
    """Members whose names are one on some file system: of the same letters, or but for their case
    or their Unicode form, or a file where another has a folder. Names are known to be short."""
    seen: dict[str, tuple[str, bool, int]] = {}
    for i, entry in entries.items():
        path = entry.name.removesuffix("/")
        folders = [path[:end] for end, letter in enumerate(path) if letter == "/"]
        for prefix in (*folders, path):
            is_dir = prefix != path or is_folder(entry)
            key = unicodedata.normalize("NFC", unicodedata.normalize("NFC", prefix).casefold())
            if key not in seen:
                seen[key] = prefix, is_dir, i
                continue
            first, was_dir, first_index = seen[key]
            if is_dir and was_dir and first == prefix:
                continue
            problem = _collision(first, prefix)
            yield i, problem
            if not is_dir and not was_dir:
                yield first_index, problem  # which of the two counts depends on who reads
            break


def _collision(first: str, second: str) -> ArchiveProblem:
    same = first == second
    found = f"{shown(second)} twice" if same else f"{shown(first)} and {shown(second)}"
    return ArchiveProblem(
        kind="collision",
        expected="names that differ, on any file system",
        found=found,
        fix="keep one of them" if same else "name them apart, and not by capitals alone",
    )


def overlaps(
    file: RandomAccess, entries: Sequence[ZipEntry], end: ZipEnd
) -> Iterator[tuple[int, ArchiveProblem]]:
    """Members whose header or data is missing, leads astray, or is shared with another member, also
    with one whose header is not to be believed."""
    spans = []
    for i, entry in enumerate(entries):
        try:
            stop = data_span(file, entry, end)[1]
        except DamagedError as error:
            stop = entry.header_offset + entry.packed_bytes
            yield i, _damaged(entry, str(error))
        spans.append((entry.header_offset, stop, i))
    spans.sort()
    furthest, before = 0, -1
    for start, stop, i in spans:
        if start < furthest:
            yield i, _overlap(entries[before], entries[i])
            yield before, _overlap(entries[before], entries[i])
        if stop > furthest:
            furthest, before = stop, i


def _damaged(entry: ZipEntry, how: str) -> ArchiveProblem:
    return ArchiveProblem(
        kind="damaged",
        expected="intact members",
        found=f"a damaged one ({how}): {shown(entry.name)}",
        fix="make the zip again, and test it with unzip -t",
    )


def _overlap(first: ZipEntry, second: ZipEntry) -> ArchiveProblem:
    return ArchiveProblem(
        kind="overlap",
        expected="members one after another",
        found=f"{shown(first.name)} and {shown(second.name)} in the same bytes",
        fix="zip programs make no such archives but to deceive; make it again",
    )


def top_folder(names: Iterable[PurePosixPath], expected: Iterable[PurePosixPath]) -> str | None:
    """The one folder that all fields lie in, where they would be right without it."""
    wanted, found = set(expected), set(names)
    there = [name for name in found if len(name.parts) > 1]
    tops = {name.parts[0] for name in there}
    if len(tops) != 1 or wanted & found:
        return None
    (top,) = tops
    return top if any(name.relative_to(top) in wanted for name in there) else None


def limited(problems: Iterable[ArchiveProblem]) -> Iterator[ArchiveProblem]:
    """The first few of each kind, and how many more there are."""
    by_kind: dict[str, list[ArchiveProblem]] = {}
    for problem in problems:
        by_kind.setdefault(problem.kind, []).append(problem)
    for alike in by_kind.values():
        distinct = list(dict.fromkeys(alike))
        yield from distinct[:_MAX_ALIKE]
        if rest := distinct[_MAX_ALIKE:]:
            first = rest[0]
            yield ArchiveProblem(
                kind=first.kind,
                expected=first.expected,
                found=f"{len(rest)} more of the kind",
                fix=first.fix,
            )
