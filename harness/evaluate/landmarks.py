"""How far landmarks are from where they belong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.challenge.field import FloatArray
    from harness.evaluate.volumes import FieldVolumes


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
    with its defaults, as in the public Learn2Reg evaluation).
    """
    fixed = np.asarray(fixed_vox, dtype=np.float64).reshape(-1, 3)
    moved = fixed - np.asarray(moving_vox, dtype=np.float64).reshape(-1, 3)
    if field is not None and len(fixed):
        moved += np.stack([ndimage.map_coordinates(c, fixed.T) for c in field.components], axis=1)
    errors: FloatArray = np.linalg.norm(moved * np.asarray(spacing_mm, dtype=np.float64), axis=1)
    return errors
