"""What a campaign came to: the table, whose turn it is, and what to do next."""

from __future__ import annotations

import shlex
from itertools import groupby
from typing import TYPE_CHECKING

from rich.markup import escape

from harness import console
from harness.campaign.status import RowState
from harness.console_campaign_table import campaign_table, counts, mark_of, verdict_text
from harness.store import RunStatus
from harness.text import harmless, harmless_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from harness.campaign.state import CampaignState
    from harness.campaign.status import StatusRecord, TaskRow

_MAX_REASON = 300  # characters
_MAX_LISTED = 50


def show_campaign(
    status: StatusRecord,
    tasks: Sequence[str],
    runs_dir: Path,
    *,
    goes_on: bool = False,
    is_asked: bool = False,
) -> None:
    """To stdout, with a row for every team. ``goes_on``: while the campaign does; ``is_asked``: by
    `harness status`, which need not be told of then."""
    out = console.out
    out.print(f"\n[bold]{escape(harmless(status.title or 'Campaign'))}[/]: {counts(status)}")
    table = campaign_table(status, tasks, width=out.width)
    table.caption = None
    console.show_table(table)
    if (note := mark_of(status)) is not None:
        out.print(f"[dim]{escape(note)}[/]")
    teams = [next(rows) for _, rows in groupby(status.rows, key=lambda row: row.team)]
    _list("for you to mend", map(_yours, filter(_is_yours, teams)), "red")
    waiting = sorted(filter(_is_waiting, teams), key=_turn_of(status))
    _list("still to be run", (_waits(one, goes_on=goes_on) for one in waiting), "yellow")
    _list("the teams' own", map(_theirs, filter(_is_theirs, teams)), "bold")
    _list("not taken", (f"{one.entry}: {one.reason}" for one in status.rejected), "bold")
    _list("dropped", (_dropped(one) for one in teams if one.state is RowState.DROPPED), "bold")
    doubts = _doubts(status.rows)
    _list("before runtimes are compared", [*status.warnings, *doubts], "yellow")
    _list("asked for, and not yet taken up", status.requests, "bold")
    _show_next(teams, runs_dir, is_asked=is_asked)


def out_option(runs_dir: Path) -> str:
    """What `harness status`, `retry` and `drop` need to be told of it, a blank first."""
    where = console.relative(runs_dir)
    return "" if where == "runs" else f" --out {shlex.quote(where)}"


def show_attempts(state: CampaignState, runs_dir: Path) -> None:
    """Every attempt of every team, in the order they were made."""
    console.out.print("\n[bold]attempts[/]")
    for attempt in state.attempts.values():
        started, end = attempt.started, attempt.end
        became = "under way" if end is None else f"{end.status or end.outcome}: {end.reason}"
        notes = [
            *([f"attempt {started.number}"]),
            *([started.why] if started.why else []),
            *([f"suspect: {attempt.doubt}"] if attempt.doubt else []),
            *(["under other conditions"] if not state.is_current(attempt) else []),
        ]
        where = console.relative(runs_dir.joinpath(*attempt.key))
        text = f"{attempt.started_at}  {where}  {became.replace('_', ' ')}  ({'; '.join(notes)})"
        console.out.print(f"  {escape(harmless(text))}")


def _is_yours(row: TaskRow) -> bool:
    return row.state is RowState.GIVEN_UP or any(one.startswith("not scored") for one in row.notes)


def _is_waiting(row: TaskRow) -> bool:
    return row.state in {RowState.QUEUED, RowState.ABSENT, RowState.RUNNING, RowState.IMPORTING}


def _is_theirs(row: TaskRow) -> bool:
    good = {"succeeded", "same"}
    is_good = row.verdict in good or (
        row.verdict == "fields" and row.valid_fields == row.expected_fields
    )
    return row.state is RowState.DONE and not is_good


def _is_explained(row: TaskRow) -> bool:
    """There is a run, which did not end well."""
    return row.verdict in {*RunStatus} - {RunStatus.SUCCEEDED} and row.run_id is not None


def _turn_of(status: StatusRecord) -> Callable[[TaskRow], int]:
    """What is under way, then what is to be run, in that order, then what is not in the folder."""
    order = [one.team for one in status.outstanding]

    def turn(row: TaskRow) -> int:
        if row.state in {RowState.RUNNING, RowState.IMPORTING}:
            return -1
        is_queued = row.state is RowState.QUEUED and row.team in order
        return order.index(row.team) if is_queued else len(order)

    return turn


def _yours(row: TaskRow) -> str:
    return f"{row.team}: {'; '.join(row.notes) or row.reason}"


def _waits(row: TaskRow, *, goes_on: bool) -> str:
    state = {
        RowState.ABSENT: "its upload is not in the submissions folder any more",
        RowState.QUEUED: "queued",
    }.get(row.state, "under way" if goes_on else "was under way")
    return f"{row.team}: {'; '.join((state, *row.notes))}"


def _theirs(row: TaskRow) -> str:
    return f"{row.team}: {verdict_text(row)}: {row.reason}"


def _dropped(row: TaskRow) -> str:
    return f"{row.team}: {'; '.join(row.notes)}"


def _doubts(rows: Iterable[TaskRow]) -> list[str]:
    """One line a reason: a machine that drifts is one thing to know, however many ran on it."""
    teams: dict[str, list[str]] = {}
    for row in rows:
        if row.suspect is not None and row.median_runtime_s is not None:
            named = teams.setdefault(row.suspect, [])
            if row.team not in named:
                named.append(row.team)
    return [f"{', '.join(named)}: suspect: {reason}" for reason, named in teams.items()]


def _list(title: str, lines: Iterable[str], style: str) -> None:
    found = list(lines)
    if not found:
        return
    console.out.print(f"\n[{style}]{title}[/]")
    for text in found[:_MAX_LISTED]:
        one_line = harmless_line(" ".join(text.split()), _MAX_REASON)
        console.out.print(f"  {escape(one_line)}")
    if len(found) > _MAX_LISTED:
        console.out.print(f"  and {len(found) - _MAX_LISTED} more: `harness status --json`")


def _show_next(teams: Sequence[TaskRow], runs_dir: Path, *, is_asked: bool) -> None:
    where, option = shlex.quote(console.relative(runs_dir)), out_option(runs_dir)
    lines = [] if is_asked else [f"harness status{option}"]
    ended = [one for one in teams if _is_explained(one)]
    bad = next((one for one in ended if _is_yours(one) or _is_theirs(one)), None)
    if bad is not None:
        lines.append(f"harness show {where}/{bad.team}/{bad.run_id}")
    if (again := next(filter(_is_yours, teams), None)) is not None:
        lines.append(f"harness retry {again.team}{option}")
    if lines:
        console.out.print()
    for line in lines:
        console.out.print(f"  next    {escape(harmless(line))}", soft_wrap=True)
