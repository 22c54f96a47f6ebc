"""One case: a field and its truth to every metric that the task's rules ask for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from harness.challenge.model import Metric
from harness.errors import DataError, FieldError
from harness.evaluate.metrics import (
    jacobian_metrics,
    label_metrics,
    landmark_errors,
)
from harness.evaluate.record import CaseRecord, CaseState, JacobianScore, Score
from harness.evaluate.rules import LABEL_METRICS
from harness.evaluate.truth import (
    read_labels,
    read_landmark_pair,
    read_mask,
    read_spacing_mm,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from harness.challenge.field import FloatArray
    from harness.evaluate.metrics import FieldVolumes, JacobianMetrics, LabelMetrics
    from harness.evaluate.rules import Case, Method, TaskRules
    from harness.evaluate.truth import LabelMap

EXTRA_HD95 = "hd95_mm"
EXTRA_SURFACE_DISTANCE = "mean_surface_distance_mm"
EXTRA_NDV = "ndv_percent"


def score_case(
    rules: TaskRules, case: Case, field: FieldVolumes | None, *, extras: bool = False
) -> CaseRecord:
    """The values of one case. ``field`` is on the image grid; None is the zero field, of which
    SDlogJ is 0 and the Jacobian is not looked at.

    ``extras``: also what no official result has. Raises DataError, naming the file, for truth that
    cannot be used, and FieldError for a field whose SDlogJ is not a number: left out, it would make
    a team's mean better.
    """
    scores: dict[str, Score] = {}
    extra_scores: dict[str, Score] = {}
    labels: dict[str, tuple[int, ...]] = {}
    warnings: list[str] = []
    jacobian = None
    if rules.has(*LABEL_METRICS):
        for method, metrics in _labels(rules, case, field, extras=extras):
            labels[method.name] = metrics.labels
            scores[method.name] = _score_of_labels(method, metrics)
            extra_scores |= _extras_of_labels(metrics)
    for files in case.truth.landmarks:
        errors = landmark_errors(
            field, *read_landmark_pair(files), read_spacing_mm(case.truth.moving_images)
        )
        scores[files.method] = _score(errors)
    smoothness = [method for method in rules.methods if method.metric is Metric.SDLOGJ]
    if field is None:
        scores |= {method.name: Score(mean=0.0, detailed=0.0) for method in smoothness}
    elif smoothness:
        mask = _mask(rules, case, warnings)
        found = jacobian_metrics(field, mask, extras=extras)
        if found.voxels and math.isnan(found.sdlogj):
            raise FieldError(
                "expected displacements in voxels, found some so large that the determinant of the "
                "field's Jacobian is beyond all numbers, and SDlogJ with it"
            )
        if not found.voxels:
            warnings.append("SDlogJ is absent: no voxel to look at, or none in the mask")
        jacobian = _jacobian(found)
        for method in smoothness:
            scores[method.name] = Score(mean=found.sdlogj, detailed=found.sdlogj)
        if found.ndv_percent is not None:
            value = found.ndv_percent
            extra_scores[EXTRA_NDV] = Score(mean=value, detailed=value)
    return CaseRecord(
        key=case.key,
        state=CaseState.SCORED,
        scores=scores,
        extras=extra_scores,
        labels=labels,
        jacobian=jacobian,
        warnings=tuple(warnings),
    )


def _labels(
    rules: TaskRules, case: Case, field: FieldVolumes | None, *, extras: bool
) -> Iterator[tuple[Method, LabelMetrics]]:
    """Each list of labels is looked at once, for all methods that share it."""
    truth = case.truth
    if truth.fixed_labels is None or truth.moving_labels is None:
        raise DataError(f"{rules.name}: {case.key} has no label maps to score it by")
    fixed = read_labels(truth.fixed_labels, rules.image_grid)
    moving = read_labels(truth.moving_labels, rules.image_grid)
    spacing_mm = read_spacing_mm((truth.fixed_labels,)) if extras else None
    methods = [method for method in rules.methods if method.metric in LABEL_METRICS]
    for wanted in dict.fromkeys(method.labels for method in methods):
        sharing = [method for method in methods if method.labels == wanted]
        metrics = label_metrics(
            fixed,
            moving,
            field,
            wanted or _all_labels(fixed),
            spacing_mm=spacing_mm,
            surfaces=any(method.metric is Metric.HD95 for method in sharing),
            extras=extras,
        )
        for method in sharing:
            yield method, metrics


def _all_labels(fixed: LabelMap) -> tuple[int, ...]:
    return tuple(int(label) for label in np.unique(fixed) if label != 0)


def _score_of_labels(method: Method, metrics: LabelMetrics) -> Score:
    values = metrics.dice if method.metric is Metric.DICE else metrics.hd95_vox
    if values is None:  # surfaces were asked for wherever HD95 is
        return Score()
    return _score(values)


def _extras_of_labels(metrics: LabelMetrics) -> dict[str, Score]:
    found = {
        EXTRA_HD95: metrics.hd95_mm,
        EXTRA_SURFACE_DISTANCE: metrics.mean_surface_distance_mm,
    }
    return {name: _score(values) for name, values in found.items() if values is not None}


def _score(values: FloatArray) -> Score:
    """Mean of what is not absent, over labels or landmarks."""
    known = values[~np.isnan(values)]
    mean = float(known.mean()) if known.size else None
    return Score(mean=mean, detailed=tuple(map(float, values)))


def _mask(rules: TaskRules, case: Case, warnings: list[str]) -> NDArray[np.bool_] | None:
    path = case.truth.mask
    if path is None:
        return None
    if not path.exists():
        warnings.append(f"SDlogJ is of the whole image: no mask {path}")
        return None
    return read_mask(path, rules.image_grid)


def _jacobian(found: JacobianMetrics) -> JacobianScore:
    return JacobianScore(
        folded_voxels=found.folded_voxels,
        folded_percent=found.folded_percent,
        minimum=found.minimum,
        p01=found.p01,
        p99=found.p99,
        maximum=found.maximum,
    )
