"""What counters that move now and then say of a stretch of time: a value, and how wrong it may be.

Values are such that those of two stretches that touch add up to that of both together. The bounds
are worst cases: wherever within its steps a counter's work was done, the truth is inside.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.sampler.records import Busy, Sample

_NS = 1e-9
_MJ = 1e-3
# The driver tells whole percents, and not whether they are rounded or cut.
_RATIO_STEP = 0.01
# As many usual steps without a word are a gap: a driver that hung, samples that were lost.
GAP_STEPS = 5
# Of a long stretch, as much may be unknown before its figures are: it is in their uncertainty.
_UNKNOWN_RATIO = 0.01
_MIN_WHOLE_STEPS = 2
_MAX_UNCERTAINTY_RATIO = 0.5
# NVML's power is an average of the second before, on Ampere and later (nvmlDeviceGetPowerUsage).
_POWER_AVERAGE_NS = 1_000_000_000


class Span(NamedTuple):
    """On the trace's clock. Spans that are given together do not overlap."""

    start_ns: int
    end_ns: int

    def overlap_ns(self, start_ns: int, end_ns: int) -> int:
        return max(0, min(self.end_ns, end_ns) - max(self.start_ns, start_ns))


@dataclass(frozen=True, kw_only=True)
class Bounded:
    """The true value differs from ``value`` by ``uncertainty`` at most."""

    value: float
    uncertainty: float


def length_ns(spans: Sequence[Span]) -> int:
    return sum(span.end_ns - span.start_ns for span in spans)


def too_short(step_ns: float, what: str = "the counters") -> str:
    return f"too short for {what} of this GPU, which move every {step_ns / 1e6:.0f} ms"


def is_gap(unknown_ns: float, step_ns: float, spans: Sequence[Span]) -> bool:
    return unknown_ns > max(GAP_STEPS * step_ns, _UNKNOWN_RATIO * length_ns(spans))


def unknown_for(unknown_ns: float) -> str:
    return f"nothing was told for {unknown_ns * _NS:.1f} s of it"


class _Step(NamedTuple):
    start_ns: int
    end_ns: int
    ratio: float

    @property
    def length_ns(self) -> int:
        return self.end_ns - self.start_ns


class _Sum:
    """Over the spans of a stretch."""

    def __init__(self) -> None:
        self.value = self.low = self.high = 0.0
        self.whole_steps = 0
        self.unknown_ns = 0

    def add(self, value: float, low: float, high: float) -> None:
        self.value += value
        self.low += low
        self.high += high

    @property
    def uncertainty(self) -> float:
        return max(self.high - self.value, self.value - self.low, 0.0)


class BusyTime:
    """Seconds in which some kernel ran, from the driver's averages.

    An entry says how much of the time since the entry before was busy. Of an entry that a stretch
    covers in part, the part has its share; at worst all of its busy time lay within the part, as
    far as there is room, or outside.
    """

    def __init__(self, samples: Sequence[Sample]) -> None:
        steps = [step for entries in _chains(samples) for step in _steps(entries)]
        self._steps = sorted(steps)
        self._ends = [step.end_ns for step in self._steps]
        self.step_ns = median(s.length_ns for s in self._steps) if self._steps else None

    def over(self, spans: Sequence[Span]) -> Bounded | str:
        """In seconds; or why it cannot be told."""
        if self.step_ns is None:
            return "the driver told no busy time"
        found = _Sum()
        for span in spans:
            self._add(span, found, self.step_ns)
        if is_gap(found.unknown_ns, self.step_ns, spans):
            return unknown_for(found.unknown_ns)
        too_wide = found.uncertainty > _MAX_UNCERTAINTY_RATIO * length_ns(spans)
        if found.whole_steps < _MIN_WHOLE_STEPS or too_wide:
            return too_short(self.step_ns)
        return Bounded(value=found.value * _NS, uncertainty=found.uncertainty * _NS)

    def _add(self, span: Span, found: _Sum, step_ns: float) -> None:
        told_ns = 0
        first = bisect_right(self._ends, span.start_ns)
        last = bisect_left(self._ends, span.end_ns)
        for step in self._steps[first : last + 1]:
            part_ns = span.overlap_ns(step.start_ns, step.end_ns)
            told_ns += part_ns
            if step.length_ns > GAP_STEPS * step_ns:
                found.unknown_ns += part_ns
                found.add(step.ratio * part_ns, 0, part_ns)
                continue
            found.whole_steps += part_ns == step.length_ns
            rest_ns = step.length_ns - part_ns
            low_ns = max(0.0, step.ratio - _RATIO_STEP) * step.length_ns
            high_ns = min(1.0, step.ratio + _RATIO_STEP) * step.length_ns
            found.add(step.ratio * part_ns, max(0.0, low_ns - rest_ns), min(part_ns, high_ns))
        untold_ns = span.end_ns - span.start_ns - told_ns
        found.unknown_ns += untold_ns
        found.add(untold_ns / 2, 0, untold_ns)


def _chains(samples: Sequence[Sample]) -> Iterator[list[Busy]]:
    """Entries of which each begins where the one before ended."""
    chain: list[Busy] = []
    for sample in samples:
        if sample.busy is None:
            yield chain
            chain = []
        else:
            chain.extend(sample.busy)
    yield chain


def _steps(entries: Sequence[Busy]) -> Iterator[_Step]:
    """Where the first entry begins is not known."""
    for before, entry in itertools.pairwise(sorted(entries, key=lambda one: one.t_ns)):
        if before.t_ns < entry.t_ns:
            yield _Step(before.t_ns, entry.t_ns, min(1.0, max(0.0, entry.ratio)))


class EnergyCounter:
    """Joules, from a counter that moves at times of its own.

    A reading says what had been used when the counter last moved. So at any time at least that of
    the last look was used, and at most that of the first look later that finds the counter moved
    since a look that was later, too. In between, the counter's moves are joined by lines.
    """

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._looks = [one for one in samples if one.energy_mj is not None]
        self._values = [one.energy_mj or 0 for one in self._looks]
        pairs = list(itertools.pairwise(self._values))
        self.went_back = any(after < before for before, after in pairs)
        self._moves = [i for i, (before, after) in enumerate(pairs, 1) if after > before]
        self._latest = [one.t_ns + one.took_ns // 2 for one in self._looks]
        self._before_moves = [
            self._looks[i - 1].t_ns - self._looks[i - 1].took_ns // 2 for i in self._moves
        ]
        self._knots = [(self._looks[i - 1].t_ns + self._looks[i].t_ns) / 2 for i in self._moves]
        steps = [after - before for before, after in itertools.pairwise(self._knots)]
        self.step_ns = median(steps) if steps else None

    @property
    def is_there(self) -> bool:
        return bool(self._looks) and not self.went_back

    def over(self, spans: Sequence[Span]) -> Bounded | str:
        if self.step_ns is None:
            return "the energy counter of this GPU did not move"
        found = _Sum()
        for span in spans:
            start, end = self._at(span.start_ns), self._at(span.end_ns)
            if start is None or end is None:
                return "the energy counter was not seen to move before and after it"
            low = max(0.0, end.low - start.high)
            found.add(end.value - start.value, low, end.high - start.low)
            first = bisect_left(self._knots, span.start_ns)
            found.whole_steps += max(0, bisect_right(self._knots, span.end_ns) - first - 1)
        too_wide = found.uncertainty > _MAX_UNCERTAINTY_RATIO * found.value
        if found.whole_steps < _MIN_WHOLE_STEPS or too_wide:
            return too_short(self.step_ns, "the energy counter")
        return Bounded(value=found.value * _MJ, uncertainty=found.uncertainty * _MJ)

    def _at(self, t_ns: int) -> _Used | None:
        last = bisect_right(self._latest, t_ns) - 1
        following = bisect_left(self._before_moves, t_ns)
        if last < 0 or following == len(self._moves):
            return None
        return _Used(
            self._joined(t_ns), self._values[last], self._values[self._moves[following]] + 1
        )

    def _joined(self, t_ns: int) -> float:
        after = bisect_right(self._knots, t_ns)
        end_ns, end_value = self._knots[after], self._values[self._moves[after]]
        if after:
            start_ns: float = self._knots[after - 1]
            start_value = self._values[self._moves[after - 1]]
        else:
            start_ns, start_value = self._looks[0].t_ns, self._values[0]
        share = max(0.0, (t_ns - start_ns) / (end_ns - start_ns))
        return start_value + share * (end_value - start_value)


class _Used(NamedTuple):
    """Since the counter began, in its unit."""

    value: float
    low: float
    high: float


class PowerIntegral:
    """Joules, from readings of power: where there is no counter.

    Readings are joined by lines. Between two of them power may have been as far off as they are
    apart, and each may be the average of the second before it.
    """

    def __init__(self, samples: Sequence[Sample], limit_mw: int | None) -> None:
        self._looks = [one for one in samples if one.power_mw is not None]
        self._times = [one.t_ns for one in self._looks]
        powers = [one.power_mw or 0 for one in self._looks]
        self._highest_mw = max([*powers, limit_mw or 0])
        lengths = [b - a for a, b in itertools.pairwise(self._times)]
        self.step_ns = median(lengths) if lengths else None
        self._powers = powers
        energies = [(a + b) / 2 * n for (a, b), n in zip(_pairs(powers), lengths, strict=True)]
        wobbles = [abs(a - b) / 2 * n for (a, b), n in zip(_pairs(powers), lengths, strict=True)]
        self._energy = list(itertools.accumulate(energies, initial=0.0))
        self._wobble = list(itertools.accumulate(wobbles, initial=0.0))

    @property
    def is_there(self) -> bool:
        return bool(self._looks)

    def over(self, spans: Sequence[Span]) -> Bounded | str:
        if self.step_ns is None:
            return "the driver told the power once"
        value = uncertainty = 0.0
        unknown_ns = 0
        for span in spans:
            if span.start_ns < self._times[0] or span.end_ns >= self._times[-1]:
                return "there is no reading of power before and after it"
            for sums, sign in ((self._at(span.end_ns), 1), (self._at(span.start_ns), -1)):
                value += sign * sums[0]
                uncertainty += sign * sums[1]
            uncertainty += self._highest_mw * _POWER_AVERAGE_NS / 2
            unknown_ns += self._unknown_ns(span, self.step_ns)
        if is_gap(unknown_ns, self.step_ns, spans):
            return unknown_for(unknown_ns)
        if uncertainty > _MAX_UNCERTAINTY_RATIO * value:
            return "too short for power readings, which may be averages of a second"
        return Bounded(value=value * _NS * _MJ, uncertainty=uncertainty * _NS * _MJ)

    def _at(self, t_ns: int) -> tuple[float, float]:
        """Energy and wobble since the first reading."""
        i = bisect_right(self._times, t_ns) - 1
        part_ns = t_ns - self._times[i]
        rise = self._powers[i + 1] - self._powers[i]
        share = part_ns / (self._times[i + 1] - self._times[i])
        energy = self._energy[i] + (self._powers[i] + share * rise / 2) * part_ns
        return energy, self._wobble[i] + abs(rise) / 2 * part_ns

    def _unknown_ns(self, span: Span, step_ns: float) -> int:
        return gaps_ns(self._times, span, GAP_STEPS * step_ns)


def gaps_ns(times: Sequence[int], span: Span, longest_ns: float) -> int:
    """How much of the span lies in stretches without a look that are longer than that, or before
    the first look or after the last."""
    if not times:
        return span.end_ns - span.start_ns
    first = max(0, bisect_right(times, span.start_ns) - 1)
    last = min(len(times), bisect_left(times, span.end_ns) + 1)
    within = times[first:last]
    unknown_ns = sum(span.overlap_ns(a, b) for a, b in _pairs(within) if b - a > longest_ns)
    for edge in ((span.start_ns, times[0] - longest_ns), (times[-1] + longest_ns, span.end_ns)):
        unknown_ns += max(0, min(span.end_ns, int(edge[1])) - max(span.start_ns, int(edge[0])))
    return unknown_ns


def _pairs(values: Sequence[int]) -> list[tuple[int, int]]:
    return list(itertools.pairwise(values))
