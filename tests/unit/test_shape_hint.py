"""Arrays of a wrong shape: each common mistake is named, and the line given mends it."""

from __future__ import annotations

import re
from itertools import permutations, product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from harness.challenge.field_error import FieldFileError
from harness.challenge.model import FieldDtype, FieldSpec, Layout
from harness.challenge.shape_hint import shape_hint
from harness.challenge.stored_array import StoredArray, check_stored

Array = npt.NDArray[Any]

GRID = (8, 6, 10)
OTHER = {"half": (16, 12, 20), "full": (4, 3, 5)}


def spec_of(layout: Layout, resolution: str = "half", grid: tuple[int, ...] = GRID) -> FieldSpec:
    shape = (3, *grid) if layout is Layout.CHANNELS_FIRST else (*grid, 3)
    return FieldSpec.model_validate(
        {
            "path": "disp_{fixed:04d}_{moving:04d}.npz",
            "layout": layout,
            "resolution": resolution,
            "shape": shape,
            "dtype": FieldDtype.FLOAT16,
        }
    )


FIRST, LAST = spec_of(Layout.CHANNELS_FIRST), spec_of(Layout.CHANNELS_LAST)


def executed(field: Array, hint: str) -> list[Array]:
    """What comes out of the lines that a hint gives, one after another; of alternatives, each."""
    fields = [field]
    for step in hint.split("; "):
        lines = re.findall(r"(?:np|scipy\.ndimage|field)[.\[].*?[])](?=$|;| or |, and)", step)
        names: dict[str, Any] = {"np": np, "scipy": type("scipy", (), {"ndimage": ndimage})}
        if lines:
            fields = [eval(line, {**names, "field": field}) for field in fields for line in lines]
    return fields


def mended(shape: tuple[int, ...], hint: str) -> list[tuple[int, ...]]:
    return [field.shape for field in executed(np.zeros(shape, np.float32), hint)]


@pytest.mark.parametrize("wanted", FieldDtype)
@pytest.mark.parametrize("resolution", ["half", "full"])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("found", ["float16", "float32", "float64", "int16", "bool"])
def test_all_lines_executed_mend_type_and_shape(
    wanted: FieldDtype, resolution: str, last: bool, found: str
) -> None:
    """The type was once told first, and ``zoom`` takes no float16: the advice crashed."""
    spec = spec_of(Layout.CHANNELS_FIRST, resolution).model_copy(update={"dtype": wanted})
    grid = OTHER[resolution]
    field = np.ones((*grid, 3) if last else (3, *grid), found)
    stored = StoredArray(shape=field.shape, dtype=found, big_endian=False, fortran_order=False)
    with pytest.raises(FieldFileError) as caught:
        check_stored(stored, spec)
    (mended_field,) = executed(field, caught.value.fix)
    assert mended_field.shape == spec.shape
    assert mended_field.dtype == wanted.value
    assert caught.value.fix.count(f"field.astype(np.{wanted.value})") in (1, 2)


@pytest.mark.parametrize("layout", Layout)
@pytest.mark.parametrize("resolution", ["half", "full"])
@pytest.mark.parametrize("other", [False, True])
@pytest.mark.parametrize("batch", [None, 0, 4])
def test_the_line_mends_the_shape(
    layout: Layout, resolution: str, other: bool, batch: int | None
) -> None:
    """Every order of the axes, either resolution, with and without a batch, and all at once."""
    spec = spec_of(layout, resolution)
    grid = OTHER[resolution] if other else GRID
    for order, component_axis in product(permutations(range(3)), range(4)):
        shape = [grid[axis] for axis in order]
        shape.insert(component_axis, 3)
        if batch is not None:
            shape.insert(batch, 1)
        hint = shape_hint(tuple(shape), spec)
        assert set(mended(tuple(shape), hint)) == {spec.shape}, (shape, hint)


@pytest.mark.parametrize(
    ("shape", "spec", "hint"),
    [
        ((8, 6, 10, 3), FIRST, "components come first: np.moveaxis(field, -1, 0)"),
        ((3, 8, 6, 10), LAST, "components come last: np.moveaxis(field, 0, -1)"),
        (
            (3, 16, 12, 20),
            FIRST,
            (
                "this is the full resolution, the challenge wants half: "
                "scipy.ndimage.zoom(field.astype(np.float32), (1, 0.5, 0.5, 0.5), order=1); "
                "field.astype(np.float16)"
            ),
        ),
        (
            (4, 3, 5, 3),
            spec_of(Layout.CHANNELS_LAST, "full"),
            (
                "this is half the resolution, the challenge wants full: "
                "scipy.ndimage.zoom(field.astype(np.float32), (2, 2, 2, 1), order=1); "
                "field.astype(np.float16); "
                "values are full-resolution voxels: double them if yours are of the half grid"
            ),
        ),
        ((3, 17, 12, 21), FIRST, "this is the full resolution, the challenge wants half"),
        (
            (3, 10, 6, 8),
            FIRST,
            (
                "the spatial axes are in another order: np.transpose(field, (0, 3, 2, 1)), and are "
                "the components x, y, z?"
            ),
        ),
        ((1, 3, 8, 6, 10), FIRST, "take the batch away: field[0]"),
        (
            (1, 8, 6, 10, 3),
            FIRST,
            "take the batch away: field[0]; components come first: np.moveaxis(field, -1, 0)",
        ),
        ((2, 3, 8, 6, 10), FIRST, "these are 2 fields: each pair has a file of its own"),
        (
            (8, 6, 10, 1, 3),
            LAST,
            (
                "this looks like a displacement image of ITK or ANTs, in mm and LPS directions: "
                "harness convert --from itk"
            ),
        ),
        ((2, 8, 6, 10), FIRST, "two components a voxel, a displacement has three: x, y, z"),
        ((8, 6, 10, 2), LAST, "two components a voxel, a displacement has three: x, y, z"),
        ((1, 8, 6, 10), FIRST, "one component a voxel, a displacement has three: x, y, z"),
        (
            (8, 6, 10),
            FIRST,
            "this is one number a voxel, a displacement has three: np.stack([x, y, z], axis=0)",
        ),
        (
            (16, 12, 20),
            LAST,
            "this is one number a voxel, a displacement has three: np.stack([x, y, z], axis=3)",
        ),
        ((1440,), FIRST, "is it flattened? field.reshape((3, 8, 6, 10))"),
    ],
)
def test_hint(shape: tuple[int, ...], spec: FieldSpec, hint: str) -> None:
    assert shape_hint(shape, spec) == hint


def test_two_axes_of_one_length_leave_a_doubt() -> None:
    """(80, 96, 96) may be y, x, z or y, z, x; the shape cannot tell, so both are told."""
    spec = spec_of(Layout.CHANNELS_FIRST, grid=(96, 80, 96))
    hint = shape_hint((3, 80, 96, 96), spec)
    assert "np.transpose(field, (0, 2, 1, 3)) or np.transpose(field, (0, 3, 1, 2))" in hint
    assert set(mended((3, 80, 96, 96), hint)) == {spec.shape}


@given(
    shape=st.lists(
        st.one_of(st.sampled_from([1, 2, 3, 4, 5, *GRID, *OTHER["half"]]), st.integers()),
        max_size=7,
    ),
    layout=st.sampled_from(Layout),
    resolution=st.sampled_from(["half", "full"]),
)
@settings(deadline=None, max_examples=300)
def test_any_shape(shape: list[int], layout: Layout, resolution: str) -> None:
    hint = shape_hint(tuple(shape), spec_of(layout, resolution))
    assert hint.isprintable()
    assert len(hint) < 400


@pytest.mark.parametrize(
    "shape",
    [
        *((), (5,), (8, 6, 11), (3, 8, 6, 11), (3, 9, 7, 11), (0, 0, 0, 0), (-3, -8, -6, -10)),
        *((3, 8, 6, 10, 2), (2, 2, 2, 2, 2), (1, 1, 1, 3, 8, 6, 10), (10**30, 8, 6, 10)),
        *((1, 1, 1, 1, 1), (3, 3, 3, 3), (10**400, 1), (1,) * 1500),
    ],
)
def test_no_hint_where_none_is_likely(shape: tuple[int, ...]) -> None:
    assert shape_hint(shape, FIRST) == ""
