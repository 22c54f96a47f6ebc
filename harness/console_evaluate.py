"""How evaluations are shown: a table a task, a row a submission, the zero field last."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from harness.challenge.model import Metric
from harness.console import out, warn
from harness.evaluate.record import CaseState
from harness.text import harmless

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from harness.evaluate.record import Aggregate, EvaluationRecord, JacobianScore, TaskMetrics

_MAX_SHOWN = 10  # cases without a value that are named
_DIGITS = {Metric.DICE: 4, Metric.HD95: 3, Metric.TRE: 3, Metric.SDLOGJ: 4}
_ABSENT = "-"


@dataclass(frozen=True, kw_only=True)
class _Row:
    label: str
    scored: int
    expected: int
    aggregates: Mapping[str, Aggregate]
    folding: tuple[float | None, ...] = (None,) * 5


class Rows:
    """What the tables need of each record, so that the records need not be kept."""

    def __init__(self) -> None:
        self.rows: dict[str, list[_Row]] = {}
        self.metrics: dict[str, dict[str, Metric]] = {}
        self.initial: dict[str, _Row] = {}

    def add(self, label: str, record: EvaluationRecord) -> None:
        for name, task in record.tasks.items():
            detail = task.detail
            self.metrics[name] = {key: Metric(one) for key, one in detail.metrics.items()}
            row = _Row(
                label=label,
                scored=detail.scored,
                expected=detail.expected,
                aggregates=task.aggregates,
                folding=_folding(task),
            )
            self.rows.setdefault(name, []).append(row)
            if detail.initial:
                self.initial[name] = _Row(
                    label="Initial",
                    scored=detail.expected,
                    expected=detail.expected,
                    aggregates=detail.initial,
                )


def show_tables(rows: Rows) -> None:
    for name, found in rows.rows.items():
        metrics = rows.metrics[name]
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("", no_wrap=True)
        for header in ("cases", *_headers(metrics)):
            table.add_column(header, justify="right", no_wrap=True)
        for row in (*found, *([rows.initial[name]] if name in rows.initial else [])):
            label = escape(harmless(row.label))
            table.add_row(label, f"{row.scored}/{row.expected}", *_cells(metrics, row))
        out.print(f"\n[bold]{escape(name)}[/]")
        out.print(table)


def show_cases(label: str, record: EvaluationRecord, *, verbose: bool) -> None:
    """Warnings, the cases without values and why; with ``verbose`` every case."""
    name = escape(harmless(label))
    for text in record.problems:
        warn(f"{label}: {text}")
    if record.not_attempted:
        out.print(f"{name}: {', '.join(record.not_attempted)} not attempted, which is no failure")
    for task in record.tasks.values():
        without = [
            (key, case)
            for key, case in task.detail.cases.items()
            if case.state is not CaseState.SCORED
        ]
        for key, case in without if verbose else without[:_MAX_SHOWN]:
            state = case.state.replace("_", " ")
            reason = escape(harmless(case.reason or ""))
            out.print(f"  [red]{state}[/] {name} {escape(task.name)} {key}: {reason}")
        if len(without) > _MAX_SHOWN and not verbose:
            out.print(f"  and {len(without) - _MAX_SHOWN} more, in the result and with --verbose")
        _show_warnings(label, task)
        if verbose:
            _show_values(task)


def _show_warnings(label: str, task: TaskMetrics) -> None:
    texts = [text for case in task.detail.cases.values() for text in case.warnings]
    for text in list(dict.fromkeys(texts))[:_MAX_SHOWN]:
        warn(f"{label} {task.name}: {text}")


def _show_values(task: TaskMetrics) -> None:
    for key, scores in task.cases.items():
        values = ", ".join(f"{name} {_number(score.mean, 5)}" for name, score in scores.items())
        out.print(f"  {escape(task.name)} {key}: {escape(values)}")


def _headers(metrics: Mapping[str, Metric]) -> Iterable[str]:
    for name, metric in metrics.items():
        if metric is Metric.SDLOGJ:
            continue
        unit = {Metric.HD95: " vox", Metric.TRE: " mm"}.get(metric, "")
        yield escape(name) + unit
        if metric in {Metric.DICE, Metric.TRE}:
            yield escape(f"{name}30") + unit
    for metric in metrics.values():
        if metric is Metric.SDLOGJ:
            yield from ("SDlogJ", "folded %", "det min", "1 %", "99 %", "max")


def _cells(metrics: Mapping[str, Metric], row: _Row) -> Iterable[str]:
    for name, metric in metrics.items():
        if metric is Metric.SDLOGJ:
            continue
        found = row.aggregates[name]
        yield _number(found.mean, _DIGITS[metric])
        if metric in {Metric.DICE, Metric.TRE}:
            yield _number(found.q30, _DIGITS[metric])
    for name, metric in metrics.items():
        if metric is Metric.SDLOGJ:
            yield _number(row.aggregates[name].mean, _DIGITS[metric])
            yield from (_number(value, 3) for value in row.folding)


def _folding(task: TaskMetrics) -> tuple[float | None, ...]:
    """Means over cases of the folded share and both percentiles; the extremes of the extremes."""
    found = [case.jacobian for case in task.detail.cases.values() if case.jacobian is not None]
    ways = (
        ("folded_percent", fmean),
        ("minimum", min),
        ("p01", fmean),
        ("p99", fmean),
        ("maximum", max),
    )
    return tuple(way(values) if (values := _known(found, name)) else None for name, way in ways)


def _known(found: Iterable[JacobianScore], name: str) -> list[float]:
    values = (getattr(one, name) for one in found)
    return [value for value in values if value is not None]


def _number(value: float | None, digits: int) -> str:
    return _ABSENT if value is None else f"{value:.{digits}f}"
