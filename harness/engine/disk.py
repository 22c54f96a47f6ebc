"""What a container keeps on the disk outside of its output folder: in its own layer, in volumes
that its image declares, and in files that were deleted and are still open.

Each look is bounded in time. One that is cut short gives what was counted so far, at least that is
there: a submission that makes more files than can be counted reaches its limit regardless.
"""

from __future__ import annotations

import logging
import os
import random
import select
import stat
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_log = logging.getLogger(__name__)

_COUNT_S = 20.0  # a million files take about three
_DELETED_S = 2.0
_BLOCK_BYTES = 512  # stat(2) and find, whatever the file system's own
# A file with nothing in it takes an inode and a name, of which a file system has not many more than
# its size in units of this.
ENTRY_BYTES = 4096
_CHUNK_BYTES = 1 << 16
# File systems in memory, which the limit of memory counts.
_IN_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs", "mqueue", "hugetlbfs", "proc", "sysfs"})


def tree_bytes(roots: Iterable[Path], timeout_s: float = _COUNT_S) -> int | None:
    """Bytes on the disk below the folders, on their own file systems, each file once; None when
    they cannot be looked into.

    By ``find``, which no depth of folders stops and which follows no link: others change the tree
    meanwhile.
    """
    paths = [str(root) for root in roots]
    if not all(os.access(path, os.R_OK | os.X_OK, effective_ids=True) for path in paths):
        return None
    if not paths:
        return 0
    command = ("find", "-P", *paths, "-mindepth", "1", "-xdev", "-printf", "%b %n %D:%i\n")
    try:
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={"LC_ALL": "C"}
        ) as search:
            try:
                return _sum(search.stdout, time.monotonic() + timeout_s)
            finally:
                search.kill()
    except OSError as error:
        _log.debug("find cannot be run: %s", error)
        return None


def _sum(lines: IO[bytes] | None, deadline_s: float) -> int:
    total, linked = 0, set()
    for line in _until(deadline_s, lines):
        blocks, links, identity = line.split()
        if links != b"1":
            if identity in linked:
                continue
            linked.add(identity)
        total += max(int(blocks) * _BLOCK_BYTES, ENTRY_BYTES)
    return total


def _until(deadline_s: float, pipe: IO[bytes] | None) -> Iterator[bytes]:
    rest = b""
    while pipe is not None and (left_s := deadline_s - time.monotonic()) > 0:
        if select.select([pipe], [], [], left_s)[0]:
            chunk = os.read(pipe.fileno(), _CHUNK_BYTES)
            if not chunk:
                return
            *lines, rest = (rest + chunk).split(b"\n")
            yield from lines


def deleted_bytes(threads: Iterable[int], timeout_s: float = _DELETED_S) -> int | None:
    """Bytes in files that have no name and that one of these threads holds open or mapped, each
    once; files in memory do not count.

    A thread may have descriptors of its own, so each is looked at. The order is random: when time
    is up, another look finds what this one missed. Files that are under way in a socket's queue are
    not seen. None when this process may look into none of those that are there.
    """
    deadline_s = time.monotonic() + timeout_s
    seen: dict[tuple[int, int], int] = {}
    in_memory = {_anonymous_device()}
    todo = list(threads)
    random.shuffle(todo)
    refused = looked = False
    for n, thread in enumerate(todo):
        process = Path("/proc") / str(thread)
        if n == 0:  # all of a container have the same mounts: it may make none
            in_memory |= _memory_devices(process)
        try:
            files = _open_files(process)
        except PermissionError:
            refused = True
            continue
        except OSError:  # it has ended
            continue
        looked = True
        for file in files:
            if time.monotonic() > deadline_s:
                return sum(seen.values())
            try:
                status = file.stat()
            except OSError:  # closed meanwhile
                continue
            nameless = status.st_nlink == 0 and stat.S_ISREG(status.st_mode)
            if nameless and status.st_dev not in in_memory:
                seen[status.st_dev, status.st_ino] = status.st_blocks * _BLOCK_BYTES
    return None if refused and not looked else sum(seen.values())


def _open_files(process: Path) -> list[os.DirEntry[str]]:
    """Descriptors, then mappings: a mapped file may be closed. Raises OSError for a process that
    has ended or may not be looked into."""
    with os.scandir(process / "fd") as entries:
        found = list(entries)
    with suppress(OSError), os.scandir(process / "map_files") as entries:
        found += entries
    return found


def _memory_devices(process: Path) -> set[int]:
    """Device numbers of the file systems in memory that a process sees (proc_pid_mountinfo(5))."""
    try:
        text = (process / "mountinfo").read_text("utf-8", "replace")
    except OSError:
        return set()
    found = set()
    for line in text.splitlines():
        mount, _, source = line.partition(" - ")
        if source.partition(" ")[0] in _IN_MEMORY:
            major, _, minor = mount.split()[2].partition(":")
            found.add(os.makedev(int(major), int(minor)))
    return found


def _anonymous_device() -> int:
    """The device of shared memory without a name (memfd_create(2)), which is mounted nowhere."""
    descriptor = os.memfd_create("harness")
    try:
        return os.fstat(descriptor).st_dev
    finally:
        os.close(descriptor)
