"""A look that may take long, taken again and again beside a loop that must not wait for it."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_END_S = 5.0

T = TypeVar("T")


class PacedLook(Generic[T]):
    """Calls ``look`` in a thread of its own, at most every ``every_s``, and so seldom that it takes
    no more than ``share`` of one CPU, unless that meant to wait for more than ``pause_s`` after a
    look: one that takes t seconds takes t / (t + pause_s) of a CPU at most."""

    def __init__(
        self, look: Callable[[], T], *, every_s: float, share: float, pause_s: float
    ) -> None:
        self._look = look
        self._every_s = every_s
        self._share = share
        self._pause_s = pause_s
        self._next_s = time.monotonic()
        self._thread: threading.Thread | None = None
        self._found: list[T] = []
        self._failure: Exception | None = None

    def poll(self) -> T | None:
        """What was found since the last call, None when nothing was; starts the next when it is
        due. Raises what the look raised."""
        if self._thread is not None and not self._thread.is_alive():
            self._thread = None
        if self._thread is None and time.monotonic() >= self._next_s:
            self._thread = threading.Thread(target=self._take, name="harness-look", daemon=True)
            self._thread.start()
        return self._pop()

    def hurry(self) -> None:
        """The next look is due, now or as soon as that which is under way has ended."""
        self._next_s = 0.0

    def finish(self) -> T | None:
        """Wait for a look that is under way, a few seconds at most."""
        if self._thread is not None:
            self._thread.join(_END_S)
        return self._pop()

    def _pop(self) -> T | None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        return self._found.pop(0) if self._found else None

    def _take(self) -> None:
        started_s = time.monotonic()
        try:
            found = self._look()
        except Exception as error:  # handed to whoever polls
            self._failure = error
        else:
            self._found.append(found)
        ended_s = time.monotonic()
        took_s = ended_s - started_s
        pause_s = min(took_s / self._share - took_s, self._pause_s)
        self._next_s = max(started_s + self._every_s, ended_s + pause_s)
