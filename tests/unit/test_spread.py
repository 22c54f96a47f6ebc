"""Several runs of one submission: how their runtimes vary, and what a person is told."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.cache import CacheMode, CacheRecord, CacheState
from harness.challenge.field_file import FieldState
from harness.machine.contamination import Contamination, MachineVerdict
from harness.spread import interval, outlier_scores, summarise
from harness.store import IntervalOf, RunRecord, RunStatus
from tests.unit.test_store import RECORD

RUNTIMES = st.lists(st.floats(0.01, 1e4), min_size=2, max_size=30)


def test_few_runs_get_students_interval_of_the_mean() -> None:
    """By hand: mean 2, standard deviation 1, t(0.975; 2) = 4.303."""
    found = interval([1.0, 2.0, 3.0])
    assert found is not None
    assert found.of is IntervalOf.MEAN
    assert found.low_s == 0.0  # 2 - 2.484 is no runtime
    assert found.high_s == pytest.approx(2 + 4.3027 / math.sqrt(3), abs=1e-4)
    expected = stats.t.interval(0.95, 4, loc=12, scale=stats.sem([10, 11, 12, 13, 14]))
    assert interval([14.0, 10.0, 12.0, 11.0, 13.0])[:2] == pytest.approx(expected)  # type: ignore[index]


@pytest.mark.parametrize(("n", "left_out"), [(6, 0), (8, 0), (9, 1), (12, 2), (20, 5), (25, 7)])
def test_many_runs_get_the_intervals_of_the_tables(n: int, left_out: int) -> None:
    """Order statistics that bound a median at 95 %: Conover's table A3."""
    found = interval([float(value) for value in reversed(range(n))])
    assert found == (float(left_out), float(n - 1 - left_out), IntervalOf.MEDIAN)


def test_intervals_cover_as_often_as_they_say() -> None:
    """Of the median of a skewed distribution, of the mean of a normal one; 2000 times each."""
    generator = np.random.default_rng(1)
    skewed = generator.exponential(1.0, (2000, 10))
    normal = generator.normal(10.0, 1.0, (2000, 5))
    for draws, truth in ((skewed, math.log(2)), (normal, 10.0)):
        found = [interval([float(value) for value in row]) for row in draws]
        covered = sum(one is not None and one.low_s <= truth <= one.high_s for one in found)
        assert covered / 2000 > 0.935


@given(RUNTIMES)
def test_interval_holds_what_it_bounds(runtimes_s: list[float]) -> None:
    found = interval(runtimes_s)
    assert found is not None
    middle = np.mean(runtimes_s) if found.of is IntervalOf.MEAN else np.median(runtimes_s)
    assert found.low_s <= middle * (1 + 1e-9)
    assert found.high_s >= middle * (1 - 1e-9)


def test_one_run_has_no_interval() -> None:
    assert interval([1.0]) is None
    assert interval([]) is None


@given(RUNTIMES, st.floats(0.5, 2))
def test_scores_do_not_depend_on_the_unit(runtimes_s: list[float], factor: float) -> None:
    if np.median(runtimes_s) * min(1, factor) < 0.3:
        return  # there the floor in seconds applies
    scaled = outlier_scores([factor * value for value in runtimes_s])
    assert scaled == pytest.approx(outlier_scores(runtimes_s), rel=1e-6, abs=1e-6)


def records(*runtimes_s: float | None, **changes: object) -> list[RunRecord]:
    """Runs of one pair; ``changes`` apply to all."""
    pair = RECORD.pairs[0]
    plain = RECORD.model_copy(
        update={
            "status": RunStatus.SUCCEEDED,
            "witness": RECORD.witness.model_copy(update={"complete": True}),
            "contamination": Contamination(verdict=MachineVerdict.CLEAN),
            "cache": CacheRecord(asked=CacheMode.WARM, applied=CacheState.WARM),
            **changes,
        }
    )
    return [
        plain.model_copy(
            update={
                "run_id": f"r{index}",
                "pairs": (pair.model_copy(update={"runtime_s": runtime_s}),),
            }
        )
        for index, runtime_s in enumerate(runtimes_s, start=1)
    ]


def test_figures_of_a_pair() -> None:
    summary = summarise(records(3.0, 3.2, 3.1, 3.3), asked=4)
    assert summary.group == "r1"
    assert summary.runs == ("r1", "r2", "r3", "r4")
    (pair,) = summary.pairs
    assert pair.runtimes_s == (3.0, 3.2, 3.1, 3.3)
    assert pair.median_s == pytest.approx(3.15)
    assert (pair.shortest_s, pair.longest_s) == (3.0, 3.3)
    assert pair.spread_ratio == pytest.approx(0.3 / 3.15)
    assert pair.interval_of is IntervalOf.MEAN
    assert summary.warnings == ()


def test_slow_first_run() -> None:
    (warning,) = summarise(records(9.0, 3.0, 3.1, 3.05), asked=4).warnings
    assert "first run was much slower" in warning
    assert "task_01/0001_0001 9.000 s, median 3.075 s" in warning
    assert "the inputs were warm" in warning
    cold = CacheRecord(asked=CacheMode.COLD, applied=CacheState.COLD)
    (warning,) = summarise(records(9.0, 3.0, 3.1, cache=cold), asked=3).warnings
    assert "although the inputs were dropped" in warning


@pytest.mark.parametrize(
    ("runtimes_s", "index"), [((3.0, 3.1, 9.0, 3.05), 3), ((0.3, 3.0, 3.1, 0.01, 3.05), 4)]
)
def test_outlier_is_named(runtimes_s: tuple[float, ...], index: int) -> None:
    warnings = summarise(records(*runtimes_s), asked=len(runtimes_s)).warnings
    assert any(f"run {index} of {len(runtimes_s)} is an outlier" in line for line in warnings)


@pytest.mark.parametrize(
    "runtimes_s",
    [
        (3.0, 9.0),  # of two, neither is the odd one
        (3.0, 3.0, 3.1),  # no deviation at all is no scale
        (0.010, 0.010, 0.012, 0.010),
        (2.5, 3.0, 3.5, 3.2, 2.8, 4.0),
        (None, None, 3.0, 9.0),
        (None, None, None),
    ],
)
def test_no_outlier(runtimes_s: tuple[float | None, ...]) -> None:
    assert summarise(records(*runtimes_s), asked=len(runtimes_s)).warnings == ()


def test_runtimes_that_do_not_count() -> None:
    """Of an invalid field, and of a run whose witness missed something."""
    first, second, third = records(3.0, 4.0, 5.0)
    invalid = first.pairs[0].model_copy(update={"field_state": FieldState.INVALID})
    first = first.model_copy(update={"pairs": (invalid,)})
    second = second.model_copy(update={"witness": RECORD.witness})
    (pair,) = summarise([first, second, third], asked=3).pairs
    assert pair.runtimes_s == (None, None, 5.0)
    assert pair.interval_s is None


def test_what_else_a_person_should_know() -> None:
    first, second, third = records(3.0, 3.1, 3.05)
    pair = second.pairs[0].model_copy(update={"field_sha256": "1" * 64})
    doubt = Contamination(verdict=MachineVerdict.SUSPECT, evidence=("swap", "steal"))
    second = second.model_copy(update={"pairs": (pair,), "contamination": doubt})
    third = third.model_copy(update={"status": RunStatus.INTERRUPTED, "reason": "asked to stop"})
    warnings = summarise([first, second, third], asked=5).warnings
    assert warnings[0] == "3 of 5 runs ended; the figures are of these"
    assert warnings[1] == "run 3 of 5: interrupted: asked to stop"
    assert warnings[2].endswith(
        "run 2 of 5: the machine was not the submission's alone: swap; steal"
    )
    assert "differ from run to run (task_01/0001_0001)" in warnings[3]
