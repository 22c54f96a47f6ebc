"""The area of a label's surface at each corner where eight voxels meet.

A corner is an element of the surface when some of its eight voxels have the label and some have
not. The element is the triangles that marching cubes (Lorensen and Cline 1987) puts there, between
the middles of the edges from a voxel that is in to one that is out. Up to symmetry, and up to
swapping in and out, there are 14 cases; the triangles of each are those of the ``surface-distance``
library (github.com/google-deepmind/surface-distance), by which the reference weighs distances.

A case is a code of eight bits: voxel (a, b, c), each 0 or 1, is in if bit 4a + 2b + c is set.
"""

from __future__ import annotations

from functools import cache
from itertools import permutations, product
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

N_CODES = 256
ALL_IN = N_CODES - 1

# The voxels that are in, as their bits, and the triangles: each one's normal, as absolute
# components in eighths of a voxel's face; its length is the area. In the library's order of adding.
_TIP = (1, 1, 1)
_SHAPES: tuple[tuple[tuple[int, ...], tuple[tuple[int, int, int], ...]], ...] = (
    ((), ()),
    ((0,), (_TIP,)),
    ((6, 7), ((2, 2, 0), (2, 2, 0))),
    ((5, 6), (_TIP, _TIP)),
    ((3, 4), (_TIP, _TIP)),
    ((5, 6, 7), ((4, 0, 0), (2, 2, 2), _TIP)),
    ((3, 4, 7), ((0, 2, 2), (0, 2, 2), _TIP)),
    ((3, 5, 6), (_TIP, _TIP, _TIP)),
    ((4, 5, 6, 7), ((4, 0, 0), (4, 0, 0))),
    ((3, 5, 6, 7), (_TIP, (2, 2, 2), (2, 2, 2), _TIP)),
    ((3, 4, 6, 7), (_TIP, (3, 3, 3), (0, 2, 2), (2, 0, 2))),
    ((3, 4, 5, 6), ((4, 0, 0), _TIP, (2, 2, 2), _TIP)),
    ((2, 3, 4, 5), ((2, 2, 0), (2, 2, 0), (2, 2, 0), (2, 2, 0))),
    ((1, 2, 4, 7), (_TIP, _TIP, _TIP, _TIP)),
)


def element_areas(spacing: Sequence[float] = (1.0, 1.0, 1.0)) -> NDArray[np.float64]:
    """(256,) area of each code's element, in the spacing's unit squared; 0 for all in and all out.

    ``spacing``: distance of neighbouring voxels along each axis.
    """
    x, y, z = (float(s) for s in spacing)
    face = np.array([y * z, x * z, x * y])  # areas across each axis
    areas = np.zeros(N_CODES)
    for code, triangles in enumerate(_triangles()):
        for normal in triangles:
            areas[code] += np.linalg.norm(np.array(normal) / 8 * face)
    return areas


@cache
def _triangles() -> tuple[tuple[tuple[int, ...], ...], ...]:
    """The normals of each code's triangles: every shape, mirrored and turned in all 48 ways."""
    found: list[tuple[tuple[int, ...], ...]] = [()] * N_CODES
    for voxels, normals in _SHAPES:
        for axes, mirror in product(permutations(range(3)), product((0, 1), repeat=3)):
            code = 0
            for bit in voxels:
                corner = (bit >> 2 & 1, bit >> 1 & 1, bit & 1)
                a, b, c = (corner[axis] ^ flip for axis, flip in zip(axes, mirror, strict=True))
                code |= 1 << (4 * a + 2 * b + c)
            turned = tuple(tuple(normal[axis] for axis in axes) for normal in normals)
            found[code] = found[ALL_IN - code] = turned
    return tuple(found)
