"""The table of a campaign: a row a team, a column a task, fitted to the terminal."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from harness.campaign.order import Outcome
from harness.campaign.status import RowState
from harness.console import seconds
from harness.execute import Step
from harness.text import harmless, harmless_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from harness.campaign.crew import Progressed
    from harness.campaign.status import StatusRecord, TaskRow

_WIDE = 120  # columns from which on every metric has room, with its name
_BESIDE, _TASK_WITH_METRIC = 38, 18  # columns: of team and verdict, and of each task
_MAX_TEAM, _MAX_VERDICT = 20, 60  # characters
_LINES_AROUND = 6  # of the terminal, that are not the table's teams
_NONE = "\N{MIDDLE DOT}"
_STYLES = {
    RowState.DONE: "green",
    RowState.RUNNING: "cyan",
    RowState.IMPORTING: "cyan",
    RowState.GIVEN_UP: "red",
    RowState.NOTHING: "dim",
    RowState.QUEUED: "dim",
    RowState.ABSENT: "yellow",
    RowState.DROPPED: "dim",
}
_VERDICTS: dict[str, str] = {  # of attempts that are no run: as the lines of a log file have them
    Outcome.FIELDS: "fields checked",
    Outcome.SAME: "same image as before",
    Outcome.FAILED: "not begun",
}
_MARK = "*"
_MARKED = f"{_MARK} some pairs have no field: a mean over the others, not to be compared"
_FIRST = (RowState.RUNNING, RowState.IMPORTING, RowState.GIVEN_UP, RowState.QUEUED)


@dataclass(kw_only=True)
class Doing:
    """What is being done for one attempt, as far as anybody told. ``done``: pairs, by task."""

    since_s: float
    what: str = "importing"
    pairs: int | None = None
    done: dict[str, int] = field(default_factory=dict)
    last_s: dict[str, float | None] = field(default_factory=dict)

    def take(self, report: Progressed) -> None:
        progress = report.progress
        if progress is None:
            self.what = report.doing
            return
        if progress.step is Step.STARTED:
            self.since_s = time.monotonic()
        self.what = "checking" if progress.step is Step.COLLECTING else "running"
        self.pairs = report.pairs
        if progress.step is Step.FIELD_WRITTEN and progress.pair is not None:
            task = progress.pair.partition("/")[0]
            self.done[task] = self.done.get(task, 0) + 1
            self.last_s[task] = progress.runtime_s

    def __str__(self) -> str:
        elapsed = _elapsed(time.monotonic() - self.since_s)
        if self.what == "running" and self.pairs is not None:
            pair = min(sum(self.done.values()) + 1, self.pairs)
            return f"pair {pair}/{self.pairs}, {elapsed}"
        return f"{harmless_line(self.what, 40)}, {elapsed}"

    def cell(self, task: str) -> str:
        if task not in self.done:
            return _NONE
        return f"{self.done[task]} done, {seconds(self.last_s[task])}"


def campaign_table(
    status: StatusRecord,
    tasks: Sequence[str],
    doing: Mapping[tuple[str, str], Doing] | None = None,
    *,
    width: int,
    height: int | None = None,
) -> Table:
    """``height`` None: every team has its row."""
    by_team = {team: list(rows) for team, rows in groupby(status.rows, key=lambda row: row.team)}
    now = {team: one for (team, _), one in (doing or {}).items()}
    names = _chosen(by_team, now, height)
    table = Table(box=None, pad_edge=False, header_style="bold", caption_justify="left")
    table.add_column("team", no_wrap=True, max_width=_MAX_TEAM, overflow="ellipsis")
    is_wide = width >= _WIDE
    metrics = None if is_wide else int(width >= _BESIDE + _TASK_WITH_METRIC * len(tasks))
    for task in tasks:
        table.add_column(_header(by_team, task, metrics), no_wrap=True)
    table.add_column("verdict", no_wrap=not is_wide, overflow="ellipsis", max_width=_MAX_VERDICT)
    for name in names:
        rows = by_team.get(name, [])
        cells = [_cell(rows, task, now.get(name), metrics) for task in tasks]
        table.add_row(_team(name, rows, is_wide=is_wide), *cells, _verdict(rows, now.get(name)))
    left_out = len(by_team) - len([name for name in names if name in by_team])
    more = f"and {left_out} more; " if left_out else ""
    note = mark_of(status)
    table.caption = "\n".join((f"{more}{counts(status)}", *([] if note is None else [note])))
    return table


def mark_of(status: StatusRecord) -> str | None:
    """What the mark beside some means says; None where there is none."""
    is_marked = any(row.lacking and row.metrics for row in status.rows)
    return _MARKED if is_marked else None


def counts(status: StatusRecord) -> str:
    total = sum(status.teams.values())
    parts = [f"{count} {state.replace('_', ' ')}" for state, count in status.teams.items()]
    return f"{total} team{'' if total == 1 else 's'}: {', '.join(parts) or 'none'}"


def verdict_text(row: TaskRow) -> str:
    """How its published result ended, in words; empty where there is none."""
    if row.verdict is None:
        return ""
    text = _VERDICTS.get(row.verdict, row.verdict.replace("_", " "))
    if row.expected_fields and row.valid_fields != row.expected_fields:
        text += f", {row.valid_fields}/{row.expected_fields} fields"
    return text + (", suspect" if row.suspect else "")


def _chosen(
    by_team: Mapping[str, list[TaskRow]], now: Mapping[str, Doing], height: int | None
) -> list[str]:
    """Those that there is room for: what goes on, then what is to be done, then the rest."""
    strangers = [team for team in now if team not in by_team]  # the reference image
    names = [*strangers, *by_team]
    room = len(names) if height is None else max(3, height - _LINES_AROUND)
    if len(names) <= room:
        return names

    def rank(name: str) -> tuple[int, int]:
        if name in now:
            return 0, 0
        state = by_team[name][0].state
        return 1, _FIRST.index(state) if state in _FIRST else len(_FIRST)

    kept = set(sorted(names, key=rank)[:room])
    return [name for name in names if name in kept]


def _team(name: str, rows: list[TaskRow], *, is_wide: bool) -> str:
    if name.startswith("_"):
        return "[dim]reference[/]"
    shown = rows[0].display_name if rows and is_wide else None
    label = escape(harmless(name))
    return label if shown is None else f"{label} [dim]{escape(harmless_line(shown, 30))}[/]"


def _header(by_team: Mapping[str, list[TaskRow]], task: str, metrics: int | None) -> str:
    """``metrics``: how many there is room for, None for all, with their names."""
    metric = next((next(iter(row.metrics)) for row in _of_task(by_team, task) if row.metrics), None)
    below = "median" if metrics != 1 or metric is None else f"median, {harmless(metric)}"
    return f"{escape(task)}\n[dim]{escape(below)}[/]"


def _of_task(by_team: Mapping[str, list[TaskRow]], task: str) -> Iterator[TaskRow]:
    return (row for rows in by_team.values() for row in rows if row.task == task)


def _cell(rows: list[TaskRow], task: str, doing: Doing | None, metrics: int | None) -> str:
    if doing is not None and doing.done:
        return doing.cell(task)
    row = next((one for one in rows if one.task == task), None)
    if row is None or row.verdict is None:
        return f"[dim]{_NONE}[/]"
    shown = [
        _name(name, metrics) + _number(value) + (_MARK if row.lacking else "")
        for name, value in list(row.metrics.items())[:metrics]
    ]
    return "  ".join([seconds(row.median_runtime_s), *shown])


def _name(metric: str, metrics: int | None) -> str:
    return f"[dim]{escape(harmless(metric))}[/] " if metrics is None else ""


def _verdict(rows: list[TaskRow], doing: Doing | None) -> str:
    if doing is not None:
        return f"[cyan]{escape(str(doing))}[/]"
    if not rows:
        return ""
    row = rows[0]
    style = _STYLES[row.state]
    text = verdict_text(row)
    if row.state is RowState.DONE:
        is_good = row.verdict in {"succeeded", "fields"} and row.suspect is None
        style = "green" if is_good else "yellow"
    elif row.state is RowState.QUEUED:
        text = f"queued again; before: {text}" if text else "queued"
    else:
        text = row.state.replace("_", " ") + (f", {text}" if text else "")
    return f"[{style}]{escape(harmless(text))}[/]"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _elapsed(value_s: float) -> str:
    minutes, rest_s = divmod(int(value_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest_s:02d}" if hours else f"{minutes}:{rest_s:02d}"
