"""What a run's picture shows, in seconds since its start: a pure function, which draws nothing."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import TYPE_CHECKING

from harness.challenge.field_file import FieldState
from harness.probe.trace import Event, Root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from harness.probe.trace import FileEvent
    from harness.sampler.records import Header, Sample
    from harness.store import PairRecord, RunRecord

_NS = 1e-9
_MIB = 1 << 20
_COMPLETED = frozenset({Event.CLOSED, Event.MOVED_IN, Event.CREATED, Event.WRITTEN})
_GAP_PERIODS = 5  # of looks: where a curve is interrupted


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A pair's runtime. ``lane``: its place among the lanes of its task, from 0; pairs that overlap
    have different ones. ``is_valid``: its field is."""

    key: str
    task: str
    lane: int
    start_s: float
    end_s: float
    is_valid: bool
    flags: tuple[str, ...] = ()

    @property
    def runtime_s(self) -> float:
        return self.end_s - self.start_s


@dataclass(frozen=True, kw_only=True)
class Row:
    """A task's: its bars, and when its files were read and its fields written."""

    task: str
    lanes: int
    bars: tuple[Bar, ...]
    reads_s: tuple[float, ...]
    writes_s: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Of one GPU. A value is NaN where nothing is known, so that nothing is drawn there. With
    ``is_step`` a value is that of all the time since the one before."""

    gpu: str
    t_s: tuple[float, ...]
    values: tuple[float, ...]
    is_step: bool = False


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A curve as it is drawn. ``band``: the lowest and the highest of what each value is the mean
    of; None where each is one."""

    t_s: tuple[float, ...]
    values: tuple[float, ...]
    band: tuple[tuple[float, ...], tuple[float, ...]] | None = None


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One quantity of all GPUs. ``highest``: where its axis ends at least; None for the data's."""

    title: str
    curves: tuple[Curve, ...]
    highest: float | None = None


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """``idle``: stretches in which no pair's clock ran: set-up before the first, and between."""

    title: str
    subtitle: str
    duration_s: float
    rows: tuple[Row, ...]
    idle: tuple[tuple[float, float], ...]
    panels: tuple[Panel, ...]
    notes: tuple[str, ...] = ()

    @property
    def bars(self) -> tuple[Bar, ...]:
        return tuple(bar for row in self.rows for bar in row.bars)


def lay_out(
    record: RunRecord,
    events: Sequence[FileEvent],
    start_ns: float,
    *,
    header: Header | None = None,
    samples: Iterable[Sample] = (),
    notes: tuple[str, ...] = (),
) -> Timeline:
    """``start_ns``: of the submission, on the clock of ``events`` and ``samples``."""

    def seconds(t_ns: float) -> float:
        return (t_ns - start_ns) * _NS

    spans = {pair.key: span for pair, span in _spans(record.pairs, events, seconds)}
    rows = tuple(_row(record, task.name, spans, events, seconds) for task in record.tasks)
    last_s = max((end for _, end in spans.values()), default=0.0)
    duration_s = max(record.duration_s, last_s)
    gpus = () if header is None else _panels(header, tuple(samples), seconds)
    return Timeline(
        title=f"{record.submission}, run {record.run_id}",
        subtitle=f"{record.status.replace('_', ' ')}, {len(spans)} of {len(record.pairs)} pairs "
        f"timed, {duration_s:.1f} s",
        duration_s=duration_s,
        rows=tuple(row for row in rows if row.bars or row.reads_s),
        idle=tuple(_idle(sorted(spans.values()), duration_s)),
        panels=gpus,
        notes=notes,
    )


def _spans(
    pairs: Sequence[PairRecord], events: Sequence[FileEvent], seconds: Callable[[float], float]
) -> Iterator[tuple[PairRecord, tuple[float, float]]]:
    """From the start of each pair's clock to its field: the record has how long, the trace when."""
    finished = {
        event.path: seconds(event.t_ns)
        for event in events
        if event.root is Root.OUTPUT and event.event in _COMPLETED
    }
    for pair in pairs:
        end_s = None if pair.field_path is None else finished.get(pair.field_path)
        if end_s is not None and pair.runtime_s is not None:
            yield pair, (end_s - pair.runtime_s, end_s)


def _row(
    record: RunRecord,
    task: str,
    spans: dict[str, tuple[float, float]],
    events: Sequence[FileEvent],
    seconds: Callable[[float], float],
) -> Row:
    own = [pair for pair in record.pairs if pair.task == task and pair.key in spans]
    own.sort(key=lambda pair: spans[pair.key])
    free_s: list[float] = []  # when each lane is free again
    bars = []
    for pair in own:
        start_s, end_s = spans[pair.key]
        lane = next((n for n, until_s in enumerate(free_s) if until_s <= start_s), len(free_s))
        free_s[lane : lane + 1] = [end_s]
        bars.append(
            Bar(
                key=pair.key,
                task=task,
                lane=lane,
                start_s=start_s,
                end_s=end_s,
                is_valid=pair.field_state is FieldState.VALID,
                flags=tuple(pair.flags),
            )
        )
    here = [event for event in events if event.path.split("/", 1)[0] == task]
    return Row(
        task=task,
        lanes=max(1, len(free_s)),
        bars=tuple(bars),
        reads_s=tuple(seconds(e.t_ns) for e in here if e.root is Root.DATA),
        writes_s=tuple(
            seconds(e.t_ns) for e in here if e.root is Root.OUTPUT and e.event in _COMPLETED
        ),
    )


def _idle(spans: Sequence[tuple[float, float]], duration_s: float) -> Iterator[tuple[float, float]]:
    covered_to_s = 0.0
    for start_s, end_s in spans:
        if start_s > covered_to_s:
            yield covered_to_s, start_s
        covered_to_s = max(covered_to_s, end_s)
    if duration_s > covered_to_s:
        yield covered_to_s, duration_s


def _panels(
    header: Header, samples: tuple[Sample, ...], seconds: Callable[[float], float]
) -> tuple[Panel, ...]:
    found = [[one for one in samples if one.gpu == place] for place in range(len(header.gpus))]
    names = [f"GPU {gpu.index}" for gpu in header.gpus]
    gap_s = _GAP_PERIODS * header.period_ns * _NS
    limits = [gpu.power_limit_mw / 1000 for gpu in header.gpus if gpu.power_limit_mw is not None]

    def panel(title: str, value: Callable[[Sample], float | None], highest: float | None) -> Panel:
        points = [[(seconds(one.t_ns), _or_nan(value(one))) for one in own] for own in found]
        return _panel(title, names, [_interrupted(of, gap_s) for of in points], highest)

    busy = [_busy(own, seconds) for own in found]
    made = (
        _panel("GPU busy (%)", names, busy, 100.0, is_step=True),
        panel("power (W)", lambda one: _scaled(one.power_mw, 1000), max(limits, default=None)),
        # To the data's own height: a hundredth of a GPU's memory would be a flat line.
        panel("memory (MiB)", lambda one: _scaled(one.memory_used_bytes, _MIB), None),
    )
    return tuple(one for one in made if one.curves)


def _scaled(value: int | None, unit: float) -> float | None:
    return None if value is None else value / unit


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _busy(own: Sequence[Sample], seconds: Callable[[float], float]) -> list[tuple[float, float]]:
    """Entries of the driver, which say of the time since the one before."""
    return [(seconds(b.t_ns), 100 * b.ratio) for one in own for b in one.busy or ()]


def _interrupted(points: list[tuple[float, float]], gap_s: float) -> list[tuple[float, float]]:
    """With a NaN in the midst of each gap: no line is drawn over what nobody saw."""
    found = points[:1]
    for (before_s, _), (t_s, value) in pairwise(points):
        if t_s - before_s > gap_s:
            found.append(((before_s + t_s) / 2, math.nan))
        found.append((t_s, value))
    return found


def _panel(
    title: str,
    names: Sequence[str],
    points: Sequence[list[tuple[float, float]]],
    highest: float | None,
    *,
    is_step: bool = False,
) -> Panel:
    return Panel(
        title=title,
        highest=highest,
        curves=tuple(
            Curve(
                gpu=name,
                t_s=tuple(t_s for t_s, _ in own),
                values=tuple(value for _, value in own),
                is_step=is_step,
            )
            for name, own in zip(names, points, strict=True)
            if not all(math.isnan(value) for _, value in own)
        ),
    )


def slowest(bars: Sequence[Bar], count: int) -> tuple[Bar, ...]:
    """The slowest of them, the slowest first."""
    return tuple(sorted(bars, key=lambda bar: (-bar.runtime_s, bar.key))[:count])


def ticks_apart(moments_s: Sequence[float], least_s: float) -> tuple[float, ...]:
    """Without those that lie nearer to one that is kept than ``least_s``: a thousand ticks on top
    of each other only make a picture large."""
    kept: list[float] = []
    moments = sorted(moments_s)
    at = 0
    while at < len(moments):
        kept.append(moments[at])
        at = bisect_left(moments, moments[at] + least_s, at + 1)
    return tuple(kept)


def thinned(curve: Curve, points: int) -> Drawn:
    """At most some ``points`` of it: neighbours become their mean. What is not known stays so."""
    step = -(-len(curve.t_s) // points)
    if step <= 1:
        return Drawn(t_s=curve.t_s, values=curve.values)
    starts = range(0, len(curve.t_s), step)
    groups = [curve.values[at : at + step] for at in starts]
    known = [[value for value in group if not math.isnan(value)] for group in groups]
    whole = [len(ours) * 2 > len(group) for ours, group in zip(known, groups, strict=True)]

    def of(summary: Callable[[list[float]], float]) -> tuple[float, ...]:
        pairs = zip(known, whole, strict=True)
        return tuple(summary(ours) if is_whole else math.nan for ours, is_whole in pairs)

    times = tuple(fmean(curve.t_s[at : at + step]) for at in starts)
    return Drawn(t_s=times, values=of(fmean), band=(of(min), of(max)))
