"""Correct fields stored wrongly on purpose, and stored correctly but worth little.

Written from what teams do and not from what the check looks for: nothing here is the check's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from harness.check.findings import FindingKind as Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

Array = NDArray[Any]
Grid = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Planted:
    """A field stored wrongly: ``field`` (3, X, Y, Z) is what the file holds.

    ``names``: the sets of kinds that name it; more than one where the numbers are the same.
    """

    mistake: str
    field: Array
    names: tuple[frozenset[Kind], ...]


@dataclass(frozen=True, kw_only=True)
class Degraded:
    """A field in the right convention, however bad."""

    what: str
    field: Array


def planted_mistakes(field: Array, image_grid: Grid, spacing_mm: Array) -> Iterator[Planted]:
    """Every mistake, made with a correct field (3, X, Y, Z) in voxels whose axes are RAS.

    Millimetres are left out where they are voxels, which is no mistake.
    """
    half_steps, whole = [(n - 1) / 2 for n in image_grid], [n / 2 for n in image_grid]
    to_unit, to_unit_open = 1 / _column(half_steps), 1 / _column(whole)
    grid, left_back = identity(image_grid, field.shape[1:]), _column([-1, -1, 1])
    spacing, back = _column(spacing_mm), inverse(field, image_grid)
    unit = to_unit * field

    def plant(mistake: str, stored: Array, *kinds: Kind) -> Planted:
        return Planted(mistake=mistake, field=stored, names=(frozenset(kinds),))

    yield plant("normalised, x y z", unit, Kind.NORMALISED)
    yield plant("normalised, z y x", unit[::-1], Kind.NORMALISED, Kind.COMPONENTS_REVERSED)
    yield plant("the same, corners not aligned, x y z", to_unit_open * field, Kind.NORMALISED)
    yield plant(
        "the same, corners not aligned, z y x",
        (to_unit_open * field)[::-1],
        *(Kind.NORMALISED, Kind.COMPONENTS_REVERSED),
    )
    yield plant("components z y x", field[::-1], Kind.COMPONENTS_REVERSED)
    yield plant("negated", -field, Kind.NEGATED)
    yield plant("fixed and moving exchanged", back, Kind.DIRECTION_SWAPPED)
    yield plant(
        "normalised, z y x, exchanged",
        (to_unit * back)[::-1],
        *(Kind.NORMALISED, Kind.DIRECTION_SWAPPED, Kind.COMPONENTS_REVERSED),
    )
    yield plant("x and y negated (LPS)", left_back * field, Kind.LPS)
    yield from _sizes(field, spacing_mm)
    if not np.allclose(spacing_mm, 1):
        yield plant("ITK: LPS millimetres", left_back * spacing * field, Kind.MILLIMETRES, Kind.LPS)
    yield plant("identity included", field + grid, Kind.IDENTITY_INCLUDED)
    yield plant(
        "identity included, half-grid voxels",
        (field + grid) / 2,
        *(Kind.IDENTITY_INCLUDED, Kind.HALF_SIZE),
    )
    positions = to_unit * (field + grid) - 1
    yield plant("grid of grid_sample, x y z", positions, Kind.IDENTITY_INCLUDED, Kind.NORMALISED)
    yield plant(
        "grid of grid_sample, z y x",
        positions[::-1],
        *(Kind.IDENTITY_INCLUDED, Kind.NORMALISED, Kind.COMPONENTS_REVERSED),
    )
    yield from _axes(field)
    yield from _reshaped(field, unit)


def _sizes(field: Array, spacing_mm: Array) -> Iterator[Planted]:
    """Mistakes of the unit alone; some are the same numbers, as 2 mm voxels and doubling."""
    isotropic = float(spacing_mm[0]) if np.ptp(spacing_mm) == 0 else None
    mm, half, double = ({Kind.MILLIMETRES}, {Kind.HALF_SIZE}, {Kind.DOUBLE_SIZE})
    doubled = (double, mm) if isotropic == 2 else (double,)
    halved = (half, mm) if isotropic == 0.5 else (half,)
    if isotropic != 1:
        same = {2.0: (mm, double), 0.5: (mm, half)}.get(isotropic or 0, (mm,))
        yield _alike("millimetres", _column(spacing_mm) * field, same)
    yield _alike("half-grid voxels (half size)", field / 2, halved)
    yield _alike("double size", field * 2, doubled)


def _alike(mistake: str, stored: Array, names: tuple[set[Kind], ...]) -> Planted:
    return Planted(mistake=mistake, field=stored, names=tuple(map(frozenset, names)))


def _axes(field: Array) -> Iterator[Planted]:
    for first, second in ((0, 1), (0, 2), (1, 2)):
        if field.shape[1 + first] != field.shape[1 + second]:
            continue
        swapped = field.swapaxes(1 + first, 1 + second)
        order = [0, 1, 2]
        order[first], order[second] = second, first
        axes = f"{'xyz'[first]} and {'xyz'[second]}"
        yield _alike(f"axes {axes} exchanged", swapped, ({Kind.AXES_SWAPPED},))
        yield _alike(
            f"axes and components {axes} exchanged",
            swapped[order],
            ({Kind.AXES_SWAPPED, Kind.COMPONENTS_REVERSED},),
        )


def _reshaped(field: Array, unit: Array) -> Iterator[Planted]:
    """(X, Y, Z, 3) or (Z, Y, X, 3) put into (3, X, Y, Z) without moving a number."""

    def put(last: Array) -> Array:
        stored: Array = np.ascontiguousarray(last).reshape(field.shape)
        return stored

    yield _alike("reshaped (X, Y, Z, 3)", put(np.moveaxis(field, 0, 3)), ({Kind.RESHAPED},))
    yield _alike(
        "reshaped (X, Y, Z, 3), normalised, z y x",
        put(np.moveaxis(unit[::-1], 0, 3)),
        ({Kind.RESHAPED, Kind.NORMALISED, Kind.COMPONENTS_REVERSED},),
    )
    yield _alike("reshaped (Z, Y, X, 3)", put(field.transpose(3, 2, 1, 0)), ({Kind.RESHAPED},))


def degraded_fields(
    field: Array, other: Array, image_grid: Grid, rng: np.random.Generator
) -> Iterator[Degraded]:
    """From a correct field, and that of another pair: right convention, little accuracy."""
    grid = identity(image_grid, field.shape[1:])
    known = np.vstack([grid.reshape(3, -1), np.ones(grid[0].size)])
    affine = np.linalg.lstsq(known.T, field.reshape(3, -1).T, rcond=None)[0]

    def wave(size_vox: float, sigma: float) -> Array:
        noise = _smooth(rng.normal(size=field.shape), sigma)
        scaled: Array = noise * (size_vox / noise.std())
        return scaled

    for what, bad in {
        "zero": np.zeros_like(field),
        "true x 0.7": 0.7 * field,
        "true x 0.6": 0.6 * field,
        "true x 1.3": 1.3 * field,
        "true, smoothed over 8 voxels": _smooth(field, 4),
        "true, smoothed over 20 voxels": _smooth(field, 10),
        "the nearest affine map": (affine.T @ known).reshape(field.shape),
        "true + 1 voxel of noise": field + rng.normal(size=field.shape),
        "true + smooth error of 2 voxels": field + wave(2, 8),
        "true field of another pair": other,
        "the same, mirrored": other[:, ::-1],
        "a constant": np.zeros_like(field) + _column([3, -2, 4]),
        "random, smooth, 0.5 voxels": wave(0.5, 6),
        "random, smooth, 3 voxels": wave(3, 8),
        "random, smooth, 8 % of the image": wave(0.08 * min(image_grid), 14),
        "random, very smooth, 8 voxels": wave(8, 20),
        "noise of 0.001 voxels": 0.001 * rng.normal(size=field.shape),
    }.items():
        yield Degraded(what=what, field=bad)


def identity(image_grid: Grid, field_grid: tuple[int, ...]) -> Array:
    """Positions (3, x, y, z) of a field's samples in voxels of the image."""
    places = [np.linspace(0, n - 1, m) for n, m in zip(image_grid, field_grid, strict=True)]
    return np.stack(np.meshgrid(*places, indexing="ij"))


def inverse(field: Array, image_grid: Grid) -> Array:
    """The field of the pair taken the other way round: u(p) = -d(p + u(p)), on the same samples."""
    grid = identity(image_grid, field.shape[1:])
    ends = zip(field.shape[1:], image_grid, strict=True)
    steps = _column([(m - 1) / (n - 1) for m, n in ends])
    found = np.zeros(field.shape)
    for _ in range(25):
        places = (grid + found) * steps
        found = -np.stack(
            [ndimage.map_coordinates(c, places, order=1, mode="nearest") for c in field]
        )
    return found


def _smooth(field: Array, sigma: float) -> Array:
    smooth: Array = np.stack([ndimage.gaussian_filter(c, sigma) for c in field])
    return smooth


def _column(values: ArrayLike) -> Array:
    return np.array(values, dtype=np.float64)[:, None, None, None]
