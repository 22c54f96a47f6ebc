"""A worker's folder of uploads: files kept by the SHA-256 of their bytes, never by a name."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from harness.cluster.parcel import sha256_of
from harness.errors import OutputError

if TYPE_CHECKING:
    from pathlib import Path


class Uploads:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path_of(self, sha256: str) -> Path:
        return self._folder / _hex(sha256)

    def find(self, sha256: str, path: Path | None) -> Path | None:
        """The file with this digest: where it lies for everybody (``path``), or here. It was
        verified when it came; one that lies elsewhere is read now."""
        kept = self.path_of(sha256)
        if kept.is_file():
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
            part.replace(self.path_of(sha256))
        except OSError as error:
            raise OutputError(f"{part}: {error.strerror}") from error
        return self.path_of(sha256)

    def _part(self, sha256: str) -> Path:
        return self._folder / f".part-{_hex(sha256)}"


def _hex(sha256: str) -> str:
    digits = sha256.removeprefix("sha256:")
    if len(digits) != 64 or not set(digits) <= set("0123456789abcdef"):
        raise OutputError(f"{sha256!r} is no SHA-256")
    return digits
