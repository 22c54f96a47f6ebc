"""How a check's findings are shown: one block each, errors before warnings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape

from harness.challenge.field_file import FieldState
from harness.check.findings import Severity
from harness.console import err, out
from harness.text import harmless

if TYPE_CHECKING:
    from harness.check.findings import Finding, FindingKind
    from harness.check.report import CheckReport

_MAX_KEYS = 6  # pairs of one finding that are named
_STYLE = {Severity.ERROR: "red", Severity.WARNING: "yellow"}


def show_check(report: CheckReport) -> None:
    """Every finding, those that are alike together, then a line a task."""
    alike: dict[tuple[str | None, FindingKind, str, str], list[Finding]] = {}
    for finding in (*report.errors, *report.warnings):
        task = _task_of(finding)
        group = (task or finding.found, finding.kind, finding.expected, finding.fix)
        alike.setdefault(group, []).append(finding)
    for findings in alike.values():
        _show(findings)
    if report.errors and all(pair.state is FieldState.NOT_ATTEMPTED for pair in report.pairs):
        return  # nothing could be looked at, which is not the same
    for task in dict.fromkeys(pair.task for pair in report.pairs):
        states = [pair.state for pair in report.pairs if pair.task == task]
        out.print(f"[bold]{escape(task)}[/]: {_states(states)}")


def show_check_ending(report: CheckReport, *, to_stderr: bool) -> None:
    target = err if to_stderr else out
    n_errors, n_warnings = len(report.errors), len(report.warnings)
    counts = f"{_count(n_errors, 'error')}, {_count(n_warnings, 'warning')}"
    meaning = "" if report.meaning_checked else " (format only: the images were not looked at)"
    if n_errors:
        target.print(f"[red]would be rejected[/]: {counts}")
    elif any(finding.kind.is_about_meaning for finding in report.warnings):
        target.print(f"[yellow]would be accepted, and is probably not what you meant[/]: {counts}")
    elif n_warnings:
        target.print(f"[green]would be accepted[/]: {_count(n_warnings, 'warning')}{meaning}")
    else:
        target.print(f"[green]nothing to object to[/]: {counts}{meaning}")


def _task_of(finding: Finding) -> str | None:
    return finding.pair.partition("/")[0] if finding.pair else None


def _show(findings: list[Finding]) -> None:
    """The first in full; of the others, which only differ in what was found, the pairs."""
    first, *others = findings
    style = _STYLE[first.severity]
    where = f"{escape(first.pair)}: " if first.pair else ""
    kind = first.kind.replace("_", " ")
    out.print(f"[{style}]{first.severity:<8}[/] {where}{kind}")
    keys = [finding.pair for finding in others if finding.pair]
    for name, text in (
        ("expected", first.expected),
        ("found", first.found),
        ("try", first.fix),
        ("also in", _shortened(keys)),
    ):
        if text:
            out.print(f"  [dim]{name:<9}[/] {escape(harmless(text))}")


def _shortened(keys: list[str]) -> str:
    rest = f" and {len(keys) - _MAX_KEYS} more (--json lists all)" if len(keys) > _MAX_KEYS else ""
    return ", ".join(keys[:_MAX_KEYS]) + rest


def _states(states: list[FieldState]) -> str:
    if all(state is FieldState.NOT_ATTEMPTED for state in states):
        return "not attempted, which is not a failure"
    parts = [
        f"{states.count(state)} {state.replace('_', ' ')}"
        for state in FieldState
        if state in states
    ]
    return f"{_count(len(states), 'pair')}, {', '.join(parts)}"


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
