"""The surfaces of all labels of a map at once, and how far they are from each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from harness.evaluate.kernels.compiled import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

REACH = 5  # voxels that the search around each element covers
_WINDOW = 2 * REACH + 1  # bits
_FEW = 200_000  # comparisons that take less time than a distance transform
_NEVER = 1 << 30  # a squared distance that no image has


@compiled
def find_elements(
    indices: NDArray[Any],
    wanted: NDArray[np.bool_],
    owners: NDArray[Any],
    places: NDArray[np.int32],
    codes: NDArray[np.uint8],
    counts: NDArray[np.int64],
    shift: int,
) -> int:
    """Surface elements of all ``wanted`` indices (0 is none) of an index map (A, B, C).

    Element n has the index ``owners[n]``, the code ``codes[n]``, and lies at the corner
    ``places[n]``: row << shift | position, in a map of (A + 1, B + 1, C + 1) corners with a rim of
    REACH on all sides, whose rows along the last axis are counted, so that no search has to divide.
    Corner (i, j, k) is where the voxels from (i - 1, j - 1, k - 1) to (i, j, k) meet. Outside the
    map the index is 0. ``counts`` gets the elements of each index. Returns how many there are in
    all: if more than the arrays hold, the rest is only counted.
    """
    na, nb, nc = indices.shape
    wide = nb + 1 + 2 * REACH
    found = 0
    rows = np.zeros((4, nc + 2), indices.dtype)
    mixed = np.empty(nc + 1, indices.dtype)
    around = np.empty(8, indices.dtype)
    for i in range(na + 1):
        for j in range(nb + 1):
            for r in range(4):
                a, b = i - 1 + (r >> 1), j - 1 + (r & 1)
                if 0 <= a < na and 0 <= b < nb:
                    row = indices[a, b]
                    for k in range(nc):  # a slice would take two seconds to compile
                        rows[r, k + 1] = row[k]
                else:
                    rows[r, :] = 0
            r0, r1, r2, r3 = rows[0], rows[1], rows[2], rows[3]
            anything = indices.dtype.type(0)
            for k in range(nc + 1):
                v = r0[k]
                differs = (
                    (v ^ r1[k]) | (v ^ r2[k]) | (v ^ r3[k])
                    | (v ^ r0[k + 1]) | (v ^ r1[k + 1]) | (v ^ r2[k + 1]) | (v ^ r3[k + 1])
                )  # fmt: skip
                mixed[k] = differs
                anything |= differs
            if anything == 0:
                continue
            base = (((i + REACH) * wide + j + REACH) << shift) + REACH
            for k in range(nc + 1):
                if mixed[k] == 0:
                    continue
                for r in range(4):
                    around[2 * r] = rows[r, k]
                    around[2 * r + 1] = rows[r, k + 1]
                done = 0
                for first in range(8):
                    owner = around[first]
                    if done >> first & 1:
                        continue
                    code = 0
                    for bit in range(first, 8):
                        code |= (around[bit] == owner) << bit
                    done |= code
                    if owner == 0 or not wanted[owner]:
                        continue
                    if found < places.size:
                        owners[found] = owner
                        places[found] = base + k
                        codes[found] = code
                    counts[owner] += 1
                    found += 1
    return found


@compiled
def group(
    owners: NDArray[Any],
    places: NDArray[np.int32],
    codes: NDArray[np.uint8],
    starts: NDArray[np.int64],
    ordered_places: NDArray[np.int32],
    ordered_codes: NDArray[np.uint8],
) -> None:
    """Order elements by owner, whose first ones go to ``starts``; the order is kept otherwise."""
    place_of = starts.copy()
    for n in range(ordered_places.size):
        to = place_of[owners[n]]
        place_of[owners[n]] = to + 1
        ordered_places[to] = places[n]
        ordered_codes[to] = codes[n]


def place_shift(shape: tuple[int, ...]) -> int:
    """How many bits the position in a row of a map of this many corners needs, rim and all."""
    return (shape[2] + 2 * REACH).bit_length()


def search_tables(shape: tuple[int, ...]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """For :func:`search_near`, on corners of this shape: an empty bit map with a rim, the rows
    around a row as (squared distance, step in the map), nearest first, and for each pattern of
    set bits in a window the squared distance of the middle to the nearest."""
    a, b, c = (n + 2 * REACH for n in shape)
    words = (c + 63) // 64 + 1
    bits = np.zeros((a * b, words), np.uint64)
    rows = sorted(
        (i * i + j * j, i * b + j)
        for i in range(-REACH, REACH + 1)
        for j in range(-REACH, REACH + 1)
        if i * i + j * j <= REACH * REACH
    )
    steps = abs(np.arange(_WINDOW) - REACH) ** 2
    is_set = np.arange(1 << _WINDOW)[:, None] >> np.arange(_WINDOW) & 1 == 1
    nearest = np.where(is_set, steps, _NEVER).min(axis=1)
    return bits, np.array(rows, np.int32), nearest.astype(np.int32)


@compiled
def search_near(
    places: NDArray[np.int32],
    others: NDArray[np.int32],
    shift: int,
    bits: NDArray[np.uint64],
    rows: NDArray[np.int32],
    nearest: NDArray[np.int32],
    squares: NDArray[np.int32],
) -> int:
    """Squared distance of each element to the nearest of the others, where it is within reach.

    Others are set in a bit map; around each element whole rows of bits are looked at, nearest rows
    first, until no row can have a nearer one. Returns how many were out of reach; those get -1.
    ``bits`` is empty before and after.
    """
    one = np.uint64(1)
    full = np.uint64((1 << _WINDOW) - 1)
    within = (1 << shift) - 1
    for other in others:
        position = other & within
        bits[other >> shift, position >> 6] |= one << np.uint64(position & 63)
    n_far = 0
    for n in range(places.size):
        row = places[n] >> shift
        start = (places[n] & within) - REACH
        word, offset = start >> 6, np.uint64(start & 63)
        best = _NEVER
        for r in range(rows.shape[0]):
            if rows[r, 0] >= best:
                break
            line = row + rows[r, 1]
            window = bits[line, word] >> offset
            if offset > np.uint64(64 - _WINDOW):
                window |= bits[line, word + 1] << (np.uint64(64) - offset)
            best = min(best, rows[r, 0] + nearest[window & full])
        if best <= REACH * REACH:
            squares[n] = best
        else:  # one that was not looked at may be nearer than what was found
            squares[n] = -1
            n_far += 1
    for other in others:
        bits[other >> shift, (other & within) >> 6] = 0
    return n_far


def search_far(
    places: NDArray[np.int32],
    others: NDArray[np.int32],
    shift: int,
    wide: int,
    squares: NDArray[np.int32],
) -> None:
    """The squared distances that :func:`search_near` left at -1, whatever they are.

    A few elements are compared with all others. For many, an exact distance transform, one axis
    after the other (Saito and Toriwaki 1994), of no more than is needed: rows along the last axis
    that hold others; planes of the second one that hold such elements; then only these elements. A
    step goes on only while it can make a distance smaller.
    """
    far = np.flatnonzero(squares < 0)
    if far.size * others.size < _FEW:
        _compare_all(places, others, shift, wide, squares)
        return
    # What NumPy can do as well is not compiled: its functions take seconds to.
    one, two, three = _positions(others, shift, wide)
    far_one, far_two, far_three = _positions(places[far], shift, wide)
    start = min(three.min(), far_three.min())
    one_low, two_low = one.min(), two.min()
    holds = np.zeros((one.max() - one_low + 1, two.max() - two_low + 1), np.bool_)
    holds[one - one_low, two - two_low] = True
    row_of = np.where(holds, np.cumsum(holds).reshape(holds.shape) - 1, -1).astype(np.int32)
    n = max(three.max(), far_three.max()) - start + 1
    along = np.full((np.count_nonzero(holds), n), _NEVER, np.float32)
    along[row_of[one - one_low, two - two_low], three - start] = 0.0
    order = np.argsort(far_two, kind="stable")
    found = np.empty(far.size, np.int32)
    _transform(
        along,
        row_of,
        row_of.max(axis=1) >= 0,
        (far_one - one_low)[order],
        (far_two - two_low)[order],
        (far_three - start)[order],
        found,
    )
    squares[far[order]] = found


def _positions(
    places: NDArray[np.int32], shift: int, wide: int
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """Along each axis."""
    row = places >> shift
    return row // wide, row % wide, places & ((1 << shift) - 1)


@compiled
def _transform(
    along: NDArray[np.float32],
    row_of: NDArray[np.int32],
    known: NDArray[np.bool_],
    one: NDArray[np.int32],
    two: NDArray[np.int32],
    three: NDArray[np.int32],
    squares: NDArray[np.int32],
) -> None:
    """Squared distances at the positions (one, two, three), which are in the order of ``two``.

    ``along``: the rows that hold elements, 0 there and ``_NEVER`` elsewhere. ``row_of`` (a, b):
    which of those it is, -1 for none; ``known`` (a,): is there one?
    """
    a, c = row_of.shape[0], along.shape[1]
    for row in range(along.shape[0]):
        _spread_along(along[row])
    across = np.empty((a, c), np.float32)
    first = 0
    while first < two.size:
        end, left, right = first, c, -1
        while end < two.size and two[end] == two[first]:
            left, right = min(left, three[end]), max(right, three[end])
            end += 1
        for i in range(a):
            if known[i]:
                _nearest_row(along, row_of[i], two[first], left, right + 1, across[i])
        for m in range(first, end):
            squares[m] = _nearest(across, known, one[m], three[m])
        first = end


@compiled
def _compare_all(
    places: NDArray[np.int32],
    others: NDArray[np.int32],
    shift: int,
    wide: int,
    squares: NDArray[np.int32],
) -> None:
    within = (1 << shift) - 1
    c = (others & within).astype(np.int32)
    b = ((others >> shift) % wide).astype(np.int32)
    a = ((others >> shift) // wide).astype(np.int32)
    for n in range(places.size):
        if squares[n] < 0:
            place = places[n]
            pc, pb, pa = (place & within), ((place >> shift) % wide), ((place >> shift) // wide)
            best = np.int32(_NEVER)
            for m in range(others.size):
                da, db, dc = a[m] - pa, b[m] - pb, c[m] - pc
                best = min(best, np.int32(da * da + db * db + dc * dc))
            squares[n] = best


@compiled
def _spread_along(row: NDArray[np.float32]) -> None:
    """0 where an element is, the squared distance to the nearest elsewhere, in place."""
    n = row.size
    last = -1
    for k in range(n):
        if row[k] == 0.0:
            last = k
        elif last >= 0:
            row[k] = (k - last) ** 2
    last = -1
    for k in range(n - 1, -1, -1):
        if row[k] == 0.0:
            last = k
        elif last >= 0:
            row[k] = min(row[k], np.float32((last - k) ** 2))


@compiled
def _nearest_row(
    rows: NDArray[np.float32],
    numbers: NDArray[np.int32],
    at: int,
    start: int,
    end: int,
    out: NDArray[np.float32],
) -> None:
    """out[k] = min over r of rows[numbers[r], k] + (r - at) ** 2, for k from start to end - 1.

    ``at`` may be outside; numbers of -1 have no row. Squared distances are whole numbers below
    2 ** 24, which float32 holds: half the width of what the compiler makes of sums of integers.
    """
    n = numbers.size
    results = out[start:end]
    largest = np.float32(_NEVER)
    results[:] = largest
    for step in range(max(0, -at, at - n + 1), max(at, n - 1 - at) + 1):
        square = np.float32(step * step)
        if square >= largest:
            break
        changed = False
        for side in range(2 if step else 1):
            r = at + step if side == 0 else at - step
            if 0 <= r < n and numbers[r] >= 0:
                row = rows[numbers[r], start:end]
                for k in range(results.size):
                    value = row[k] + square
                    results[k] = value if value < results[k] else results[k]
                changed = True
        if changed:
            largest = np.float32(0.0)
            for k in range(results.size):
                largest = results[k] if results[k] > largest else largest


@compiled
def _nearest(columns: NDArray[np.float32], known: NDArray[np.bool_], at: int, k: int) -> np.int32:
    """Minimum over known r of columns[r, k] + (r - at) ** 2; ``at`` may be outside."""
    n = known.size
    best = np.float32(_NEVER)
    for step in range(max(0, -at, at - n + 1), max(at, n - 1 - at) + 1):
        square = np.float32(step * step)
        if square >= best:
            break
        if 0 <= at + step < n and known[at + step]:
            best = min(best, columns[at + step, k] + square)
        if 0 <= at - step < n and known[at - step]:
            best = min(best, columns[at - step, k] + square)
    return np.int32(best)
