"""How a field stretches, squeezes and folds space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.challenge.field import FloatArray
    from harness.evaluate.volumes import FieldVolumes

CROP = 2  # voxels that the reference leaves out at each side
SHIFT = 3.0  # what the reference adds to the determinant before it takes the logarithm
LOWEST, HIGHEST = 1e-9, 1e9  # what it is clipped to after that
MASKED_IN = 1  # the mask's only value that counts


@dataclass(frozen=True, kw_only=True)
class JacobianMetrics:
    """Of the determinant det(I + grad d) over the counted voxels.

    ``voxels``: how many those are. If none, all others are NaN.
    ``sdlogj``: population standard deviation of log(clip(det + 3, 1e-9, 1e9)).
    ``folded_percent``: share of voxels, in percent, where det <= 0, which ``sdlogj`` hides.
    ``minimum``, ``p01``, ``p99``, ``maximum``: of det; percentiles interpolate linearly.
    ``ndv_vox``, ``ndv_percent``: non-diffeomorphic volume in voxels, and as a share of the voxels
    it was summed over; in no official number here, None unless asked for.
    """

    sdlogj: float
    folded_percent: float
    minimum: float
    p01: float
    p99: float
    maximum: float
    voxels: int
    ndv_vox: float | None = None
    ndv_percent: float | None = None


def jacobian_metrics(
    field: FieldVolumes, mask: NDArray[Any] | None = None, *, extras: bool = False
) -> JacobianMetrics:
    """Smoothness and folding of a field, in the voxels where ``mask`` is exactly 1, or all.

    ``mask``: (X, Y, Z) on the field's grid. Derivatives are central differences, (d(p + 1) -
    d(p - 1)) / 2 in voxels, rounded to float32 for a field in single precision; two voxels at each
    side of the volume are left out. These are the rules of the public Learn2Reg evaluation.

    NDV (Liu et al., "On finite difference Jacobian computation in deformable image registration",
    IJCV 2024): each voxel's cell is divided into five tetrahedra in two ways; the volumes of those
    that are turned inside out are added up and halved. It is summed over the voxels in the mask
    that have neighbours on all sides: one voxel at each side is left out.
    """
    inner = slice(CROP, -CROP)
    det = _central_determinant(field)[inner, inner, inner]
    counted = det.ravel() if mask is None else det[mask[inner, inner, inner] == MASKED_IN]
    ndv, ndv_voxels = _ndv(field, mask) if extras else (None, 0)
    ndv_percent = None
    if ndv is not None:
        ndv_percent = 100 * ndv / ndv_voxels if ndv_voxels else float("nan")
    if not counted.size:
        nan = float("nan")
        return JacobianMetrics(
            **dict.fromkeys(("sdlogj", "folded_percent", "minimum"), nan),
            **dict.fromkeys(("p01", "p99", "maximum"), nan),
            voxels=0,
            ndv_vox=ndv,
            ndv_percent=ndv_percent,
        )
    p01, p99 = np.percentile(counted, (1, 99))
    return JacobianMetrics(
        sdlogj=float(np.log((counted + SHIFT).clip(LOWEST, HIGHEST)).std()),
        folded_percent=100 * float(np.count_nonzero(counted <= 0)) / counted.size,
        minimum=float(counted.min()),
        p01=float(p01),
        p99=float(p99),
        maximum=float(counted.max()),
        voxels=counted.size,
        ndv_vox=ndv,
        ndv_percent=ndv_percent,
    )


def _central_determinant(field: FieldVolumes) -> FloatArray:
    """float64 (X, Y, Z); the outer voxels mean nothing."""
    gradients = np.zeros((3, 3, *field.shape))
    for row, component in enumerate(field.components):
        for axis in range(3):
            ahead = _shifted(component, axis, 1).astype(np.float64)
            slope = (ahead - _shifted(component, axis, -1)) / 2
            gradients[row, axis] = slope.astype(np.float32) if field.single else slope
        gradients[row, row] += 1
    return _determinant(gradients)


def _ndv(field: FieldVolumes, mask: NDArray[Any] | None) -> tuple[float, int]:
    """Non-diffeomorphic volume, and the number of voxels it was summed over."""
    inner = (slice(1, -1),) * 3
    counted = np.ones(field.shape, bool)[inner] if mask is None else mask[inner] == MASKED_IN
    if not counted.size:
        return 0.0, 0
    position = np.indices(field.shape, dtype=np.float64) + np.stack(field.components)
    tips = [tuple((axis, step) for axis, step in enumerate(steps)) for steps in _OCTANTS]
    volume = 0.0
    for steps in tips:
        edges = np.stack(
            [step * (_moved(position, axis, step) - position) for axis, step in steps], axis=1
        )
        volume += _turned(_determinant(edges)[inner], counted)
    for corners in _CENTRAL:
        edges = np.stack([_moved_by(position, corner) - position for corner in corners], axis=1)
        volume += _turned(_determinant(edges)[inner], counted)
    return volume, int(np.count_nonzero(counted))


# The tetrahedra that share a voxel: eight with an edge along each axis, and the central one of
# each of the two ways to divide a cell, whose edges are diagonals of faces.
_OCTANTS = [(a, b, c) for a in (1, -1) for b in (1, -1) for c in (1, -1)]
_CENTRAL = [
    ((-1, -1, 0), (-1, 0, -1), (0, -1, -1)),
    ((1, 1, 0), (0, 1, 1), (1, 0, 1)),
]


def _turned(det: FloatArray, counted: NDArray[np.bool_]) -> float:
    """Half the volume of tetrahedra that are inside out: a sixth of the determinant each."""
    return float(np.sum(np.minimum(det[counted], 0))) * -0.5 / 6


def _determinant(rows: FloatArray) -> FloatArray:
    """Of (3, 3, ...) arrays."""
    (a, b, c), (d, e, f), (g, h, i) = rows
    det: FloatArray = a * (e * i - f * h) - d * (b * i - c * h) + g * (b * f - c * e)
    return det


def _shifted(volume: FloatArray, axis: int, step: int) -> FloatArray:
    """The value ``step`` voxels further on; the ends come round and mean nothing."""
    return np.roll(volume, -step, axis)


def _moved(position: FloatArray, axis: int, step: int) -> FloatArray:
    return np.roll(position, -step, axis + 1)


def _moved_by(position: FloatArray, steps: tuple[int, int, int]) -> FloatArray:
    return np.roll(position, tuple(-step for step in steps), (1, 2, 3))
