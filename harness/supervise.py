"""Staying with a submission until it ends, or must be ended; and what was observed meanwhile."""

from __future__ import annotations

import dataclasses
import time
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

from harness import watchdog
from harness.collect import tree_use
from harness.disk import Fall, FreeSpace
from harness.ending import Cut, CutRecord, EndingRecord, exit_signal
from harness.engine.base import Usage
from harness.errors import ProbeError
from harness.paced import PacedLook
from harness.probe.realtime import Precision
from harness.probe.trace import Event, FileEvent, Placement, Root, Trace, TraceTail
from harness.timing import time_pairs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from harness.challenge.pairs import Pair
    from harness.collect import TreeUse
    from harness.engine.base import Execution, ExitState, ScratchUse
    from harness.machine.samples import MachineWatch
    from harness.plan import Plan
    from harness.probe.client import Probe
    from harness.store import RunDirectory
    from harness.timing import PairTiming

T = TypeVar("T")

_POLL_S = 0.1
_LOOK_S = 1.0  # between two looks at the output folder and the machine
# Of one processor, as long as looks are quick. One that takes long comes again after five seconds
# at the latest, and so takes more: what makes it slow is the submission's doing, and a quick disk
# takes gigabytes a second.
_LOOK_SHARE = 0.05
_LOOK_PAUSE_S = 5.0
# Of a limit: the free space must have fallen by that much to call for a look before its time, or a
# submission just below its limit would be looked at all the time.
_LEAST_LEFT = 0.05
_RECLAIM_S = 2.0  # for the kernel to free what nobody can reach any more


class Supervisor:
    """``on_field`` is told of each field that is completed: a timing that is provisional, since a
    later pair that shares an input may still change it. ``storage``: where the engine keeps what a
    submission writes outside of its output folder, if on this machine."""

    def __init__(
        self,
        plan: Plan,
        run_dir: RunDirectory,
        probe: Probe,
        watch: MachineWatch,
        on_field: Callable[[PairTiming], None],
        *,
        storage: Path | None = None,
    ) -> None:
        self._limits = plan.challenge.limits
        self._deadline_s = plan.deadline_s
        self._isolation = plan.isolation
        self._run_dir = run_dir
        self._probe = probe
        self._watch = watch
        self._fields = _LiveFields(plan.pairs, on_field)
        self._pairs = watchdog.PairClock(plan.pairs)
        self._life = watchdog.LifeSigns(self._limits.idle_time_s)
        self._started_s = self._next_look_s = time.monotonic()
        self._disk = FreeSpace(run_dir.path)
        self._engine_disk = _other_disk(storage, self._disk)
        self._reclaimed_bytes: int | None = None
        self._is_alone = False
        self._usage = Usage()
        self._output: TreeUse | None = None
        self._scratch: ScratchUse | None = None  # at the last look
        self._most_scratch: ScratchUse | None = None
        self.cut: CutRecord | None = None
        self._duration_s: float | None = None
        self._has_started = False

    @property
    def duration_s(self) -> float:
        """From its start to its end, or until now, where an engine that failed hides the end."""
        if self._duration_s is not None:
            return self._duration_s
        return self._now_s() if self._has_started else 0.0

    @property
    def started_ns(self) -> int:
        """When it started, on the trace's clock; now, where it did not."""
        return round(self._started_s * 1e9)

    def stay(self, execution: Execution) -> ExitState | None:
        """From its start until it has ended by itself; None when it must be ended: see ``cut``."""
        self._has_started = True
        self._started_s = self._next_look_s = time.monotonic()
        outputs = _WatchedLook(self._look_at_output, (self._disk,))
        scratches = _WatchedLook(execution.scratch, self._disks())
        with closing(TraceTail(self._run_dir.growing_trace)) as tail:
            while (state := execution.wait(_POLL_S)) is None:
                self._read(tail)
                self._look(execution)
                self._saw_output(outputs.poll(self._output_left_bytes()))
                self._saw_scratch(scratches.poll(self._scratch_left_bytes()))
                if self.cut is not None:
                    return None
            self._read(tail)
        outputs.finish()
        return state

    def interrupted(self) -> None:
        """Somebody asked the harness to stop, which counts unless there was a reason before."""
        self._end(CutRecord(reason=Cut.INTERRUPTED, after_s=self._now_s()))

    def finish(self, execution: Execution) -> None:
        """The last look, once it is gone: a limit that was broken in the last second was broken."""
        self._duration_s = self._now_s()
        self._saw_usage(execution.usage())
        for disk in self._disks():
            disk.look_after_the_end()
        self._saw_output(self._look_at_output())
        if self.cut is None or self.cut.reason is Cut.DISK_FULL:
            self._saw_scratch(execution.scratch())

    def saw_trace(self, trace: Trace) -> None:
        """All that the witness saw, once it has ended."""
        self._fields.saw_all(trace.events)

    def gone(self) -> None:
        """Its container is removed: what it hid on a disk that was full is free again by now, or
        will be in a moment."""
        if self.cut is None or self.cut.reason is not Cut.DISK_FULL or not self._is_alone:
            return
        until_s = time.monotonic() + _RECLAIM_S
        while True:
            came_back = max(disk.came_back_bytes() for disk in self._disks())
            self._reclaimed_bytes = max(came_back, self._reclaimed_bytes or 0)
            if time.monotonic() >= until_s:
                return
            time.sleep(_POLL_S)

    def ending(self, state: ExitState | None, failure: str | None) -> EndingRecord:
        exit_code = None if state is None else state.exit_code
        engine_disk = self._engine_disk
        return EndingRecord(
            exit_code=exit_code,
            exit_signal=exit_signal(exit_code),
            out_of_memory=None if state is None else state.out_of_memory,
            memory_peak_bytes=self._usage.memory_peak_bytes,
            memory_kills=self._usage.memory_kills,
            memory_limit_hits=self._usage.memory_limit_hits,
            refused_processes=self._usage.refused_processes,
            cpu_s=self._usage.cpu_s,
            cut=self.cut,
            engine_failure=failure,
            output_bytes=None if self._output is None else self._output.used_bytes,
            output_entries=None if self._output is None else self._output.entries,
            scratch_bytes=None if self._most_scratch is None else self._most_scratch.used_bytes,
            deleted_bytes=None if self._most_scratch is None else self._most_scratch.deleted_bytes,
            printed_bytes=self._usage.printed_bytes,
            open_files=self._usage.open_files,
            lowest_free_bytes=self._disk.lowest_bytes,
            free_floor_bytes=self._disk.floor_bytes,
            engine_lowest_free_bytes=engine_disk.lowest_bytes if engine_disk else None,
            engine_free_floor_bytes=engine_disk.floor_bytes if engine_disk else None,
            reclaimed_bytes=self._reclaimed_bytes,
            last_file_event_s=self._life.last_event_s,
            last_cpu_use_s=self._life.last_cpu_use_s,
            isolation=self._isolation,
        )

    def _now_s(self) -> float:
        return time.monotonic() - self._started_s

    def _end(self, cut: CutRecord | None) -> None:
        """The first recorded reason wins."""
        self.cut = self.cut or cut

    def _read(self, tail: TraceTail) -> None:
        try:
            new = [record for record in tail.new_records() if isinstance(record, FileEvent)]
        except ProbeError:  # what is wrong with the trace will be recorded when the run has ended
            return
        now_s = self._now_s()
        for event in new:
            self._pairs.saw(event, now_s)
            self._life.saw_event(now_s)
        self._fields.saw(new)

    def _look(self, execution: Execution) -> None:
        now_s = self._now_s()
        if time.monotonic() >= self._next_look_s:
            self._next_look_s = time.monotonic() + _LOOK_S
            usage = execution.usage()
            self._saw_usage(usage)
            self._watch.sample(usage.cpu_s)
            self._life.sample(now_s, usage.cpu_s)
        for disk in self._disks():
            free_bytes = disk.look()
            if disk.is_full() and self.cut is None:
                self._saw_output(self._look_at_output())  # over its own limit, it is to blame
                self._end(
                    watchdog.disk_cut(now_s, free_bytes=free_bytes, floor_bytes=disk.floor_bytes)
                )
                self._is_alone = execution.is_alone()
        cut = watchdog.time_cut(now_s, self._deadline_s, self._limits, self._pairs, self._life)
        if cut is not None and (cut.reason is Cut.TIMED_OUT or not self._probe.has_ended()):
            self._end(cut)  # a witness that is gone says nothing of a pair or a file

    def _look_at_output(self) -> TreeUse:
        return tree_use(self._run_dir.output_dir, self._limits.output_files)

    def _saw_usage(self, usage: Usage) -> None:
        """What can no longer be told stays as it was seen last."""
        seen = {name: value for name, value in vars(usage).items() if value is not None}
        self._usage = dataclasses.replace(self._usage, **seen)

    def _disks(self) -> tuple[FreeSpace, ...]:
        return (self._disk,) if self._engine_disk is None else (self._disk, self._engine_disk)

    def _output_left_bytes(self) -> int:
        limit_bytes = self._limits.output_bytes
        used_bytes = 0 if self._output is None else self._output.used_bytes
        return max(limit_bytes - used_bytes, int(_LEAST_LEFT * limit_bytes))

    def _scratch_left_bytes(self) -> int:
        limit_bytes = self._limits.scratch_bytes
        used_bytes = 0 if self._scratch is None else self._scratch.used_bytes
        return max(limit_bytes - used_bytes, int(_LEAST_LEFT * limit_bytes))

    def _saw_output(self, use: TreeUse | None) -> None:
        if use is None:
            return
        self._output = use
        self._end(
            watchdog.output_cut(
                self._now_s(),
                self._limits,
                used_bytes=use.used_bytes,
                entries=use.entries,
                unseen=use.unseen,
            )
        )

    def _saw_scratch(self, use: ScratchUse | None) -> None:
        if use is None:
            return
        self._scratch = use
        self._most_scratch = max(self._most_scratch or use, use, key=lambda one: one.used_bytes)
        self._end(watchdog.scratch_cut(self._now_s(), self._limits, use.used_bytes))


def _other_disk(storage: Path | None, disk: FreeSpace) -> FreeSpace | None:
    if storage is None:
        return None
    try:
        other = FreeSpace(storage)
    except OSError:  # not ours to look at
        return None
    return None if other.device == disk.device else other


class _WatchedLook(Generic[T]):
    """A look that is taken again and again, and at once when the free space of the disks has
    fallen by more than was left of the limit since the last look began."""

    def __init__(self, look: Callable[[], T], disks: tuple[FreeSpace, ...]) -> None:
        self._fall = Fall(disks)
        self._looks = PacedLook(
            partial(self._marked, look), every_s=_LOOK_S, share=_LOOK_SHARE, pause_s=_LOOK_PAUSE_S
        )

    def poll(self, left_bytes: int) -> T | None:
        if self._fall.fallen_bytes() > left_bytes:
            self._looks.hurry()
        return self._looks.poll()

    def finish(self) -> T | None:
        """Wait for a look that is under way."""
        return self._looks.finish()

    def _marked(self, look: Callable[[], T]) -> T:
        self._fall.mark()
        return look()


class _LiveFields:
    """Tells of each field that is completed.

    A name that was only created may be that of a file that is still being written, or of one that
    was linked there complete: which of both is known when the submission has ended.
    """

    def __init__(self, pairs: tuple[Pair, ...], on_field: Callable[[PairTiming], None]) -> None:
        self._pairs = pairs
        self._on_field = on_field
        self._events: list[FileEvent] = []
        self._announced: set[str] = set()

    def saw(self, new: list[FileEvent]) -> None:
        self._events.extend(new)
        if any(event.root is Root.OUTPUT for event in new):
            self._tell([e for e in self._events if e.event is not Event.CREATED])

    def saw_all(self, events: Sequence[FileEvent]) -> None:
        """The witness has ended: what it wrote last came after the submission's own end."""
        self._tell(events)

    def _tell(self, events: Sequence[FileEvent]) -> None:
        seen = Trace(
            placement=Placement.HOST,  # only the events matter here
            precision=Precision.PLAIN,
            events=tuple(events),
        )
        written = {event.path for event in events if event.root is Root.OUTPUT}
        for timing in time_pairs([_as_seen(pair, written) for pair in self._pairs], seen):
            if timing.finished_ns is not None and timing.key not in self._announced:
                self._announced.add(timing.key)
                self._on_field(timing)


def _as_seen(pair: Pair, written: set[str]) -> Pair:
    """The pair with the first of its field's names of which there was an event."""
    seen = (name for name in pair.field_names if str(name) in written)
    return dataclasses.replace(pair, field=next(seen, pair.field))
