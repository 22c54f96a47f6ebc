"""What a submission prints, written to a file while it runs and capped.

A submission may print without end: what it prints must never block it, nor fill memory or disk. So
the first half of the allowance goes to the file as it comes, the last half is kept in memory until
the end, and one line between the two says how much is missing.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path
    from types import TracebackType

_log = logging.getLogger(__name__)

_NOTE_BYTES = 80  # room for the line between the two parts


class CappedLog:
    """A log file of at most ``limit_bytes``: everything, or the first and the last part of it."""

    def __init__(self, path: Path, limit_bytes: int) -> None:
        self._limit = limit_bytes
        kept = max(0, limit_bytes - _NOTE_BYTES)
        self._head_left = kept // 2 if kept else limit_bytes
        self._tail_bytes = kept - kept // 2
        # Until something has to go, the tail may use the note's room too.
        self._tail_room = limit_bytes - self._head_left
        self._tail = bytearray()
        self._total = 0
        self._ends_line = True
        self._broken = False
        self._file = path.open("wb")

    @property
    def total_bytes(self) -> int:
        """All that was written to the log, kept or not."""
        return self._total

    def write(self, data: bytes) -> None:
        self._total += len(data)
        if self._head_left:
            head, data = data[: self._head_left], data[self._head_left :]
            self._head_left -= len(head)
            self._put(head)
        self._tail += data
        if len(self._tail) > 2 * self._tail_room:  # seldom, so each byte is moved about once
            del self._tail[: len(self._tail) - self._tail_room]

    def close(self) -> None:
        if self._file.closed:
            return
        if self._total > self._limit:
            del self._tail[: len(self._tail) - self._tail_bytes]
            self._put(self._note())
        self._put(bytes(self._tail))
        try:
            self._file.close()
        except OSError as error:
            self._give_up(error)

    def _note(self) -> bytes:
        if not self._tail_bytes:
            return b""  # an allowance too small for a note
        note = f"[harness: {self._dropped()} bytes of output left out]\n"
        return (note if self._ends_line else "\n" + note).encode()

    def _dropped(self) -> int:
        return self._total - self._limit + _NOTE_BYTES

    def _put(self, data: bytes) -> None:
        if not data or self._broken:
            return
        try:
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            self._give_up(error)
        self._ends_line = data.endswith(b"\n")

    def _give_up(self, error: OSError) -> None:
        """A full disk, say. The submission must be able to go on printing, so this only warns."""
        self._broken = True
        _log.warning("the log %s is incomplete: %s", self._file.name, error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class LogPump:
    """A thread that moves what ``chunks`` yields into a log until it ends.

    ``close_source`` makes ``chunks`` end; it is used when it does not end by itself.
    """

    def __init__(
        self, chunks: Iterable[bytes], log: CappedLog, close_source: Callable[[], None]
    ) -> None:
        self._chunks = chunks
        self._log = log
        self._close_source = close_source
        self._thread = threading.Thread(target=self._pump, name="harness-log", daemon=True)
        self._thread.start()

    @property
    def total_bytes(self) -> int:
        """All that came so far, kept or not."""
        return self._log.total_bytes

    def _pump(self) -> None:
        try:
            for chunk in self._chunks:
                self._log.write(chunk)
        except (OSError, ValueError) as error:  # the source was closed under us
            _log.debug("log source ended: %s", error)

    def finish(self, timeout_s: float, last_words: str = "") -> None:
        """Wait for the rest of the output, at most ``timeout_s``, and close the log.

        ``last_words`` is a line of the harness's own, put at the end.
        """
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self._close_source()
            self._thread.join(timeout_s)
        if self._thread.is_alive():
            _log.warning("the log may lack its end: its source does not close")
        elif last_words:
            self._log.write(f"[harness: {last_words}]\n".encode())
        self._log.close()
