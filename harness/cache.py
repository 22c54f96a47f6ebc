"""The page cache before a run: warm, so that no pair pays for the disk, or cold, so that each does.

What was asked for is one thing, what applied another: afterwards the kernel is asked which pages of
the inputs are in memory, and that is what a run records.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_READ_BYTES = 1 << 20
# Pages on their way to the disk or into the kernel's lists survive a first request to drop them.
_DROP_ATTEMPTS = 5
_DROP_PAUSE_S = 0.05


class CacheMode(StrEnum):
    """What may be asked for."""

    WARM = "warm"
    COLD = "cold"


class CacheState(StrEnum):
    """What applied when the submission started. UNKNOWN: the kernel does not tell this user."""

    WARM = "warm"
    COLD = "cold"
    PARTIAL = "partial"
    UNKNOWN = "unknown"


class CacheRecord(BaseModel):
    """``cached_ratio`` is the share of the inputs' pages that were in memory; None: not known."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    asked: CacheMode
    applied: CacheState
    cached_ratio: float | None = None

    @property
    def warning(self) -> str | None:
        """What a person should know when what applied is not what was asked for."""
        if self.applied.value == self.asked.value:
            return None
        if self.applied is CacheState.UNKNOWN:
            return (
                f"whether the inputs' cache was {self.asked} is unknown: the kernel tells only the "
                "owner of a file; run as the owner of the data folder"
            )
        remedy = (
            "is there too little memory for them?"
            if self.asked is CacheMode.WARM
            else "a file system in memory cannot drop them, nor can files be dropped that another "
            "program holds"
        )
        return (
            f"the inputs' cache was to be {self.asked}, but {100 * (self.cached_ratio or 0.0):.1f} "
            f"% of their pages are in memory: {remedy}"
        )


def prepare_cache(mode: CacheMode, paths: Iterable[Path]) -> CacheRecord:
    """Bring the files into the cache or out of it, and look which it became.

    It opens them, so it must be done before a witness watches. Caches below the kernel's (a disk's
    own, a host's under a virtual machine, a file server's) stay as they are.
    """
    files = sorted(set(paths))
    if mode is CacheMode.WARM:
        for path in files:
            read_through(path)
    else:
        drop(files)
    ratio = cached_ratio(files)
    return CacheRecord(asked=mode, applied=_state(mode, ratio), cached_ratio=ratio)


def _state(mode: CacheMode, ratio: float | None) -> CacheState:
    if ratio is None:
        # Every byte has just been read: warm without proof. Cold without proof is no claim to make.
        return CacheState.WARM if mode is CacheMode.WARM else CacheState.UNKNOWN
    if ratio == 1.0:
        return CacheState.WARM
    return CacheState.COLD if ratio == 0.0 else CacheState.PARTIAL


def read_through(path: Path) -> None:
    with path.open("rb") as file:
        while file.read(_READ_BYTES):
            continue


def drop(paths: Iterable[Path]) -> None:
    """Ask the kernel to forget the files' pages; :func:`cached_ratio` says what came of it.

    Needs no privilege and touches no other file, unlike ``/proc/sys/vm/drop_caches``.
    """
    left = list(paths)
    for attempt in range(_DROP_ATTEMPTS):
        if left and attempt:
            time.sleep(_DROP_PAUSE_S)
        left = [path for path in left if not _forgotten(path)]


def _forgotten(path: Path) -> bool:
    """Ask for one file; False when pages of it are still in memory."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # a file system without either; what stays is counted
            os.fsync(descriptor)  # a page that is not on disk yet cannot be dropped
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        return not _resident(path, descriptor)
    finally:
        os.close(descriptor)


def cached_ratio(paths: Iterable[Path]) -> float | None:
    """The share of the files' pages that are in memory; None when the kernel does not tell."""
    pages = resident = 0
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            found = _resident(path, descriptor)
            if found is None:
                return None
            resident += found
            pages += -(-os.fstat(descriptor).st_size // mmap.PAGESIZE)
        finally:
            os.close(descriptor)
    return resident / pages if pages else None


def _resident(path: Path, descriptor: int) -> int | None:
    """Pages of an open file that are in memory: mincore(2) on a mapping that touches none."""
    status = os.fstat(descriptor)
    if not status.st_size:
        return 0
    if os.geteuid() not in (0, status.st_uid) and not os.access(path, os.W_OK):
        return None  # since Linux 5.2 such a caller is told that all pages are there
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "mincore"):
        return None
    answer = (ctypes.c_ubyte * -(-status.st_size // mmap.PAGESIZE))()
    try:
        mapping = mmap.mmap(descriptor, status.st_size, access=mmap.ACCESS_COPY)
    except (OSError, ValueError):
        return None
    with mapping:
        anchor = ctypes.c_char.from_buffer(mapping)  # needs a writable, so a private, mapping
        failed: Literal[0, -1] = libc.mincore(
            ctypes.c_void_p(ctypes.addressof(anchor)), ctypes.c_size_t(status.st_size), answer
        )
        del anchor  # a mapping that is pointed into cannot be closed
    return None if failed else sum(page & 1 for page in answer)
