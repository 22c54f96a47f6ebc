"""Run every kernel once on a field of some voxels, so that its machine code is in Numba's cache:
``python -m harness.scoring.compile`` when an image is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.challenge.model import FieldFormat, Layout
from harness.evaluate.kernels.surface import search_far
from harness.evaluate.metrics import (
    FieldVolumes,
    jacobian_metrics,
    label_metrics,
    landmark_errors,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_GRID = (12, 10, 14)
_HALF = (6, 5, 7)
_MANY = 500  # elements whose distances are too many to be computed one by one


def compile_all() -> None:
    """In every type and memory order that fields, label maps and masks come in."""
    numbers = np.random.default_rng(0)
    fixed = np.zeros(_GRID, np.uint8, order="F")
    fixed[3:8, 3:7, 3:9] = 1
    mask = fixed == 1
    points = np.array([[4.0, 4.0, 4.0], [5.5, 4.2, 6.0]])
    for field in _fields(numbers):
        for label_type in (np.uint8, np.uint16):
            labels = fixed.astype(label_type)
            label_metrics(labels, labels, field, (1,), spacing_mm=(1.0, 1.0, 2.0), extras=True)
            label_metrics(labels, labels, None, (1,))
        for where in (None, mask):
            jacobian_metrics(field, where)
            jacobian_metrics(field, where, extras=True)
        landmark_errors(field, points, points + 1, (1.0, 1.0, 1.0))
    places = np.arange(_MANY, dtype=np.int32)
    search_far(places, places[::-1].copy(), 4, 8, np.full(_MANY, -1, np.int32))


def _fields(numbers: np.random.Generator) -> Iterator[FieldVolumes]:
    for grid in (_GRID, _HALF):
        for dtype in (np.float16, np.float32, np.float64):
            array = numbers.normal(0, 4, (3, *grid)).astype(dtype)
            volumes = FieldVolumes.from_array(array, Layout.CHANNELS_FIRST)
            yield volumes if grid == _GRID else volumes.upsampled()
    last = numbers.normal(0, 4, (*_GRID, 3))
    for dtype in (np.float16, np.float32, np.float64):
        yield FieldVolumes.from_array(last.astype(dtype), Layout.CHANNELS_LAST)
    for precision in (np.float32, np.float64):
        array = np.asfortranarray(last.astype(precision))
        yield FieldVolumes.from_array(array, Layout.CHANNELS_LAST, file_format=FieldFormat.NIFTI)


if __name__ == "__main__":
    compile_all()
