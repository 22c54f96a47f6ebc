"""Numbers and labels as they lie in files to volumes that the other loops read quickly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from harness.evaluate.kernels.compiled import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PIECE = 1024  # voxels; what is in between stays in the first cache
_TILE = 32  # voxels; two tiles of bytes stay in the first cache


@compiled
def split_halves(bits: NDArray[np.uint16], out: NDArray[np.float32]) -> None:
    """Interleaved (n, 3) float16, as their bits, to (3, n) float32, exactly.

    A float16's exponent and fraction, moved to a float32's place, are its value times 2 ** -112,
    also where the float16 is subnormal. NaN and infinity need all bits of the exponent set.
    """
    n = bits.shape[0]
    flat = bits.ravel()
    words = np.empty(3 * _PIECE, np.uint32)
    values = words.view(np.float32)
    scale = np.float32(2.0**112)
    for start in range(0, n, _PIECE):
        m = min(_PIECE, n - start)
        piece = flat[3 * start : 3 * (start + m)]
        for k in range(piece.size):
            half = np.uint32(piece[k])
            not_finite = np.uint32(0x7F800000 if (half & 0x7C00) == 0x7C00 else 0)
            words[k] = ((half & 0x7FFF) << 13) | ((half & 0x8000) << 16) | not_finite
        for c in range(3):
            part = out[c, start : start + m]
            for k in range(part.size):
                part[k] = values[3 * k + c] * scale


@compiled
def split_singles(values: NDArray[Any], out: NDArray[np.float32]) -> None:
    """Interleaved (n, 3) to (3, n)."""
    for k in range(values.shape[0]):
        out[0, k] = values[k, 0]
        out[1, k] = values[k, 1]
        out[2, k] = values[k, 2]


@compiled
def look_up(
    values: NDArray[Any],
    lowest: int,
    table: NDArray[Any],
    seen: NDArray[np.bool_],
    out: NDArray[Any],
) -> None:
    """out[k] = table[values[k] - lowest], 0 outside the table; ``seen`` is set for each result."""
    for k in range(values.size):
        place = np.int64(values[k]) - lowest
        index = table[place] if 0 <= place < table.size else table.dtype.type(0)
        seen[index] = True
        out[k] = index


@compiled
def transpose(volume: NDArray[Any], out: NDArray[Any]) -> None:
    """(A, B, C) to (C, B, A)."""
    a, b, c = volume.shape
    for j in range(b):
        for first in range(0, a, _TILE):
            for last in range(0, c, _TILE):
                for i in range(first, min(first + _TILE, a)):
                    for k in range(last, min(last + _TILE, c)):
                        out[k, j, i] = volume[i, j, k]
