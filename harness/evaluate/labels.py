"""How well warped labels lie on fixed ones: Dice and distances between surfaces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.evaluate.kernels.layout import look_up, transpose
from harness.evaluate.kernels.warp import warp_and_count
from harness.evaluate.surfaces import robust_hausdorff_vox

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from harness.challenge.field import FloatArray
    from harness.evaluate.volumes import FieldVolumes

_MAX_TABLE = 1 << 20  # labels further apart are compared one by one
_MAX_LABELS = (1 << 16) - 1


@dataclass(frozen=True, kw_only=True)
class LabelMetrics:
    """One number a label, each (L,) float64 in the order of ``labels``.

    Absent from the fixed map or from the moving one, before warping: NaN everywhere. Lost in
    warping: Dice 0, distances infinite. Means are over what is not NaN.

    ``dice``: 2 |F and W| / (|F| + |W|) of the fixed (F) and the warped (W) voxels.
    ``hd95_vox``: robust Hausdorff distance in voxels, each axis counting 1; None if not asked for.
    ``hd95_mm``, ``mean_surface_distance_mm``: with the fixed image's spacing; in no official
    number, None unless asked for. The latter is the mean over both surfaces, weighted by area.
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
    moving one may have another shape; ``field`` is on the fixed grid, None for the zero field.
    The warped label of voxel p is that of the moving voxel nearest to p + d(p), halves rounded up,
    and 0 where p + d(p) is outside the moving map or not a number.

    Distances are between the elements of two surfaces (:mod:`harness.evaluate.surface_elements`),
    which lie at the corners of voxels; outside the image nothing has a label. HD95: a surface's
    elements sorted by distance to the other one, then by area; the distance of the first at which
    the areas so far are 95 % of all; the larger one of both directions. These are the rules of the
    public Learn2Reg evaluation and of the ``surface-distance`` library it uses.

    ``extras`` needs ``spacing_mm``, the fixed image's, and adds the distances in millimetres.
    Raises ValueError where that or the field's shape does not fit, and for 65535 labels or more.
    """
    if extras and spacing_mm is None:
        raise ValueError("distances in millimetres need the fixed image's spacing: spacing_mm")
    if field is not None and field.shape != fixed.shape:
        raise ValueError(f"expected a field of shape {fixed.shape}, found {field.shape}")
    different = np.unique(np.asarray(labels, dtype=np.int64))
    reverse = field.is_reversed if field is not None else fixed.flags.f_contiguous
    fixed_map, in_fixed = _indexed(fixed, different, reverse=reverse)
    moving_map, in_moving = _indexed(moving, different, reverse=reverse)
    warped_map, counts = _warped(fixed_map, moving_map, field, different)
    present = in_fixed & in_moving
    present[0] = False
    n_fixed, n_warped, n_both = counts
    dice = np.full(len(present), np.nan)
    dice[present] = 2 * n_both[present] / (n_fixed[present] + n_warped[present])
    places = np.searchsorted(different, np.asarray(labels, dtype=np.int64)) + 1
    hd95_vox = robust_hausdorff_vox(fixed_map, warped_map, present) if surfaces else None
    hd95_mm = mean_mm = None
    if extras and spacing_mm is not None:
        # Here, as it needs SciPy: 20 MB of each worker that has no other use for it.
        from harness.evaluate.surfaces_mm import surface_distances  # noqa: PLC0415

        spacing = tuple(spacing_mm)[:: -1 if reverse else 1]
        hd95_mm, mean_mm = np.full((2, len(present)), np.nan)
        for index in np.flatnonzero(present):
            masks = fixed_map == index, warped_map == index
            hd95_mm[index], mean_mm[index] = surface_distances(*masks, spacing)
    return LabelMetrics(
        labels=tuple(labels),
        dice=dice[places],
        hd95_vox=None if hd95_vox is None else hd95_vox[places],
        hd95_mm=None if hd95_mm is None else hd95_mm[places],
        mean_surface_distance_mm=None if mean_mm is None else mean_mm[places],
    )


def _indexed(
    labels: NDArray[Any], different: NDArray[np.int64], *, reverse: bool
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """The map with label ``different[n]`` as n + 1 and all else as 0, in the memory order that is
    asked for: (Z, Y, X) if reversed. And which of those numbers it has."""
    if len(different) > _MAX_LABELS:
        raise ValueError(f"expected at most {_MAX_LABELS} labels, found {len(different)}")
    dtype = np.uint8 if len(different) < 1 << 8 else np.uint16
    seen = np.zeros(len(different) + 1, np.bool_)
    stored_reversed = labels.flags.f_contiguous and not labels.flags.c_contiguous
    volume = np.ascontiguousarray(labels.T if stored_reversed else labels)
    if volume.dtype == np.bool_:
        volume = volume.view(np.uint8)
    indices = np.empty(volume.shape, dtype)
    if not len(different):
        indices[:] = 0
    elif volume.dtype.kind in "iu" and different[-1] - different[0] < _MAX_TABLE:
        table = np.zeros(different[-1] - different[0] + 1, dtype)
        table[different - different[0]] = np.arange(1, len(different) + 1)
        native = volume.astype(volume.dtype.newbyteorder("="), copy=False)
        look_up(native.ravel(), int(different[0]), table, seen, indices.ravel())
    else:
        for plane, out in zip(volume, indices, strict=True):
            place = np.searchsorted(different, plane).clip(max=len(different) - 1)
            out[:] = np.where(different[place] == plane, place + 1, 0)
            seen[np.unique(out)] = True
    if stored_reversed == reverse:
        return indices, seen
    turned = np.empty(indices.shape[::-1], dtype)
    transpose(indices, turned)
    return turned, seen


def _warped(
    fixed_map: NDArray[Any],
    moving_map: NDArray[Any],
    field: FieldVolumes | None,
    different: NDArray[np.int64],
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The moving map warped, and of each index the voxels in the fixed, the warped, and both."""
    counts = np.zeros((3, len(different) + 1), np.int64)
    warped_map = np.empty_like(fixed_map)
    # Outside the label is 0, which may be one of those asked for.
    outside = int(np.searchsorted(different, 0)) + 1 if 0 in different else 0
    if field is None:
        nothing = np.zeros(fixed_map.shape, np.float32)
        parts = nothing, nothing, nothing
    else:
        parts = field.oriented()
    warp_and_count(*parts, moving_map, fixed_map, outside, warped_map, counts)
    return warped_map, counts
