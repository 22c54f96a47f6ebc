"""What happened, one line each, on the disk before the next step.

A line is ``CRC32 in hex, space, JSON, newline``. A power loss may leave the last line torn: it was
never acted upon, so it is cut off when the journal is opened to go on. A line that is damaged
anywhere else is nobody's to repair in silence.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
import zlib
from typing import TYPE_CHECKING, Self

from pydantic import ValidationError

from harness.campaign.events import Line
from harness.errors import OutputError
from harness.store import sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

    from harness.campaign.events import Event

_log = logging.getLogger(__name__)

_CRC_CHARACTERS = 8
_PATIENCE_S = 0.5  # for who only asks whether it is open: see requests.is_running
_POLL_S = 0.02


class Journal:
    """Open for one command alone. ``lines``: what was there. Raises OutputError when another
    command has it open, or it cannot be read, or is damaged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            sync_folder(path.parent)
        except OSError as error:
            raise OutputError(f"{path}: {error.strerror}") from error
        try:
            self._lock()
            self.lines, whole_bytes = _read(path)
            if os.fstat(self._file).st_size > whole_bytes:
                _log.warning("%s: its last line was cut short, and is left out", path)
                os.ftruncate(self._file, whole_bytes)
                os.fsync(self._file)
        except OSError as error:
            os.close(self._file)
            raise OutputError(f"{path}: {error.strerror}") from error
        except BaseException:
            os.close(self._file)
            raise
        self._n = len(self.lines)
        self._bytes = whole_bytes

    def append(self, event: Event) -> Line:
        """On the disk when this returns. Raises OutputError, and then nothing of it is there."""
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        line = Line(n=self._n + 1, at=at, event=event)
        text = encode(line)
        try:
            written = os.write(self._file, text)
            if written == len(text):
                os.fsync(self._file)
        except OSError as error:
            self._take_back()
            raise OutputError(
                f"{self.path}: {error.strerror}; make room, and the same command goes on"
            ) from error
        if written < len(text):
            self._take_back()
            raise OutputError(
                f"{self.path}: no space left; make room, and the same command goes on"
            )
        self._n, self._bytes = line.n, self._bytes + len(text)
        return line

    def close(self) -> None:
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _lock(self) -> None:
        until_s = time.monotonic() + _PATIENCE_S
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() < until_s:
                    time.sleep(_POLL_S)
                    continue
                raise OutputError(
                    f"{self.path}: another command has this campaign open; wait for it, or see "
                    "`harness status`"
                ) from error
            return

    def _take_back(self) -> None:
        try:
            os.ftruncate(self._file, self._bytes)
        except OSError as error:
            _log.warning("%s: the line cut short stays (%s)", self.path, error.strerror)


def read_journal(path: Path) -> tuple[Line, ...]:
    """All whole lines, for who only looks; a campaign may go on meanwhile. Raises OutputError."""
    try:
        return _read(path)[0]
    except FileNotFoundError as error:
        raise OutputError(
            f"{path}: no such file; is it the folder that `harness campaign --out` named?"
        ) from error
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror}") from error


def encode(line: Line) -> bytes:
    text = line.model_dump_json(by_alias=True).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _read(path: Path) -> tuple[tuple[Line, ...], int]:
    """The whole lines, and how many bytes they are."""
    data = path.read_bytes()
    lines: list[Line] = []
    at_byte = 0
    for raw in _raw_lines(data):
        line = _decode(raw)
        last = at_byte + len(raw) == len(data)
        if line is None and last:
            break
        if line is None or line.n != len(lines) + 1:
            raise OutputError(
                f"{path}: line {len(lines) + 1} is damaged; expected a line that this program "
                "wrote. The runs are unharmed: put the file back from a copy, or move it away and "
                "every run that is not known is made again"
            )
        lines.append(line)
        at_byte += len(raw)
    return tuple(lines), at_byte


def _raw_lines(data: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(data):
        end = data.find(b"\n", start) + 1 or len(data)
        yield data[start:end]
        start = end


def _decode(raw: bytes) -> Line | None:
    crc, space, text = raw[:_CRC_CHARACTERS], raw[_CRC_CHARACTERS:][:1], raw[_CRC_CHARACTERS + 1 :]
    if space != b" " or not text.endswith(b"\n"):
        return None
    try:
        if int(crc, 16) != zlib.crc32(text[:-1]):
            return None
        return Line.model_validate_json(text)
    except (ValueError, ValidationError):
        return None
