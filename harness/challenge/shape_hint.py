"""What an array of a wrong shape probably is, and the line that mends it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING

from harness.challenge.model import FieldDtype, Layout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.challenge.model import FieldSpec


@dataclass(frozen=True, kw_only=True)
class _Reading:
    """A way to take a shape of four axes for a field.

    ``orders``: the orders of the spatial axes that give the grid, each the places of x, y and z
    among them. ``zoom``: the factor from its grid to the challenge's.
    """

    n_components: int
    component_axis: int
    orders: tuple[tuple[int, ...], ...]
    other_resolution: bool
    zoom: float | None

    @property
    def in_order(self) -> bool:
        return (0, 1, 2) in self.orders

    def doubt(self, wanted_axis: int) -> tuple[bool, bool, bool, int]:
        """The simpler explanation sorts first."""
        return (
            self.n_components != 3,
            not self.in_order,
            self.other_resolution,
            0 if self.component_axis == wanted_axis else 1 + self.component_axis % 3,
        )


def shape_hint(shape: tuple[int, ...], spec: FieldSpec) -> str:
    """The likely cause and its fix; empty where there is no likely one.

    The lines of code in it work one after another, each on what the one before gives, for numbers
    of any type. They end in an accepted type where they change it.
    """
    match len(shape):
        case 5:
            return _five_axes(shape, spec)
        case 4:
            return _four_axes(shape, spec)
        case 3:
            if any(sorted(shape) == sorted(grid) for grid, _, _ in _grids(spec)):
                return (
                    "this is one number a voxel, a displacement has three: "
                    f"np.stack([x, y, z], axis={_wanted_axis(spec)})"
                )
        case 1 | 2 if math.prod(shape) == math.prod(spec.shape):
            return f"is it flattened? field.reshape({spec.shape})"
    return ""


def _five_axes(shape: tuple[int, ...], spec: FieldSpec) -> str:
    if shape[3:] == (1, 3):
        return (
            "this looks like a displacement image of ITK or ANTs, in mm and LPS directions: "
            "harness convert --from itk"
        )
    if 1 in shape:
        axis = shape.index(1)
        rest = shape[:axis] + shape[axis + 1 :]
        is_legal = spec.layout_of(rest) is not None
        hint = "" if is_legal else _four_axes(rest, spec)
        if is_legal or hint:
            fix = "take the batch away: field[0]"
            if axis:
                fix = f"take the axis of length 1 away: np.squeeze(field, {axis})"
            return f"{fix}; {hint}" if hint else fix
    if spec.layout_of(shape[1:]) is not None:
        return f"these are {shape[0]} fields: each pair has a file of its own"
    return ""


def _four_axes(shape: tuple[int, ...], spec: FieldSpec) -> str:
    wanted = _wanted_axis(spec)
    readings = sorted(_readings(shape, spec), key=lambda reading: reading.doubt(wanted))
    if not readings:
        return ""
    best = readings[0]
    if best.n_components != 3:
        components = "one component" if best.n_components == 1 else "two components"
        return f"{components} a voxel, a displacement has three: x, y, z"
    moved = _moved(best, wanted)
    if not best.other_resolution:
        return moved
    separator = "; " if moved else ""
    found = "the full resolution" if spec.resolution == "half" else "half the resolution"
    hint = f"{moved + separator}this is {found}, the challenge wants {spec.resolution}"
    if best.zoom is not None:
        factors = [str(best.zoom)] * 3
        factors.insert(wanted, "1")
        # SciPy's zoom takes no float16.
        hint += f": scipy.ndimage.zoom(field.astype(np.float32), ({', '.join(factors)}), order=1)"
        if FieldDtype.FLOAT32 not in spec.dtypes:
            hint += f"; {cast(spec)}"
    if spec.resolution == "full":
        hint += "; values are full-resolution voxels: double them if yours are of the half grid"
    return hint


def cast(spec: FieldSpec) -> str:
    """The line that gives an array the type that the challenge writes."""
    return f"field.astype(np.{spec.dtype})"


def _moved(reading: _Reading, wanted: int) -> str:
    """The hint for axes in another order, empty where they are in the right one."""
    if reading.in_order:
        if reading.component_axis == wanted:
            return ""
        here = -1 if reading.component_axis == 3 else reading.component_axis
        place, there = ("first", 0) if wanted == 0 else ("last", -1)
        return f"components come {place}: np.moveaxis(field, {here}, {there})"
    spatial = [axis for axis in range(4) if axis != reading.component_axis]
    fixes = []
    for order in reading.orders:
        axes = [spatial[place] for place in order]
        axes.insert(wanted, reading.component_axis)
        fixes.append(f"np.transpose(field, ({', '.join(map(str, axes))}))")
    return (
        f"the spatial axes are in another order: {' or '.join(fixes)}, and are the components "
        "x, y, z?"
    )


def _readings(shape: tuple[int, ...], spec: FieldSpec) -> Iterator[_Reading]:
    for axis, n_components in enumerate(shape):
        if n_components not in (1, 2, 3):
            continue
        spatial = shape[:axis] + shape[axis + 1 :]
        for grid, other_resolution, zoom in _grids(spec):
            orders = tuple(
                order
                for order in permutations(range(3))
                if tuple(spatial[place] for place in order) == grid
            )
            if orders:
                yield _Reading(
                    n_components=n_components,
                    component_axis=axis,
                    orders=orders,
                    other_resolution=other_resolution,
                    zoom=zoom,
                )


def _grids(spec: FieldSpec) -> Iterator[tuple[tuple[int, ...], bool, float | None]]:
    """The field's grid and those of the other resolution, with the factor from those to it.

    An image of 2n + 1 voxels has a half of n, too; no factor leads there.
    """
    yield spec.grid, False, None
    if spec.resolution == "full":
        half = tuple(n // 2 for n in spec.grid)
        yield half, True, 2 if tuple(2 * n for n in half) == spec.grid else None
        return
    x, y, z = spec.grid
    for i in range(8):
        odd = (i & 1, i >> 1 & 1, i >> 2)
        yield (2 * x + odd[0], 2 * y + odd[1], 2 * z + odd[2]), True, None if any(odd) else 0.5


def _wanted_axis(spec: FieldSpec) -> int:
    return 0 if spec.layout is Layout.CHANNELS_FIRST else 3
