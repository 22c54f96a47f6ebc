"""Room on the disk that run directories lie on: enough to begin, and a reserve for the end.

A full disk takes the record, the trace and the log with it, so a run does not begin without room
for what it will rightly write, and is ended before the last of it is gone.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from harness.challenge.quantity import format_bytes
from harness.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from harness.challenge.model import FieldSpec

# A fast disk takes a hundred megabytes between two looks.
_FLOOR_BYTES = 512 << 20
_FLOOR_SHARE = 0.1  # of a small disk, at most
_REST_SHARE = 0.9
_SINGLE_BYTES = 4
_RESERVE_BYTES = 2 << 20
_RESERVE_PER_PAIR_BYTES = 4096  # a pair takes about 700 in the record


def free_bytes(folder: Path) -> int:
    """What a user without privileges may still write to the folder's disk."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def floor_bytes(folder: Path) -> int:
    """With less than this left the disk counts as full."""
    status = os.statvfs(folder)
    return min(_FLOOR_BYTES, int(_FLOOR_SHARE * status.f_blocks * status.f_frsize))


def check_room(folder: Path, fields: Iterable[FieldSpec], log_bytes: int) -> None:
    """Raises OutputError when a run cannot write its fields, uncompressed in single precision at
    most, one of them twice while it is copied, and its log."""
    sizes = [_usual_bytes(spec) for spec in fields]
    needed_bytes = sum(sizes) + max(sizes, default=0) + log_bytes + floor_bytes(folder)
    found_bytes = free_bytes(folder)
    if found_bytes < needed_bytes:
        raise OutputError(
            f"{folder}: expected {format_bytes(needed_bytes)} free for {len(sizes)} fields, the "
            f"log and a margin, found {format_bytes(found_bytes)}; remove old runs, or put runs on "
            "another disk with --runs"
        )


def _usual_bytes(spec: FieldSpec) -> int:
    x, y, z = spec.grid
    return min(spec.nbytes, 3 * x * y * z * _SINGLE_BYTES)


class FreeSpace:
    """Of one disk, while a run goes on. With less than ``floor_bytes`` left it counts as full; one
    that was nearly full before, when it has lost a tenth of the rest."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.device = folder.stat().st_dev
        self._first_bytes = self._last_bytes = self.lowest_bytes = free_bytes(folder)
        self.floor_bytes = min(floor_bytes(folder), int(_REST_SHARE * self._first_bytes))

    def is_full(self) -> bool:
        """At the last look."""
        return self._last_bytes < self.floor_bytes

    @property
    def last_bytes(self) -> int:
        """As the last look found it."""
        return self._last_bytes

    def look(self) -> int:
        """While the submission runs."""
        self._last_bytes = free_bytes(self._folder)
        self.lowest_bytes = min(self.lowest_bytes, self._last_bytes)
        return self._last_bytes

    def look_after_the_end(self) -> None:
        self.lowest_bytes = min(self.lowest_bytes, free_bytes(self._folder))

    def came_back_bytes(self) -> int:
        """How much more is free now than at the last look; never more than was lost meanwhile."""
        return max(0, min(free_bytes(self._folder), self._first_bytes) - self._last_bytes)


class Fall:
    """How far the free space of disks has fallen since it was marked."""

    def __init__(self, disks: Iterable[FreeSpace]) -> None:
        self._disks = tuple(disks)
        self._marks = self._free()

    def mark(self) -> None:
        """Now, and so not what was looked at last."""
        for disk in self._disks:
            disk.look()
        self._marks = self._free()

    def fallen_bytes(self) -> int:
        """Until the last look at the disks."""
        return sum(
            max(0, before - now) for before, now in zip(self._marks, self._free(), strict=True)
        )

    def _free(self) -> list[int]:
        return [disk.last_bytes for disk in self._disks]


class Reserve:
    """A file that keeps room for a run's record, and gives it up when there is no other."""

    def __init__(self, path: Path, pairs: int) -> None:
        self._path = path
        size_bytes = _RESERVE_BYTES + pairs * _RESERVE_PER_PAIR_BYTES
        try:
            with path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, size_bytes)
        except OSError as error:
            self.give_up()
            raise OutputError(
                f"{path}: cannot keep room for the record: {error.strerror}"
            ) from error

    def give_up(self) -> None:
        with suppress(FileNotFoundError):
            self._path.unlink()
