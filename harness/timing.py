"""From a trace to the runtime of every pair: a pure function, and the rule it implements.

finished(p)  the last completed write of p's field: closed after writing, under whatever name, or
             moved or linked to its final name.
started(p)   the earliest opening of an input file that belongs to p. The opening of a file that
             several pairs share belongs to the pair with the earliest finish after it. When none
             belongs to p (all was cached), the first opening ever of any of its inputs.
runtime(p)   finished - started.
exclusive(p) the part of that after the pair that finished before p, in the same run, had finished.

Source: the challenge's definition of runtime, "from first access of the pair's data to the field
written to disk" (Learn2Reg 2021), made exact for loaders that share, cache or prefetch.

The rule can be cheated by those who compute first and open the files again only to write: the early
openings of a pair that shares both its images go to the pairs it shares them with. No rule over
openings alone prevents that, so it is looked for: see :data:`Flag.REPLAYED` and
:attr:`TaskTiming.uncovered_s`.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from dataclasses import dataclass, replace
from enum import StrEnum
from statistics import median, median_low
from typing import TYPE_CHECKING, NamedTuple

from harness.probe.trace import Event, Root

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from harness.challenge.pairs import Pair
    from harness.probe.trace import FileEvent, Trace

_NS = 1e-9
_WRITES = frozenset({Event.CREATED, Event.CLOSED, Event.MOVED_IN})
_REWRITES = frozenset({Event.CLOSED, Event.WRITTEN})
_REMOVALS = frozenset({Event.DELETED, Event.MOVED_OUT})
_EXCHANGE_NS = 1_000_000  # the events of one exchange of two names are stamped microseconds apart

# A runtime below this part of the task's pace cannot hold the work of a pair. All images of a task
# have one size, so honest runtimes differ little (the default method's: up to twofold, on a machine
# busy with other work), while a replay only reads and writes.
_REPLAY_RATIO = 0.25
# Between two pairs there may be clean-up, a log line, a first compilation: not a whole share.
_UNCOVERED_RATIO = 0.25
_UNCOVERED_MIN_S = 1.0


class _Moment(NamedTuple):
    """When, and as which event of the trace: events read from the kernel together share a time, and
    come in the order in which they happened."""

    t_ns: int
    order: int


class Flag(StrEnum):
    """What is unusual about a pair's timing. :data:`ADVICE` says what to change."""

    OVERLAPPED = "overlapped"
    PRELOADED = "preloaded"
    REUSED_INPUT = "reused_input"
    REWRITTEN = "rewritten"
    CHANGED_AFTER_CLOSE = "changed_after_close"
    REPLAYED = "replayed"
    UNREAD = "unread"


ADVICE: Mapping[Flag, str] = {
    Flag.OVERLAPPED: (
        "its clock ran while an earlier pair was still being registered; open a pair's files only "
        "when the field before it is written (a PyTorch DataLoader reads ahead unless "
        "num_workers=0, and nibabel.load alone opens a file)"
    ),
    Flag.PRELOADED: (
        "none of its files was opened after the field before it was written, so its wait counts; "
        "load each pair inside the loop that registers it, not all of them before"
    ),
    Flag.REUSED_INPUT: (
        "an input was kept from an earlier pair, which is allowed; when nothing is opened for a "
        "pair, its clock starts at that earlier read, so open its files again to be timed alone"
    ),
    Flag.REWRITTEN: (
        "its field was written more than once, and the last write counts; call "
        "np.savez_compressed once a pair, with no placeholder before it and no second pass after"
    ),
    Flag.CHANGED_AFTER_CLOSE: (
        "its field changed after it was completed, so its runtime is not the field's; leave the "
        "file alone once it is closed: no truncate, no touch, no other file moved in its place"
    ),
    Flag.REPLAYED: (
        "its images were known before and its runtime is far below what the task takes a pair; "
        "compute between opening a pair's files and writing its field, and keep the header rather "
        "than call nibabel.load again to save"
    ),
    Flag.UNREAD: (
        "none of its inputs was opened before its field was written, so it has no runtime; read "
        "them from the data folder in the run itself, and write the field after that"
    ),
}

UNCOVERED_ADVICE = (
    "prepare before you open the first image, and do a pair's work between opening its files and "
    "writing its field"
)


@dataclass(frozen=True, kw_only=True)
class PairTiming:
    """Times of one pair, in nanoseconds of the trace's clock; None where nothing was seen."""

    key: str
    task: str
    started_ns: int | None
    finished_ns: int | None
    exclusive_ns: int | None
    flags: frozenset[Flag] = frozenset()

    @property
    def runtime_s(self) -> float | None:
        if self.started_ns is None or self.finished_ns is None:
            return None
        return (self.finished_ns - self.started_ns) * _NS

    @property
    def exclusive_s(self) -> float | None:
        return None if self.exclusive_ns is None else self.exclusive_ns * _NS


@dataclass(frozen=True, kw_only=True)
class TaskTiming:
    """Sums of a task's timed pairs.

    ``makespan_per_pair_s`` is the time from the first start to the last finish, divided by the
    pairs; ``overlap_ratio`` the sum of runtimes over the time they cover together: 1.0 when the
    pairs came one after the other. ``uncovered_s`` is the part of the makespan in which no pair's
    clock ran, another task's included.
    """

    task: str
    timed_pairs: int
    median_runtime_s: float
    makespan_per_pair_s: float
    overlap_ratio: float
    uncovered_s: float

    @property
    def is_much_uncovered(self) -> bool:
        """More than what happens between two pairs explains: some pair's work may lie there."""
        makespan_s = self.makespan_per_pair_s * self.timed_pairs
        return self.uncovered_s > max(_UNCOVERED_RATIO * makespan_s, _UNCOVERED_MIN_S)


def time_pairs(
    pairs: Sequence[Pair], trace: Trace, *, modified_ns: Mapping[str, int] | None = None
) -> tuple[PairTiming, ...]:
    """Timing of every pair, in the order given.

    ``modified_ns``: by pair key, for every field that is there in the end, when its content last
    changed according to its file system, on the trace's clock.
    """
    modified_ns = modified_ns or {}
    openings = _openings_by_path(trace.events)
    writes = _writes_by_path(trace.events)
    finished = {
        pair.key: _finished(writes.get(str(pair.field), ()), is_there=pair.key in modified_ns)
        for pair in pairs
    }
    owned = _owned_openings(pairs, finished, openings)
    previous = _previous_finish(finished)
    timings = tuple(
        _time_pair(
            pair,
            finished=finished[pair.key],
            previous=previous.get(pair.key),
            owned=owned[pair.key],
            openings=openings,
            rewritten=_completed_writes(writes.get(str(pair.field), ())) > 1,
            modified_ns=modified_ns.get(pair.key),
        )
        for pair in pairs
    )
    replayed = _replayed(pairs, timings, openings)
    return tuple(
        replace(t, flags=t.flags | {Flag.REPLAYED}) if t.key in replayed else t for t in timings
    )


def time_task(task: str, timings: Iterable[PairTiming]) -> TaskTiming | None:
    """Sums over the pairs of ``task`` that have a runtime; None when none has.

    ``timings``: of all tasks, whose pairs may cover each other's time.
    """
    timed = [(t.task, t.started_ns, t.finished_ns) for t in timings]
    spans = [(name, s, f) for name, s, f in timed if s is not None and f is not None]
    own = [(start, finish) for name, start, finish in spans if name == task]
    if not own:
        return None
    first, last = min(start for start, _ in own), max(finish for _, finish in own)
    clipped = [(max(start, first), min(finish, last)) for _, start, finish in spans]
    runtimes = [finish - start for start, finish in own]
    covered_ns = _union_ns(own)
    return TaskTiming(
        task=task,
        timed_pairs=len(own),
        median_runtime_s=median(runtimes) * _NS,
        makespan_per_pair_s=(last - first) / len(own) * _NS,
        overlap_ratio=sum(runtimes) / covered_ns if covered_ns else 1.0,
        uncovered_s=(last - first - _union_ns(clipped)) * _NS,
    )


def _union_ns(spans: Iterable[tuple[int, int]]) -> int:
    """Time that at least one of the spans covers; one that ends before it starts covers none."""
    covered_ns = 0
    covered_to: int | None = None
    for start, finish in sorted(spans):
        begin = start if covered_to is None else max(start, covered_to)
        covered_ns += max(0, finish - begin)
        covered_to = max(begin, finish)
    return covered_ns


def _openings_by_path(events: Iterable[FileEvent]) -> dict[str, list[_Moment]]:
    openings: dict[str, list[_Moment]] = {}
    for order, event in enumerate(events):
        if event.root is Root.DATA and event.event is Event.OPEN:
            openings.setdefault(event.path, []).append(_Moment(event.t_ns, order))
    return openings


def _writes_by_path(events: Iterable[FileEvent]) -> dict[str, list[tuple[_Moment, Event]]]:
    writes: dict[str, list[tuple[_Moment, Event]]] = {}
    for order, event in enumerate(events):
        if event.root is Root.OUTPUT:
            moment = _Moment(event.t_ns, order)
            writes.setdefault(event.path, []).append((moment, event.event))
    return writes


def _finished(writes: Sequence[tuple[_Moment, Event]], *, is_there: bool) -> _Moment | None:
    """When the field was last completed; None when it never was, or is gone.

    A file that is opened and written is created, then closed. One that is linked to its final name
    is created only. Either way the last of these events completes it. A file that is written under
    another name as well is completed by that, as long as it is the field. An exchange of two names
    looks like moving in and out again; only that the field ``is_there`` in the end tells.
    """
    finished: _Moment | None = None
    gone: _Moment | None = None  # when it was completed, if it moved out right after moving in
    before: Event | None = None
    for moment, event in writes:
        if event in _WRITES or (event is Event.WRITTEN and finished is not None):
            finished, gone = moment, None
        elif event is Event.WRITTEN and gone is not None:
            gone = moment
        elif event in _REMOVALS:
            was_exchanged = (
                finished is not None
                and (before, event) == (Event.MOVED_IN, Event.MOVED_OUT)
                and moment.t_ns - finished.t_ns < _EXCHANGE_NS
            )
            finished, gone = None, finished if was_exchanged else None
        before = event
    return gone if finished is None and is_there else finished


def _completed_writes(writes: Sequence[tuple[_Moment, Event]]) -> int:
    """How often the final name got a new content; a creation counts when no close follows it."""
    kinds = [event for _, event in writes if event in _WRITES | _REWRITES]
    following = [*kinds, None][1:]
    return sum(
        kind is not Event.CREATED or after not in _REWRITES
        for kind, after in zip(kinds, following, strict=True)
    )


def _owned_openings(
    pairs: Sequence[Pair],
    finished: Mapping[str, _Moment | None],
    openings: Mapping[str, Sequence[_Moment]],
) -> dict[str, dict[str, list[_Moment]]]:
    """For each pair: the openings that belong to it, by file."""
    sharers: dict[str, list[tuple[_Moment, str]]] = {}
    for pair in pairs:
        finish = finished[pair.key]
        if finish is not None:
            for path in pair.inputs:
                sharers.setdefault(str(path), []).append((finish, pair.key))
    owned: dict[str, dict[str, list[_Moment]]] = {pair.key: {} for pair in pairs}
    for shared, finishes in sharers.items():
        finishes.sort()
        for moment in openings.get(shared, ()):
            index = bisect_left(finishes, (moment, ""))
            if index < len(finishes):
                owned[finishes[index][1]].setdefault(shared, []).append(moment)
    return owned


def _previous_finish(finished: Mapping[str, _Moment | None]) -> dict[str, _Moment]:
    """For each finished pair but the first: when the pair that finished before it did."""
    order = sorted((finish, key) for key, finish in finished.items() if finish is not None)
    return {key: before for (before, _), (_, key) in itertools.pairwise(order)}


def _time_pair(
    pair: Pair,
    *,
    finished: _Moment | None,
    previous: _Moment | None,
    owned: Mapping[str, Sequence[_Moment]],
    openings: Mapping[str, Sequence[_Moment]],
    rewritten: bool,
    modified_ns: int | None,
) -> PairTiming:
    first_opened = {
        str(path): openings[str(path)][0]
        for path in pair.inputs
        if finished is not None and str(path) in openings and openings[str(path)][0] < finished
    }
    flags = {Flag.REWRITTEN} if rewritten else set()
    if finished is not None and modified_ns is not None and modified_ns > finished.t_ns:
        flags.add(Flag.CHANGED_AFTER_CLOSE)
    if finished is None or not first_opened:
        return PairTiming(
            key=pair.key,
            task=pair.task,
            started_ns=None,
            finished_ns=finished.t_ns if finished else None,
            exclusive_ns=None,
            flags=frozenset(flags | {Flag.UNREAD}) if finished else frozenset(),
        )
    own = [moment for moments in owned.values() for moment in moments]
    started = min(own, default=min(first_opened.values()))
    if any(path not in owned for path in first_opened):
        flags.add(Flag.REUSED_INPUT)
    if previous is not None and started < previous:
        flags.add(Flag.OVERLAPPED)
        if not any(moment > previous for moment in own):
            flags.add(Flag.PRELOADED)
    begun = started if previous is None else max(started, previous)
    return PairTiming(
        key=pair.key,
        task=pair.task,
        started_ns=started.t_ns,
        finished_ns=finished.t_ns,
        exclusive_ns=finished.t_ns - begun.t_ns,
        flags=frozenset(flags),
    )


def _replayed(
    pairs: Sequence[Pair],
    timings: Sequence[PairTiming],
    openings: Mapping[str, Sequence[_Moment]],
) -> frozenset[str]:
    """Pairs that may have been computed before their clock started.

    Both images had been opened before, and the runtime is far below the task's pace: the mean
    (makespan/N) and that of the pairs that came with a new image, whose work cannot have begun
    before their clock did. The lower of their medians, because the first pair often compiles.
    """
    known: set[str] = set()
    fresh: dict[str, list[float]] = {}
    for pair, timing in zip(pairs, timings, strict=True):
        if timing.started_ns is None or timing.runtime_s is None:
            continue
        images = [openings.get(str(path)) for path in (pair.fixed, pair.moving)]
        if all(opened and opened[0].t_ns < timing.started_ns for opened in images):
            known.add(pair.key)
        else:
            fresh.setdefault(pair.task, []).append(timing.runtime_s)
    sums = {task: time_task(task, timings) for task in fresh}
    limits_s = {
        task: _REPLAY_RATIO * min(found.makespan_per_pair_s, median_low(fresh[task]))
        for task, found in sums.items()
        if found is not None
    }
    return frozenset(
        timing.key
        for timing in timings
        if timing.key in known
        and timing.runtime_s is not None
        and timing.runtime_s < limits_s.get(timing.task, 0.0)
    )
