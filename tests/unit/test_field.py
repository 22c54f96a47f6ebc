"""Displacement fields: what each convention means, resampling, and the way into a file."""

from __future__ import annotations

import resource
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from harness.challenge.field import (
    Convention,
    DisplacementField,
    resample_corner_aligned,
    to_challenge,
    write_field,
)
from harness.challenge.model import FieldDtype, FieldSpec
from harness.errors import FieldError
from tests.tiny import GRID, HALF

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Array = npt.NDArray[Any]

SPEC = FieldSpec(
    path="disp_{fixed:04d}_{moving:04d}.npz",
    resolution="half",
    shape=(3, *HALF),
    dtype=FieldDtype.FLOAT16,
)


FULL_SPEC = FieldSpec(
    path="disp_{fixed:04d}_{moving:04d}.npz",
    resolution="full",
    shape=(3, *GRID),
    dtype=FieldDtype.FLOAT32,
)


def ramp(grid: tuple[int, ...] = HALF) -> Array:
    """A (3, X, Y, Z) field whose components are linear functions, each another one."""
    x, y, z = np.meshgrid(*(np.linspace(0, 1, n) for n in grid), indexing="ij")
    return np.stack([1 + 2 * x - y, 3 * z - x + 0.5, y + z - 2]).astype(np.float32)


def refusal(array: Array, convention: Convention = Convention.VOXELS) -> str:
    field = DisplacementField(array=array, convention=convention)
    with pytest.raises(FieldError) as caught:
        to_challenge(field, SPEC, GRID)
    return str(caught.value)


# --- Conventions --------------------------------------------------------------------------------


def test_voxels_are_the_challenges_own() -> None:
    array = ramp()
    assert DisplacementField(array=array).convention is Convention.VOXELS
    assert DisplacementField(array=array).grid == HALF
    assert np.array_equal(
        to_challenge(DisplacementField(array=array), SPEC, GRID), array.astype("f2")
    )


def test_voxels_last() -> None:
    """One voxel moves by 1 along x, 2 along y and 3 along z."""
    array = np.zeros((*HALF, 3), np.float32)
    array[4, 5, 6] = (1, 2, 3)
    field = DisplacementField(array=array, convention=Convention.VOXELS_LAST)
    assert field.grid == HALF
    stored = to_challenge(field, SPEC, GRID)
    assert stored[:, 4, 5, 6].tolist() == [1, 2, 3]
    assert np.count_nonzero(stored) == 3


def test_grid_sample() -> None:
    """The image spans -1..1 from voxel 0 to voxel n - 1; components come as z, y, x.

    On a 16 x 12 x 20 image a step of 2 crosses 15, 11 and 19 voxels, also when the field's own
    grid is the half one.
    """
    array = np.zeros((*HALF, 3), np.float32)
    array[4, 5, 6] = (2.0, 1.0, -0.5)  # z, y, x
    field = DisplacementField(array=array, convention=Convention.GRID_SAMPLE)
    assert field.grid == HALF
    assert field.vectors_vox(GRID)[:, 4, 5, 6].tolist() == [-3.75, 5.5, 19.0]
    assert to_challenge(field, SPEC, GRID)[:, 4, 5, 6].tolist() == [-3.75, 5.5, 19.0]


def test_the_three_conventions_say_the_same() -> None:
    vectors = ramp()
    last = np.moveaxis(vectors, 0, -1)
    normalised = last[..., ::-1] * 2 / (np.array(GRID[::-1]) - 1)
    fields = [
        to_challenge(DisplacementField(array=array, convention=convention), SPEC, GRID)
        for array, convention in (
            (vectors, Convention.VOXELS),
            (last, Convention.VOXELS_LAST),
            (normalised.astype(np.float32), Convention.GRID_SAMPLE),
        )
    ]
    assert np.array_equal(fields[0], fields[1])
    assert np.allclose(fields[0], fields[2], atol=2e-3)


def test_grid_sample_agrees_with_torch() -> None:
    """Warping with PyTorch's grid_sample, and with map_coordinates along the converted field."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    moving = ndimage.gaussian_filter(rng.random(GRID), 1).astype(np.float32)
    array = rng.uniform(-0.15, 0.15, (*GRID, 3)).astype(np.float32)
    identity = torch.nn.functional.affine_grid(
        torch.eye(3, 4)[None], (1, 1, *GRID), align_corners=True
    )
    warped = torch.nn.functional.grid_sample(
        torch.from_numpy(moving)[None, None],
        identity + torch.from_numpy(array)[None],
        align_corners=True,
        padding_mode="border",
    )[0, 0].numpy()
    field = DisplacementField(array=array, convention=Convention.GRID_SAMPLE)
    positions = np.indices(GRID) + field.vectors_vox(GRID)
    expected = ndimage.map_coordinates(moving, positions, order=1, mode="nearest")
    assert np.allclose(warped, expected, atol=1e-4)


class Tensor:
    """Shaped like an array and not one, as a torch tensor is."""

    shape = (3, *HALF)
    ndim = 4
    dtype = np.float32

    def __array__(self) -> Array:
        return np.zeros(self.shape, self.dtype)


@pytest.mark.parametrize("thing", [Tensor(), None, [[1.0]], 3.0])
def test_only_arrays_are_fields(thing: object) -> None:
    with pytest.raises(FieldError, match=f"expected a NumPy array, found {type(thing).__name__}"):
        DisplacementField(array=cast("Array", thing))


@pytest.mark.parametrize(
    ("shape", "convention", "wanted"),
    [
        ((*HALF, 3), Convention.VOXELS, r"\(3, X, Y, Z\)"),
        ((3, *HALF), Convention.VOXELS_LAST, r"\(X, Y, Z, 3\)"),
        ((3, *HALF), Convention.GRID_SAMPLE, r"\(X, Y, Z, 3\)"),
        ((1, 3, *HALF), Convention.VOXELS, r"\(3, X, Y, Z\)"),
        ((2, *HALF), Convention.VOXELS, r"\(3, X, Y, Z\)"),
        ((), Convention.VOXELS, r"\(3, X, Y, Z\)"),
    ],
)
def test_wrong_axes(shape: tuple[int, ...], convention: Convention, wanted: str) -> None:
    with pytest.raises(FieldError, match=f"expected shape {wanted}.*{convention.value}"):
        DisplacementField(array=np.zeros(shape, np.float32), convention=convention)


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.bool_, np.complex64, object])
def test_only_floating_point_values(dtype: type) -> None:
    with pytest.raises(FieldError, match="expected floating-point values, found"):
        DisplacementField(array=np.zeros((3, *HALF), dtype))


# --- Resampling ---------------------------------------------------------------------------------

Grids = st.tuples(st.integers(2, 9), st.integers(2, 9), st.integers(2, 9))


@given(source=Grids, target=Grids, seed=st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_resampling_is_scipys_zoom(
    source: tuple[int, int, int], target: tuple[int, int, int], seed: int
) -> None:
    """Order 1, which samples both ends of each axis."""
    vectors = np.random.default_rng(seed).uniform(-9, 9, (3, *source)).astype(np.float32)
    factors = [n / m for n, m in zip(target, source, strict=True)]
    expected = np.stack([ndimage.zoom(component, factors, order=1) for component in vectors])
    assert expected.shape[1:] == target
    found = resample_corner_aligned(vectors, target)
    assert found.dtype == np.float32
    assert np.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(("source", "target"), [(HALF, GRID), (GRID, HALF)])
def test_resampling_keeps_linear_functions(
    source: tuple[int, int, int], target: tuple[int, int, int]
) -> None:
    assert np.allclose(resample_corner_aligned(ramp(source), target), ramp(target), atol=1e-5)


def test_resampling_of_single_slices() -> None:
    vectors = np.arange(12, dtype=np.float32).reshape(3, 1, 2, 2)
    widened = resample_corner_aligned(vectors, (3, 2, 2))
    assert np.array_equal(widened, np.repeat(vectors, 3, axis=1))
    assert np.array_equal(resample_corner_aligned(widened, (1, 2, 2)), vectors)


def test_full_resolution_field_goes_into_a_half_resolution_file() -> None:
    stored = to_challenge(DisplacementField(array=ramp(GRID)), SPEC, GRID)
    assert stored.shape == SPEC.shape
    assert stored.dtype == np.float16
    assert np.allclose(stored, ramp(HALF), atol=2e-3)


def test_half_resolution_field_goes_into_a_full_resolution_file() -> None:
    """Its values are full-resolution voxels already, so they are not doubled."""
    stored = to_challenge(DisplacementField(array=ramp(HALF)), FULL_SPEC, GRID)
    assert stored.dtype == np.float32
    assert np.allclose(stored, ramp(GRID), atol=1e-5)


def test_half_precision_input_is_resampled_without_overflow() -> None:
    """The difference of two legal float16 neighbours need not be one."""
    array = np.full((3, *GRID), 60000, np.float16)
    array[:, 1::2] = -60000
    stored = to_challenge(DisplacementField(array=array), SPEC, GRID)
    assert np.isfinite(stored).all()
    expected = resample_corner_aligned(array.astype(np.float32), HALF)
    assert np.array_equal(stored, expected.astype(np.float16))


# --- What is refused ----------------------------------------------------------------------------


def test_wrong_grid() -> None:
    message = refusal(np.zeros((3, 8, 6, 11), np.float32))
    assert "expected a field on the image grid (16, 12, 20) or on half of it (8, 6, 10)" in message
    assert message.endswith("found (8, 6, 11)")


@pytest.mark.parametrize("grid", [(10, 6, 8), (20, 12, 16)])
def test_wrong_grid_with_a_hint(grid: tuple[int, ...]) -> None:
    assert refusal(np.zeros((3, *grid), np.float32)).endswith("are the axes in another order?")


@pytest.mark.parametrize("grid", [HALF, GRID])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("convention", list(Convention))
def test_values_that_are_not_finite(
    grid: tuple[int, ...], value: float, convention: Convention
) -> None:
    shape = (3, *grid) if convention is Convention.VOXELS else (*grid, 3)
    array = np.zeros(shape, np.float32)
    array.flat[[0, 7]] = value
    message = refusal(array, convention)
    assert message == "expected finite displacements, found 2 values that are NaN or infinite"


@pytest.mark.parametrize("value", [65504.0, -65504.0, 0.0, 6e-8])
def test_values_float16_holds(value: float) -> None:
    field = DisplacementField(array=np.full((3, *HALF), value, np.float32))
    stored = to_challenge(field, SPEC, GRID)
    assert np.array_equal(stored, np.full((3, *HALF), value, np.float16))


@pytest.mark.parametrize("value", [65520.0, -65520.0, 65505.0, 1e30])
@pytest.mark.parametrize("grid", [HALF, GRID])
def test_values_float16_does_not_hold(value: float, grid: tuple[int, ...]) -> None:
    array = np.zeros((3, *grid), np.float32)
    array[1, 0, 0, 0] = value
    message = refusal(array)
    assert "expected displacements of at most 65504 voxels, the largest float16 holds" in message
    assert "are they in voxels?" in message


def test_values_float32_does_not_hold() -> None:
    field = DisplacementField(array=np.full((3, *GRID), 1e39))
    with pytest.raises(FieldError, match="the largest float32 holds"):
        to_challenge(field, FULL_SPEC, GRID)


# --- Arrays as they come ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "array",
    [
        np.asfortranarray(ramp()),
        ramp().astype(">f4"),
        ramp().astype(np.float64),
        ramp().astype(np.longdouble),
        np.repeat(ramp(), 2, axis=3)[..., ::2],
        ramp()[:, ::-1].copy()[:, ::-1],
    ],
    ids=["fortran", "big_endian", "float64", "longdouble", "strided", "negative_stride"],
)
def test_any_memory_layout(array: Array) -> None:
    before = array.copy()
    stored = to_challenge(DisplacementField(array=array), SPEC, GRID)
    assert np.array_equal(stored, ramp().astype(np.float16))
    assert stored.flags.c_contiguous
    assert stored.dtype == np.dtype("float16")
    assert stored.dtype.isnative
    assert np.array_equal(array, before)


def test_a_read_only_array_is_fine() -> None:
    array = ramp(GRID)
    array.flags.writeable = False
    assert to_challenge(DisplacementField(array=array), SPEC, GRID).shape == SPEC.shape


# --- Writing ------------------------------------------------------------------------------------


@contextmanager
def file_size_limit(size_bytes: int) -> Iterator[None]:
    """What is written past the limit fails, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def noise() -> Array:
    return np.random.default_rng(0).normal(size=(3, *HALF)).astype(np.float16)


def test_written_field_is_plain_numpy(tmp_path: Path) -> None:
    path = tmp_path / "disp_0001_0002.npz"
    write_field(noise(), path)
    with np.load(path, allow_pickle=False) as arrays:
        assert len(arrays.files) == 1
        assert np.array_equal(arrays[arrays.files[0]], noise())
    assert list(tmp_path.iterdir()) == [path]


def test_writing_replaces_an_earlier_field(tmp_path: Path) -> None:
    path = tmp_path / "disp_0001_0002.npz"
    path.write_bytes(b"earlier")
    write_field(noise(), path)
    with np.load(path) as arrays:
        assert np.array_equal(arrays["arr_0"], noise())


@pytest.mark.parametrize("limit_bytes", [0, 10, 1000])
def test_a_write_that_fails_leaves_nothing(tmp_path: Path, limit_bytes: int) -> None:
    path = tmp_path / "disp_0001_0002.npz"
    with file_size_limit(limit_bytes), pytest.raises(OSError, match="too large"):
        write_field(noise(), path)
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_keeps_the_earlier_field(tmp_path: Path) -> None:
    path = tmp_path / "disp_0001_0002.npz"
    write_field(noise(), path)
    earlier = path.read_bytes()
    with file_size_limit(1000), pytest.raises(OSError, match="too large"):
        write_field(noise() + np.float16(1), path)
    assert path.read_bytes() == earlier
    assert list(tmp_path.iterdir()) == [path]


def test_writing_into_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_field(noise(), tmp_path / "none" / "disp_0001_0002.npz")


@pytest.mark.parametrize(
    ("shape", "hint"),
    [((8, 6, 10, 3), "Convention.VOXELS_LAST"), ((1, 3, 8, 6, 10), r"array\[0\]")],
)
def test_wrong_convention_gets_a_hint(shape: tuple[int, ...], hint: str) -> None:
    with pytest.raises(FieldError, match=hint):
        DisplacementField(array=np.zeros(shape, np.float32))
