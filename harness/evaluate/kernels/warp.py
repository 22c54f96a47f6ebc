"""Warping an index map and counting what lies on what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from harness.evaluate.kernels.compiled import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray


@compiled
def warp_and_count(
    first: NDArray[Any],
    second: NDArray[Any],
    last: NDArray[Any],
    moving: NDArray[Any],
    fixed: NDArray[Any],
    outside: int,
    warped: NDArray[Any],
    counts: NDArray[np.int64],
) -> None:
    """``warped`` gets, for each voxel, the moving index nearest to where the field puts it.

    ``first``, ``second``, ``last``: the field's components along the axes. Positions are float64;
    halves are rounded up; ``outside`` is for positions that are not between the first and the last
    voxel's centre, or not numbers. ``counts`` (3, indices) gets the fixed voxels, the warped
    voxels and those that are both, of each index but 0.
    """
    na, nb, nc = moving.shape
    flat = moving.ravel()
    n = first.shape[2]
    places = np.empty(n, np.int32)
    end_a, end_b, end_c = float(na - 1), float(nb - 1), float(nc - 1)
    none = np.int32(-1)
    for i in range(first.shape[0]):
        for j in range(first.shape[1]):
            row_a, row_b, row_c = first[i, j], second[i, j], last[i, j]
            for k in range(n):
                a = np.float64(row_a[k]) + np.float64(i)
                b = np.float64(row_b[k]) + np.float64(j)
                c = np.float64(row_c[k]) + np.float64(k)
                is_in = (
                    (a >= 0.0) & (a <= end_a) & (b >= 0.0) & (b <= end_b) & (c >= 0.0)
                    & (c <= end_c)
                )  # fmt: skip
                ia = np.int32((a if is_in else 0.0) + 0.5)
                ib = np.int32((b if is_in else 0.0) + 0.5)
                ic = np.int32((c if is_in else 0.0) + 0.5)
                place = (ia * np.int32(nb) + ib) * np.int32(nc) + ic
                places[k] = place if is_in else none
            for k in range(n):
                place = places[k]
                index = flat[place] if place >= 0 else warped.dtype.type(outside)
                warped[i, j, k] = index
                other = fixed[i, j, k]
                if index | other:
                    counts[0, other] += 1
                    counts[1, index] += 1
                    if index == other:
                        counts[2, index] += 1
