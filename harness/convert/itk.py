"""ITK's displacement images and the challenge's voxels, in both directions.

An ITK displacement image holds a vector v(x) in millimetres for points x of the fixed image's
space: x lies at x + v(x) in the moving image's space, both LPS. With F and M, the affines from
indices to LPS millimetres of the fixed and the moving image, the challenge's displacement of the
fixed voxel p is

    d(p) = M^-1 (F p + v(F p)) - p        v(F p) = M (p + d(p)) - F p

The evaluation warps by indices alone, so a difference of the two affines belongs into d.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from harness.challenge.field import FloatArray, resample_corner_aligned
from harness.errors import FieldError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.challenge.model import Grid
    from harness.convert.geometry import Geometry


def itk_to_voxels(
    vectors_mm: FloatArray, domain: Geometry, fixed: Geometry, moving: Geometry, grid: Grid
) -> FloatArray:
    """Displacements (3, *grid), components x, y, z of the array axes, in voxels.

    ``vectors_mm``: (3, *domain.grid), LPS. ``grid`` is the fixed image's or another one that spans
    it from first to last voxel centre. A field on another domain than the fixed image is read as
    ITK's transform reads it: linear in between, zero where a point lies outside.
    """
    if vectors_mm.shape[1:] != domain.grid:
        raise FieldError(f"expected vectors on the grid {domain.grid}, found {vectors_mm.shape}")
    positions = [np.linspace(0.0, n - 1, m) for n, m in zip(fixed.grid, grid, strict=True)]
    if domain.is_same(fixed):
        vectors = resample_corner_aligned(vectors_mm.astype(np.float64), grid)
    else:
        vectors = _read_at(vectors_mm, np.linalg.solve(domain.affine, fixed.affine), positions)
    to_moving = np.linalg.inv(moving.affine)
    return _combine(to_moving[:3, :3], vectors, to_moving @ fixed.affine - np.eye(4), positions)


def voxels_to_itk(vectors: FloatArray, fixed: Geometry, moving: Geometry) -> FloatArray:
    """Vectors (3, X, Y, Z) in mm, LPS, on the fixed image's domain, of displacements in voxels."""
    if vectors.shape[1:] != fixed.grid:
        raise FieldError(
            f"expected a field on the fixed image's grid {fixed.grid}, found {vectors.shape[1:]}"
        )
    positions = [np.arange(n, dtype=np.float64) for n in fixed.grid]
    difference = moving.affine - fixed.affine
    return _combine(moving.affine[:3, :3], vectors, difference, positions)


def _combine(
    linear: FloatArray, vectors: FloatArray, affine: FloatArray, positions: Sequence[FloatArray]
) -> FloatArray:
    """``linear @ d(p) + affine @ p`` for every p of a grid, (3, X, Y, Z) float64."""
    mesh = np.meshgrid(*positions, indexing="ij", sparse=True)
    result = np.empty(vectors.shape)
    for row in range(3):
        result[row] = affine[row, 3]
        for column in range(3):
            if linear[row, column] != 0:
                result[row] += linear[row, column] * vectors[column]
            result[row] += affine[row, column] * mesh[column]
    return result


def _read_at(
    vectors: FloatArray, to_domain: FloatArray, positions: Sequence[FloatArray]
) -> FloatArray:
    mesh = np.meshgrid(*positions, indexing="ij", sparse=True)
    grid = tuple(len(place) for place in positions)
    inside = np.ones(grid, dtype=bool)
    index = np.empty((3, *grid))
    for row, n in enumerate(vectors.shape[1:]):
        index[row] = to_domain[row, 3]
        for column in range(3):
            index[row] += to_domain[row, column] * mesh[column]
        # ITK's buffer ends at the outer edge of its voxels, and clamps between centre and edge.
        inside &= (index[row] >= -0.5) & (index[row] < n - 0.5)
    read = [
        ndimage.map_coordinates(c, index, order=1, mode="nearest", output=np.float64)
        for c in vectors
    ]
    return np.where(inside, np.stack(read), 0.0)
