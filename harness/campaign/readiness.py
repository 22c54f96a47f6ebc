"""Waiting for what must be there before anything goes on: the container engine."""

from __future__ import annotations

import time
from itertools import chain, repeat
from typing import TYPE_CHECKING

from harness.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.campaign.breaks import Breaks
    from harness.campaign.view import View

_PAUSES_S = (1.0, 2.0, 5.0, 10.0, 30.0)  # then the last one again
_PATIENCE_S = 600.0


class Readiness:
    """``ask`` raises EngineError while no attempt can be made. ``for_ever``: however long."""

    def __init__(
        self, ask: Callable[[], None], view: View, breaks: Breaks, *, for_ever: bool
    ) -> None:
        self._ask = ask
        self._view = view
        self._breaks = breaks
        self._for_ever = for_ever

    def wait(self) -> None:
        """Raises EngineError when the engine has not answered for ten minutes, or
        KeyboardInterrupt."""
        told, until_s = False, time.monotonic() + _PATIENCE_S
        for pause_s in chain(_PAUSES_S, repeat(_PAUSES_S[-1])):
            try:
                self._ask()
            except EngineError as error:
                if time.monotonic() > until_s and not self._for_ever:
                    raise
                if not told:
                    told = True
                    self._view.warned(f"{error}\nwaiting until the container engine answers")
            else:
                break
            with self._breaks.allowed():
                time.sleep(pause_s)
        if told:
            self._view.noticed("the container engine answers again")
