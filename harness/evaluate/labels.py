"""How well warped labels lie on fixed ones: Dice and distances between surfaces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from harness.evaluate.surface_elements import ALL_IN, element_areas

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from harness.challenge.field import FloatArray
    from harness.evaluate.volumes import FieldVolumes

PERCENT_95 = 0.95


@dataclass(frozen=True, kw_only=True)
class LabelMetrics:
    """One number a label, each (L,) float64 in the order of ``labels``.

    Absent from the fixed map or from the moving one, before warping: NaN everywhere. Lost in
    warping: Dice 0, distances infinite. Means are over what is not NaN.

    ``dice``: 2 |F and W| / (|F| + |W|) of the fixed (F) and the warped (W) voxels.
    ``hd95_vox``: robust Hausdorff distance in voxels, each axis counting 1; None if not asked for.
    ``hd95_mm``, ``mean_surface_distance_mm``: with the fixed image's spacing, in no official
    number; None unless asked for. The latter is the mean over both surfaces, by area.
    """

    labels: tuple[int, ...]
    dice: FloatArray
    hd95_vox: FloatArray | None
    hd95_mm: FloatArray | None = None
    mean_surface_distance_mm: FloatArray | None = None


def label_metrics(
    fixed: NDArray[Any],
    moving: NDArray[Any],
    field: FieldVolumes | None,
    labels: Sequence[int],
    *,
    spacing_mm: Sequence[float] | None = None,
    surfaces: bool = True,
    extras: bool = False,
) -> LabelMetrics:
    """Warp the moving label map by the field and compare it with the fixed one, label by label.

    ``fixed`` and ``moving``: (X, Y, Z) label maps of any number type and memory order, where the
    moving one may have another shape; ``field`` on the fixed grid, None for the zero field.
    The warped label of voxel p is that of the moving voxel nearest to p + d(p), halves rounded up,
    and 0 where p + d(p) is outside the moving map or not finite.

    Distances are between the elements of two surfaces (:mod:`harness.evaluate.surface_elements`),
    which lie at the corners of voxels; outside the image nothing has a label. HD95: a surface's
    elements sorted by distance to the other one, then by area; the distance of the first at which
    the areas so far are 95 % of all; the larger one of both directions. These are the rules of the
    public Learn2Reg evaluation and of the ``surface-distance`` library it uses.

    ``extras`` needs ``spacing_mm``, the fixed image's, and adds the distances in millimetres.
    """
    if extras and spacing_mm is None:
        raise ValueError("distances in millimetres need the fixed image's spacing: spacing_mm")
    warped = _warped(fixed.shape, moving, field)
    areas = element_areas()
    areas_mm2 = element_areas(spacing_mm or (1, 1, 1))
    dice, hd95_vox, hd95_mm, mean_mm = np.full((4, len(labels)), np.nan)
    for n, label in enumerate(labels):
        is_fixed, is_warped = fixed == label, warped == label
        if not is_fixed.any() or not (moving == label).any():
            continue
        overlap = np.count_nonzero(is_fixed & is_warped)
        dice[n] = 2 * overlap / (np.count_nonzero(is_fixed) + np.count_nonzero(is_warped))
        if surfaces or extras:
            both = _cropped(is_fixed, is_warped)
            codes = _codes(both[0]), _codes(both[1])
            hd95_vox[n] = max(_percentile(*one) for one in _distances(*codes, areas, (1, 1, 1)))
        if extras and spacing_mm is not None:
            there, back = _distances(*codes, areas_mm2, spacing_mm)
            hd95_mm[n] = max(_percentile(*there), _percentile(*back))
            distances, weights = (np.concatenate(pair) for pair in zip(there, back, strict=True))
            mean_mm[n] = np.sum(distances * weights) / np.sum(weights)
    return LabelMetrics(
        labels=tuple(labels),
        dice=dice,
        hd95_vox=hd95_vox if surfaces else None,
        hd95_mm=hd95_mm if extras else None,
        mean_surface_distance_mm=mean_mm if extras else None,
    )


def _warped(
    shape: tuple[int, ...], moving: NDArray[Any], field: FieldVolumes | None
) -> NDArray[Any]:
    inside = np.ones(shape, dtype=bool)
    nearest = []
    for axis, n in enumerate(moving.shape):
        position = np.arange(shape[axis], dtype=np.float64).reshape(
            [-1 if a == axis else 1 for a in range(3)]
        )
        if field is not None:
            position = position + field.components[axis]
        valid = (position >= 0) & (position <= n - 1)
        nearest.append(np.floor(np.where(valid, position, 0) + 0.5).astype(np.intp))
        inside &= valid
    warped: NDArray[Any] = np.where(inside, moving[tuple(nearest)], 0)
    return warped


def _cropped(*masks: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """To where any of them is, with one voxel of nothing around."""
    box = ndimage.find_objects(np.logical_or.reduce(masks).astype(np.uint8))[0]
    return [np.pad(mask[box], 1) for mask in masks]


def _codes(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The code of each corner between its voxels; each axis loses one."""
    codes = np.zeros([n - 1 for n in mask.shape], dtype=np.uint8)
    for bit in range(8):
        place = (bit >> 2 & 1, bit >> 1 & 1, bit & 1)
        part = mask[tuple(slice(a, n - 1 + a) for a, n in zip(place, mask.shape, strict=True))]
        codes |= part.astype(np.uint8) << bit
    return codes


def _distances(
    first: NDArray[np.uint8],
    second: NDArray[np.uint8],
    areas: FloatArray,
    spacing: Sequence[float],
) -> tuple[tuple[FloatArray, FloatArray], tuple[FloatArray, FloatArray]]:
    """Distance to the other surface and area of each element, of the first and of the second."""
    borders = [(codes != 0) & (codes != ALL_IN) for codes in (first, second)]
    found = []
    for codes, border, other in zip((first, second), borders, borders[::-1], strict=True):
        far = ndimage.distance_transform_edt(~other, sampling=spacing)
        distances = far[border] if other.any() else np.full(np.count_nonzero(border), np.inf)
        found.append((distances, areas[codes[border]]))
    return found[0], found[1]


def _percentile(distances: FloatArray, areas: FloatArray) -> float:
    if not len(distances):
        return float("inf")
    order = np.lexsort((areas, distances))
    reached = np.cumsum(areas[order]) / np.sum(areas[order])
    place = int(np.searchsorted(reached, PERCENT_95))
    return float(distances[order][min(place, len(distances) - 1)])
