"""From the samples of a run's GPUs to the figures of every pair: a pure function, and its rules.

A pair's stretch of time is that of its runtime, from the first access of its data to its field
written. All that the GPU did in it is in its figures: where stretches overlap, as those of a loader
that reads ahead, what was done in the time that they share is in each of theirs, and they are
marked so. The rest of the run is before, between and after the pairs; with what some pair covers,
counted once, it adds up to the run's.

Where the counters of a GPU are too slow for a stretch there is no figure, and a reason: see
:mod:`harness.gpu_bounds` for how far each can be trusted.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from harness.gpu_bounds import (
    GAP_STEPS,
    Bounded,
    BusyTime,
    EnergyCounter,
    PowerIntegral,
    Span,
    gaps_ns,
    is_gap,
    length_ns,
    unknown_for,
)
from harness.gpu_figures import (
    EnergySource,
    ForeignGpuProcess,
    GpuDevice,
    GpuFigures,
    GpusRecord,
    GpuStretch,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from harness.sampler.records import End, Gpu, Header, Sample
    from harness.timing import PairTiming

_NS = 1e-9
# NVML's nvmlClocksEventReason... bits (nvml.h). Others, such as idle, are no throttling.
POWER_CAP = 0x4
HARDWARE_SLOWDOWN = 0x8  # alone where a GPU does not tell which of the next
THERMAL = 0x20 | 0x40  # by the driver, by the hardware
POWER_BRAKE = 0x80
_MIN_LOOKS = 2
_MIN_TOLD_RATIO = 0.5  # of the looks of a stretch, for a mean or a maximum


@dataclass(frozen=True, kw_only=True)
class GpuTiming:
    """``pairs``: by key, of those that have a runtime."""

    record: GpusRecord
    pairs: dict[str, GpuStretch]


def time_gpus(
    header: Header,
    samples: Iterable[Sample],
    end: End | None,
    timings: Sequence[PairTiming],
    run: Span,
    *,
    problem: str | None = None,
) -> GpuTiming:
    """``run``: from the submission's start to its end. ``problem``: why there may be samples
    missing, where ``end`` does not say."""
    by_place: list[list[Sample]] = [[] for _ in header.gpus]
    for sample in samples:
        by_place[sample.gpu].append(sample)
    series = [
        _Series(place, gpu, sorted(found, key=lambda one: one.t_ns), header.period_ns)
        for place, (gpu, found) in enumerate(zip(header.gpus, by_place, strict=True))
    ]
    windows = {
        t.key: Span(t.started_ns, t.finished_ns)
        for t in timings
        if t.started_ns is not None and t.finished_ns is not None and t.started_ns < t.finished_ns
    }
    shared = _overlapping(windows)
    pairs = {
        key: _stretch([window], series, overlaps=key in shared) for key, window in windows.items()
    }
    before, covered, between, after = _parts(windows.values(), run)
    lost = {} if end is None else end.absent
    record = GpusRecord(
        driver=header.driver,
        devices=tuple(one.device(lost.get(one.place, {})) for one in series),
        period_s=header.period_ns * _NS,
        looks=max((len(found) for found in by_place), default=0),
        missed=None if end is None else end.missed,
        cpu_s=None if end is None else end.cpu_s,
        problem=problem if end is None or end.problem is None else end.problem,
        run=_stretch([run], series) if run.start_ns < run.end_ns else None,
        before=_stretch(before, series) if before else None,
        pairs=_stretch(covered, series) if covered else None,
        between=_stretch(between, series) if between else None,
        after=_stretch(after, series) if after else None,
        foreign=tuple(found for one in series for found in one.foreign(run)),
    )
    return GpuTiming(record=record, pairs=pairs)


def _overlapping(windows: dict[str, Span]) -> frozenset[str]:
    """Pairs of whose window another one's covers a part."""
    found: set[str] = set()
    longest_key, longest_end = "", None
    for key, window in sorted(windows.items(), key=lambda item: item[1]):
        if longest_end is not None and window.start_ns < longest_end:
            found |= {key, longest_key}
        if longest_end is None or window.end_ns > longest_end:
            longest_key, longest_end = key, window.end_ns
    return frozenset(found)


class _Parts(NamedTuple):
    before: list[Span]
    covered: list[Span]
    between: list[Span]
    after: list[Span]


def _parts(windows: Iterable[Span], run: Span) -> _Parts:
    """The run's time, cut where pairs begin and end."""
    covered: list[Span] = []
    for start_ns, end_ns in sorted(windows):
        start, end = max(start_ns, run.start_ns), min(end_ns, run.end_ns)
        if covered and start <= covered[-1].end_ns:
            covered[-1] = Span(covered[-1].start_ns, max(end, covered[-1].end_ns))
        elif start < end:
            covered.append(Span(start, end))
    if not covered:
        return _Parts(_some(run), [], [], [])
    between = [Span(a.end_ns, b.start_ns) for a, b in itertools.pairwise(covered)]
    return _Parts(
        before=_some(Span(run.start_ns, covered[0].start_ns)),
        covered=covered,
        between=between,
        after=_some(Span(covered[-1].end_ns, run.end_ns)),
    )


def _some(span: Span) -> list[Span]:
    return [span] if span.start_ns < span.end_ns else []


def _stretch(
    spans: Sequence[Span], series: Sequence[_Series], *, overlaps: bool = False
) -> GpuStretch:
    gpus = tuple(one.figures(spans) for one in series)
    duration_s = length_ns(spans) * _NS
    busy_s = _sum(figures.busy_s for figures in gpus)
    return GpuStretch(
        duration_s=duration_s,
        overlaps=overlaps,
        busy_s=busy_s,
        busy_uncertainty_s=_sum(figures.busy_uncertainty_s for figures in gpus),
        busy_ratio=None if busy_s is None else busy_s / (duration_s * len(gpus)),
        energy_j=_sum(figures.energy_j for figures in gpus),
        energy_uncertainty_j=_sum(figures.energy_uncertainty_j for figures in gpus),
        peak_memory_bytes=_sum_bytes(figures.peak_memory_bytes for figures in gpus),
        gpus=gpus,
    )


def _sum(values: Iterable[float | None]) -> float | None:
    known = list(values)
    return sum(v for v in known if v is not None) if known and None not in known else None


def _sum_bytes(values: Iterable[int | None]) -> int | None:
    known = list(values)
    return sum(v for v in known if v is not None) if known and None not in known else None


class _Seen(NamedTuple):
    """A look, and the part of a stretch that it stands for: what is nearer to it than to another
    look."""

    look: Sample
    weight_ns: float


class _Series:
    """All samples of one GPU."""

    def __init__(self, place: int, gpu: Gpu, looks: Sequence[Sample], period_ns: int) -> None:
        self.place = place
        self._gpu = gpu
        self._looks = looks
        self._times = [look.t_ns for look in looks]
        self._period_ns = period_ns
        self._busy = BusyTime(looks)
        self._counter = EnergyCounter(looks)
        self._power = PowerIntegral(looks, gpu.power_limit_mw)
        self._cells = self._borders()

    def _borders(self) -> list[float]:
        """Of the parts of time that each look stands for."""
        if not self._times:
            return []
        inner = [(a + b) / 2 for a, b in itertools.pairwise(self._times)]
        return [self._times[0] - self._period_ns, *inner, self._times[-1] + self._period_ns]

    def device(self, lost: dict[str, str]) -> GpuDevice:
        gpu, busy_ns, energy_ns = self._gpu, self._busy.step_ns, self._counter.step_ns
        limit_mw = gpu.power_limit_mw
        return GpuDevice(
            uuid=gpu.uuid,
            index=gpu.index,
            name=gpu.name,
            memory_bytes=gpu.memory_bytes,
            power_limit_w=None if limit_mw is None else limit_mw / 1000,
            busy_step_s=None if busy_ns is None else busy_ns * _NS,
            energy_step_s=None if energy_ns is None else energy_ns * _NS,
            absent={**lost, **gpu.absent},
        )

    def figures(self, spans: Sequence[Span]) -> GpuFigures:
        absent: dict[str, str] = {}
        values: dict[str, object] = {}
        if "busy" not in self._gpu.absent:
            busy = self._busy.over(spans)
            if isinstance(busy, Bounded):
                values |= {"busy_s": busy.value, "busy_uncertainty_s": busy.uncertainty}
                values["busy_ratio"] = busy.value / (length_ns(spans) * _NS)
            else:
                absent["busy_s"] = busy
        source, energy = self._energy(spans)
        if isinstance(energy, Bounded):
            values |= {"energy_j": energy.value, "energy_uncertainty_j": energy.uncertainty}
            values["energy_source"] = source
        elif energy is not None:
            absent["energy_j"] = energy
        seen = [one for span in spans for one in self._seen(span)]
        looks = sum(len(self._within(span)) for span in spans)
        reason = self._why_unseen(spans, looks)
        if reason is None:
            within = [look for span in spans for look in self._within(span)]
            values |= _means(seen) | _throttling(seen) | _peaks(within)
            if values["peak_memory_bytes"] is None and "processes" not in self._gpu.absent:
                absent["peak_memory_bytes"] = _why_no_own_memory(within)
        else:
            absent["looks"] = reason
        return GpuFigures.model_validate(
            {"gpu": self.place, "looks": looks, **values, "absent": absent}
        )

    def _energy(self, spans: Sequence[Span]) -> tuple[EnergySource | None, Bounded | str | None]:
        if self._counter.is_there:
            return EnergySource.COUNTER, self._counter.over(spans)
        if self._power.is_there:
            return EnergySource.POWER, self._power.over(spans)
        return None, None

    def _within(self, span: Span) -> Sequence[Sample]:
        first = bisect_left(self._times, span.start_ns)
        return self._looks[first : bisect_right(self._times, span.end_ns)]

    def _why_unseen(self, spans: Sequence[Span], looks: int) -> str | None:
        longest_ns, period_ms = GAP_STEPS * self._period_ns, self._period_ns / 1e6
        unknown_ns = sum(gaps_ns(self._times, span, longest_ns) for span in spans)
        if is_gap(unknown_ns, self._period_ns, spans):
            return unknown_for(unknown_ns)
        if looks < _MIN_LOOKS:
            return f"too short: it was looked at {looks} times, once in {period_ms:.0f} ms"
        return None

    def _seen(self, span: Span) -> Iterable[_Seen]:
        first = max(0, bisect_right(self._cells, span.start_ns) - 1)
        last = bisect_left(self._cells, span.end_ns)
        for i in range(first, min(last, len(self._looks))):
            start, end = self._cells[i], self._cells[i + 1]
            weight = min(end, span.end_ns) - max(start, span.start_ns)
            if weight > 0:
                yield _Seen(self._looks[i], weight)

    def foreign(self, run: Span) -> Iterable[ForeignGpuProcess]:
        """Processes that are known not to be the submission's."""
        seen_ns: dict[int, float] = {}
        memory: dict[int, int] = {}
        for look, weight_ns in self._seen(run):
            for process in look.processes or ():
                if process.own is False:
                    seen_ns[process.pid] = seen_ns.get(process.pid, 0.0) + weight_ns
                    held = max(memory.get(process.pid, 0), process.memory_bytes or 0)
                    memory[process.pid] = held
        for pid, known_ns in sorted(seen_ns.items()):
            yield ForeignGpuProcess(
                pid=pid, gpu=self.place, seen_s=known_ns * _NS, memory_bytes=memory[pid] or None
            )


def _told(
    seen: Sequence[_Seen], value: Callable[[Sample], float | None]
) -> list[tuple[float, float]]:
    """Value and weight of the looks that have one; none where most looks have none."""
    found = [(known, weight) for look, weight in seen if (known := value(look)) is not None]
    return found if len(found) >= _MIN_TOLD_RATIO * len(seen) else []


def _mean(seen: Sequence[_Seen], value: Callable[[Sample], float | None]) -> float | None:
    told = _told(seen, value)
    weights = sum(weight for _, weight in told)
    return sum(known * weight for known, weight in told) / weights if weights else None


def _means(seen: Sequence[_Seen]) -> dict[str, object]:
    power_mw = _mean(seen, lambda look: look.power_mw)
    return {
        "mean_power_w": None if power_mw is None else power_mw / 1000,
        "mean_sm_clock_mhz": _mean(seen, lambda look: look.sm_clock_mhz),
        "mean_memory_clock_mhz": _mean(seen, lambda look: look.memory_clock_mhz),
    }


def _throttling(seen: Sequence[_Seen]) -> dict[str, object]:
    def time_s(applies: Callable[[int], bool]) -> float | None:
        told = _told(seen, lambda look: look.events)
        return sum(w for events, w in told if applies(int(events))) * _NS if told else None

    return {
        "throttled_s": time_s(lambda events: _is_thermal(events) or _is_brake(events)),
        "thermal_s": time_s(_is_thermal),
        "power_brake_s": time_s(_is_brake),
        "power_cap_s": time_s(lambda events: bool(events & POWER_CAP)),
    }


def _is_thermal(events: int) -> bool:
    return bool(events & THERMAL)


def _is_brake(events: int) -> bool:
    """A hardware slowdown that is not said to be thermal is one for power."""
    alone = bool(events & HARDWARE_SLOWDOWN) and not events & THERMAL
    return bool(events & POWER_BRAKE) or alone


def _peaks(within: Sequence[Sample]) -> dict[str, object]:
    """Highest values of the looks within the stretch."""
    seen = [_Seen(look, 1) for look in within]
    temperatures = [t for t, _ in _told(seen, lambda look: look.temperature_c)]
    device = [used for used, _ in _told(seen, lambda look: look.memory_used_bytes)]
    own = [_own_bytes(look) for look in within if look.processes is not None]
    known = [held for held in own if held is not None]
    return {
        "highest_temperature_c": int(max(temperatures)) if temperatures else None,
        "device_peak_bytes": int(max(device)) if device else None,
        "peak_memory_bytes": max(known) if known and len(known) == len(own) else None,
    }


def _own_bytes(look: Sample) -> int | None:
    """None where it cannot be told of a process whether it is the submission's, or how much it
    has."""
    held = 0
    for process in look.processes or ():
        if process.own is None or (process.own and process.memory_bytes is None):
            return None
        held += process.memory_bytes or 0 if process.own else 0
    return held


def _why_no_own_memory(within: Sequence[Sample]) -> str:
    processes = [process for look in within for process in look.processes or ()]
    if any(process.own is None for process in processes):
        return "of some process it cannot be told whether it is the submission's"
    if processes:
        return "the driver hides what memory its processes have"
    return "too short: processes were not looked at"
