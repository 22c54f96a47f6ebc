"""The same submission several times: a fresh container and a run directory for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.execute import execute
from harness.interrupts import Interrupts
from harness.store import RepeatRecord, RunDirectory, RunRecord, RunStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from harness.engine.base import Engine
    from harness.execute import Progress
    from harness.plan import Plan
    from harness.probe.client import ChildProgram

    # Called before each run with its directory and number (1, 2, ...).
    View = Callable[[RunDirectory, int], AbstractContextManager[Callable[[Progress], None]]]


@dataclass(frozen=True, kw_only=True)
class EndedRun:
    directory: RunDirectory
    record: RunRecord


def execute_times(
    plan: Plan,
    engine: Engine,
    runs_dir: Path,
    times: int,
    view: View,
    ahead: ChildProgram | None = None,
) -> Iterator[EndedRun]:
    """One run after the other, as they end; an interrupted one is the last.

    ``ahead``: the first run's witness, see start_witness.
    """
    group: str | None = None
    interrupts = Interrupts()
    for index in range(1, times + 1):
        directory = RunDirectory.create(runs_dir, plan.submission)
        group = group or directory.run_id
        repeat = RepeatRecord(group=group, index=index, of=times) if times > 1 else None
        with view(directory, index) as on_progress:
            record = execute(
                plan,
                engine,
                directory,
                on_progress,
                repeat=repeat,
                ahead=ahead,
                interrupts=interrupts,
            )
        ahead = None
        yield EndedRun(directory=directory, record=record)
        if interrupts.asked_again() or record.status is RunStatus.INTERRUPTED:
            return


def published(runs: list[EndedRun]) -> EndedRun:
    """The run whose fields count: the first that succeeded, else the first."""
    return next((run for run in runs if run.record.status is RunStatus.SUCCEEDED), runs[0])


def worst_exit_code(runs: list[EndedRun]) -> int:
    return max(run.record.status.exit_code for run in runs)
