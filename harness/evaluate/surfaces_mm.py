"""Distances between two surfaces in millimetres: not official, so plain rather than fast."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from harness.evaluate.surface_elements import ALL_IN, element_areas
from harness.evaluate.surfaces import ROBUST_SHARE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from harness.challenge.field import FloatArray


def surface_distances(
    fixed: NDArray[np.bool_], warped: NDArray[np.bool_], spacing_mm: Sequence[float]
) -> tuple[float, float]:
    """HD95 and mean distance in mm of two masks (A, B, C), the first of which is not empty.

    ``spacing_mm``: along each axis. Both are infinite if the second mask is empty. The mean is over
    the elements of both surfaces, weighted by their areas.
    """
    box = ndimage.find_objects((fixed | warped).astype(np.uint8))[0]
    first, second = (_codes(np.pad(mask[box], 1)) for mask in (fixed, warped))
    areas = element_areas(spacing_mm)
    there = _distances(first, second, areas, spacing_mm)
    back = _distances(second, first, areas, spacing_mm)
    distances, weights = (np.concatenate(pair) for pair in zip(there, back, strict=True))
    hd95_mm = max(robust_maximum(*there), robust_maximum(*back))
    return hd95_mm, float(np.sum(distances * weights) / np.sum(weights))


def robust_maximum(distances: FloatArray, areas: FloatArray) -> float:
    """The distance within which 95 % of the area is; infinite without elements."""
    if not len(distances):
        return float("inf")
    order = np.lexsort((areas, distances))
    reached = np.cumsum(areas[order]) / np.sum(areas[order])
    place = int(np.searchsorted(reached, ROBUST_SHARE))
    return float(distances[order][min(place, len(distances) - 1)])


def _codes(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The code of each corner between the mask's voxels; each axis loses one."""
    codes = np.zeros([n - 1 for n in mask.shape], dtype=np.uint8)
    for bit in range(8):
        place = (bit >> 2 & 1, bit >> 1 & 1, bit & 1)
        part = mask[tuple(slice(a, n - 1 + a) for a, n in zip(place, mask.shape, strict=True))]
        codes |= part.astype(np.uint8) << bit
    return codes


def _distances(
    codes: NDArray[np.uint8],
    others: NDArray[np.uint8],
    areas: FloatArray,
    spacing_mm: Sequence[float],
) -> tuple[FloatArray, FloatArray]:
    """Distance to the other surface, and area, of each element."""
    border, other = ((one != 0) & (one != ALL_IN) for one in (codes, others))
    if not other.any():
        return np.full(np.count_nonzero(border), np.inf), areas[codes[border]]
    away = ndimage.distance_transform_edt(~other, sampling=spacing_mm)
    return away[border], areas[codes[border]]
