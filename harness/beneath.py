"""Looking below a folder that somebody else fills as they like, maybe at this moment.

By descriptors, from folder to folder: no link is followed, in the last part of a path or before it,
and no path is too long.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from harness.text import harmless_line

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

MAX_DEPTH = 32  # folders in folders, each of which takes two descriptors
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# What a folder gives that was there a moment ago: it is gone, or a file or link has its name now.
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_BLOCK_BYTES = 512  # stat(2), whatever the file system's own
_MAX_SHOWN = 120  # characters of a path


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One thing below a folder: a file, a folder, a link, a pipe. ``used_bytes`` on the disk.

    ``unseen``: why what lies in it, if it is a folder, or what it is, cannot be looked at; then
    there may be anything. ``path`` is relative to the folder, and not fit to be shown.
    """

    path: PurePosixPath
    is_folder: bool = False
    used_bytes: int = 0
    unseen: str | None = None


def walk(root: Path) -> Generator[Seen, None, None]:
    """Everything below ``root``, folders before what is in them, as it is when its turn comes.

    What vanishes meanwhile is left out. A folder that cannot be looked into, or is more than
    ``MAX_DEPTH`` folders down, comes with the reason as ``unseen``, as ``root`` itself does.
    """
    try:
        folder = os.open(root, _FOLDER)
    except OSError as error:
        if error.errno not in _GONE:
            yield _unseen(PurePosixPath(), error, is_folder=True)
        return
    try:
        yield from _walk(folder, PurePosixPath())
    finally:
        os.close(folder)


def _walk(folder: int, here: PurePosixPath) -> Generator[Seen, None, None]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                yield from _look(folder, entry.name, here / entry.name)
    except OSError as error:
        yield _unseen(here, error, is_folder=True)


def _look(folder: int, name: str, path: PurePosixPath) -> Generator[Seen, None, None]:
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _GONE:
            yield _unseen(path, error)
        return
    is_folder = stat.S_ISDIR(status.st_mode)
    yield Seen(path=path, is_folder=is_folder, used_bytes=status.st_blocks * _BLOCK_BYTES)
    if is_folder:
        yield from _enter(folder, name, path)


def _enter(parent: int, name: str, path: PurePosixPath) -> Generator[Seen, None, None]:
    if len(path.parts) > MAX_DEPTH:
        yield Seen(path=path, is_folder=True, unseen=f"{MAX_DEPTH} folders down, and more below")
        return
    try:
        folder = os.open(name, _FOLDER, dir_fd=parent)
    except OSError as error:
        if error.errno not in _GONE:
            yield _unseen(path, error, is_folder=True)
        return
    try:
        yield from _walk(folder, path)
    finally:
        os.close(folder)


def _unseen(path: PurePosixPath, error: OSError, *, is_folder: bool = False) -> Seen:
    return Seen(path=path, is_folder=is_folder, unseen=error.strerror or type(error).__name__)


def shown(path: PurePosixPath) -> str:
    """A path that somebody else chose, fit to be shown."""
    return harmless_line(str(path), _MAX_SHOWN)


def open_beneath(root: Path, path: PurePosixPath) -> int:
    """A descriptor of the file ``root/path``, refusing links in every part of ``path``."""
    folder = open_folder_beneath(root, path.parent)
    try:
        return os.open(path.name, _FILE, dir_fd=folder)
    finally:
        os.close(folder)


def open_folder_beneath(root: Path, path: PurePosixPath) -> int:
    """A descriptor of the folder ``root/path``, refusing links in every part of ``path``, and in
    the last of ``root``."""
    folder = os.open(root, _FOLDER)
    for part in path.parts:
        try:
            deeper = os.open(part, _FOLDER, dir_fd=folder)
        finally:
            os.close(folder)
        folder = deeper
    return folder
