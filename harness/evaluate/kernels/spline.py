"""Splines through a field's values: cubic at single points, quadratic on a grid twice as fine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from harness.evaluate.kernels.compiled import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Samples on each side that a point's value is made of, counted along all three axes together:
# the cardinal cubic spline falls by 0.27 a sample, to 4e-12 at this distance.
REACH = 20
_WIDTH = 48  # samples along the last axis; room for 2 * REACH + 2, and whole vectors
_NARROW = 16  # as many where 7 on each side are enough
_CUBIC_POLE = 3.0**0.5 - 2.0
_QUADRATIC_POLE = 8.0**0.5 - 3.0


@compiled
def _cardinal_weights(
    x: float, n: int, powers: NDArray[Any], indices: NDArray[Any], weights: NDArray[Any]
) -> int:
    """The samples 0..n-1 that make up the cubic spline's value at x, nearest first.

    Weight of sample s: the cardinal spline at x - s, that is sum over j of c(j) B(x - s - j), where
    B is the cubic B-spline and c(j) = -6 p / (1 - p ** 2) * p ** |j| with the pole p. Outside, the
    samples are mirrored about the first and the last. ``powers``: of the pole, from 0 on. Returns
    how many there are.
    """
    base = int(np.floor(x))
    t = x - base
    pieces = (
        (1.0 - t) ** 3 / 6.0,
        (4.0 - 6.0 * t**2 + 3.0 * t**3) / 6.0,
        (1.0 + 3.0 * t + 3.0 * t**2 - 3.0 * t**3) / 6.0,
        t**3 / 6.0,
    )  # B at the distances of samples base - 1 to base + 2
    gain = -6.0 * _CUBIC_POLE / (1.0 - _CUBIC_POLE**2)
    if t == 0.0 or n == 1:
        indices[0], weights[0] = base, 1.0
        return 1
    count = 0
    for step in range(REACH + 1):
        for side in range(2):
            s = base - step if side == 0 else base + 1 + step
            weight = 0.0
            for m in range(4):
                weight += pieces[m] * powers[abs(base - 1 + m - s)]
            period = 2 * (n - 1)
            s = abs(s) % period
            indices[count] = s if s < n else period - s
            weights[count] = gain * weight
            count += 1
    return count


@compiled
def sample_cubic(
    first: NDArray[Any],
    second: NDArray[Any],
    last: NDArray[Any],
    points: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None:
    """The three components at ``points`` (N, 3) into ``out`` (N, 3); 0 outside the volume.

    A point within a volume's first and last sample on all axes is inside.
    """
    na, nb, nc = first.shape
    size = 2 * (REACH + 1)
    indices = np.empty((3, size), np.int64)
    weights = np.empty((3, size), np.float64)
    powers = _CUBIC_POLE ** np.arange(REACH + 4)
    row = np.empty((3, max(nc, _WIDTH)), np.float64)
    flat_first, flat_second, flat_last = first.ravel(), second.ravel(), last.ravel()
    used = np.empty(nc, np.float64)
    for p in range(points.shape[0]):
        a, b, c = points[p, 0], points[p, 1], points[p, 2]
        out[p, :] = 0.0
        inside = 0.0 <= a <= na - 1 and 0.0 <= b <= nb - 1 and 0.0 <= c <= nc - 1
        if not inside:
            continue
        ca = _cardinal_weights(a, na, powers, indices[0], weights[0])
        cb = _cardinal_weights(b, nb, powers, indices[1], weights[1])
        cc = _cardinal_weights(c, nc, powers, indices[2], weights[2])
        low, high = nc, -1
        used[:] = 0.0
        for k in range(cc):
            used[indices[2, k]] += weights[2, k]
            low, high = min(low, indices[2, k]), max(high, indices[2, k])
        is_wide = cc > 1 and nc >= _WIDTH
        if is_wide:  # more samples than needed, with a weight of 0: as many each time
            low = min(low, nc - _WIDTH)
            high = low + _WIDTH - 1
        row[:, : high - low + 1] = 0.0
        for i in range(ca):
            # The rows that can matter beside this one: entries are in pairs, nearest first.
            for j in range(min(cb, 2 * (REACH - i // 2) + 2)):
                weight = weights[0, i] * weights[1, j]
                u, v = indices[0, i], indices[1, j]
                left = REACH - i // 2 - j // 2
                start, end = low, high + 1
                if cc > 1:
                    start = max(low, int(c) - left)
                    end = min(high + 1, int(c) + left + 2)
                place = (u * nb + v) * nc + start
                if is_wide:
                    place = (u * nb + v) * nc + low
                    near = max(min(int(c) - 7 - low, _WIDTH - _NARROW), 0)
                    if left <= 7:
                        _add_narrow(weight, flat_first, place + near, row[0, near:])
                        _add_narrow(weight, flat_second, place + near, row[1, near:])
                        _add_narrow(weight, flat_last, place + near, row[2, near:])
                    else:
                        _add_wide(weight, flat_first, place, row[0])
                        _add_wide(weight, flat_second, place, row[1])
                        _add_wide(weight, flat_last, place, row[2])
                else:
                    _add_row(weight, flat_first, place, row[0], start - low, end - low)
                    _add_row(weight, flat_second, place, row[1], start - low, end - low)
                    _add_row(weight, flat_last, place, row[2], start - low, end - low)
        for k in range(high - low + 1):
            for axis in range(3):
                out[p, axis] += used[low + k] * row[axis, k]


@compiled
def _add_wide(weight: float, values: NDArray[Any], place: int, sums: NDArray[np.float64]) -> None:
    """sums[:_WIDTH] += weight * values[place:...]: a number of steps that the compiler knows."""
    source = np.uint64(place)
    for k in range(np.uint64(_WIDTH)):
        sums[k] += weight * values[source + k]


@compiled
def _add_narrow(weight: float, values: NDArray[Any], place: int, sums: NDArray[np.float64]) -> None:
    """As :func:`_add_wide`, for _NARROW samples."""
    source = np.uint64(place)
    for k in range(np.uint64(_NARROW)):
        sums[k] += weight * values[source + k]


@compiled
def _add_row(
    weight: float,
    values: NDArray[Any],
    place: int,
    sums: NDArray[np.float64],
    start: int,
    end: int,
) -> None:
    """sums[start:end] += weight * values[place:...]."""
    # Unsigned indices: with signed ones each access asks whether it counts from the end.
    to, source = np.uint64(start), np.uint64(place)
    for k in range(np.uint64(end - start)):
        sums[to + k] += weight * values[source + k]


@compiled
def zoom_twice(volume: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Quadratic spline through (A, B, C), sampled corner-aligned on (2A, 2B, 2C), float32.

    Sample i lies at i * (n - 1) / (2n - 1). Computed in float64, axis by axis, mirrored at the
    ends, as ``scipy.ndimage.zoom(volume, 2, order=2)`` does.
    """
    na, nb, nc = volume.shape
    coefficients = volume.astype(np.float64)
    for i in range(na):
        for j in range(nb):
            _prefilter_row(coefficients[i, j])
        _prefilter_rows(coefficients[i])
    for j in range(nb):
        _prefilter_rows(coefficients[:, j])
    places_a, weights_a = _quadratic_weights(na)
    places_b, weights_b = _quadratic_weights(nb)
    places_c, weights_c = _quadratic_weights(nc)
    rows = np.empty((nb, 2 * nc), np.float64)
    planes = np.empty((3, 2 * nb, 2 * nc), np.float64)
    held = np.full(3, -1, np.int64)
    for i in range(2 * na):
        slots = np.empty(3, np.int64)
        for m in range(3):
            wanted = places_a[i, m]
            slot = wanted % 3
            slots[m] = slot
            if held[slot] == wanted:
                continue
            held[slot] = wanted
            for j in range(nb):
                source = coefficients[wanted, j]
                for k in range(2 * nc):
                    rows[j, k] = (
                        weights_c[k, 0] * source[places_c[k, 0]]
                        + weights_c[k, 1] * source[places_c[k, 1]]
                        + weights_c[k, 2] * source[places_c[k, 2]]
                    )
            for j in range(2 * nb):
                _blend(rows, places_b[j], weights_b[j], planes[slot, j])
        for j in range(2 * nb):
            _blend_single(planes[:, j], slots, weights_a[i], out[i, j])


@compiled
def _quadratic_weights(n: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Coefficients (2n, 3) and weights (2n, 3) of each sample."""
    places = np.empty((2 * n, 3), np.int64)
    weights = np.empty((2 * n, 3), np.float64)
    step = float(n - 1) / float(2 * n - 1)
    for i in range(2 * n):
        x = i * step
        nearest = int(np.floor(x + 0.5))
        t = x - nearest
        weights[i, 0] = 0.5 * (0.5 - t) ** 2
        weights[i, 1] = 0.75 - t * t
        weights[i, 2] = 0.5 * (0.5 + t) ** 2
        for m in range(3):
            place = abs(nearest - 1 + m)
            if place > n - 1:
                place = 2 * (n - 1) - place
            places[i, m] = max(place, 0)
    return places, weights


@compiled
def _prefilter_row(row: NDArray[np.float64]) -> None:
    """Values to coefficients of the quadratic B-spline, in place."""
    n = row.size
    if n < 2:
        return
    pole = _QUADRATIC_POLE
    gain = (1.0 - pole) * (1.0 - 1.0 / pole)
    # The causal filter's start: the whole mirrored signal's geometric sum.
    z = pole
    last = pole ** (n - 1)
    first = row[0] + last * row[n - 1]
    back = last * last / pole
    for k in range(1, n - 1):
        first += (z + back) * row[k]
        z *= pole
        back /= pole
    row[0] = first / (1.0 - last * last) * gain
    for k in range(1, n):
        row[k] = row[k] * gain + pole * row[k - 1]
    row[n - 1] = (pole / (pole * pole - 1.0)) * (row[n - 1] + pole * row[n - 2])
    for k in range(n - 2, -1, -1):
        row[k] = pole * (row[k + 1] - row[k])


@compiled
def _prefilter_rows(plane: NDArray[np.float64]) -> None:
    """As :func:`_prefilter_row` along the first axis of (n, C), all columns at once."""
    n, c = plane.shape
    if n < 2:
        return
    pole = _QUADRATIC_POLE
    gain = (1.0 - pole) * (1.0 - 1.0 / pole)
    z = pole
    last = pole ** (n - 1)
    first = np.empty(c, np.float64)
    for k in range(c):
        first[k] = plane[0, k] + last * plane[n - 1, k]
    for r in range(1, n - 1):
        weight = z + last * last / z
        z *= pole
        if abs(weight) < 1e-40:
            continue
        for k in range(c):
            first[k] += weight * plane[r, k]
    for k in range(c):
        plane[0, k] = first[k] / (1.0 - last * last) * gain
    for r in range(1, n):
        for k in range(c):
            plane[r, k] = plane[r, k] * gain + pole * plane[r - 1, k]
    for k in range(c):
        plane[n - 1, k] = (pole / (pole * pole - 1.0)) * (plane[n - 1, k] + pole * plane[n - 2, k])
    for r in range(n - 2, -1, -1):
        for k in range(c):
            plane[r, k] = pole * (plane[r + 1, k] - plane[r, k])


@compiled
def _blend(
    rows: NDArray[np.float64],
    places: NDArray[np.int64],
    weights: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None:
    one, two, three = rows[places[0]], rows[places[1]], rows[places[2]]
    w0, w1, w2 = weights[0], weights[1], weights[2]
    for k in range(out.size):
        out[k] = w0 * one[k] + w1 * two[k] + w2 * three[k]


@compiled
def _blend_single(
    rows: NDArray[np.float64],
    places: NDArray[np.int64],
    weights: NDArray[np.float64],
    out: NDArray[np.float32],
) -> None:
    one, two, three = rows[places[0]], rows[places[1]], rows[places[2]]
    w0, w1, w2 = weights[0], weights[1], weights[2]
    for k in range(out.size):
        out[k] = np.float32(w0 * one[k] + w1 * two[k] + w2 * three[k])
