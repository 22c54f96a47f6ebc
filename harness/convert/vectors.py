"""Fields as arrays: from a convention's numbers to voxels and back.

ITK's fields are in a frame of their own and not here: :mod:`harness.convert.itk`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.challenge.field import FloatArray, interpolate_along, resample_corner_aligned
from harness.convert.convention import Family, FieldConvention, Order
from harness.errors import FieldError
from harness.evaluate.accuracy import upsample

if TYPE_CHECKING:
    from harness.challenge.model import Grid


def positions_vox(convention: FieldConvention, samples: int, n: int) -> FloatArray:
    """Where an axis's samples lie in the image's ``n`` voxels, in voxels; the first is 0."""
    if convention.align_corners is False:
        return (np.arange(samples) + 0.5) * (n / samples) - 0.5
    return np.linspace(0.0, n - 1, samples)


def to_voxels(
    array: FloatArray, convention: FieldConvention, image_grid: Grid, grid: Grid
) -> FloatArray:
    """The field as (3, *grid), components x, y, z, in voxels of ``image_grid``.

    ``array`` has its components on the first or the last of four axes and lies on the image grid or
    on half of it. Both it and ``grid`` span the image from first to last voxel centre; where
    ``align_corners`` is False the samples of half a grid lie between the voxels, as those of
    ``affine_grid`` do. Half to full goes the way the evaluation does it. Raises FieldError.
    """
    check_grid(array.shape, image_grid)
    vectors = _components_first(array, convention)
    found = vectors.shape[1:]
    result = np.empty(vectors.shape, np.result_type(array, np.float32))
    for axis, n in enumerate(image_grid):
        moved = vectors[axis].astype(result.dtype) * convention.unit_vox(n)
        if convention.absolute:
            place = positions_vox(convention, found[axis], n) - (n - 1) / 2
            moved = moved.astype(np.float64) - _along(place, axis)
        result[axis] = moved
    return _resample(result, convention, image_grid, grid)


def from_voxels(vectors: FloatArray, convention: FieldConvention) -> FloatArray:
    """The array in ``convention`` of a field (3, X, Y, Z), in voxels of its own grid.

    (X, Y, Z, 3) for NIFTI and GRID_SAMPLE, otherwise (3, X, Y, Z). Raises FieldError.
    """
    result = np.empty(vectors.shape, np.result_type(vectors, np.float32))
    for axis, n in enumerate(vectors.shape[1:]):
        if convention.family is Family.GRID_SAMPLE and n < 2:
            raise FieldError(f"expected at least 2 voxels along each axis, found {n}")
        value = vectors[axis].astype(np.float64)
        if convention.absolute:
            value += _along(positions_vox(convention, n, n) - (n - 1) / 2, axis)
        result[axis] = value / convention.unit_vox(n)
    if convention.family is Family.GRID_SAMPLE and convention.order is Order.ZYX:
        result = result[::-1]
    if convention.family in (Family.NIFTI, Family.GRID_SAMPLE):
        result = np.moveaxis(result, 0, -1)
    return np.ascontiguousarray(result)


def component_axis(shape: tuple[int, ...]) -> int:
    """0 or 3: the axis of a field's components. Raises FieldError where there is none, or two."""
    axes = [axis for axis in (0, 3) if len(shape) == 4 and shape[axis] == 3]
    if len(axes) != 1:
        raise FieldError(
            "expected an array (3, X, Y, Z) or (X, Y, Z, 3), with a batch axis of length 1 perhaps,"
            f" found {shape}"
        )
    return axes[0]


def check_grid(shape: tuple[int, ...], image_grid: Grid) -> None:
    """Raises FieldError unless an array of this shape lies on the image grid or on half of it."""
    axis = component_axis(shape)
    found = tuple(n for a, n in enumerate(shape) if a != axis)
    half = tuple(n // 2 for n in image_grid)
    if found in (image_grid, half):
        return
    hint = ""
    if found[::-1] in (image_grid, half):
        hint = "; its axes are z, y, x, as in SimpleITK's arrays: transpose them"
    elif sorted(found) in (sorted(image_grid), sorted(half)):
        hint = "; are the axes in another order?"
    raise FieldError(
        f"expected a field on the image grid {image_grid} or on half of it {half}, "
        f"found {found}{hint}"
    )


def check_plausible(array: FloatArray, convention: FieldConvention) -> None:
    """Raises FieldError for a grid-sample field that cannot be what its convention says.

    Positions span two units from an axis's first plane to its last, displacements next to none; a
    wrong guess would zoom the image by two or collapse it. One unit lies between the two.
    """
    if convention.family is not Family.GRID_SAMPLE:
        return
    vectors = _components_first(array, convention)
    spans = [
        float(np.take(c, -1, axis=a).mean() - np.take(c, 0, axis=a).mean())
        for a, c in enumerate(vectors)
    ]
    found = ", ".join(f"{span:.2f}" for span in spans)
    if convention.absolute and min(spans) < 1:
        raise FieldError(
            "expected positions, whose components x, y, z grow by about 2 along their axes, found "
            f"growth by {found}; are they displacements (no --absolute), or in the other --order?"
        )
    if not convention.absolute and min(spans) > 1:
        raise FieldError(
            "expected displacements, found components that grow along their axes as positions do, "
            f"by {found}: --absolute"
        )
    typical = float(np.abs(vectors).mean())
    if not convention.absolute and typical > 1:
        raise FieldError(
            "expected displacements in normalised units, 2 for the whole image, found "
            f"{typical:.3g} on average; are they voxels (--from voxels)?"
        )


def _components_first(array: FloatArray, convention: FieldConvention) -> FloatArray:
    vectors = np.moveaxis(array, component_axis(array.shape), 0)
    if convention.family is Family.GRID_SAMPLE and convention.order is Order.ZYX:
        return vectors[::-1]
    return vectors


def _resample(
    vectors: FloatArray, convention: FieldConvention, image_grid: Grid, grid: Grid
) -> FloatArray:
    found = vectors.shape[1:]
    if convention.align_corners is False and found != image_grid:
        for axis, n in enumerate(image_grid):
            wanted = np.linspace(0.0, n - 1, grid[axis])
            place = (wanted + 0.5) * (found[axis] / n) - 0.5
            place = np.clip(place, 0, found[axis] - 1)
            vectors = interpolate_along(vectors, axis + 1, place)
        return vectors
    if found != grid and grid == image_grid:
        return upsample(vectors, image_grid)
    return resample_corner_aligned(vectors, grid)


def _along(values: FloatArray, axis: int) -> FloatArray:
    """Values of one spatial axis, shaped to go with (X, Y, Z)."""
    return values.reshape([-1 if a == axis else 1 for a in range(3)])
