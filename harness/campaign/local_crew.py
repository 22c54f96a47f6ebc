"""This machine alone: one place, and the attempts made in this process, one after the other."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from harness.campaign.crew import Ended
from harness.campaign.job import perform
from harness.interrupts import Interrupts
from harness.store import RunStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.campaign.breaks import Breaks
    from harness.campaign.crew import CrewReport, Progressed
    from harness.campaign.order import JobOrder, Place
    from harness.campaign.site import Site


class LocalCrew:
    """``tell`` is called while an attempt is made, in the thread that polls: the main thread, so
    that Ctrl-C ends a submission as it does in `harness run`. ``breaks`` learn of it."""

    def __init__(self, site: Site, tell: Callable[[Progressed], None], breaks: Breaks) -> None:
        self._site = site
        self._place = site.place
        self._tell = tell
        self._breaks = breaks
        self._given: JobOrder | None = None

    def places(self) -> tuple[Place, ...]:
        return (self._place,)

    def give(self, order: JobOrder, place: str) -> None:
        if self._given is not None or place != self._place.name:
            raise ValueError(f"{place}: not a place without work here ({self._place.name} is all)")
        self._given = order

    def poll(self, timeout_s: float) -> list[CrewReport]:
        order, self._given = self._given, None
        if order is None:
            time.sleep(timeout_s)
            return []
        interrupts = Interrupts()
        end = perform(order, self._site, self._tell, interrupts)
        if interrupts.asked_again() or end.status is RunStatus.INTERRUPTED:
            self._breaks.asked = True
        return [Ended(team=order.team, run_id=order.run_id, end=end)]

    def resume(self, order: JobOrder, place: str) -> bool:
        """What was made in a process that died is made by nobody."""
        del order, place
        return False

    def close(self) -> None:
        """Nothing is open."""
