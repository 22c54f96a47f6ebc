"""Whether a submission must be ended at a limit: decisions alone, from what others observed.

All times are seconds since the submission started. An event counts from when it was read out of the
trace, at most a tenth of a second late: a limit needs no more, and the witness may have a clock of
its own.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from harness.ending import Cut, CutRecord
from harness.probe.trace import Event, Root

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.challenge.contract import Limits
    from harness.challenge.pairs import Pair
    from harness.probe.trace import FileEvent

_IDLE_CPUS = 0.01  # used by less than this of one CPU, a program does not compute
_COMPLETIONS = frozenset({Event.CLOSED, Event.MOVED_IN, Event.WRITTEN})


@dataclass(frozen=True, kw_only=True)
class Kept:
    """``pair`` has kept the run for ``kept_s``."""

    pair: str
    kept_s: float


class PairClock:
    """For how long one pair has kept the run.

    A pair that was read and has no field yet keeps it from its first access on, or from the last
    field that was completed, whichever is later: what was read ahead keeps nothing meanwhile. Of
    several such pairs the one that began first is meant, then the first of the challenge's list.
    """

    def __init__(self, pairs: Iterable[Pair]) -> None:
        self._unfinished: dict[str, None] = {}  # in the challenge's order
        self._readers: dict[str, list[str]] = {}
        self._fields: dict[str, str] = {}
        for pair in pairs:
            self._unfinished[pair.key] = None
            for path in pair.inputs:
                self._readers.setdefault(str(path), []).append(pair.key)
            self._fields.update((str(name), pair.key) for name in pair.field_names)
        self._read_s: dict[str, float] = {}
        self._created_s: dict[str, float] = {}
        self._completed_s = -inf

    def saw(self, event: FileEvent, now_s: float) -> None:
        if event.root is Root.DATA:
            readers = self._readers.get(event.path, [])
            self._believe_created(readers)
            for key in readers:
                self._read_s.setdefault(key, now_s)
            return
        field_of = self._fields.get(event.path)
        if field_of is None:
            return
        if event.event in _COMPLETIONS:
            self._complete(field_of, now_s)
        elif event.event is Event.CREATED and field_of in self._unfinished:
            self._created_s[field_of] = now_s

    def longest(self, now_s: float) -> Kept | None:
        started = [(self._read_s[key], key) for key in self._unfinished if key in self._read_s]
        if not started:
            return None
        began_s = min(max(read_s, self._completed_s) for read_s, _ in started)
        pair = next(key for read_s, key in started if max(read_s, self._completed_s) == began_s)
        return Kept(pair=pair, kept_s=now_s - began_s)

    def _believe_created(self, readers: list[str]) -> None:
        """A name that was created is a file that is being written, or one that was linked there
        complete. Who goes on to another pair's images has completed it."""
        for key, created_s in list(self._created_s.items()):
            if readers and key not in readers:
                self._complete(key, created_s)

    def _complete(self, key: str, now_s: float) -> None:
        self._created_s.pop(key, None)
        self._unfinished.pop(key, None)
        self._completed_s = max(self._completed_s, now_s)


class LifeSigns:
    """When a submission last did something. No figure for its CPU time: no opinion."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._samples: deque[tuple[float, float]] = deque()  # (when, CPU seconds so far)
        self.last_event_s: float | None = None
        self.last_cpu_use_s: float | None = None

    def saw_event(self, now_s: float) -> None:
        self.last_event_s = now_s

    def sample(self, now_s: float, cpu_s: float | None) -> None:
        if cpu_s is None:
            self._samples.clear()
            return
        if self._samples:
            then_s, before_s = self._samples[-1]
            cpu_s = max(cpu_s, before_s)  # processes that ended may take their time with them
            if cpu_s - before_s >= _IDLE_CPUS * (now_s - then_s):
                self.last_cpu_use_s = now_s
        self._samples.append((now_s, cpu_s))
        while len(self._samples) > 1 and self._samples[1][0] <= now_s - self._window_s:
            self._samples.popleft()

    def idle_s(self) -> float | None:
        """For how long there was no sign of life, when that is the whole window; else None."""
        if not self._samples:
            return None
        then_s, before_s = self._samples[0]
        now_s, cpu_s = self._samples[-1]
        quiet_s = now_s - then_s
        if quiet_s < self._window_s or cpu_s - before_s >= _IDLE_CPUS * quiet_s:
            return None
        if self.last_event_s is not None and self.last_event_s > then_s:
            return None
        return quiet_s


def time_cut(
    now_s: float, deadline_s: float, limits: Limits, pairs: PairClock, life: LifeSigns
) -> CutRecord | None:
    """The limit of time that is passed, if one is: the run's, a pair's, that of doing nothing."""
    if now_s > deadline_s:
        return CutRecord(
            reason=Cut.TIMED_OUT,
            after_s=now_s,
            limit_name="deadline_s",
            limit=deadline_s,
            observed=now_s,
        )
    kept = pairs.longest(now_s)
    if kept is not None and kept.kept_s > limits.longest_pair_s:
        return CutRecord(
            reason=Cut.PAIR_TIMED_OUT,
            after_s=now_s,
            limit_name="longest_pair_s",
            limit=limits.longest_pair_s,
            observed=kept.kept_s,
            subject=kept.pair,
        )
    idle_s = life.idle_s()
    if idle_s is not None:
        return CutRecord(
            reason=Cut.IDLE,
            after_s=now_s,
            limit_name="idle_time_s",
            limit=limits.idle_time_s,
            observed=idle_s,
        )
    return None


def output_cut(
    now_s: float, limits: Limits, *, used_bytes: int, entries: int, unseen: str | None
) -> CutRecord | None:
    """Too much of an output folder, or something in it that hides how much there is."""
    if used_bytes > limits.output_bytes:
        return CutRecord(
            reason=Cut.OUTPUT_LIMIT,
            after_s=now_s,
            limit_name="output_bytes",
            limit=limits.output_bytes,
            observed=used_bytes,
        )
    if entries > limits.output_files:
        return CutRecord(
            reason=Cut.OUTPUT_LIMIT,
            after_s=now_s,
            limit_name="output_files",
            limit=limits.output_files,
            observed=entries,
        )
    if unseen is not None:
        return CutRecord(reason=Cut.OUTPUT_UNSEEN, after_s=now_s, subject=unseen)
    return None


def scratch_cut(now_s: float, limits: Limits, used_bytes: int) -> CutRecord | None:
    if used_bytes <= limits.scratch_bytes:
        return None
    return CutRecord(
        reason=Cut.SCRATCH_LIMIT,
        after_s=now_s,
        limit_name="scratch_bytes",
        limit=limits.scratch_bytes,
        observed=used_bytes,
    )


def disk_cut(now_s: float, *, free_bytes: int, floor_bytes: int) -> CutRecord | None:
    if free_bytes >= floor_bytes:
        return None
    return CutRecord(
        reason=Cut.DISK_FULL,
        after_s=now_s,
        limit_name="free_bytes",
        limit=floor_bytes,
        observed=free_bytes,
    )
