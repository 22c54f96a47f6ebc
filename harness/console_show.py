"""How a run's explanation is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape

from harness import console, console_gpu
from harness.store import RunStatus

if TYPE_CHECKING:
    from harness.explain import Explanation, Figure
    from harness.store import RunDirectory, RunRecord


def show_explanation(record: RunRecord, found: Explanation, directory: RunDirectory) -> None:
    """Everything on stdout: it is what was asked for."""
    style = "green" if record.status is RunStatus.SUCCEEDED else "red"
    console.out.print(f"[{style}]{escape(found.headline)}[/]")
    console.out.print(f"  {escape(found.turn)}")
    where = f"{console.relative(directory.path)}/, {record.image_reference}, ended {record.created}"
    _line(f"  {where}")
    _heading("what happened")
    for moment in found.timeline:
        after = "" if moment.after_s is None else f"{moment.after_s:.1f} s"
        _line(f"  {after:>10}  {moment.text}")
    _heading("evidence")
    for figure in found.evidence:
        _line(f"  {figure.name:<18} {_found(figure)}")
    _heading("pairs")
    console.show_table(console.pair_table(record, {}))
    console.show_field_problems(record)
    if record.witness.lost:
        _line(f"  runtimes are not ranked: {'; '.join(record.witness.lost)}")
    if gpu_lines := list(console_gpu.gpu_lines(record)):
        _heading("GPUs")
        for text in gpu_lines:
            _line(f"  {text}")
    for text in record.warnings:
        console.warn(text)
    _heading("what to try")
    for text in found.advice:
        _line(f"  - {text}")


def show_log(directory: RunDirectory, lines: int) -> None:
    if lines:
        console.out.print()
        console.show_log_tail(directory, lines, to_stderr=False)


def _found(figure: Figure) -> str:
    return figure.found if figure.limit is None else f"{figure.found} of {figure.limit}"


def _heading(text: str) -> None:
    console.out.print(f"\n[bold]{text}[/]")


def _line(text: str) -> None:
    console.tell(text, to_stderr=False)
