"""How much runtimes vary when the same submission runs several times: a pure function.

The interval covers the true value with 95 % confidence. From six runs on it is of the median and
assumes nothing of the distribution (order statistics: Conover, Practical Nonparametric Statistics,
1999, 3.2). Fewer runs cannot bound a median at 95 %; then it is Student's, of the mean (Georges et
al., Statistically Rigorous Java Performance Evaluation, OOPSLA 2007).
"""

from __future__ import annotations

import math
from collections import defaultdict
from statistics import mean, median, stdev
from typing import TYPE_CHECKING, NamedTuple

from harness.cache import CacheMode
from harness.challenge.field_file import FieldState
from harness.machine.contamination import MachineVerdict
from harness.store import IntervalOf, PairSpread, RepeatSummary, RunRecord, RunStatus

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_CONFIDENCE = 0.95
_MIN_RUNS_FOR_MEDIAN = 6  # 1 - 2 * 0.5 ** 6 = 0.97
# Ten standard deviations, as the median absolute deviation estimates one: hyperfine's threshold,
# after Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993.
_OUTLIER_SCORE = 10 * 1.4826
_MIN_RUNS_FOR_OUTLIERS = 3
# Less deviation than this is no scale to measure others by: two runs may agree by chance.
_MIN_DEVIATION_RATIO = 0.005
_MIN_DEVIATION_S = 0.001
_NAMED_PAIRS = 3


class Interval(NamedTuple):
    low_s: float
    high_s: float
    of: IntervalOf


def interval(runtimes_s: Sequence[float]) -> Interval | None:
    """None for fewer than two runtimes."""
    # Here, as importing SciPy takes longer than everything else a single run needs.
    from scipy.special import bdtr, stdtrit  # noqa: PLC0415

    n = len(runtimes_s)
    if n < 2:
        return None
    if n < _MIN_RUNS_FOR_MEDIAN:
        middle = mean(runtimes_s)
        half = float(stdtrit(n - 1, (1 + _CONFIDENCE) / 2)) * stdev(runtimes_s) / math.sqrt(n)
        return Interval(max(0.0, middle - half), middle + half, IntervalOf.MEAN)
    ordered = sorted(runtimes_s)
    # The most that can be left out at either end.
    left_out = max(k for k in range(n // 2) if 2 * bdtr(k, n, 0.5) <= 1 - _CONFIDENCE)
    return Interval(ordered[left_out], ordered[n - 1 - left_out], IntervalOf.MEDIAN)


def outlier_scores(runtimes_s: Sequence[float]) -> list[float]:
    """Distance of each from the median, in median absolute deviations."""
    middle = median(runtimes_s)
    deviation = median(abs(value - middle) for value in runtimes_s)
    scale = max(deviation, _MIN_DEVIATION_RATIO * middle, _MIN_DEVIATION_S)
    return [(value - middle) / scale for value in runtimes_s]


def summarise(records: Sequence[RunRecord], *, asked: int) -> RepeatSummary:
    """``records``: the runs that ended, in their order, of the ``asked`` ones."""
    first = records[0]
    return RepeatSummary(
        group=first.run_id,
        submission=first.submission,
        asked=asked,
        runs=tuple(record.run_id for record in records),
        statuses=tuple(record.status for record in records),
        pairs=tuple(_pair_spread(records, number) for number in range(len(first.pairs))),
        warnings=tuple(_warnings(records, asked)),
    )


def _runtime_s(record: RunRecord, number: int) -> float | None:
    """Of a pair whose field counts, in a run whose witness saw everything."""
    pair = record.pairs[number]
    counts = pair.field_state is FieldState.VALID and record.witness.complete
    return pair.runtime_s if counts else None


def _pair_spread(records: Sequence[RunRecord], number: int) -> PairSpread:
    pair = records[0].pairs[number]
    runtimes_s = tuple(_runtime_s(record, number) for record in records)
    known = [value for value in runtimes_s if value is not None]
    if not known:
        return PairSpread(key=pair.key, task=pair.task, runtimes_s=runtimes_s)
    found = interval(known)
    middle = median(known)
    return PairSpread(
        key=pair.key,
        task=pair.task,
        runtimes_s=runtimes_s,
        median_s=middle,
        shortest_s=min(known),
        longest_s=max(known),
        spread_ratio=(max(known) - min(known)) / middle if middle else None,
        interval_s=None if found is None else (found.low_s, found.high_s),
        interval_of=None if found is None else found.of,
    )


def _warnings(records: Sequence[RunRecord], asked: int) -> Iterator[str]:
    if len(records) < asked:
        yield f"{len(records)} of {asked} runs ended; the figures are of these"
    for index, record in enumerate(records, start=1):
        if record.status is not RunStatus.SUCCEEDED:
            yield f"run {index} of {asked}: {record.status.replace('_', ' ')}: {record.reason}"
    for index, record in enumerate(records, start=1):
        if record.contamination.verdict is MachineVerdict.SUSPECT:
            evidence = "; ".join(record.contamination.evidence)
            yield (
                f"run {index} of {asked}: the machine was not the submission's alone: {evidence}"
            )
    yield from _outlier_warnings(records, asked)
    yield from _different_fields(records)


def _outlier_warnings(records: Sequence[RunRecord], asked: int) -> Iterator[str]:
    slow_first: list[str] = []
    outliers: defaultdict[int, list[str]] = defaultdict(list)
    for number, pair in enumerate(records[0].pairs):
        known = [
            (index, runtime_s)
            for index, record in enumerate(records)
            if (runtime_s := _runtime_s(record, number)) is not None
        ]
        if len(known) < _MIN_RUNS_FOR_OUTLIERS:
            continue
        runtimes_s = [runtime_s for _, runtime_s in known]
        for (index, runtime_s), score in zip(known, outlier_scores(runtimes_s), strict=True):
            text = f"{pair.key} {runtime_s:.3f} s, median {median(runtimes_s):.3f} s"
            if index == 0 and score > _OUTLIER_SCORE:
                slow_first.append(text)
            elif abs(score) > _OUTLIER_SCORE:
                outliers[index].append(text)
    if slow_first:
        yield f"the first run was much slower than the rest ({_some(slow_first)}): {_why(records)}"
    for index, texts in sorted(outliers.items()):
        yield (
            f"run {index + 1} of {asked} is an outlier ({_some(texts)}); repeat on a machine where "
            "nothing else runs"
        )


def _why(records: Sequence[RunRecord]) -> str:
    if records[0].cache.asked is CacheMode.COLD:
        return "caches that it filled helped those after it, although the inputs were dropped"
    return (
        "the inputs were warm, so it filled other caches (the image's own files, weights, compiled "
        "kernels); repeat once more, or read the median"
    )


def _different_fields(records: Sequence[RunRecord]) -> Iterator[str]:
    different = [
        pair.key
        for number, pair in enumerate(records[0].pairs)
        if len({record.pairs[number].field_sha256 for record in records} - {None}) > 1
    ]
    if different:
        yield (
            f"the fields of the same pair differ from run to run ({_some(different)}): the method "
            "is not deterministic; fix its random seeds, or do not expect the ranked fields to be "
            "these"
        )


def _some(texts: list[str]) -> str:
    more = len(texts) - _NAMED_PAIRS
    named = "; ".join(texts[:_NAMED_PAIRS])
    return f"{named} and {more} more pairs" if more > 0 else named
