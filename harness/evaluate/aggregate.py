"""From cases to a task: the challenge's aggregates, and the official shape around them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness import __version__
from harness.challenge.model import Metric
from harness.evaluate.record import (
    Aggregate,
    CaseDetail,
    CaseRecord,
    CaseState,
    JacobianScore,
    Score,
    TaskDetail,
    TaskMetrics,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.evaluate.rules import TaskRules

FOLDINGS = "num_foldings"  # the official name of a count that the official code gets wrong

_LOWER_QUANTILE = frozenset({Metric.DICE, Metric.HD95})


def aggregate(means: Sequence[float | None], metric: Metric | None) -> Aggregate:
    """Mean, population standard deviation and robustness of case means; absent ones are left out.

    Robustness is the quantile (linear between neighbours) 0.3 of Dice and HD95, 0.7 of SDlogJ and
    TRE, as the official code has it: of HD95 that is the better end. Where a mean is infinite the
    others are absent if they have no value: inf - inf has none.
    """
    values = np.array([value for value in means if value is not None], dtype=np.float64)
    if not values.size:
        return Aggregate()
    level = 0.3 if metric in _LOWER_QUANTILE else 0.7
    with np.errstate(invalid="ignore"):
        return Aggregate(
            mean=float(values.mean()),
            std=float(values.std()),
            q30=float(np.quantile(values, level)),
        )


def task_metrics(
    rules: TaskRules, cases: Sequence[CaseRecord], initial: Mapping[str, CaseRecord]
) -> TaskMetrics:
    """The task in the official shape. ``initial``: of the zero field, by the cases' keys."""
    zero = [initial[case.key] for case in cases if case.key in initial]
    extra_names = dict.fromkeys(name for case in cases for name in case.extras)
    return TaskMetrics(
        name=rules.name,
        aggregates=_aggregates(rules, cases),
        cases={case.key: _scores(rules, case) for case in cases},
        detail=TaskDetail(
            harness_version=__version__,
            rules_digest=rules.digest,
            expected=len(cases),
            scored=sum(case.state is CaseState.SCORED for case in cases),
            metrics={method.name: method.metric.value for method in rules.methods},
            initial=_aggregates(rules, zero) if zero else {},
            extras={
                name: aggregate([_mean(case.extras, name) for case in cases], None)
                for name in extra_names
            },
            cases={case.key: CaseDetail.of(case, initial.get(case.key)) for case in cases},
        ),
    )


def _aggregates(rules: TaskRules, cases: Sequence[CaseRecord]) -> dict[str, Aggregate]:
    return {
        method.name: aggregate([_mean(case.scores, method.name) for case in cases], method.metric)
        for method in rules.methods
    }


def _mean(scores: Mapping[str, Score], name: str) -> float | None:
    return scores[name].mean if name in scores else None


def _scores(rules: TaskRules, case: CaseRecord) -> dict[str, Score]:
    """Every metric in the order of the rules, absent where the case has none."""
    scores: dict[str, Score] = {}
    for method in rules.methods:
        scores[method.name] = case.scores.get(method.name, Score())
        if method.metric is Metric.SDLOGJ:
            scores[FOLDINGS] = _foldings(case.jacobian)
    return scores


def _foldings(jacobian: JacobianScore | None) -> Score:
    if jacobian is None:
        return Score()
    n = float(jacobian.folded_voxels)
    return Score(mean=n, detailed=n)
