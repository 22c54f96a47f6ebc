"""Who makes the attempts: one machine here, or many. The conductor sees no difference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from harness.campaign.order import JobEnd, JobOrder, Place
    from harness.execute import Progress


@dataclass(frozen=True, kw_only=True)
class Progressed:
    """``progress`` None: an image is being imported or built (``doing`` says what)."""

    team: str
    run_id: str
    doing: str
    progress: Progress | None = None
    pairs: int | None = None


@dataclass(frozen=True, kw_only=True)
class Ended:
    """The run directory, if there is one, lies complete in the campaign's runs folder."""

    team: str
    run_id: str
    end: JobEnd


CrewReport = Progressed | Ended


class Crew(Protocol):
    """Everything raises EngineError, OutputError or OptionError for what stops the campaign; what
    stops one attempt comes back as its end, with Outcome.FAILED."""

    def places(self) -> tuple[Place, ...]:
        """Those that are there now. One that is lost is not. Where there is none, the crew says so
        once."""

    def give(self, order: JobOrder, place: str) -> None:
        """One attempt for a place that has none. Returns at once."""

    def poll(self, timeout_s: float) -> list[CrewReport]:
        """What happened since, at the latest after ``timeout_s``, or when an attempt ends: a crew
        that is this process makes the attempt in here."""

    def resume(self, order: JobOrder, place: str) -> bool:
        """An attempt that a conductor which died had given to ``place``: does that still make it,
        or has it made it? Then its end comes from :meth:`poll`."""

    def close(self) -> None: ...
