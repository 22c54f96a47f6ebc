"""What people see of several runs: those of a repetition, and two held against each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from harness import console
from harness.store import RunStatus

if TYPE_CHECKING:
    from harness.compare import Comparison
    from harness.store import PairSpread, RepeatSummary, RunDirectory


def show_turn(run_dir: RunDirectory, index: int, times: int) -> None:
    console.err.print(
        f"  [bold]run {index} of {times}[/]  {escape(console.relative(run_dir.path))}/"
    )


def show_repeats(
    summary: RepeatSummary, first: RunDirectory, shown: str, *, to_stderr: bool
) -> None:
    """How runtimes vary, what to know of it, and whose fields were published."""
    target = console.err if to_stderr else console.out
    if not to_stderr:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("pair", no_wrap=True)
        for name in ("median", "shortest", "longest", "spread"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("95 % interval", no_wrap=True)
        for pair in summary.pairs:
            table.add_row(
                pair.key,
                *map(console.seconds, (pair.median_s, pair.shortest_s, pair.longest_s)),
                "-" if pair.spread_ratio is None else f"{100 * pair.spread_ratio:.1f} %",
                _interval(pair),
            )
        console.out.print()
        console.show_table(table)
        console.out.print()
    for text in summary.warnings:
        console.warn(text)
    ended = summary.statuses.count(RunStatus.SUCCEEDED)
    target.print(f"{ended} of {summary.asked} runs succeeded; the fields are those of run {shown}")
    target.print(f"  summary {escape(console.relative(first.repeat_path))}")


def _interval(pair: PairSpread) -> str:
    if pair.interval_s is None:
        return "-"
    low_s, high_s = pair.interval_s
    return f"{low_s:.3f} to {high_s:.3f} s ({pair.interval_of})"


def show_comparison(comparison: Comparison) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("pair", no_wrap=True)
    for name in ("first", "second", "second/first"):
        table.add_column(name, justify="right", no_wrap=True)
    for pair in comparison.pairs:
        table.add_row(
            pair.key,
            console.seconds(pair.first_s),
            console.seconds(pair.second_s),
            _ratio(pair.ratio),
        )
    console.show_table(table)
    console.out.print(f"median ratio {_ratio(comparison.median_ratio)}")
    for text in comparison.differences:
        console.warn(f"not comparable, different {text}")
    for text in comparison.doubts:
        console.warn(text)


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
