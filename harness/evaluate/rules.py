"""What a task's fields are scored by, wherever that was written: in a challenge's file, or in a
public ``*_evaluation_config.json``."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from harness.challenge.model import Metric

if TYPE_CHECKING:
    from pathlib import Path, PurePosixPath

    from harness.challenge.model import FieldSpec, Grid
    from harness.challenge.pairs import Pair, TaskPairs

LABEL_METRICS = frozenset({Metric.DICE, Metric.HD95})


@dataclass(frozen=True, kw_only=True)
class Method:
    """One metric under the name that results have it by.

    ``labels``: of Dice and HD95, in the order of the detailed values; empty for every label of
    the fixed map, background excepted.
    """

    name: str
    metric: Metric
    labels: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Landmarks:
    """The files of one TRE: rows x,y,z in voxels, the n-th of each file the same point."""

    method: str
    fixed: Path
    moving: Path


@dataclass(frozen=True, kw_only=True)
class CaseTruth:
    """Where a case's truth lies. ``moving_images``: of the first that exists, the spacing in which
    landmark errors are measured. ``mask``: None where SDlogJ looks at the whole image."""

    fixed_labels: Path | None = None
    moving_labels: Path | None = None
    landmarks: tuple[Landmarks, ...] = ()
    moving_images: tuple[Path, ...] = ()
    mask: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Case:
    """One pair to be scored. ``key`` is its official name, ``FFFF_0000<--MMMM_0001``."""

    key: str
    pair: Pair
    truth: CaseTruth


@dataclass(frozen=True, kw_only=True)
class TaskRules:
    """``specs``: what a field must be, by the suffix of its file. ``scaled_nifti``: may it be a
    NIfTI file of scaled whole numbers, as the official evaluation reads them?"""

    name: str
    title: str
    image_grid: Grid
    methods: tuple[Method, ...]
    specs: tuple[tuple[str, FieldSpec], ...]
    scaled_nifti: bool = False

    def spec_of(self, field: PurePosixPath) -> FieldSpec:
        return next(spec for suffix, spec in self.specs if field.name.endswith(suffix))

    def has(self, *metrics: Metric) -> bool:
        return any(method.metric in metrics for method in self.methods)

    @property
    def digest(self) -> str:
        """SHA-256 of all that decides values beside the field and the truth."""
        content = asdict(self) | {
            "specs": [[suffix, spec.model_dump(mode="json")] for suffix, spec in self.specs]
        }
        return "sha256:" + hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class TaskCases:
    """A task's rules, its pairs as :mod:`harness.check` takes them, and its cases in order."""

    rules: TaskRules
    pairs: TaskPairs
    cases: tuple[Case, ...]


def case_key(pair: Pair) -> str:
    """The official name of a pair. A list that tells no modalities means fixed 0 and moving 1."""
    fixed, moving = pair.modalities or (0, 1)
    return f"{pair.fixed_id:04d}_{fixed:04d}<--{pair.moving_id:04d}_{moving:04d}"
