"""Waiting for what must be there before anything goes on: the container engine."""

from __future__ import annotations

import time
from itertools import chain, repeat
from typing import TYPE_CHECKING

from harness.campaign.events import Opened
from harness.campaign.journal import read_journal
from harness.engine.base import EngineName
from harness.errors import EngineError, EngineMissing

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.campaign.breaks import Breaks
    from harness.campaign.folder import CampaignFolder
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


def require_isolation_as_before(folder: CampaignFolder, engine: EngineName) -> None:
    """For an engine that nobody named. Raises EngineMissing where a campaign that ran in containers
    would go on without any, because their engine is not there this time."""
    if engine is not EngineName.PROCESS or not folder.journal_path.exists():
        return
    lines = read_journal(folder.journal_path)
    engines = [one.event.conditions.engine for one in lines if isinstance(one.event, Opened)]
    if engines and engines[-1] is not EngineName.PROCESS:
        raise EngineMissing(
            f"this campaign has run with {engines[-1]} so far, which does not answer now; start it "
            "(`harness doctor` says what it lacks), or give --engine process to go on without "
            "isolation"
        )
