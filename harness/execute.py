"""One submission, one data set, one run directory."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING

from harness.cache import CacheMode, prepare_cache
from harness.challenge.pairs import tops
from harness.data_lock import exclusive
from harness.disk import Reserve, check_room
from harness.ending import Cut
from harness.engine.base import BindMount, Engine, EngineName, ExitState, RunSpec
from harness.errors import DataError, EngineError, OutputError, ProbeError
from harness.gpu_watch import GpuWatch
from harness.interrupts import Interrupts
from harness.machine.fingerprint import take_fingerprint
from harness.machine.samples import MachineWatch
from harness.probe.trace import Trace
from harness.record import INSIDE_REPORT, Conditions, Ended, make_record
from harness.runner.settings import CHALLENGE_VARIABLE, INSIDE_REPORT_VARIABLE
from harness.started import StartRecord, write_start
from harness.supervise import Supervisor
from harness.witness import cpus_left, helper_image, reserved_cpu, start_witness

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.cache import CacheRecord
    from harness.challenge.contract import Mount
    from harness.ending import EndingRecord
    from harness.machine.fingerprint import Fingerprint
    from harness.plan import Plan
    from harness.probe.client import ChildProgram, Probe
    from harness.sampler.spec import Own
    from harness.store import RepeatRecord, RunDirectory, RunRecord
    from harness.timing import PairTiming

_STOP_GRACE_S = 5.0
# It would go on writing meanwhile.
_AT_ONCE = (Cut.OUTPUT_LIMIT, Cut.OUTPUT_UNSEEN, Cut.SCRATCH_LIMIT, Cut.DISK_FULL)
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
    interrupts: Interrupts | None = None,
) -> RunRecord:
    """Run the image over the pairs; the record, already stored. ``ahead``: see start_witness.
    ``interrupts`` tells whether one was put off until the record was stored.

    A submission's failure is a result, not an exception. Raises DataError, ProbeError, EngineError
    or OutputError when the run could not even begin, OutputError when its record cannot be written.
    """
    with interrupts or Interrupts() as guard, _begin(plan, run_dir) as reserve:
        return _execute(plan, engine, run_dir, on_progress, repeat, ahead, guard, reserve)


def _execute(
    plan: Plan,
    engine: Engine,
    run_dir: RunDirectory,
    on_progress: Callable[[Progress], None],
    repeat: RepeatRecord | None,
    ahead: ChildProgram | None,
    interrupts: Interrupts,
    reserve: Reserve,
) -> RunRecord:
    _make_output(plan, run_dir)
    machine = take_fingerprint(f"{engine.info.name} {engine.info.version}")
    warm = plan.cache is CacheMode.WARM
    on_progress(Progress(step=Step.WARMING if warm else Step.COOLING))
    inputs = (plan.data_dir / path for pair in plan.pairs for path in pair.inputs)
    cache = prepare_cache(plan.cache, inputs)
    with start_witness(plan, engine, run_dir, ahead) as probe, GpuWatch(plan, run_dir) as gpus:
        spec = _run_spec(plan, engine, run_dir, cpuset=cpus_left(engine, probe))
        watch = MachineWatch(asks_driver=not plan.gpus)  # after our helpers, whose work is ours
        tell = _Announcer(on_progress)
        supervisor = Supervisor(
            plan, run_dir, probe, watch, tell.field_written, storage=engine.storage
        )
        note = partial(_note_start, plan, engine, run_dir, spec, probe, cache, machine, repeat)
        ending = _run_to_its_end(engine, spec, supervisor, interrupts, on_progress, note, gpus.own)
        sampled = gpus.finish(supervisor.started_ns)
        contamination = watch.finish()
        trace = _finish(probe)
        supervisor.saw_trace(trace)
    ended = Ended(ending=ending, duration_s=supervisor.duration_s, reserved_cpu=reserved_cpu(probe))
    conditions = Conditions(cache=cache, machine=machine, contamination=contamination)
    on_progress(Progress(step=Step.COLLECTING))
    try:
        record = make_record(
            plan, engine.info, run_dir, ended, trace, conditions, repeat=repeat, sampled=sampled
        )
        run_dir.compress_trace()
        reserve.give_up()
        run_dir.write_record(record)
    except OSError as error:
        raise OutputError(
            f"{run_dir.path}: the run ended, and its record cannot be written ({error.strerror}); "
            f"what the submission wrote is in {run_dir.output_dir}"
        ) from error
    run_dir.put_away(record)
    return record


@contextmanager
def _begin(plan: Plan, run_dir: RunDirectory) -> Iterator[Reserve]:
    """The data for this run alone, enough room on the disk, and some kept for the record. A run
    that cannot have them leaves nothing behind."""
    limits, fields = plan.challenge.limits, [plan.challenge.task(p.task).field for p in plan.pairs]
    with ExitStack() as held:
        try:
            held.enter_context(exclusive(plan.data_dir))
            check_room(run_dir.path, fields, limits.log_bytes)
            reserve = Reserve(run_dir.reserve_path, len(fields))
        except (DataError, OutputError):
            with suppress(OSError):
                run_dir.path.rmdir()  # nothing began
            raise
        held.callback(reserve.give_up)
        yield reserve


class _Announcer:
    """Counts the fields that were written."""

    def __init__(self, on_progress: Callable[[Progress], None]) -> None:
        self._on_progress = on_progress
        self._done = 0

    def field_written(self, timing: PairTiming) -> None:
        self._done += 1
        self._on_progress(
            Progress(
                step=Step.FIELD_WRITTEN,
                pair=timing.key,
                runtime_s=timing.runtime_s,
                done=self._done,
            )
        )


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


def take_over(plan: Plan, engine: Engine, run_dir: RunDirectory) -> str | None:
    """Make the output this user's own, whoever the submission ran as; what is in the way of it."""
    try:
        engine.hand_over(run_dir.output_dir, lambda: helper_image(plan, engine))
    except EngineError as error:
        return f"some of the output belongs to another user, and fields may be unreadable: {error}"
    return None


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
        gpus=plan.gpus,
    )


def _note_start(
    plan: Plan,
    engine: Engine,
    run_dir: RunDirectory,
    spec: RunSpec,
    probe: Probe,
    cache: CacheRecord,
    machine: Fingerprint,
    repeat: RepeatRecord | None,
) -> None:
    """What another process needs to finish this run, should this one die."""
    start = StartRecord.of(
        plan,
        engine.info,
        run_name=spec.name,
        reserved_cpu=reserved_cpu(probe),
        cache=cache,
        machine=machine,
        repeat=repeat,
    )
    write_start(run_dir, start)


def _bind(mount: Mount, plan: Plan, run_dir: RunDirectory) -> BindMount:
    if mount.source == "data":
        return BindMount(
            source=plan.data_dir / mount.path,
            target=mount.target,
            read_only=True,
            only=tops(plan.tasks, plan.data_dir) if mount.is_whole_data else None,
        )
    return BindMount(source=run_dir.output_dir, target=mount.target, read_only=False)


def _run_to_its_end(
    engine: Engine,
    spec: RunSpec,
    supervisor: Supervisor,
    interrupts: Interrupts,
    on_progress: Callable[[Progress], None],
    note_start: Callable[[], None],
    tell_own: Callable[[Own | None], None],
) -> EndingRecord:
    """Start the submission and stay with it. An engine that fails on the way is recorded.

    ``note_start``: called when nothing but the start itself is missing; ``tell_own``: once it has
    started, with how its processes are told from others.
    """
    state: ExitState | None = None
    failure: str | None = None
    try:
        with engine.prepare(spec) as execution:
            note_start()
            try:
                execution.start()
                tell_own(execution.own())
                on_progress(Progress(step=Step.STARTED))
                state = supervisor.stay(execution)
            except KeyboardInterrupt:
                supervisor.interrupted()
            interrupts.closing()
            if state is None:  # its reason is recorded: stopping may fail, and that is not it
                cut = supervisor.cut
                at_once = cut is not None and cut.reason in _AT_ONCE
                state = execution.stop(0.0 if at_once else _STOP_GRACE_S)
            supervisor.finish(execution)
        supervisor.gone()
    except EngineError as error:
        failure = str(error)
    except KeyboardInterrupt:  # while it was made, or once more while it was stopped
        supervisor.interrupted()
    interrupts.closing()
    return supervisor.ending(state, failure)
