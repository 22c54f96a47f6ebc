"""How a field stretches, squeezes and folds space."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.evaluate.kernels.jacobian import N_SUMS, central_statistics, inverted_volume

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.challenge.field import FloatArray
    from harness.evaluate.volumes import FieldVolumes

CROP = 2  # voxels that the reference leaves out at each side
SHIFT = 3.0  # what the reference adds to the determinant before it takes the logarithm
LOWEST, HIGHEST = 1e-9, 1e9  # what it is clipped to after that
MASKED_IN = 1  # the mask's only value that counts

NAN = float("nan")


@dataclass(frozen=True, kw_only=True)
class JacobianMetrics:
    """Of the determinant det(I + grad d) over the counted voxels.

    ``voxels``: how many those are. If none, or if one's determinant is NaN, all others are NaN.
    ``sdlogj``: population standard deviation of log(clip(det + 3, 1e-9, 1e9)).
    ``folded_voxels``, ``folded_percent``: how many voxels have det <= 0, which ``sdlogj`` hides,
    and their share in percent; of no voxels, or with a NaN, 0 and NaN.
    ``minimum``, ``p01``, ``p99``, ``maximum``: of det; percentiles interpolate linearly, between
    determinants rounded to float32.
    ``ndv_vox``, ``ndv_percent``: non-diffeomorphic volume in voxels, and as a share of the voxels
    it was summed over (NaN if none); None unless asked for.
    """

    sdlogj: float
    folded_voxels: int
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
    """Smoothness and folding of a field, in the voxels where ``mask`` is exactly 1, or in all.

    ``mask``: (X, Y, Z) on the field's grid, of any number type. Derivatives are central
    differences, (d(p + 1) - d(p - 1)) / 2 in voxels, rounded to float32 for a field in single
    precision; two voxels at each side of the volume are left out. These are the rules of the public
    Learn2Reg evaluation. Raises ValueError for a mask of another shape.

    With ``extras``, NDV (Liu et al., "On finite difference Jacobian computation in deformable image
    registration", IJCV 2024): each voxel's cell is divided into five tetrahedra, in two ways; the
    volumes of those that are turned inside out are added up and halved. It is summed over the
    voxels in the mask that have neighbours on all sides: one voxel at each side is left out.
    """
    if mask is not None and mask.shape != field.shape:
        raise ValueError(f"expected a mask of shape {field.shape}, found {mask.shape}")
    first, second, last = (
        part.astype(np.float32, copy=False) if field.single else part for part in field.oriented()
    )
    volumes = (first, second, last)
    counted = np.zeros((0, 0, 0), np.bool_)
    if mask is not None:
        counted = np.ascontiguousarray((mask.T if field.is_reversed else mask) == MASKED_IN)
    size = math.prod(max(n - 2 * CROP, 0) for n in field.shape)
    if mask is not None:
        size = min(size, int(np.count_nonzero(counted)))
    kept = np.empty(size, np.float32)
    sums = np.empty(N_SUMS)
    half = np.float32(0.5) if field.single else np.float64(0.5)
    rule = (SHIFT, LOWEST, HIGHEST)
    n = central_statistics(*volumes, counted, CROP, half, rule, sums, kept)
    total, squares, minimum, maximum, folded = (float(value) for value in sums)
    ndv_vox = ndv_percent = None
    if extras:
        ndv_vox, ndv_percent = _non_diffeomorphic_volume(volumes, counted)
    if not n or math.isnan(total):
        return JacobianMetrics(
            sdlogj=NAN,
            folded_voxels=0,
            folded_percent=NAN,
            minimum=NAN,
            p01=NAN,
            p99=NAN,
            maximum=NAN,
            voxels=n,
            ndv_vox=ndv_vox,
            ndv_percent=ndv_percent,
        )
    p01, p99 = _percentiles(kept[:n])
    return JacobianMetrics(
        sdlogj=math.sqrt(max(squares / n - (total / n) ** 2, 0.0)),
        folded_voxels=int(folded),
        folded_percent=100 * folded / n,
        minimum=minimum,
        p01=p01,
        p99=p99,
        maximum=maximum,
        voxels=n,
        ndv_vox=ndv_vox,
        ndv_percent=ndv_percent,
    )


def _percentiles(values: NDArray[np.float32]) -> tuple[float, float]:
    """The 1st and the 99th, interpolated linearly; the values are reordered."""
    places = [share * (len(values) - 1) for share in (0.01, 0.99)]
    around = [(int(place), min(int(place) + 1, len(values) - 1)) for place in places]
    values.partition(sorted({index for pair in around for index in pair}))
    p01, p99 = (
        float(values[low]) + (place - low) * (float(values[high]) - float(values[low]))
        for place, (low, high) in zip(places, around, strict=True)
    )
    return p01, p99


def _non_diffeomorphic_volume(
    volumes: tuple[FloatArray, FloatArray, FloatArray], counted: NDArray[np.bool_]
) -> tuple[float, float]:
    """In voxels, and in percent of the voxels that count."""
    sixfold, n = inverted_volume(*volumes, counted, _tetrahedra())
    volume = sixfold / 6 / 2
    return volume, 100 * volume / n if n else NAN


def _tetrahedra() -> NDArray[np.int64]:
    """(10, 3, 3) corners beside the voxel itself, as steps from it: in both ways to divide a cell
    into five. Eight have an edge along each axis; the central ones' edges are faces' diagonals."""
    found = [((-1, -1, 0), (-1, 0, -1), (0, -1, -1)), ((1, 1, 0), (0, 1, 1), (1, 0, 1))]
    for a, b, c in product((-1, 1), repeat=3):
        edges = ((a, 0, 0), (0, b, 0), (0, 0, c))
        found.append(edges if a * b * c > 0 else (edges[1], edges[0], edges[2]))
    return np.array(found)
