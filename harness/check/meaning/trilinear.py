"""Reading many numbers a voxel at any position, linearly between the voxels."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from harness.challenge.field import FloatArray

Array = NDArray[Any]


class Trilinear:
    """An array (X, Y, Z, C) that is read between its voxels.

    Some five times as fast as ``scipy.ndimage.map_coordinates`` channel by channel: the channels
    of a voxel lie together and share its weights.
    """

    def __init__(self, values: Array) -> None:
        self._voxels = np.ascontiguousarray(values, dtype=np.float32).reshape(-1, values.shape[3])
        self.shape = np.array(values.shape[:3])[:, None]  # (3, 1)

    def at(self, positions: Array) -> FloatArray:
        """(N, C) float32 at positions (3, N) in voxels; outside counts the nearest border voxel."""
        _, y, z = (int(n) for n in self.shape[:, 0])
        inside = np.clip(positions, 0, self.shape - 1)
        lower = np.minimum(inside.astype(np.intp), np.maximum(self.shape - 2, 0))
        after = (inside - lower).astype(np.float32)
        weights = np.stack([1 - after, after])
        first = (lower[0] * y + lower[1]) * z + lower[2]
        total = np.zeros((positions.shape[1], self._voxels.shape[1]), dtype=np.float32)
        corner = np.empty_like(total)
        for i, j, k in product((0, 1), repeat=3):
            # An axis of one voxel has no next one: its weight is 0, and clipping finds it a place.
            place = first + ((i * y + j) * z + k)
            np.take(self._voxels, place, axis=0, out=corner, mode="clip")
            corner *= (weights[i, 0] * weights[j, 1] * weights[k, 2])[:, None]
            total += corner
        return total
