"""What the commands show: the plan, progress, the table, warnings. Results to stdout, the rest to
stderr; plain lines where there is no terminal."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.segment import Segment, Segments
from rich.table import Table

from harness import console_gpu
from harness.challenge.field_file import FieldState
from harness.challenge.model import Metric
from harness.challenge.quantity import format_bytes
from harness.doctor.finding import Finding, Level
from harness.engine.base import EngineName
from harness.machine.contamination import MachineVerdict
from harness.store import (
    PairRecord,
    RunDirectory,
    RunRecord,
    RunStatus,
    TaskRecord,
)
from harness.text import harmless, harmless_lines
from harness.timing import ADVICE, Flag

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from harness.engine.base import EngineInfo
    from harness.evaluate.accuracy import PairAccuracy
    from harness.plan import Plan
from harness.probe.realtime import Precision

_PLAIN_WIDTH = 110  # columns of a line that no terminal will wrap
_STATE_STYLE = {
    FieldState.VALID: "green",
    FieldState.MISSING: "red",
    FieldState.INVALID: "red",
    FieldState.UNCOLLECTED: "yellow",
    FieldState.NOT_ATTEMPTED: "dim",
}
_PRECISION = {
    Precision.FIFO: "witnessed with real-time scheduling, 2 ms off at worst",
    Precision.RESERVED_CPU: (
        "witnessed from a CPU that the submission was kept off, 5 ms off at worst (harness doctor)"
    ),
    Precision.PLAIN: "witnessed without real-time scheduling, up to 25 ms off (harness doctor)",
}
_MACHINE = {
    None: "not judged: too short a run, or no way to tell",
    MachineVerdict.CLEAN: "clean: no other program took time from the submission",
    MachineVerdict.SUSPECT: "suspect: something else may have taken time from the submission",
}
_MAX_LOG_CHARACTERS = 400  # of a line
_MUCH_FOLDING_PERCENT = 5.0  # published methods stay well below 1 %
_METRIC_NAMES = {Metric.DICE: "label overlap (Dice)", Metric.TRE: "landmark error"}


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Nobody reads any more (``| head``). Rich would end the process; a run must go on."""
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.file.fileno())
        os.close(nowhere)


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _PLAIN_WIDTH
    return _Console(
        stderr=stderr,
        width=width,
        highlight=False,
        emoji=False,  # a file may be called :skull:
        soft_wrap=not stream.isatty(),
    )


out = _console(stderr=False)
err = _console(stderr=True)


def note(text: str) -> None:
    err.print(_plain(text))


def tell(text: str, *, to_stderr: bool) -> None:
    """A line that belongs to the result."""
    (err if to_stderr else out).print(_plain(text))


def warn(text: str) -> None:
    err.print(f"[yellow]warning:[/] {_plain(text)}")


def fail(text: str) -> None:
    err.print(f"[red]error:[/] {_plain(text)}")


class LogLines(logging.Handler):
    """What the library reports, in the words of the rest: warnings as such, lesser lines plain."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter())  # the message alone; logging's own adds names

    def emit(self, record: logging.LogRecord) -> None:
        try:
            (warn if record.levelno >= logging.WARNING else note)(self.format(record))
        except (RuntimeError, OSError):  # in a signal's handler, within another write to stderr
            self.handleError(record)


def show_table(table: Table) -> None:
    """Without the blanks that fill up its lines."""
    for line in out.render_lines(table, pad=False):
        while line and not line[-1].text.strip():
            line.pop()
        if line:
            line[-1] = Segment(line[-1].text.rstrip(), line[-1].style)
        out.print(Segments([*line, Segment.line()]))


def _plain(text: str) -> str:
    """Lines that a terminal shows and does not obey: a message may repeat a file's name."""
    return escape("\n".join(map(harmless, text.split("\n"))))


def show_plan(plan: Plan, info: EngineInfo, run_dir: RunDirectory, gpus: str) -> None:
    """``gpus``: which the run is given, and why."""
    tasks = ", ".join(
        f"{found.task.name} ({len(found.pairs)} pair{'s' if len(found.pairs) != 1 else ''})"
        for found in plan.tasks
    )
    rows = (
        ("method", f"{plan.image.reference}  {_short(plan.image.id)}"),
        ("engine", f"{info.name} ({info.version})"),
        ("isolation", info.isolation),
        ("data", f"{relative(plan.data_dir)}: {tasks}, {plan.cache} cache"),
        ("GPUs", gpus),
        ("limits", _limits(plan, info)),
        ("run", f"{relative(run_dir.path)}/"),
    )
    err.print(f"[bold]{escape(plan.challenge.title)}, dry run[/]")
    for name, value in rows:
        err.print(f"  [dim]{name:<9}[/] {_plain(value)}")


def show_result(
    record: RunRecord, accuracy: Sequence[tuple[PairRecord, PairAccuracy]], titles: dict[str, str]
) -> None:
    """The table of pairs, what is wrong with fields, then the totals of each task."""
    by_pair = {pair.key: value for pair, value in accuracy}
    out.print()
    show_table(pair_table(record, by_pair))
    show_field_problems(record)
    for text in console_gpu.why_missing(record):
        out.print(f"  [dim]{_plain(text)}[/]")
    for task in record.tasks:
        values = [value for pair, value in accuracy if pair.task == task.name]
        ended_well = record.exit_code == 0 and any(t.attempted for t in record.tasks)
        out.print(_task_lines(task, titles[task.name], values, reached=ended_well))
    out.print()


def show_field_problems(record: RunRecord) -> None:
    """Pairs with the same problem share a line: hundreds may be missing."""
    keys: dict[str, list[str]] = {}
    for pair in record.pairs:
        if pair.field_problem is not None:
            keys.setdefault(pair.field_problem, []).append(pair.key)
    for problem, which in keys.items():
        out.print(f"  [red]{_first_keys(which)}[/]: {escape(harmless(problem))}")


def show_ending(
    record: RunRecord,
    accuracy: Sequence[tuple[PairRecord, PairAccuracy]],
    run_dir: RunDirectory,
    *,
    to_stderr: bool,
) -> None:
    """Verdict, warnings with what to change, and where things are."""
    _show_flags(record.pairs)
    alone = record.repeat is None  # of several, the summary warns
    for text in record.contamination.evidence if alone else ():
        warn(f"the machine was not the submission's alone: {text}")
    for text in (*record.warnings, *_accuracy_advice(accuracy)):
        warn(text)
    target = err if to_stderr else out
    style = "green" if record.status is RunStatus.SUCCEEDED else "red"
    target.print(f"[{style}]{record.status.replace('_', ' ')}[/]: {_plain(record.reason)}")
    target.print(f"  times   {_PRECISION[record.witness.precision]}")
    target.print(f"  machine {_MACHINE[record.contamination.verdict]}")
    where = f"{relative(run_dir.path)}/  (run.json, trace.jsonl.gz, log.txt, fields/)"
    target.print(f"  record  {escape(where)}")


def show_finding(finding: Finding) -> None:
    style = {Level.OK: "green", Level.WARNING: "yellow", Level.FAILURE: "red"}[finding.level]
    name = finding.level.name.lower()
    out.print(f"[{style}]{name:<8}[/] {finding.subject}: {_plain(finding.found)}")
    if finding.remedy:
        out.print(f"         {_plain(finding.remedy)}")
    if finding.command:
        out.print(f"         $ {_plain(finding.command)}")


def show_log_tail(run_dir: RunDirectory, lines: int = 25, *, to_stderr: bool = True) -> None:
    """The end of the submission's log, as text that a terminal does not obey."""
    try:
        with run_dir.log_path.open("rb") as file:
            file.seek(max(0, run_dir.log_path.stat().st_size - 8192))
            shown = harmless_lines(file.read(), _MAX_LOG_CHARACTERS)
    except OSError:
        return
    if not any(line.strip() for line in shown):
        return
    target = err if to_stderr else out
    target.print(f"[dim]the end of {escape(relative(run_dir.log_path))}:[/]")
    for line in shown[-lines:]:
        target.print(f"  [dim]|[/] {escape(line)}")


def pair_table(record: RunRecord, accuracy: dict[str, PairAccuracy]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("pair", no_wrap=True)
    for name in ("runtime", "exclusive"):
        table.add_column(name, justify="right", no_wrap=True)
    with_gpu = console_gpu.has_figures(record)
    for name in console_gpu.COLUMNS if with_gpu else ():
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("field", no_wrap=True)
    if accuracy:
        table.add_column("zero field -> yours", no_wrap=True)
    table.add_column("flags")
    for pair in record.pairs:
        style = _STATE_STYLE[pair.field_state]
        state = pair.field_state.replace("_", " ")
        row = [
            pair.key,
            seconds(pair.runtime_s),
            seconds(pair.exclusive_s),
            *(console_gpu.pair_cells(pair) if with_gpu else ()),
            f"[{style}]{state}[/]",
        ]
        if accuracy:
            row.append(_accuracy(accuracy[pair.key]) if pair.key in accuracy else "")
        table.add_row(*row, ", ".join(pair.flags))
    return table


def _accuracy(value: PairAccuracy) -> str:
    if value.metric is Metric.TRE:
        return f"{value.initial:.2f} -> {value.value:.2f} mm"
    return f"Dice {value.initial:.3f} -> {value.value:.3f}"


def _task_lines(
    task: TaskRecord, title: str, accuracy: Sequence[PairAccuracy], *, reached: bool
) -> str:
    head = f"\n[bold]{task.name}[/] {escape(title)}: "
    if not task.attempted:
        return head + ("not attempted, which is not a failure" if reached else "not reached")
    parts = [f"{task.valid_fields}/{task.pairs} fields"]
    if task.median_runtime_s is not None:
        parts.append(f"median runtime {seconds(task.median_runtime_s)}{_first_and_rest(task)}")
    if task.overlap_ratio is not None and task.makespan_per_pair_s is not None:
        parts.append(f"makespan/N {seconds(task.makespan_per_pair_s)}")
        parts.append(f"overlap {task.overlap_ratio:.2f}")
    lines = head + ", ".join(parts)
    if accuracy:
        lines += f"\n  {_mean_accuracy(accuracy)}"
    return lines


def _first_and_rest(task: TaskRecord) -> str:
    if task.first_runtime_s is None or task.median_rest_s is None:
        return ""
    return f" (first {seconds(task.first_runtime_s)}, rest {seconds(task.median_rest_s)})"


def _mean_accuracy(values: Sequence[PairAccuracy]) -> str:
    n = len(values)
    metric = values[0].metric
    initial, value = sum(v.initial for v in values) / n, sum(v.value for v in values) / n
    folded = sum(v.folded_percent for v in values) / n
    unit, digits = (" mm", 2) if metric is Metric.TRE else ("", 3)
    return (
        f"{_METRIC_NAMES[metric]}: {initial:.{digits}f}{unit} with the zero field, "
        f"{value:.{digits}f}{unit} with yours; {folded:.2f} % of voxels folded"
    )


def _accuracy_advice(accuracy: Sequence[tuple[PairRecord, PairAccuracy]]) -> Iterator[str]:
    """What an accuracy no team wants usually means."""
    for task in dict.fromkeys(pair.task for pair, _ in accuracy):
        values = [value for pair, value in accuracy if pair.task == task]
        n = len(values)
        initial, value = sum(v.initial for v in values) / n, sum(v.value for v in values) / n
        lower_is_better = values[0].metric is Metric.TRE
        if value >= initial if lower_is_better else value <= initial:
            yield (
                f"{task}: no better than the zero field, as a field in the wrong convention is: "
                "check the order of axes and components, and the unit (full-resolution voxels)"
            )
        folded_percent = sum(v.folded_percent for v in values) / n
        if folded_percent > _MUCH_FOLDING_PERCENT:
            yield (
                f"{task}: {folded_percent:.1f} % of voxels are folded (the Jacobian determinant is "
                "not positive there); smooth the field, or check its unit"
            )


def _show_flags(pairs: Sequence[PairRecord]) -> None:
    for flag in Flag:
        keys = [pair.key for pair in pairs if flag in pair.flags]
        if keys:
            warn(f"{flag} ({_first_keys(keys)}): {ADVICE[flag]}")


def _first_keys(keys: Sequence[str]) -> str:
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def _limits(plan: Plan, info: EngineInfo) -> str:
    limits = plan.challenge.limits
    text = (
        f"{format_bytes(limits.memory_bytes)} memory, {limits.processes} processes, "
        f"{format_bytes(limits.output_bytes)} output, {plan.deadline_s / 60:.0f} min in all"
    )
    if info.name is EngineName.PROCESS:
        text += "; sampled, so a quick peak can slip through"
    if plan.changed_limits:
        text += f"; not the challenge's: {', '.join(plan.changed_limits)}"
    return text


def seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f} s"


def _short(image_id: str) -> str:
    algorithm, _, digest = image_id.partition(":")
    return f"{algorithm}:{digest[:12]}" if digest else image_id[:12]


def relative(path: Path) -> str:
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
