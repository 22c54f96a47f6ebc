"""The ways in which a file's numbers may have been meant, each with its way back to voxels."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.check.findings import FindingKind
from harness.check.meaning.stored import RESHAPES, SWAPS, Layout

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from harness.challenge.model import Grid
    from harness.check.meaning.likeness import Image

Array = NDArray[Any]

REVERSED = np.eye(3)[::-1]
LEFT_AND_BACK = np.diag([-1.0, -1.0, 1.0])  # between the RAS of NIfTI and the LPS of ITK


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One way to read a field file: stored = ``stored_from_voxels`` @ d + what positions add.

    ``kinds`` are the mistakes it takes to store d like this, the most consequential one first; none
    is the challenge's own convention. ``others`` are mistakes that would give the same numbers.
    ``origin`` is what a stored position has at voxel 0, None where displacements are stored.
    ``backwards``: d goes from the moving image to the fixed one. ``in_world``: millimetres along
    the axes of the affine's world, not along those of the array.
    """

    kinds: tuple[FindingKind, ...]
    stored_from_voxels: Array
    layout: Layout = Layout.STORED
    origin: Array | None = None
    backwards: bool = False
    in_world: bool = False
    others: tuple[tuple[FindingKind, ...], ...] = field(default=())

    @property
    def name(self) -> str:
        return "+".join(self.kinds) or "voxels"

    @property
    def key(self) -> tuple[object, ...]:
        """The same for the same reading of another pair, and for no other reading."""
        return self.kinds, self.layout, self.in_world

    @property
    def voxels_from_stored(self) -> Array:
        inverse: Array = np.linalg.inv(self.stored_from_voxels)
        return inverse

    def reads_the_same_as(self, other: Reading) -> bool:
        if (self.layout, self.backwards) != (other.layout, other.backwards):
            return False
        if self.origin is None or other.origin is None:
            if self.origin is not other.origin:
                return False
        elif not np.allclose(self.origin, other.origin, rtol=1e-3, atol=1e-3):
            return False
        mine, its = self.stored_from_voxels, other.stored_from_voxels
        return bool(np.allclose(mine, its, rtol=0, atol=SAME * float(np.abs(mine).max())))


SAME = 0.02  # relative; units that differ by less, as spacings of 1 and 1.01 mm, are one


def conventional() -> Reading:
    """What the challenge asks for: displacements x, y, z in full-resolution voxels."""
    return Reading(kinds=(), stored_from_voxels=np.eye(3))


def plain_readings(fixed: Image, moving_grid: Grid) -> tuple[Reading, ...]:
    """The convention, then everything that any field may have been meant as, simplest first.

    No two read the same: a unit that is the voxel here (millimetres where the spacing is 1) is left
    out, and mistakes that no one could tell apart are one reading with ``others``.
    """
    found = [conventional(), *_units_and_signs(fixed, moving_grid)]
    found += _backwards(fixed, moving_grid)
    found += _swapped_axes(fixed, moving_grid)
    return _distinct(found)


def reshaped_readings(moving_grid: Grid) -> tuple[Reading, ...]:
    """Readings of a field whose numbers were put into the right shape without being moved."""
    kind, rev, norm = (
        FindingKind.RESHAPED,
        FindingKind.COMPONENTS_REVERSED,
        FindingKind.NORMALISED,
    )
    unit = _normalised(moving_grid)
    return tuple(
        Reading(kinds=(kind, *kinds), stored_from_voxels=matrix, layout=layout)
        for layout in RESHAPES
        for kinds, matrix in (
            ((), np.eye(3)),
            ((rev,), REVERSED),
            ((norm,), unit),
            ((norm, rev), REVERSED @ unit),
        )
    )


def position_readings(fixed: Image, moving_grid: Grid) -> tuple[Reading, ...]:
    """Readings of a field that holds positions: the identity grid was not taken away."""
    kind, rev = FindingKind.IDENTITY_INCLUDED, FindingKind.COMPONENTS_REVERSED
    affine = fixed.affine[:3, :3]
    zero, begin = np.zeros(3), fixed.affine[:3, 3]
    units: list[tuple[tuple[FindingKind, ...], Array, Array]] = [
        ((), np.eye(3), zero),
        ((FindingKind.HALF_SIZE,), np.eye(3) / 2, zero),
        ((FindingKind.LPS,), LEFT_AND_BACK, zero),
        ((FindingKind.NORMALISED,), _normalised(moving_grid), -np.ones(3)),
        ((FindingKind.MILLIMETRES,), np.diag(fixed.spacing_mm), zero),
        ((FindingKind.MILLIMETRES,), affine, begin),
        ((FindingKind.MILLIMETRES, FindingKind.LPS), LEFT_AND_BACK @ affine, LEFT_AND_BACK @ begin),
    ]
    return _distinct(
        [
            Reading(
                kinds=(kind, *kinds, *more),
                stored_from_voxels=turn @ matrix,
                origin=turn @ origin,
                in_world=origin is begin,
            )
            for more, turn in (((), np.eye(3)), ((rev,), REVERSED))
            for kinds, matrix, origin in units
        ]
    )


def _units_and_signs(fixed: Image, moving_grid: Grid) -> Iterator[Reading]:
    rev, neg, lps, mm, norm, half, double = (
        FindingKind.COMPONENTS_REVERSED,
        FindingKind.NEGATED,
        FindingKind.LPS,
        FindingKind.MILLIMETRES,
        FindingKind.NORMALISED,
        FindingKind.HALF_SIZE,
        FindingKind.DOUBLE_SIZE,
    )
    one, unit = np.eye(3), _normalised(moving_grid)
    spacing, affine = np.diag(fixed.spacing_mm), fixed.affine[:3, :3]
    table: list[tuple[tuple[FindingKind, ...], Array]] = [
        ((rev,), REVERSED),
        ((neg,), -one),
        ((lps,), LEFT_AND_BACK),
        ((mm,), spacing),
        ((mm,), affine),
        ((half,), one / 2),
        ((double,), one * 2),
        ((norm,), unit),
        ((mm, lps), LEFT_AND_BACK @ affine),
        ((norm, rev), REVERSED @ unit),
        ((mm, rev), REVERSED @ spacing),
        ((half, rev), REVERSED / 2),
        ((rev, lps), REVERSED @ LEFT_AND_BACK),
        ((rev, neg), -REVERSED),
        ((norm, neg), -unit),
        ((mm, neg), -spacing),
        ((norm, rev, neg), -REVERSED @ unit),
        ((mm, rev, lps), REVERSED @ LEFT_AND_BACK @ affine),
    ]
    for kinds, matrix in table:
        yield Reading(kinds=kinds, stored_from_voxels=matrix, in_world=matrix is affine)


def _backwards(fixed: Image, moving_grid: Grid) -> Iterator[Reading]:
    kind, rev = FindingKind.DIRECTION_SWAPPED, FindingKind.COMPONENTS_REVERSED
    unit, affine = _normalised(moving_grid), fixed.affine[:3, :3]
    table: list[tuple[tuple[FindingKind, ...], Array]] = [
        ((kind,), np.eye(3)),
        ((kind, rev), REVERSED),
        ((kind, FindingKind.LPS), LEFT_AND_BACK),
        ((FindingKind.NORMALISED, kind), unit),
        ((FindingKind.NORMALISED, kind, rev), REVERSED @ unit),
        ((FindingKind.MILLIMETRES, kind), np.diag(fixed.spacing_mm)),
        ((FindingKind.MILLIMETRES, kind, FindingKind.LPS), LEFT_AND_BACK @ affine),
    ]
    for kinds, matrix in table:
        yield Reading(kinds=kinds, stored_from_voxels=matrix, backwards=True)


def _swapped_axes(fixed: Image, moving_grid: Grid) -> Iterator[Reading]:
    """For axes of equal length only: any others change the shape."""
    kind, rev = FindingKind.AXES_SWAPPED, FindingKind.COMPONENTS_REVERSED
    unit, affine = _normalised(moving_grid), fixed.affine[:3, :3]
    grid = fixed.array.shape
    for layout, (first, second) in SWAPS.items():
        if grid[first] != grid[second]:
            continue
        order = [0, 1, 2]
        order[first], order[second] = second, first
        turn = np.eye(3)[order]
        table: list[tuple[tuple[FindingKind, ...], Array]] = [
            ((kind,), np.eye(3)),
            ((kind, rev), turn),
            ((kind, FindingKind.LPS), LEFT_AND_BACK),
            ((kind, FindingKind.NORMALISED), unit),
            ((kind, FindingKind.NORMALISED, rev), turn @ unit),
            ((kind, FindingKind.MILLIMETRES), np.diag(fixed.spacing_mm)),
            ((kind, FindingKind.MILLIMETRES, FindingKind.LPS), LEFT_AND_BACK @ affine),
        ]
        for kinds, matrix in table:
            yield Reading(kinds=kinds, stored_from_voxels=matrix, layout=layout)


def _normalised(grid: Grid) -> Array:
    """Voxels to the -1..1 of ``grid_sample``, ``align_corners=True``.

    With False it is 2 / n instead of 2 / (n - 1): the same within a percent, and read the same.
    """
    return np.diag([2 / max(n - 1, 1) for n in grid])


def _distinct(readings: Iterable[Reading]) -> tuple[Reading, ...]:
    kept: list[Reading] = []
    for reading in readings:
        for n, first in enumerate(kept):
            if reading.reads_the_same_as(first):
                if first.kinds and reading.kinds != first.kinds:
                    kept[n] = replace(first, others=(*first.others, reading.kinds))
                break
        else:
            kept.append(reading)
    return tuple(kept)
