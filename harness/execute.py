"""One submission, one data set, one run directory."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from harness.cache import CacheMode, prepare_cache
from harness.collect import tree_use
from harness.engine.base import BindMount, Engine, EngineName, Execution, ExitState, RunSpec
from harness.errors import DataError, EngineError, OutputError, ProbeError
from harness.machine.fingerprint import take_fingerprint
from harness.machine.samples import MachineWatch
from harness.probe.realtime import Precision
from harness.probe.trace import Event, FileEvent, Placement, Root, Trace, TraceTail
from harness.record import INSIDE_REPORT, Conditions, Ended, make_record
from harness.runner.settings import CHALLENGE_VARIABLE, INSIDE_REPORT_VARIABLE
from harness.timing import time_pairs
from harness.verdict import Cut
from harness.witness import cpus_left, reserved_cpu, start_witness

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from harness.challenge.contract import Limits, Mount
    from harness.challenge.pairs import Pair
    from harness.collect import TreeUse
    from harness.plan import Plan
    from harness.probe.client import ChildProgram, Probe
    from harness.store import RepeatRecord, RunDirectory, RunRecord

_POLL_S = 0.1
_LOOK_S = 1.0  # between two looks at the output folder and the machine
_OUTPUT_LOOK_SHARE = 0.05  # of one processor, however much there is to look at
_STOP_GRACE_S = 5.0
_AT_ONCE = (Cut.OUTPUT_LIMIT, Cut.OUTPUT_UNSEEN)  # it would go on writing meanwhile
_CHALLENGE_TARGET = "/l2r/challenge.yaml"


class Step(StrEnum):
    """What just happened, for whoever shows progress."""

    WARMING = "warming"
    COOLING = "cooling"
    STARTED = "started"
    FIELD_WRITTEN = "field_written"
    COLLECTING = "collecting"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """``runtime_s`` is provisional: a later pair that shares an input may still change it."""

    step: Step
    pair: str | None = None
    runtime_s: float | None = None
    done: int = 0


def execute(
    plan: Plan,
    engine: Engine,
    run_dir: RunDirectory,
    on_progress: Callable[[Progress], None] = lambda _: None,
    *,
    repeat: RepeatRecord | None = None,
    ahead: ChildProgram | None = None,
) -> RunRecord:
    """Run the image over the pairs; the record, already stored. ``ahead``: see start_witness.

    A submission's failure is a result, not an exception. Raises DataError, ProbeError, EngineError
    or OutputError when the run could not even begin, OutputError when its record cannot be written.
    """
    _make_output(plan, run_dir)
    machine = take_fingerprint(f"{engine.info.name} {engine.info.version}")
    with _only_reader(plan.data_dir):
        warm = plan.cache is CacheMode.WARM
        on_progress(Progress(step=Step.WARMING if warm else Step.COOLING))
        inputs = (plan.data_dir / path for pair in plan.pairs for path in pair.inputs)
        cache = prepare_cache(plan.cache, inputs)
        with start_witness(plan, engine, run_dir, ahead) as probe:
            spec = _run_spec(plan, engine, run_dir, cpuset=cpus_left(engine, probe))
            watch = MachineWatch()  # after the probe, whose work is ours
            ended = _run_to_its_end(plan, engine, run_dir, spec, watch, on_progress)
            contamination = watch.finish()
            trace = _finish(probe)
    ended = dataclasses.replace(ended, reserved_cpu=reserved_cpu(probe))
    conditions = Conditions(cache=cache, machine=machine, contamination=contamination)
    on_progress(Progress(step=Step.COLLECTING))
    try:
        record = make_record(plan, engine.info, run_dir, ended, trace, conditions, repeat=repeat)
        run_dir.compress_trace()
        run_dir.write_record(record)
    except OSError as error:
        raise OutputError(
            f"{run_dir.path}: the run ended, and its record cannot be written ({error.strerror}); "
            f"what the submission wrote is in {run_dir.output_dir}"
        ) from error
    run_dir.discard_output()
    return record


@contextmanager
def _only_reader(data_dir: Path) -> Iterator[None]:
    """No other run may read the same files meanwhile: every opening would count as this run's."""
    folder = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(
                f"data folder {data_dir}: another run is reading it, and whoever opens a file "
                "counts; wait until it has ended, or give this run a copy of the data"
            ) from error
        yield
    finally:
        os.close(folder)


def _make_output(plan: Plan, run_dir: RunDirectory) -> None:
    """An empty output folder any user may write to, inside a run directory only its owner enters.

    The fields' folders are there before the submission starts: a folder made later would be watched
    a moment late.
    """
    names = {name for pair in plan.pairs for name in pair.field_names}
    folders = {run_dir.output_dir / name.parent for name in names}
    for folder in sorted({run_dir.output_dir, *folders}):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o777)
        except OSError as error:
            raise OutputError(f"output folder {folder}: {error.strerror}") from error


def _finish(probe: Probe) -> Trace:
    """What the witness saw. One that broke costs the runtimes, not the fields."""
    try:
        return probe.finish()
    except ProbeError as error:
        return Trace(
            placement=probe.header.placement,
            precision=probe.header.precision,
            events=(),
            lost=(f"the trace is unreadable: {error}",),
        )


def _run_spec(
    plan: Plan, engine: Engine, run_dir: RunDirectory, *, cpuset: tuple[int, ...] | None
) -> RunSpec:
    contract = plan.challenge.container
    output_target = next(mount.target for mount in contract.mounts if mount.source == "output")
    mounts = [_bind(mount, plan, run_dir) for mount in contract.mounts]
    environment = dict(contract.environment)
    in_process = engine.info.name is EngineName.PROCESS
    inside_root = str(run_dir.output_dir) if in_process else output_target
    environment[INSIDE_REPORT_VARIABLE] = f"{inside_root}/{INSIDE_REPORT}"
    if plan.challenge_file is None:
        environment[CHALLENGE_VARIABLE] = plan.challenge.name
    elif in_process:
        environment[CHALLENGE_VARIABLE] = str(plan.challenge_file)
    else:
        environment[CHALLENGE_VARIABLE] = _CHALLENGE_TARGET
        mounts.append(
            BindMount(source=plan.challenge_file, target=_CHALLENGE_TARGET, read_only=True)
        )
    return RunSpec(
        image=plan.image,
        name=f"harness-{run_dir.submission}-{run_dir.run_id}",
        mounts=tuple(mounts),
        limits=plan.challenge.limits,
        log_path=run_dir.log_path,
        arguments=contract.arguments,
        environment=environment,
        cpuset=cpuset,
        isolation=plan.isolation,
    )


def _bind(mount: Mount, plan: Plan, run_dir: RunDirectory) -> BindMount:
    if mount.source == "data":
        return BindMount(source=plan.data_dir / mount.path, target=mount.target, read_only=True)
    return BindMount(source=run_dir.output_dir, target=mount.target, read_only=False)


def _run_to_its_end(
    plan: Plan,
    engine: Engine,
    run_dir: RunDirectory,
    spec: RunSpec,
    watch: MachineWatch,
    on_progress: Callable[[Progress], None],
) -> Ended:
    """Start the submission and stay with it. An engine that fails on the way is recorded."""
    started = time.monotonic()
    exit_state: ExitState | None = None
    cut: Cut | None = None
    failure: str | None = None
    unseen: str | None = None
    try:
        with engine.prepare(spec) as execution:
            execution.start()
            started = time.monotonic()
            try:
                on_progress(Progress(step=Step.STARTED))
                stayed = _stay(plan, run_dir, execution, watch, started, on_progress)
                exit_state, cut, unseen = stayed.exit, stayed.cut, stayed.unseen
            except KeyboardInterrupt:
                cut = Cut.INTERRUPTED
            if cut is not None:  # recorded first: stopping may fail, and that is not the reason
                exit_state = execution.stop(0.0 if cut in _AT_ONCE else _STOP_GRACE_S)
    except EngineError as error:
        failure = str(error)
    return Ended(
        exit=exit_state,
        cut=cut,
        failure=failure,
        duration_s=time.monotonic() - started,
        unseen=unseen,
    )


@dataclass(frozen=True, kw_only=True)
class _Stayed:
    """How far a submission came: its exit, or why it must be ended."""

    exit: ExitState | None = None
    cut: Cut | None = None
    unseen: str | None = None


def _stay(
    plan: Plan,
    run_dir: RunDirectory,
    execution: Execution,
    watch: MachineWatch,
    started: float,
    on_progress: Callable[[Progress], None],
) -> _Stayed:
    """Until the submission has ended by itself, or must be ended at a limit."""
    limits = plan.challenge.limits
    next_look = next_output_look = started
    with _live_pairs(plan, run_dir, on_progress) as look:
        while (exit_state := execution.wait(_POLL_S)) is None:
            look()
            now = time.monotonic()
            if now - started > plan.deadline_s:
                return _Stayed(cut=Cut.TIMED_OUT)
            if now >= next_look:
                next_look = now + _LOOK_S
                watch.sample(execution.usage().cpu_s)
                if now >= next_output_look:
                    use = tree_use(run_dir.output_dir, limits.output_files)
                    took_s = time.monotonic() - now
                    next_output_look = now + took_s / _OUTPUT_LOOK_SHARE
                    if (cut := _output_cut(use, limits)) is not None:
                        return _Stayed(cut=cut, unseen=use.unseen)
        look(ended=True)
    return _Stayed(exit=exit_state)


def _output_cut(use: TreeUse, limits: Limits) -> Cut | None:
    if use.used_bytes > limits.output_bytes or use.entries > limits.output_files:
        return Cut.OUTPUT_LIMIT
    return None if use.unseen is None else Cut.OUTPUT_UNSEEN


@contextmanager
def _live_pairs(
    plan: Plan, run_dir: RunDirectory, on_progress: Callable[[Progress], None]
) -> Iterator[Callable[..., None]]:
    """A function that reports the fields completed since it was last called.

    A name that was only created may be that of a file that is still being written, or of one that
    was linked there complete: which of both is known when the submission has ended.
    """
    tail = TraceTail(run_dir.growing_trace)
    events: list[FileEvent] = []
    announced: set[str] = set()

    def look(*, ended: bool = False) -> None:
        try:
            new = [record for record in tail.new_records() if isinstance(record, FileEvent)]
        except ProbeError:  # what is wrong with the trace will be recorded when the run has ended
            return
        events.extend(new)
        if not ended and not any(event.root is Root.OUTPUT for event in new):
            return
        seen = Trace(
            placement=Placement.HOST,  # only the events matter here
            precision=Precision.PLAIN,
            events=tuple(e for e in events if ended or e.event is not Event.CREATED),
        )
        written = {event.path for event in events if event.root is Root.OUTPUT}
        for timing in time_pairs([_as_seen(pair, written) for pair in plan.pairs], seen):
            if timing.finished_ns is not None and timing.key not in announced:
                announced.add(timing.key)
                on_progress(
                    Progress(
                        step=Step.FIELD_WRITTEN,
                        pair=timing.key,
                        runtime_s=timing.runtime_s,
                        done=len(announced),
                    )
                )

    try:
        yield look
    finally:
        tail.close()


def _as_seen(pair: Pair, written: set[str]) -> Pair:
    """The pair with the first of its field's names of which there was an event."""
    seen = (name for name in pair.field_names if str(name) in written)
    return dataclasses.replace(pair, field=next(seen, pair.field))
