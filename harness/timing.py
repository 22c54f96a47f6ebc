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
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from dataclasses import dataclass
from enum import StrEnum
from statistics import median
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
    UNREAD = "unread"


ADVICE: Mapping[Flag, str] = {
    Flag.OVERLAPPED: (
        "its clock ran while an earlier pair was still being registered; open a pair's files only "
        "when the pair before it is written"
    ),
    Flag.PRELOADED: (
        "its files were opened only before the previous field was written; load each pair when its "
        "turn comes (nibabel.load alone opens the file)"
    ),
    Flag.REUSED_INPUT: (
        "an input came from an earlier pair's read; caching it is allowed, and the clock may then "
        "start at that earlier read"
    ),
    Flag.REWRITTEN: "its field was written more than once; the last write counts, so write it once",
    Flag.CHANGED_AFTER_CLOSE: (
        "its field changed after its last completed write; close the file before you go on"
    ),
    Flag.UNREAD: (
        "none of its inputs was opened before its field was written, so it has no runtime"
    ),
}


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
    pairs came one after the other.
    """

    task: str
    timed_pairs: int
    median_runtime_s: float
    makespan_per_pair_s: float
    overlap_ratio: float


def time_pairs(
    pairs: Sequence[Pair], trace: Trace, *, modified_ns: Mapping[str, int] | None = None
) -> tuple[PairTiming, ...]:
    """Timing of every pair, in the order given.

    ``modified_ns``: by pair key, when the field's content last changed according to its file
    system, on the trace's clock.
    """
    openings = _openings_by_path(trace.events)
    writes = _writes_by_path(trace.events)
    finished = {pair.key: _finished(writes.get(str(pair.field), ())) for pair in pairs}
    owned = _owned_openings(pairs, finished, openings)
    previous = _previous_finish(finished)
    return tuple(
        _time_pair(
            pair,
            finished=finished[pair.key],
            previous=previous.get(pair.key),
            owned=owned[pair.key],
            openings=openings,
            rewritten=_completed_writes(writes.get(str(pair.field), ())) > 1,
            modified_ns=(modified_ns or {}).get(pair.key),
        )
        for pair in pairs
    )


def time_task(task: str, timings: Iterable[PairTiming]) -> TaskTiming | None:
    """Sums over the pairs of ``task`` that have a runtime; None when none has."""
    spans = sorted(
        (t.started_ns, t.finished_ns)
        for t in timings
        if t.task == task and t.started_ns is not None and t.finished_ns is not None
    )
    if not spans:
        return None
    covered_ns = 0
    covered_to = spans[0][0]
    for start, finish in spans:
        covered_ns += max(0, finish - max(start, covered_to))
        covered_to = max(covered_to, finish)
    runtimes = [finish - start for start, finish in spans]
    return TaskTiming(
        task=task,
        timed_pairs=len(spans),
        median_runtime_s=median(runtimes) * _NS,
        makespan_per_pair_s=(covered_to - spans[0][0]) / len(spans) * _NS,
        overlap_ratio=sum(runtimes) / covered_ns if covered_ns else 1.0,
    )


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


def _finished(writes: Sequence[tuple[_Moment, Event]]) -> _Moment | None:
    """When the field was last completed; None when it never was, or is gone.

    A file that is opened and written is created, then closed. One that is linked to its final name
    is created only. Either way the last of these events completes it. A file that is written under
    another name as well is completed by that, as long as it is the field.
    """
    finished: _Moment | None = None
    for moment, event in writes:
        if event in _WRITES or (event is Event.WRITTEN and finished is not None):
            finished = moment
        elif event in _REMOVALS:
            finished = None
    return finished


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
