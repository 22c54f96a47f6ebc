"""The cases of a challenge's own file: its ``metrics`` and ``truth`` of each task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.challenge.model import Metric
from harness.errors import ChallengeError
from harness.evaluate.rules import (
    LABEL_METRICS,
    Case,
    CaseTruth,
    Landmarks,
    Method,
    TaskCases,
    TaskRules,
    case_key,
)

if TYPE_CHECKING:
    from pathlib import Path

    from harness.challenge.model import Task, TruthPatterns
    from harness.challenge.pairs import Pair, TaskPairs

# The names that the public configurations give the metrics.
NAMES = {Metric.DICE: "DSC", Metric.HD95: "HD95", Metric.TRE: "TRE", Metric.SDLOGJ: "LogJacDetStd"}


def challenge_cases(found: TaskPairs, truth: Path, data: Path | None) -> TaskCases:
    """A task's cases, with their truth below ``truth``; ``data``: where the images are, if known.

    The metrics ``dice30`` and ``tre30`` are aggregates of others and no methods of their own. A
    task that lists no metrics is scored by all that its truth allows. Raises ChallengeError for a
    metric that the task's truth has no files for.
    """
    task = found.task
    methods = tuple(
        Method(
            name=name,
            metric=metric,
            labels=task.truth.labels if metric in LABEL_METRICS else (),
        )
        for metric, name in NAMES.items()
        if metric in _metrics(task)
    )
    rules = TaskRules(
        name=task.name,
        title=task.title,
        image_grid=task.image_grid,
        methods=methods,
        specs=tuple((suffix, task.field) for suffix in task.field.format.suffixes),
    )
    cases = tuple(
        Case(key=case_key(pair), pair=pair, truth=_truth(task.truth, rules, pair, truth, data))
        for pair in found.pairs
    )
    return TaskCases(rules=rules, pairs=found, cases=cases)


def _metrics(task: Task) -> set[Metric]:
    truth = task.truth
    has_labels = truth.fixed_labels is not None and truth.moving_labels is not None
    has_landmarks = truth.fixed_landmarks is not None and truth.moving_landmarks is not None
    possible = {Metric.SDLOGJ}
    possible |= set(LABEL_METRICS) if has_labels else set()
    possible |= {Metric.TRE} if has_landmarks else set()
    asked = set(task.metrics) - {Metric.DICE30, Metric.TRE30}
    if missing := sorted(asked - possible):
        raise ChallengeError(
            f"task {task.name}: its metrics ask for {missing[0]}, which needs "
            f"{'label maps' if missing[0] in LABEL_METRICS else 'landmarks'}; expected their "
            "patterns under the key truth, found none"
        )
    return asked or possible


def _truth(
    patterns: TruthPatterns, rules: TaskRules, pair: Pair, truth: Path, data: Path | None
) -> CaseTruth:
    def path(pattern: str | None) -> Path | None:
        return None if pattern is None else truth / pair.fill(pattern)

    has_labels = rules.has(*LABEL_METRICS)
    fixed, moving = path(patterns.fixed_landmarks), path(patterns.moving_landmarks)
    mask = path(patterns.fixed_mask)
    landmarks: tuple[Landmarks, ...] = ()
    images: list[Path] = []
    if rules.has(Metric.TRE) and fixed is not None and moving is not None:
        landmarks = (Landmarks(method=NAMES[Metric.TRE], fixed=fixed, moving=moving),)
        # The images of a pair share their grid; where the moving one is not at hand, the fixed
        # one's mask, which is truth, stands in for it.
        images = [folder / pair.moving for folder in (data, truth) if folder is not None]
        images += [mask] if mask is not None else []
    return CaseTruth(
        fixed_labels=path(patterns.fixed_labels) if has_labels else None,
        moving_labels=path(patterns.moving_labels) if has_labels else None,
        landmarks=landmarks,
        moving_images=tuple(images),
        mask=mask,
    )
