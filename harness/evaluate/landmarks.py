"""How far landmarks are from where they belong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.evaluate.kernels.spline import sample_cubic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from harness.challenge.field import FloatArray
    from harness.evaluate.volumes import FieldVolumes

_BLOCK_VOX = 12


def landmark_errors(
    field: FieldVolumes | None,
    fixed_vox: FloatArray,
    moving_vox: FloatArray,
    spacing_mm: Sequence[float],
) -> FloatArray:
    """Distance in mm of each fixed landmark, moved by the field, to its moving landmark: (N,).

    ``fixed_vox``, ``moving_vox``: (N, 3) positions in voxels, in the same order; N = 0 gives (0,).
    ``spacing_mm``: the moving image's, (3,). ``field``: None for the zero field. The error is
    |(p + d(p) - q) * spacing|, where d is read at p by a cubic spline through the field's values,
    mirrored at the ends, and is 0 where p is outside the image (``scipy.ndimage.map_coordinates``
    with its defaults, as in the public Learn2Reg evaluation); for a field in single precision that
    is rounded to float32. Raises ValueError where the two are not as many.
    """
    fixed = np.asarray(fixed_vox, dtype=np.float64).reshape(-1, 3)
    moving = np.asarray(moving_vox, dtype=np.float64).reshape(-1, 3)
    if len(fixed) != len(moving):
        raise ValueError(f"expected as many landmarks, found {len(fixed)} and {len(moving)}")
    moved = fixed - moving
    if field is not None:
        moved = fixed + _displacements(field, fixed) - moving
    errors: FloatArray = np.linalg.norm(moved * np.asarray(spacing_mm, dtype=np.float64), axis=1)
    return errors


def _displacements(field: FieldVolumes, points: NDArray[np.float64]) -> NDArray[np.float64]:
    turn = -1 if field.is_reversed else 1
    turned = points[:, ::turn]
    # Neighbours one after another: each reads some 30 samples around it on each axis.
    blocks = np.nan_to_num(turned[:, :2], posinf=0, neginf=0) // _BLOCK_VOX
    order = np.lexsort((turned[:, 2], blocks[:, 1], blocks[:, 0]))
    found = np.empty_like(points)
    ordered = np.empty_like(points)
    sample_cubic(*field.oriented(), np.ascontiguousarray(turned[order]), ordered)
    found[order] = ordered
    if field.single:
        found = found.astype(np.float32).astype(np.float64)
    return found[:, ::turn]
