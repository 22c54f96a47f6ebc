"""The field as the file stores it, read at any position, and read as if stored otherwise."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, assert_never

import numpy as np
from numpy.typing import NDArray

from harness.check.meaning.trilinear import Trilinear

if TYPE_CHECKING:
    from harness.challenge.field import FloatArray
    from harness.challenge.model import Grid

Array = NDArray[Any]

INVERSE_STEPS = 7  # of a fixed-point iteration that contracts where a field does not fold


class Layout(StrEnum):
    """Where in the file's (3, X, Y, Z) the vector of a voxel lies.

    STORED      where it should
    SWAPPED_xy  with two spatial axes in each other's place; they must be equally long
    LAST        the file's numbers are those of (X, Y, Z, 3), not moved but reshaped
    LAST_ZYX    the same of (Z, Y, X, 3)
    FIRST_ZYX   the same of (3, Z, Y, X)
    """

    STORED = "stored"
    SWAPPED_XY = "swapped_xy"
    SWAPPED_XZ = "swapped_xz"
    SWAPPED_YZ = "swapped_yz"
    LAST = "last"
    LAST_ZYX = "last_zyx"
    FIRST_ZYX = "first_zyx"


SWAPS = {Layout.SWAPPED_XY: (0, 1), Layout.SWAPPED_XZ: (0, 2), Layout.SWAPPED_YZ: (1, 2)}
RESHAPES = (Layout.LAST, Layout.LAST_ZYX, Layout.FIRST_ZYX)


def relaid(stored: Array, layout: Layout) -> Array:
    """The array (3, X, Y, Z) that was meant by whoever stored (3, X, Y, Z) in that layout."""
    _, x, y, z = stored.shape
    match layout:
        case Layout.STORED:
            return stored
        case Layout.SWAPPED_XY | Layout.SWAPPED_XZ | Layout.SWAPPED_YZ:
            first, second = SWAPS[layout]
            return stored.swapaxes(1 + first, 1 + second)
        case Layout.LAST:
            return np.moveaxis(stored.reshape(x, y, z, 3), 3, 0)
        case Layout.LAST_ZYX:
            return stored.reshape(z, y, x, 3).transpose(3, 2, 1, 0)
        case Layout.FIRST_ZYX:
            return stored.reshape(3, z, y, x).transpose(0, 3, 2, 1)
        case _:
            assert_never(layout)


class Sampler:
    """Reads an array (3, x, y, z) that spans an image of ``image_grid``, corner to corner."""

    def __init__(self, vectors: FloatArray, image_grid: Grid) -> None:
        self._vectors = Trilinear(np.moveaxis(vectors, 0, 3))
        ends = zip(vectors.shape[1:], image_grid, strict=True)
        self._steps = np.array([[(n - 1) / max(full - 1, 1)] for n, full in ends])

    def at(self, positions_vox: Array) -> FloatArray:
        """(3, N) at positions (3, N) in the image's voxels, linearly; outside counts the border."""
        return self._vectors.at(positions_vox * self._steps).T

    def inverse_at(self, positions_vox: Array, matrix: Array) -> FloatArray:
        """u (3, N) with u(p) = -d(p + u(p)), where d = ``matrix`` (3, 3) times the array."""
        found = np.zeros_like(positions_vox)
        for _ in range(INVERSE_STEPS):
            found = -(matrix @ self.at(positions_vox + found)).astype(np.float32)
        return found
