"""What lies in a folder that somebody else fills, told by names and statuses; nothing is opened.

By descriptors, from folder to folder, as in :mod:`harness.beneath`: links are told and never
followed.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from harness.beneath import MAX_DEPTH, open_folder_beneath

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_MEMBERS = 50_000  # of a folder; more is no submission, and looking at it costs seconds
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ANY_EXEC = 0o111


class Sort(StrEnum):
    FILE = "file"
    FOLDER = "folder"
    LINK = "link"
    OTHER = "other"  # a pipe, a socket, a device


class Stamp(NamedTuple):
    """Equal as long as a file has not changed. A team can set ``mtime_ns``, and not ``ctime_ns``:
    the kernel sets that to its own time whenever the content, the mode or the name changes."""

    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)

    def __str__(self) -> str:
        return "-".join(map(str, self))

    @property
    def changed_s(self) -> float:
        """Seconds since 1970."""
        return self.ctime_ns / 1e9


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """``path``: below the folder, with ``/``. ``target``: of a link. ``problem``: why what it is,
    or what lies in it, cannot be looked at."""

    path: str
    sort: Sort
    stamp: Stamp
    is_executable: bool = False
    target: str | None = None
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class Tree:
    """``members`` sorted by path, without the folder itself. ``is_cut``: there are more."""

    members: tuple[Member, ...]
    is_cut: bool = False

    @property
    def stamp(self) -> str:
        """Equal as long as nothing below has changed, whatever the folder itself is called."""
        digest = hashlib.sha256()
        for one in self.members:
            line = (one.path, one.sort.value, str(one.stamp), one.is_executable, one.target)
            digest.update(repr(line).encode())
        return f"tree-{len(self.members)}-{digest.hexdigest()}"

    @property
    def changed_s(self) -> float:
        """The latest of its members, seconds since 1970; 0 when it is empty."""
        return max((one.stamp.changed_s for one in self.members), default=0.0)

    @property
    def size_bytes(self) -> int:
        return sum(one.stamp.size_bytes for one in self.members if one.sort is Sort.FILE)

    def top(self) -> Iterator[Member]:
        """What lies in the folder itself."""
        return (one for one in self.members if "/" not in one.path)

    def find(self, path: str) -> Member | None:
        return next((one for one in self.members if one.path == path), None)

    def under(self, name: str) -> Tree:
        """Of the folder ``name`` in it."""
        start = f"{name}/"
        return Tree(
            members=tuple(
                replace(one, path=one.path.removeprefix(start))
                for one in self.members
                if one.path.startswith(start)
            ),
            is_cut=self.is_cut,
        )


def sort_of(mode: int) -> Sort:
    if stat.S_ISREG(mode):
        return Sort.FILE
    if stat.S_ISDIR(mode):
        return Sort.FOLDER
    return Sort.LINK if stat.S_ISLNK(mode) else Sort.OTHER


def read_tree(root: Path, name: PurePosixPath, most: int = MAX_MEMBERS) -> Tree:
    """All below the folder ``root/name``, at most ``most`` members. What vanishes meanwhile is left
    out. Raises OSError when the folder itself cannot be looked into, or is none."""
    members: list[Member] = []
    folder = open_folder_beneath(root, name)
    try:
        _read(folder, "", members, most)
    finally:
        os.close(folder)
    is_cut = len(members) > most
    members.sort(key=lambda one: one.path)
    return Tree(members=tuple(members[:most]), is_cut=is_cut)


def link_leaves(root: Path, path: PurePosixPath) -> bool:
    """Does the link ``root/path`` lead out of ``root``, or to a place by its absolute path?"""
    inside = os.path.realpath(root)
    leads_to = os.path.realpath(root / path)
    return (root / path).readlink().is_absolute() or not (leads_to + "/").startswith(inside + "/")


def _read(folder: int, here: str, members: list[Member], most: int) -> None:
    """Adds one more than ``most`` where there are more. Raises OSError for ``folder`` alone."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries]
    for name in names:
        if len(members) > most:
            return
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            continue
        member = _member(folder, name, here + name, status)
        place = len(members)
        members.append(member)
        if member.sort is Sort.FOLDER:
            problem = _enter(folder, name, here + name, members, most)
            members[place] = replace(member, problem=problem)


def _member(folder: int, name: str, path: str, status: os.stat_result) -> Member:
    sort = sort_of(status.st_mode)
    target: str | None = None
    problem: str | None = None
    if sort is Sort.LINK:
        try:
            target = os.readlink(name, dir_fd=folder)
        except OSError as error:  # it was one a moment ago
            problem = error.strerror
    elif sort is Sort.OTHER:
        problem = "a pipe, a socket or a device"
    return Member(
        path=path,
        sort=sort,
        stamp=Stamp.of(status),
        is_executable=sort is Sort.FILE and bool(status.st_mode & _ANY_EXEC),
        target=target,
        problem=problem,
    )


def _enter(parent: int, name: str, path: str, members: list[Member], most: int) -> str | None:
    """Why not, where it cannot be looked into."""
    if len(PurePosixPath(path).parts) > MAX_DEPTH:
        return f"{MAX_DEPTH} folders down"
    try:
        folder = os.open(name, _FOLDER, dir_fd=parent)
        try:
            _read(folder, path + "/", members, most)
        finally:
            os.close(folder)
    except OSError as error:
        return error.strerror or type(error).__name__
    return None
