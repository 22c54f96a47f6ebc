"""How a check's findings are shown: one block each, errors before warnings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape

from harness.challenge.field_file import FieldState
from harness.check.findings import Severity
from harness.console import err, out
from harness.text import harmless

if TYPE_CHECKING:
    from harness.check.findings import Finding
    from harness.check.report import CheckReport

_STYLE = {Severity.ERROR: "red", Severity.WARNING: "yellow"}


def show_check(report: CheckReport) -> None:
    """Every finding, then a line a task."""
    for finding in (*report.errors, *report.warnings):
        _show(finding)
    for task in dict.fromkeys(pair.task for pair in report.pairs):
        states = [pair.state for pair in report.pairs if pair.task == task]
        out.print(f"[bold]{escape(task)}[/]: {_states(states)}")


def show_check_ending(report: CheckReport, *, to_stderr: bool) -> None:
    target = err if to_stderr else out
    n_errors, n_warnings = len(report.errors), len(report.warnings)
    counts = f"{_count(n_errors, 'error')}, {_count(n_warnings, 'warning')}"
    if n_errors:
        target.print(f"[red]would be rejected[/]: {counts}")
    elif n_warnings:
        target.print(f"[yellow]would be accepted, and is probably not what you meant[/]: {counts}")
    else:
        meaning = "" if report.meaning_checked else " (format only: the images were not looked at)"
        target.print(f"[green]nothing to object to[/]: {counts}{meaning}")


def _show(finding: Finding) -> None:
    style = _STYLE[finding.severity]
    where = f"{escape(finding.pair)}: " if finding.pair else ""
    kind = finding.kind.replace("_", " ")
    out.print(f"[{style}]{finding.severity:<8}[/] {where}{kind}")
    for name, text in (
        ("expected", finding.expected),
        ("found", finding.found),
        ("try", finding.fix),
    ):
        out.print(f"  [dim]{name:<9}[/] {escape(harmless(text))}")


def _states(states: list[FieldState]) -> str:
    if all(state is FieldState.NOT_ATTEMPTED for state in states):
        return "not attempted, which is not a failure"
    parts = [
        f"{states.count(state)} {state.replace('_', ' ')}"
        for state in FieldState
        if state in states
    ]
    return f"{len(states)} pairs, {', '.join(parts)}"


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
