"""What people see of a campaign that goes on: a live table where there is a terminal, else a line
a change, each with its time."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Self

from rich.live import Live
from rich.markup import escape
from rich.text import Text

from harness import console
from harness.campaign.events import AttemptEnded, Scored
from harness.console_campaign_lines import line_of, progress_line, scoring_line
from harness.console_campaign_table import Doing, campaign_table
from harness.execute import Step
from harness.text import harmless

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table

    from harness.campaign.crew import Progressed
    from harness.campaign.events import Line
    from harness.campaign.state import CampaignState
    from harness.campaign.status import StatusRecord

_REDRAWS_PER_S = 1.0  # a timed run may go on in the same machine
_QUIET_S = 60.0  # between two lines about the pairs of one run, or about waiting


class CampaignView(AbstractContextManager["CampaignView"]):
    """``tasks``: names of the challenge's, in its order."""

    def __init__(self, tasks: Sequence[str], *, plain: bool) -> None:
        self._tasks = tuple(tasks)
        self._is_live = not plain and sys.stderr.isatty()
        self._doing: dict[tuple[str, str], Doing] = {}
        self._status: StatusRecord | None = None
        self._said_at_s: dict[str, float] = {}
        self._waits: tuple[str, ...] | None = None
        self._live = Live(
            _Redrawn(self),
            console=console.err,
            refresh_per_second=_REDRAWS_PER_S,
            transient=True,
            auto_refresh=self._is_live,
        )

    def __enter__(self) -> Self:
        if self._is_live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._is_live:
            self._live.stop()

    def happened(self, line: Line, state: CampaignState) -> None:
        self._waits = None
        if isinstance(line.event, AttemptEnded | Scored):  # what is scored comes back with that
            self._doing.pop((line.event.team, line.event.run_id), None)
        for attempt in state.under_way():
            self._doing.setdefault(attempt.key, Doing(since_s=time.monotonic()))
        if (text := line_of(line, state)) is not None:
            self._say(text, at=line.at)

    def progressed(self, report: Progressed) -> None:
        doing = self._doing.setdefault(
            (report.team, report.run_id), Doing(since_s=time.monotonic())
        )
        doing.take(report)
        progress = report.progress
        is_pair = progress is not None and progress.step is Step.FIELD_WRITTEN
        if is_pair and (self._is_live or not self._is_time_for(report.run_id)):
            return
        text = progress_line(report)
        if text is not None and not (self._is_live and progress is None):
            self._say(text)

    def scoring(self, team: str, run_id: str) -> None:
        known = self._doing.get((team, run_id))
        if known is not None and known.what == "scoring":  # once more: the machine was not free
            return
        self._doing[team, run_id] = Doing(since_s=time.monotonic(), what="scoring")
        if not self._is_live:
            self._say(scoring_line(team, run_id))

    def refreshed(self, status: StatusRecord) -> None:
        self._status = status

    def noticed(self, text: str) -> None:
        self._say(text)

    def warned(self, text: str) -> None:
        with suppress(OSError):
            console.warn(f"{_clock()}  {text}")

    def waits(self, entries: Sequence[str]) -> None:
        if self._waits == tuple(entries):
            return
        self._waits = tuple(entries)
        if entries:
            shown = ", ".join(entries[:3]) + (
                f" and {len(entries) - 3} more" if entries[3:] else ""
            )
            self._say(f"waiting until {shown} {'is' if len(entries) == 1 else 'are'} complete")
        else:
            self._say("nothing to do; waiting for uploads and requests (Ctrl-C ends)")

    def table(self, width: int, height: int) -> Table | Text:
        if self._status is None:
            return Text("")
        return campaign_table(self._status, self._tasks, self._doing, width=width, height=height)

    def _is_time_for(self, what: str) -> bool:
        now_s = time.monotonic()
        if now_s - self._said_at_s.get(what, -_QUIET_S) < _QUIET_S:
            return False
        self._said_at_s[what] = now_s
        return True

    def _say(self, text: str, at: str | None = None) -> None:
        when = at[11:] if at is not None else _clock()
        with suppress(OSError):  # a terminal that is gone: no reason to lose a night
            for line in text.splitlines():
                console.err.print(f"[dim]{when}[/]  {escape(harmless(line))}")


class _Redrawn:
    """Drawn anew each time, in the size that the terminal has then."""

    def __init__(self, view: CampaignView) -> None:
        self._view = view

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self._view.table(options.max_width, options.size.height)


def _clock() -> str:
    return time.strftime("%H:%M:%SZ", time.gmtime())
