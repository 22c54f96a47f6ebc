"""Staying with a submission until it ends, or must be ended; and what was observed meanwhile."""

from __future__ import annotations

import dataclasses
import time
from contextlib import closing
from typing import TYPE_CHECKING

from harness import disk, watchdog
from harness.collect import tree_use
from harness.ending import Cut, CutRecord, EndingRecord, exit_signal
from harness.engine.base import Usage
from harness.errors import ProbeError
from harness.paced import PacedLook
from harness.probe.realtime import Precision
from harness.probe.trace import Event, FileEvent, Placement, Root, Trace, TraceTail
from harness.timing import time_pairs

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.challenge.pairs import Pair
    from harness.collect import TreeUse
    from harness.engine.base import Execution, ExitState, ScratchUse
    from harness.machine.samples import MachineWatch
    from harness.plan import Plan
    from harness.probe.client import Probe
    from harness.store import RunDirectory
    from harness.timing import PairTiming

_POLL_S = 0.1
_LOOK_S = 1.0  # between two looks at the output folder and the machine
_LOOK_SHARE = 0.05  # of one processor, however much there is to look at


class Supervisor:
    """``on_field`` is told of each field that is completed: a timing that is provisional, since a
    later pair that shares an input may still change it."""

    def __init__(
        self,
        plan: Plan,
        run_dir: RunDirectory,
        probe: Probe,
        watch: MachineWatch,
        on_field: Callable[[PairTiming], None],
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
        self._floor_bytes = disk.floor_bytes(run_dir.path)
        self._lowest_free_bytes = disk.free_bytes(run_dir.path)
        self._usage = Usage()
        self._output: TreeUse | None = None
        self._scratch: ScratchUse | None = None
        self.cut: CutRecord | None = None
        self._duration_s: float | None = None
        self._has_started = False

    @property
    def duration_s(self) -> float:
        """From its start to its end, or until now, where an engine that failed hides the end."""
        if self._duration_s is not None:
            return self._duration_s
        return self._now_s() if self._has_started else 0.0

    def stay(self, execution: Execution) -> ExitState | None:
        """From its start until it has ended by itself; None when it must be ended: see ``cut``."""
        self._has_started = True
        self._started_s = self._next_look_s = time.monotonic()
        outputs = PacedLook(self._look_at_output, every_s=_LOOK_S, share=_LOOK_SHARE)
        scratches = PacedLook(execution.scratch, every_s=_LOOK_S, share=_LOOK_SHARE)
        with closing(TraceTail(self._run_dir.growing_trace)) as tail:
            while (state := execution.wait(_POLL_S)) is None:
                self._read(tail)
                self._look(execution)
                self._saw_output(outputs.poll())
                self._saw_scratch(scratches.poll())
                if self.cut is not None:
                    return None
            self._read(tail, ended=True)
        outputs.finish()
        return state

    def interrupted(self) -> None:
        """Somebody asked the harness to stop, which counts unless there was a reason before."""
        self._end(CutRecord(reason=Cut.INTERRUPTED, after_s=self._now_s()))

    def finish(self, execution: Execution) -> None:
        """The last look, once it is gone: a limit that was broken in the last second was broken."""
        self._duration_s = self._now_s()
        self._saw_usage(execution.usage())
        self._saw_free()
        self._saw_output(self._look_at_output())

    def ending(self, state: ExitState | None, failure: str | None) -> EndingRecord:
        exit_code = None if state is None else state.exit_code
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
            scratch_bytes=None if self._scratch is None else self._scratch.used_bytes,
            deleted_bytes=None if self._scratch is None else self._scratch.deleted_bytes,
            printed_bytes=self._usage.printed_bytes,
            open_files=self._usage.open_files,
            lowest_free_bytes=self._lowest_free_bytes,
            free_floor_bytes=self._floor_bytes,
            last_file_event_s=self._life.last_event_s,
            last_cpu_use_s=self._life.last_cpu_use_s,
            isolation=self._isolation,
        )

    def _now_s(self) -> float:
        return time.monotonic() - self._started_s

    def _end(self, cut: CutRecord | None) -> None:
        """The first recorded reason wins."""
        self.cut = self.cut or cut

    def _read(self, tail: TraceTail, *, ended: bool = False) -> None:
        try:
            new = [record for record in tail.new_records() if isinstance(record, FileEvent)]
        except ProbeError:  # what is wrong with the trace will be recorded when the run has ended
            return
        now_s = self._now_s()
        for event in new:
            self._pairs.saw(event, now_s)
            self._life.saw_event(now_s)
        self._fields.saw(new, ended=ended)

    def _look(self, execution: Execution) -> None:
        now_s = self._now_s()
        if time.monotonic() >= self._next_look_s:
            self._next_look_s = time.monotonic() + _LOOK_S
            usage = execution.usage()
            self._saw_usage(usage)
            self._watch.sample(usage.cpu_s)
            self._life.sample(now_s, usage.cpu_s)
        free_bytes = self._saw_free()
        if free_bytes < self._floor_bytes:
            self._saw_output(self._look_at_output())  # over its own limit, it is to blame
            self._end(
                watchdog.disk_cut(now_s, free_bytes=free_bytes, floor_bytes=self._floor_bytes)
            )
        cut = watchdog.time_cut(now_s, self._deadline_s, self._limits, self._pairs, self._life)
        if cut is not None and (cut.reason is Cut.TIMED_OUT or not self._probe.has_ended()):
            self._end(cut)  # a witness that is gone says nothing of a pair or a file

    def _look_at_output(self) -> TreeUse:
        return tree_use(self._run_dir.output_dir, self._limits.output_files)

    def _saw_usage(self, usage: Usage) -> None:
        """What can no longer be told stays as it was seen last."""
        seen = {name: value for name, value in vars(usage).items() if value is not None}
        self._usage = dataclasses.replace(self._usage, **seen)

    def _saw_free(self) -> int:
        free_bytes = disk.free_bytes(self._run_dir.path)
        self._lowest_free_bytes = min(self._lowest_free_bytes, free_bytes)
        return free_bytes

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
        self._end(watchdog.scratch_cut(self._now_s(), self._limits, use.used_bytes))


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

    def saw(self, new: list[FileEvent], *, ended: bool) -> None:
        self._events.extend(new)
        if not ended and not any(event.root is Root.OUTPUT for event in new):
            return
        seen = Trace(
            placement=Placement.HOST,  # only the events matter here
            precision=Precision.PLAIN,
            events=tuple(e for e in self._events if ended or e.event is not Event.CREATED),
        )
        written = {event.path for event in self._events if event.root is Root.OUTPUT}
        for timing in time_pairs([_as_seen(pair, written) for pair in self._pairs], seen):
            if timing.finished_ns is not None and timing.key not in self._announced:
                self._announced.add(timing.key)
                self._on_field(timing)


def _as_seen(pair: Pair, written: set[str]) -> Pair:
    """The pair with the first of its field's names of which there was an event."""
    seen = (name for name in pair.field_names if str(name) in written)
    return dataclasses.replace(pair, field=next(seen, pair.field))
