"""HD95 of all labels of two maps, in voxels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.evaluate.kernels.surface import (
    REACH,
    find_elements,
    group,
    place_shift,
    search_far,
    search_near,
    search_tables,
)
from harness.evaluate.surface_elements import element_areas

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from harness.challenge.field import FloatArray

ROBUST_SHARE = 0.95

# Elements of both maps that are held at once, six bytes each and ten while they are measured. Maps
# of organs have one million; what a field that is noise makes of them can have twenty.
_MAX_ELEMENTS = 4_000_000

_SAMPLED = 64  # elements that tell which way to measure
_BITS_OF_RANK = 5  # room for the ranks of the 13 different areas


@dataclass(frozen=True, kw_only=True)
class _Space:
    """How places are written down, and the tables that searching among them needs."""

    shift: int
    wide: int
    tables: tuple[NDArray[Any], NDArray[Any], NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class _Elements:
    """The surface elements of some indices of a map; index n's are those from ``starts[n]`` to
    ``starts[n + 1]``."""

    places: NDArray[np.int32]
    codes: NDArray[np.uint8]
    starts: NDArray[np.int64]

    def of(self, index: int) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
        one = slice(self.starts[index], self.starts[index + 1])
        return self.places[one], self.codes[one]


def robust_hausdorff_vox(
    fixed: NDArray[Any], warped: NDArray[Any], wanted: NDArray[np.bool_]
) -> FloatArray:
    """(I,) HD95 of each wanted index, which the fixed map has; infinite if the warped one lacks it.

    ``fixed``, ``warped``: maps of indices 0 to I - 1, (A, B, C), contiguous, unsigned integers.
    ``wanted``: (I,); never index 0. Others get NaN. :func:`harness.evaluate.labels.label_metrics`
    has the definition.
    """
    found = np.full(len(wanted), np.nan)
    shape = (fixed.shape[0] + 1, fixed.shape[1] + 1, fixed.shape[2] + 1)
    space = _Space(shift=place_shift(shape), wide=shape[1] + 2 * REACH, tables=search_tables(shape))
    for both in _in_parts(fixed, warped, wanted):
        for index in np.flatnonzero(both[0].starts[1:] > both[0].starts[:-1]).tolist():
            (places, codes), (other_places, other_codes) = (one.of(index) for one in both)
            if not len(other_places):
                found[index] = np.inf
                continue
            there = _squares(places, other_places, space)
            back = _squares(other_places, places, space)
            found[index] = max(_robust_maximum(there, codes), _robust_maximum(back, other_codes))
    return found


def _in_parts(
    fixed: NDArray[Any], warped: NDArray[Any], wanted: NDArray[np.bool_]
) -> Iterator[tuple[_Elements, _Elements]]:
    """The elements of both maps: of all wanted indices at once, where memory allows."""
    both, counts = _find_both(fixed, warped, wanted)
    if both is not None:
        yield both
        return
    left = list(np.flatnonzero(wanted & (counts > 0)))
    while left:
        some = np.zeros_like(wanted)
        total = 0
        while left and (not total or total + counts[left[0]] <= _MAX_ELEMENTS):
            total += counts[left[0]]
            some[left.pop(0)] = True
        both, _ = _find_both(fixed, warped, some, total)
        if both is not None:
            yield both


def _find_both(
    fixed: NDArray[Any],
    warped: NDArray[Any],
    wanted: NDArray[np.bool_],
    room: int = _MAX_ELEMENTS,
) -> tuple[tuple[_Elements, _Elements] | None, NDArray[np.int64]]:
    """The elements, None if they are more than there is room for, and how many of each index."""
    found = []
    shift = place_shift(tuple(n + 1 for n in fixed.shape))
    total = np.zeros(len(wanted), np.int64)
    for indices in (fixed, warped):
        owners = np.empty(room, indices.dtype)
        places = np.empty(room, np.int32)
        codes = np.empty(room, np.uint8)
        counts = np.zeros(len(wanted), np.int64)
        n = find_elements(indices, wanted, owners, places, codes, counts, shift)
        total += counts
        if total.sum() > room:
            continue
        starts = np.concatenate([[0], np.cumsum(counts)])
        elements = _Elements(
            places=np.empty(n, np.int32), codes=np.empty(n, np.uint8), starts=starts
        )
        group(owners, places, codes, starts[:-1], elements.places, elements.codes)
        found.append(elements)
    return ((found[0], found[1]) if len(found) == 2 else None), total


def _squares(
    places: NDArray[np.int32],
    others: NDArray[np.int32],
    space: _Space,
) -> NDArray[np.int32]:
    """Squared distance of each place to the nearest of the others."""
    squares = np.full(len(places), -1, np.int32)
    some = np.ascontiguousarray(places[:: max(len(places) // _SAMPLED, 1)])
    n_far = search_near(some, others, space.shift, *space.tables, squares[: len(some)])
    if 2 * n_far > len(some):  # a field that is grossly wrong: looking around would be in vain
        squares[:] = -1
        search_far(places, others, space.shift, space.wide, squares)
    elif search_near(places, others, space.shift, *space.tables, squares):
        search_far(places, others, space.shift, space.wide, squares)
    return squares


# The areas that occur, smallest first, and each code's place among them.
_AREAS, _RANKS = np.unique(element_areas(), return_inverse=True)
_RANKS = _RANKS.astype(np.int32)


def _robust_maximum(squares: NDArray[np.int32], codes: NDArray[np.uint8]) -> float:
    """The distance within which 95 % of the area is, by the reference's own sums."""
    keys = (squares << _BITS_OF_RANK) | _RANKS[codes]
    keys.sort()
    areas = _AREAS[keys & ((1 << _BITS_OF_RANK) - 1)]
    reached = np.cumsum(areas) / np.sum(areas)
    place = min(int(np.searchsorted(reached, ROBUST_SHARE)), len(keys) - 1)
    return float(np.sqrt(keys[place] >> _BITS_OF_RANK))
