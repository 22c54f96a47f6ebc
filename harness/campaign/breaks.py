"""Ctrl-C and its like while a campaign goes on: at once where nothing can be lost, else a moment
later. What is being written to the journal is always written whole."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from harness.interrupts import OwnSignals

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


class Breaks(OwnSignals):
    """Within, a signal is KeyboardInterrupt only in :meth:`allowed`; elsewhere it waits for the
    next of these. A run handles its own (:mod:`harness.interrupts`)."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = False
        self._is_open = False

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

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.asked = True
        if self._is_open:
            self._is_open = False
            raise KeyboardInterrupt
