"""What somebody who looks on is told while a campaign goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.campaign.crew import Progressed
    from harness.campaign.events import Line
    from harness.campaign.state import CampaignState
    from harness.campaign.status import StatusRecord


class View(Protocol):
    """Everything returns soon, and raises nothing."""

    def happened(self, line: Line, state: CampaignState) -> None:
        """It is in the journal, and ``state`` has it."""

    def progressed(self, report: Progressed) -> None: ...

    def scoring(self, team: str, run_id: str) -> None:
        """The fields of an attempt are being scored."""

    def refreshed(self, status: StatusRecord) -> None:
        """Where everything stands, after each step."""

    def noticed(self, text: str) -> None:
        """A line to know of."""

    def warned(self, text: str) -> None:
        """A line to act upon, told once."""

    def waits(self, entries: Sequence[str]) -> None:
        """Nothing is to be done now; ``entries`` in the submissions folder are not complete yet."""
