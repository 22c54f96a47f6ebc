"""Ctrl-C and its like while a campaign goes on: at once where nothing can be lost, else a moment
later. What is being written to the journal is always written whole."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType, TracebackType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Breaks:
    """Within, a signal is KeyboardInterrupt only in :meth:`allowed`; elsewhere it waits for the
    next of these. A run handles its own (:mod:`harness.interrupts`). Signals reach the main thread
    alone: in another, this does nothing."""

    def __init__(self) -> None:
        self.asked = False
        self._is_open = False
        self._before: list[tuple[signal.Signals, object]] = []

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Here a signal may break off what is done; whatever it leaves can be done again."""
        self._is_open = True
        try:
            if self.asked:
                raise KeyboardInterrupt
            yield
        finally:
            self._is_open = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._before.append((number, signal.signal(number, self._handle)))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while self._before:
            number, handler = self._before.pop()
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal() gave

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.asked = True
        if self._is_open:
            self._is_open = False
            raise KeyboardInterrupt
