"""Determinants of a field's Jacobian, and what is asked of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from harness.evaluate.kernels.compiled import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SQRT2 = 2.0**0.5
_LN2 = 0.6931471805599453
_FRACTION = (1 << 52) - 1
_ONE_BITS = 1023 << 52

# Places of the sums that :func:`central_statistics` gives.
N_SUMS = 5


@compiled
def central_statistics(
    first: NDArray[Any],
    second: NDArray[Any],
    last: NDArray[Any],
    mask: NDArray[np.bool_],
    crop: int,
    half: np.floating[Any],
    limits: tuple[float, float, float],
    sums: NDArray[np.float64],
    kept: NDArray[np.float32],
) -> int:
    """det(I + grad d) by central differences, in float64.

    ``half`` is a half, in the type that differences are rounded to.

    ``mask`` (A, B, C) says which voxels count; with no voxels, (0, 0, 0), all do. ``crop`` voxels
    at each side do not. ``limits``: what is added before the logarithm is taken, and what that is
    clipped to. ``sums`` gets the sum and the sum of squares of the logarithm, less its value at
    the first voxel; the smallest and the largest determinant; and how many are not positive.
    ``kept`` gets each determinant that counts, as far as it has room. Returns how many.
    """
    na, nb, nc = first.shape
    shift, lowest, highest = limits
    dets = np.empty(nc, np.float64)
    logs = np.empty(nc, np.float64)
    exponents = np.empty(nc, np.int32)
    is_masked = mask.size > 0
    n = 0
    total = squares = origin = 0.0
    least, most = np.inf, -np.inf
    folded = 0
    for i in range(crop, na - crop):
        for j in range(crop, nb - crop):
            start, end = crop, nc - crop
            if is_masked:
                start, end = _extent(mask[i, j], start, end)
                if start >= end:
                    continue
            m = end - start
            _determinants(first, second, last, i, j, start, m, half, dets)
            if is_masked:
                m = _compress(dets, mask[i, j, start:end])
            for k in range(m):
                least = min(least, dets[k])
                most = max(most, dets[k])
                folded += dets[k] <= 0.0
            for k in range(min(m, kept.size - n)):
                kept[n + k] = dets[k]
            _logarithms(dets, m, shift, lowest, highest, exponents, logs)
            if n == 0:
                origin = logs[0]
            n += m
            row_total = row_squares = 0.0
            for k in range(m):
                value = logs[k] - origin
                row_total += value
                row_squares += value * value
            total += row_total
            squares += row_squares
    sums[0], sums[1], sums[2], sums[3], sums[4] = total, squares, least, most, folded
    return n


@compiled
def _extent(row: NDArray[np.bool_], start: int, end: int) -> tuple[int, int]:
    """The part of start to end outside which nothing is set."""
    while start < end and not row[start]:
        start += 1
    while start < end and not row[end - 1]:
        end -= 1
    return start, end


@compiled
def _compress(values: NDArray[np.float64], wanted: NDArray[np.bool_]) -> int:
    """Move those that are wanted to the front; how many there are."""
    m = 0
    for k in range(wanted.size):
        values[m] = values[k]
        m += wanted[k]
    return m


@compiled
def _determinants(
    first: NDArray[Any],
    second: NDArray[Any],
    last: NDArray[Any],
    i: int,
    j: int,
    start: int,
    m: int,
    half: np.floating[Any],
    dets: NDArray[np.float64],
) -> None:
    """Of the voxels from (i, j, start) on, into dets[:m]."""
    # Slices, so that each loop counts from 0: only then are several voxels computed at once.
    a1, a2, a3, a4, a5, a6 = _neighbours(first, i, j, start, m)
    b1, b2, b3, b4, b5, b6 = _neighbours(second, i, j, start, m)
    c1, c2, c3, c4, c5, c6 = _neighbours(last, i, j, start, m)
    for k in range(m):
        # Halving is exact, so that the difference alone is rounded, as in the reference.
        aa = np.float64(a2[k] * half - a1[k] * half) + 1.0
        ab = np.float64(a4[k] * half - a3[k] * half)
        ac = np.float64(a6[k] * half - a5[k] * half)
        ba = np.float64(b2[k] * half - b1[k] * half)
        bb = np.float64(b4[k] * half - b3[k] * half) + 1.0
        bc = np.float64(b6[k] * half - b5[k] * half)
        ca = np.float64(c2[k] * half - c1[k] * half)
        cb = np.float64(c4[k] * half - c3[k] * half)
        cc = np.float64(c6[k] * half - c5[k] * half) + 1.0
        dets[k] = (
            aa * (bb * cc - bc * cb) - ba * (ab * cc - ac * cb) + ca * (ab * bc - ac * bb)
        )  # fmt: skip


@compiled
def _neighbours(
    volume: NDArray[Any], i: int, j: int, start: int, m: int
) -> tuple[NDArray[Any], ...]:
    """Of the m voxels from (i, j, start) on: those behind and ahead along each axis."""
    end = start + m
    return (
        volume[i - 1, j, start:end],
        volume[i + 1, j, start:end],
        volume[i, j - 1, start:end],
        volume[i, j + 1, start:end],
        volume[i, j, start - 1 : end - 1],
        volume[i, j, start + 1 : end + 1],
    )


@compiled
def _logarithms(
    dets: NDArray[np.float64],
    m: int,
    shift: float,
    lowest: float,
    highest: float,
    exponents: NDArray[np.int32],
    logs: NDArray[np.float64],
) -> None:
    """logs[k] = log(clip(dets[k] + shift, lowest, highest)), within 2 units of the last place.

    Without calls, so that several are computed at once: x = 2 ** e * f with f in sqrt(1/2) to
    sqrt(2), and log f = 2 artanh(s), s = (f - 1) / (f + 1), by its series; the first term left out
    is below 1e-17. NaN stays NaN.
    """
    words = logs.view(np.int64)
    for k in range(m):
        x = dets[k] + shift
        x = lowest if x < lowest else x
        logs[k] = highest if x > highest else x
    for k in range(m):
        exponents[k] = np.int32((words[k] >> 52) - 1023)
        words[k] = words[k] & _FRACTION | _ONE_BITS
    for k in range(m):
        f = logs[k]
        e = np.float64(exponents[k])
        is_large = f > _SQRT2
        f = f * 0.5 if is_large else f
        e = e + 1.0 if is_large else e
        s = (f - 1.0) / (f + 1.0)
        q = s * s
        series = 1.0 / 21.0
        series = series * q + 1.0 / 19.0
        series = series * q + 1.0 / 17.0
        series = series * q + 1.0 / 15.0
        series = series * q + 1.0 / 13.0
        series = series * q + 1.0 / 11.0
        series = series * q + 1.0 / 9.0
        series = series * q + 1.0 / 7.0
        series = series * q + 1.0 / 5.0
        series = series * q + 1.0 / 3.0
        logs[k] = e * _LN2 + 2.0 * (s + s * q * series)
        if dets[k] != dets[k]:
            logs[k] = np.nan


@compiled
def inverted_volume(
    first: NDArray[Any],
    second: NDArray[Any],
    last: NDArray[Any],
    mask: NDArray[np.bool_],
    corners: NDArray[np.int64],
) -> tuple[float, int]:
    """Six times the volume, as a positive number, of the tetrahedra that are turned inside out.

    ``corners`` (T, 3, 3): each one's three corners as steps from a voxel, ordered so that the
    undeformed one has a positive determinant. Of voxels in the mask (all, if it has no voxels) that
    have neighbours on all sides. Also returns how many voxels those are.
    """
    na, nb, nc = first.shape
    edges = np.empty((3, 3), np.float64)
    volume = 0.0
    n = 0
    for i in range(1, na - 1):
        for j in range(1, nb - 1):
            for k in range(1, nc - 1):
                if mask.size and not mask[i, j, k]:
                    continue
                n += 1
                for t in range(corners.shape[0]):
                    for edge in range(3):
                        a, b, c = corners[t, edge]
                        at = (i + a, j + b, k + c)
                        edges[edge, 0] = np.float64(first[at]) - first[i, j, k] + a
                        edges[edge, 1] = np.float64(second[at]) - second[i, j, k] + b
                        edges[edge, 2] = np.float64(last[at]) - last[i, j, k] + c
                    det = (
                        edges[0, 0] * (edges[1, 1] * edges[2, 2] - edges[1, 2] * edges[2, 1])
                        - edges[0, 1] * (edges[1, 0] * edges[2, 2] - edges[1, 2] * edges[2, 0])
                        + edges[0, 2] * (edges[1, 0] * edges[2, 1] - edges[1, 1] * edges[2, 0])
                    )
                    volume -= min(det, 0.0)
    return volume, n
