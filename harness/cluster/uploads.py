"""A worker's folder of uploads: files kept by the SHA-256 of their bytes, never by a name.

They are kept for the next attempt of the same upload, and make room, the longest unused first, when
all of them together would be larger than what the worker may keep.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

from harness.cluster.parcel import sha256_of
from harness.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


_log = logging.getLogger(__name__)

KEPT_BYTES = 100 << 30  # a dozen large images: enough for reruns, and room on most disks
_DIGEST = re.compile("[0-9a-f]{64}")
_PART = ".part-"
_PROMISED_S = 600.0  # for a conductor to give the order of an upload that it asked for


class Uploads:
    """``kept_bytes``: the most that the folder holds, but for files in use. Used by two threads."""

    def __init__(self, folder: Path, kept_bytes: int = KEPT_BYTES) -> None:
        self._folder = folder
        self._kept_bytes = kept_bytes
        self._changing = threading.Lock()
        self._in_use: Counter[str] = Counter()
        self._promised_s: dict[str, float] = {}  # by digest, when a conductor was told of it

    def path_of(self, sha256: str) -> Path:
        return self._folder / _hex(sha256)

    def find(self, sha256: str, path: Path | None) -> Path | None:
        """The file with this digest: where it lies for everybody (``path``), or here. It was
        verified when it came; one that lies elsewhere is read now."""
        kept = self.path_of(sha256)
        with self._changing:
            if kept.is_file():
                self._promise(sha256)
                return kept
        try:
            if path is not None and path.is_file() and sha256_of(path) == sha256:
                return path
        except OSError:
            return None
        return None

    def received_bytes(self, sha256: str) -> int:
        """How much of a file is here, of a transfer that was cut short."""
        part = self._part(sha256)
        return part.stat().st_size if part.exists() else 0

    def add(self, sha256: str, offset: int, chunk: bytes) -> None:
        """Bytes of a file; the same ones again do no harm."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
            opened = os.open(self._part(sha256), flags, 0o644)
            try:
                if os.fstat(opened).st_size < offset:
                    raise OutputError(f"{self._part(sha256)}: bytes before {offset} are missing")
                written = 0
                while written < len(chunk):
                    written += os.pwrite(opened, chunk[written:], offset + written)
            finally:
                os.close(opened)
        except OSError as error:
            raise OutputError(f"{self._part(sha256)}: {error.strerror}; make room there") from error

    def accept(self, sha256: str) -> Path | None:
        """The whole file, if it is the right one; else nothing of it is kept."""
        part = self._part(sha256)
        try:
            if sha256_of(part) != sha256:
                part.unlink()
                return None
            with part.open("rb") as file:
                os.fsync(file.fileno())
            with self._changing:
                part.replace(self.path_of(sha256))
                self._promise(sha256)
        except OSError as error:
            raise OutputError(f"{part}: {error.strerror}") from error
        return self.path_of(sha256)

    def begin(self, sha256: str) -> None:
        """An attempt needs it until :meth:`done`."""
        with self._changing:
            self._in_use[_hex(sha256)] += 1
            self._promised_s.pop(_hex(sha256), None)

    def done(self, sha256: str) -> None:
        with self._changing:
            self._in_use[_hex(sha256)] -= 1

    def make_room(self, sha256: str, size_bytes: int) -> None:
        """For this one, of which a part may be here. What is in use stays, whatever its size."""
        with self._changing:
            needed, left_bytes = self._needed(), self._kept_bytes - size_bytes
            others: list[tuple[Path, os.stat_result]] = []
            for path, seen in self._stored():
                digest = path.name.removeprefix(_PART)
                if digest in needed:
                    left_bytes -= seen.st_size
                elif digest != _hex(sha256):  # which is counted with what it will be
                    others.append((path, seen))
            for path, seen in sorted(others, key=lambda one: one[1].st_mtime_ns, reverse=True):
                if left_bytes >= seen.st_size:
                    left_bytes -= seen.st_size
                else:
                    self._remove(path)

    def _needed(self) -> set[str]:
        now_s = time.monotonic()
        promised = {one for one, at_s in self._promised_s.items() if now_s - at_s < _PROMISED_S}
        return promised | {one for one, attempts in self._in_use.items() if attempts > 0}

    def _stored(self) -> Iterator[tuple[Path, os.stat_result]]:
        if not self._folder.is_dir():
            return
        for path in self._folder.iterdir():
            if _DIGEST.fullmatch(path.name.removeprefix(_PART)) and path.is_file():
                yield path, path.stat()

    def _remove(self, path: Path) -> None:
        try:
            path.unlink()
        except OSError as error:  # the disk may be large enough all the same
            _log.warning("%s: cannot be removed to make room (%s)", path, error.strerror)
        else:
            _log.info("%s: removed to make room", path)

    def _promise(self, sha256: str) -> None:
        self._promised_s[_hex(sha256)] = time.monotonic()
        try:
            os.utime(self.path_of(sha256))  # when it was used last
        except OSError as error:
            _log.warning("%s: %s", self.path_of(sha256), error.strerror)

    def _part(self, sha256: str) -> Path:
        return self._folder / f"{_PART}{_hex(sha256)}"


def _hex(sha256: str) -> str:
    digits = sha256.removeprefix("sha256:")
    if not _DIGEST.fullmatch(digits):
        raise OutputError(f"{sha256!r} is no SHA-256")
    return digits
