"""inotify(7) through libc: just the calls and flags the probe needs."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

IN_OPEN = 0x0020
IN_CLOSE_WRITE = 0x0008
IN_MOVED_FROM = 0x0040
IN_MOVED_TO = 0x0080
IN_CREATE = 0x0100
IN_DELETE = 0x0200
IN_MOVE_SELF = 0x0800
IN_UNMOUNT = 0x2000
IN_Q_OVERFLOW = 0x4000
IN_IGNORED = 0x8000
IN_ONLYDIR = 0x0100_0000
IN_DONT_FOLLOW = 0x0200_0000
IN_ISDIR = 0x4000_0000

_EVENT_HEADER = struct.Struct("iIII")  # wd, mask, cookie, length of the name
# What these errors mean here is not what the system's own text says ("No space left on device").
_LIMITS = {
    errno.ENOSPC: "the limit of watches is reached (sysctl fs.inotify.max_user_watches)",
    errno.EMFILE: "the limit of watchers is reached (sysctl fs.inotify.max_user_instances)",
}
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class RawEvent:
    """One event as the kernel gave it. ``name`` is empty for events of the folder itself."""

    watch: int
    mask: int
    name: str


def open_inotify() -> int:
    """A non-blocking inotify file descriptor. Raises OSError."""
    descriptor: int = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor < 0:
        raise _os_error("inotify_init1")
    return descriptor


def add_watch(descriptor: int, path: Path, mask: int) -> int:
    """Watch a file or folder; the number that its events carry. Raises OSError."""
    watch: int = _libc.inotify_add_watch(descriptor, os.fsencode(path), mask)
    if watch < 0:
        raise _os_error(str(path))
    return watch


def remove_watch(descriptor: int, watch: int) -> None:
    """Events that are pending still come, and IN_IGNORED last. One that is gone is no error."""
    _libc.inotify_rm_watch(descriptor, watch)


def decode(buffer: bytes, wanted: int = -1) -> Iterator[RawEvent]:
    """The events in what one ``read`` of the descriptor returned; without those that have no bit of
    ``wanted``."""
    offset = 0
    while offset < len(buffer):
        watch, mask, _, length = _EVENT_HEADER.unpack_from(buffer, offset)
        offset += _EVENT_HEADER.size + length
        if mask & wanted:
            name = os.fsdecode(buffer[offset - length : offset].split(b"\0", 1)[0])
            yield RawEvent(watch, mask, name)


def _os_error(what: str) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, _LIMITS.get(code) or os.strerror(code), what)
