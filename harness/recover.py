"""Finishing the runs of a harness that died: nothing of their finished pairs is lost.

A run whose harness lives, or cannot be judged from here, is never touched. Every step can be done
again: who is killed in the middle of a recovery leaves a run that can be recovered.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from harness.ending import Cut, CutRecord, EndingRecord
from harness.errors import OutputError
from harness.execute import take_over
from harness.gpu_record import Sampled
from harness.machine.contamination import Contamination
from harness.probe.salvage import salvage_trace
from harness.probe.trace import Placement
from harness.record import Conditions, Ended, make_record
from harness.sampler.samples import read_samples
from harness.started import read_start
from harness.store import RunDirectory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from harness.engine.base import Engine, EngineName
    from harness.engine.owner import Owner
    from harness.probe.salvage import Salvaged
    from harness.started import StartRecord
    from harness.store import RunRecord

_UNTOLD = "the harness ended before the run did"
_WITNESS_END_S = 3.0  # a witness whose harness has died writes its last lines within a moment
_POLL_S = 0.05
_NS = 1e-9


class Outcome(StrEnum):
    """What became of a run directory without a record.

    TIDIED       its record was there, and only what comes after that was not done
    RUNNING      its harness lives
    UNJUDGED     its harness ran on another machine, or where its processes cannot be seen
    UNSTARTED    its submission was never started: there is nothing to collect
    """

    RECOVERED = "recovered"
    TIDIED = "tidied"
    RUNNING = "running"
    UNJUDGED = "unjudged"
    UNSTARTED = "unstarted"


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """``start`` and ``record``: None where there is none."""

    directory: RunDirectory
    outcome: Outcome
    start: StartRecord | None = None
    record: RunRecord | None = None


def begun_runs(runs_dir: Path) -> tuple[RunDirectory, ...]:
    """Run directories that were started and not put away, in their order; whether they still run,
    :func:`recover` finds out."""
    return tuple(RunDirectory(path.parent) for path in sorted(runs_dir.glob("*/*/started.json")))


def recover(
    run_dir: RunDirectory,
    engine_of: Callable[[EngineName], Engine],
    *,
    given_up: Owner | None = None,
) -> Recovery:
    """Finish one run whose harness is dead.

    ``engine_of``: the engine of that name, which sweeps what still runs. ``given_up``: a harness
    that lives, and is known to have left this run unfinished, such as this process. Raises
    EngineError when the engine cannot be had or cannot end what is left, OutputError when what the
    run left cannot be read or its record cannot be written: the directory is then as it was.
    """
    if not run_dir.started_path.exists():
        return _without_start(run_dir)
    with _only_one(run_dir) as is_ours:
        if not is_ours:
            return Recovery(directory=run_dir, outcome=Outcome.RUNNING)
        if not run_dir.started_path.exists():  # another recovery was quicker
            return _without_start(run_dir)
        start = read_start(run_dir)
        if start.owner != given_up and not start.owner.is_dead():
            known = start.owner.can_be_judged
            outcome = Outcome.RUNNING if known else Outcome.UNJUDGED
            return Recovery(directory=run_dir, outcome=outcome, start=start)
        engine = engine_of(start.engine.name)
        _end_what_runs(run_dir, start, engine)
        if run_dir.record_path.exists():
            record, outcome = run_dir.read_record(), Outcome.TIDIED
        else:
            record, outcome = _finish(run_dir, start, engine), Outcome.RECOVERED
        run_dir.put_away(record)
        return Recovery(directory=run_dir, outcome=outcome, start=start, record=record)


def _without_start(run_dir: RunDirectory) -> Recovery:
    if not run_dir.record_path.exists():
        return Recovery(directory=run_dir, outcome=Outcome.UNSTARTED)
    return Recovery(directory=run_dir, outcome=Outcome.TIDIED, record=run_dir.read_record())


@contextmanager
def _only_one(run_dir: RunDirectory) -> Iterator[bool]:
    """False when another process recovers this run at the moment."""
    try:
        folder = os.open(run_dir.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise OutputError(f"{run_dir.path}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(folder)


def _end_what_runs(run_dir: RunDirectory, start: StartRecord, engine: Engine) -> None:
    """What still writes to the output folder must be gone before anything is collected."""
    engine.sweep()
    if left := engine.left_of(start.owner):
        raise OutputError(
            f"{run_dir.path}: {', '.join(left)} of this run cannot be removed, so its fields are "
            "not collected; remove it, then try `harness recover` again"
        )


def _finish(run_dir: RunDirectory, start: StartRecord, engine: Engine) -> RunRecord:
    try:
        doubt = take_over(start.plan(), engine, run_dir)
        salvaged = _salvage(run_dir, start)
        duration_s = _duration_s(run_dir, start, salvaged)
        run_dir.reserve_path.unlink(
            missing_ok=True
        )  # room for the record, should there be no other
        record = make_record(
            start.plan(),
            start.engine,
            run_dir,
            Ended(
                ending=EndingRecord(
                    cut=CutRecord(reason=Cut.HARNESS_DIED, after_s=duration_s),
                    last_file_event_s=_last_event_s(salvaged, duration_s),
                    isolation=start.isolation,
                ),
                duration_s=duration_s,
                reserved_cpu=start.reserved_cpu,
                doubt=doubt,
            ),
            replace(salvaged.trace, lost=(_UNTOLD, *salvaged.trace.lost)),
            Conditions(
                cache=start.cache,
                machine=start.machine,
                contamination=Contamination(verdict=None),
            ),
            repeat=start.repeat,
            wall_offset_ns=start.wall_offset_ns,
            sampled=_sampled(run_dir, start),
        )
        run_dir.compress_trace()
        run_dir.write_record(record)
    except OSError as error:
        raise OutputError(
            f"{error.filename or run_dir.path}: {error.strerror}; nothing is lost, try "
            "`harness recover` again once that is mended"
        ) from error
    return record


def _sampled(run_dir: RunDirectory, start: StartRecord) -> Sampled | None:
    """What the sampler saw, which ended with its harness."""
    if not start.gpus:
        return None
    growing, packed = run_dir.growing_samples, run_dir.samples_path
    samples = read_samples(growing if growing.exists() or not packed.exists() else packed)
    return Sampled(samples=samples, started_ns=start.monotonic_ns)


def _salvage(run_dir: RunDirectory, start: StartRecord) -> Salvaged:
    """The trace, once its witness has ended or must have."""
    growing = run_dir.growing_trace
    path = growing if growing.exists() or not run_dir.trace_path.exists() else run_dir.trace_path
    deadline_s = time.monotonic() + _WITNESS_END_S
    salvaged = salvage_trace(path)
    while (
        path == growing
        and "the witness ended early" in salvaged.trace.lost
        and not start.owner.was_before_restart
        and _age_s(path) < _WITNESS_END_S
        and time.monotonic() < deadline_s
    ):
        time.sleep(_POLL_S)
        salvaged = salvage_trace(path)
    return salvaged


def _age_s(path: Path) -> float:
    return time.time() - path.stat().st_mtime


def _duration_s(run_dir: RunDirectory, start: StartRecord, salvaged: Salvaged) -> float:
    """From the submission's start to the last sign of life: the witness ends with its harness.

    The clock of a witness in a container may be another kernel's: then from its own start.
    """
    if salvaged.first_ns is not None and salvaged.last_ns is not None:
        on_host = salvaged.trace.placement is Placement.HOST
        begun_ns = max(salvaged.first_ns, start.monotonic_ns) if on_host else salvaged.first_ns
        return max(0, salvaged.last_ns - begun_ns) * _NS
    if not run_dir.log_path.exists():
        return 0.0
    written_ns = run_dir.log_path.stat().st_mtime_ns - start.wall_offset_ns
    return max(0, written_ns - start.monotonic_ns) * _NS


def _last_event_s(salvaged: Salvaged, duration_s: float) -> float | None:
    """When the last file was touched, after the submission's start."""
    if salvaged.last_ns is None or not salvaged.trace.events:
        return None
    return max(0.0, duration_s - (salvaged.last_ns - salvaged.trace.events[-1].t_ns) * _NS)
