"""Ctrl-C and its like while a run has something to lose."""

from __future__ import annotations

import logging
import signal
import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import FrameType, TracebackType

_log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class OwnSignals(ABC):
    """Within, Ctrl-C, SIGTERM and SIGHUP come to :meth:`_handle`; then again where they came
    before. Signals reach the main thread alone: in another, this does nothing."""

    def __init__(self) -> None:
        self._before: list[tuple[signal.Signals, object]] = []

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

    @abstractmethod
    def _handle(self, number: int, frame: FrameType | None) -> None:
        """In the main thread, between two of its steps."""


class Interrupts(OwnSignals):
    """The first one ends the submission, as KeyboardInterrupt. The next waits: stopping, collecting
    and storing are under way. Those after that cut these short: a stop becomes a kill, and a run
    whose fields are being collected stays without a record, for `harness recover`.

    Also when the submission has ended by itself (``closing``), the next one waits; ``asked_again``
    tells whoever would start another run.
    """

    def __init__(self) -> None:
        super().__init__()
        self._is_pending = False
        self._is_closing = False

    def closing(self) -> None:
        """From now on the first one waits."""
        self._is_closing = True

    def asked_again(self) -> bool:
        """Does one wait?"""
        return self._is_pending

    def __enter__(self) -> Self:
        self._is_closing = self._is_pending = False
        return super().__enter__()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._is_closing and not self._is_pending:
            self._is_pending = True
            _log.warning("the run is being stored; interrupt once more to leave it unfinished")
            return
        if self._is_closing:
            _log.warning("cut short; `harness recover` finishes a run that has no record")
        else:
            _log.info("ending the submission; what it has finished is kept")
        self._is_closing = True
        raise KeyboardInterrupt
