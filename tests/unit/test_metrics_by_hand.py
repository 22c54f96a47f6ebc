"""Metrics worked out by hand, the table of degenerate cases, and laws they must obey."""

from __future__ import annotations

import math
from itertools import product
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from harness.challenge.model import FieldFormat, Layout
from harness.evaluate.metrics import (
    FieldVolumes,
    jacobian_metrics,
    label_metrics,
    landmark_errors,
)
from harness.evaluate.surface_elements import ALL_IN, element_areas

Array = NDArray[Any]

GRID = (12, 10, 8)


def field_of(
    *components: Array | float, grid: tuple[int, int, int] = GRID, single: bool = True
) -> FieldVolumes:
    """From three components that broadcast to the grid."""
    whole = [np.array(np.broadcast_to(c, grid), np.float64) for c in components]
    x, y, z = (c.astype(np.float32) for c in whole) if single else whole
    return FieldVolumes(x=x, y=y, z=z, single=single)


Box = tuple[slice | int, slice | int, slice | int]


def map_of(*boxes: tuple[int, Box]) -> Array:
    labels = np.zeros(GRID, np.uint8)
    for label, box in boxes:
        labels[box] = label
    return labels


CUBE = slice(3, 5), slice(3, 5), slice(3, 5)
EDGE = slice(7, 9), slice(7, 9), slice(7, 9)
LARGE = slice(2, 5), slice(2, 5), slice(2, 5)


# --- labels -------------------------------------------------------------------------------------


def test_warping_rounds_halves_up_and_puts_0_outside() -> None:
    moving = np.arange(1, 7, dtype=np.uint8).reshape(6, 1, 1)
    fixed = np.array([2, 2, 3, 6, 1, 6], dtype=np.uint8).reshape(6, 1, 1)
    shift = np.array([0.5, 0.49, -2.5, 2.0, -np.inf, np.nan]).reshape(6, 1, 1)
    # Warped: 2, 2, (1.5 - 2 is outside) 0, 6, 0, 0.
    field = field_of(shift, 0, 0, grid=(6, 1, 1))
    found = label_metrics(fixed, moving, field, range(1, 7), surfaces=False)
    np.testing.assert_array_equal(found.dice, [0, 1, 0, np.nan, np.nan, 2 / 3])
    shift = np.array([-1e-12, -0.0, 0, 0, 1 + 1e-12, -5]).reshape(6, 1, 1)
    field = field_of(shift, 0, 0, grid=(6, 1, 1), single=False)
    # Warped: 0, 2, 3, 4, 0, 1.
    fixed = np.array([1, 2, 3, 4, 5, 6], dtype=np.uint8).reshape(6, 1, 1)
    found = label_metrics(fixed, moving, field, range(1, 7), surfaces=False)
    np.testing.assert_array_equal(found.dice, [0, 1, 1, 1, 0, 0])


def test_a_label_moved_by_one_voxel() -> None:
    fixed, moving = map_of((1, CUBE)), map_of((1, (slice(4, 6), *CUBE[1:])))
    before = label_metrics(fixed, moving, None, [1])
    assert before.dice.tolist() == [0.5]
    assert before.hd95_vox is not None
    assert before.hd95_vox.tolist() == [1.0]
    after = label_metrics(fixed, moving, field_of(1, 0, 0), [1])
    assert after.dice.tolist() == [1.0]
    assert after.hd95_vox is not None
    assert after.hd95_vox.tolist() == [0.0]


def test_one_voxel_against_another_and_anisotropic_millimetres() -> None:
    """Eight corners of the same area, each as far from the other voxel's nearest corner."""
    fixed, moving = map_of((7, (3, 3, 3))), map_of((7, (3, 3, 6)))
    found = label_metrics(fixed, moving, None, [7], spacing_mm=(1, 2, 3), extras=True)
    assert found.hd95_vox is not None
    assert found.hd95_mm is not None
    assert found.mean_surface_distance_mm is not None
    assert found.dice.tolist() == [0.0]
    # Corners at z = 3 and 4 and at z = 6 and 7: half are 2, half 3 voxels away.
    assert found.hd95_vox.tolist() == [3.0]
    np.testing.assert_allclose(found.hd95_mm, [9.0])
    np.testing.assert_allclose(found.mean_surface_distance_mm, [7.5])


def test_distances_of_far_labels_are_exact() -> None:
    """Beyond what is searched around each element, in both ways to go on from there."""
    grid = (60, 50, 70)
    fixed, moving = np.zeros((2, *grid), np.uint8)
    fixed[2, 3, 4] = 1
    moving[32, 43, 64] = 1
    fixed[5:25, 5:25, 5:25] = 2
    moving[5:25, 5:25, 45:65] = 2
    found = label_metrics(fixed, moving, None, [1, 2])
    assert found.hd95_vox is not None
    # One voxel: the far corners are a voxel further on along each axis.
    assert found.hd95_vox[0] == math.sqrt(30**2 + 40**2 + 60**2)
    assert found.hd95_vox[1] == 40.0


def test_degenerate_labels() -> None:
    """Absent from either map: NaN. Lost in warping: Dice 0, infinitely far. All others count."""
    fixed = map_of((1, LARGE), (2, EDGE), (4, (0, 0, 0)))
    moving = map_of((1, LARGE), (3, EDGE), (4, (11, 9, 7)))
    found = label_metrics(
        fixed, moving, field_of(1, 1, 0), [1, 2, 3, 4, 9], spacing_mm=(1, 1, 1), extras=True
    )
    assert found.hd95_vox is not None
    assert found.hd95_mm is not None
    assert found.mean_surface_distance_mm is not None
    assert 0 < found.dice[0] < 1
    assert found.hd95_vox[0] > 0
    for values in (
        found.dice,
        found.hd95_vox,
        found.hd95_mm,
        found.mean_surface_distance_mm,
    ):
        np.testing.assert_array_equal(np.isnan(values), [False, True, True, False, True])
    gone = label_metrics(fixed, moving, field_of(90, 0, 0), [1], spacing_mm=(1, 1, 1), extras=True)
    assert gone.hd95_vox is not None
    assert gone.hd95_mm is not None
    assert gone.mean_surface_distance_mm is not None
    assert gone.dice.tolist() == [0.0]
    assert [gone.hd95_vox[0], gone.hd95_mm[0], gone.mean_surface_distance_mm[0]] == [np.inf] * 3


def test_a_field_of_nan_loses_every_label() -> None:
    fixed = map_of((1, CUBE))
    found = label_metrics(fixed, fixed, field_of(np.nan, 0, 0), [1])
    assert found.hd95_vox is not None
    assert (found.dice[0], found.hd95_vox[0]) == (0.0, np.inf)


def test_no_labels_and_the_same_label_twice() -> None:
    fixed = map_of((1, CUBE))
    assert label_metrics(fixed, fixed, None, []).dice.shape == (0,)
    assert label_metrics(fixed, fixed, None, [1, 1]).dice.tolist() == [1.0, 1.0]


def test_label_0_may_be_asked_for() -> None:
    """What comes from outside the moving map is 0."""
    fixed = np.zeros((4, 1, 1), np.uint8)
    moving = np.array([0, 1, 1, 1], np.uint8).reshape(4, 1, 1)
    field = field_of(np.array([0, 9, 9, 0]).reshape(4, 1, 1), 0, 0, grid=(4, 1, 1))
    assert label_metrics(fixed, moving, field, [0], surfaces=False).dice.tolist() == [6 / 7]


@pytest.mark.parametrize("dtype", ["uint8", "int16", ">i4", "uint16", "float32", "float64"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_maps_of_any_type_and_memory_order(dtype: str, order: Literal["C", "F"]) -> None:
    rng = np.random.default_rng(1)
    fixed, moving = rng.integers(0, 4, (2, *GRID))
    expected = label_metrics(fixed.astype(np.uint8), moving.astype(np.uint8), None, [1, 3])
    found = label_metrics(
        fixed.astype(dtype, order=order), moving.astype(dtype, order=order), None, [1, 3]
    )
    np.testing.assert_array_equal(found.dice, expected.dice)
    assert found.hd95_vox is not None
    assert expected.hd95_vox is not None
    np.testing.assert_array_equal(found.hd95_vox, expected.hd95_vox)


def test_many_labels_and_labels_far_apart() -> None:
    rng = np.random.default_rng(2)
    fixed = rng.integers(0, 400, GRID)
    found = label_metrics(fixed, fixed, None, range(400))
    np.testing.assert_array_equal(found.dice[np.unique(fixed)], 1.0)
    apart = np.where(fixed == 7, 2**40, fixed)
    assert label_metrics(apart, apart, None, [2**40, 8]).dice.tolist() == [1.0, 1.0]


def test_what_does_not_fit_is_refused() -> None:
    labels = map_of((1, CUBE))
    with pytest.raises(ValueError, match="spacing"):
        label_metrics(labels, labels, None, [1], extras=True)
    with pytest.raises(ValueError, match=r"\(12, 10, 8\), found \(4, 4, 4\)"):
        label_metrics(labels, labels, field_of(0, 0, 0, grid=(4, 4, 4)), [1])
    with pytest.raises(ValueError, match=r"mask of shape \(12, 10, 8\)"):
        jacobian_metrics(field_of(0, 0, 0), np.ones((3, 3, 3)))
    with pytest.raises(ValueError, match="1 and 2"):
        landmark_errors(None, np.zeros((1, 3)), np.zeros((2, 3)), (1, 1, 1))
    with pytest.raises(ValueError, match="channels_last"):
        FieldVolumes.from_array(np.zeros((3, 4, 4, 4)), Layout.CHANNELS_LAST)


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(st.integers(-3, 3), st.integers(-3, 3), st.integers(-3, 3)),
    st.integers(0, 2**32 - 1),
)
def test_a_translation_by_whole_voxels_is_undone_by_its_field(
    shift: tuple[int, int, int], seed: int
) -> None:
    inside = np.zeros((14, 15, 16), np.uint8)
    inside[4:10, 4:11, 4:12] = np.random.default_rng(seed).integers(0, 4, (6, 7, 8))
    moving = np.roll(inside, shift, (0, 1, 2))
    found = label_metrics(inside, moving, field_of(*shift, grid=(14, 15, 16)), [1, 2, 3])
    assert found.dice.tolist() == [1.0] * 3
    assert found.hd95_vox is not None
    assert found.hd95_vox.tolist() == [0.0] * 3


@settings(max_examples=25, deadline=None)
@given(st.permutations([1, 2, 3, 4]), st.integers(0, 2**32 - 1))
def test_names_of_labels_do_not_matter(names: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    fixed, moving = rng.integers(0, 5, (2, *GRID))
    field = field_of(*rng.normal(0, 2, (3, *GRID)))
    table = np.array([0, *names])
    found = label_metrics(fixed, moving, field, [1, 2, 3, 4])
    renamed = label_metrics(table[fixed], table[moving], field, names)
    assert found.hd95_vox is not None
    assert renamed.hd95_vox is not None
    np.testing.assert_array_equal(found.dice, renamed.dice)
    np.testing.assert_array_equal(found.hd95_vox, renamed.hd95_vox)


# --- surface elements ---------------------------------------------------------------------------


def test_element_areas_of_simple_cases() -> None:
    areas = element_areas((1, 2, 3))
    assert areas[0] == areas[ALL_IN] == 0
    # Four voxels on one side of a plane: the plane's piece between their centres.
    assert areas[0b11110000] == 6.0
    assert areas[0b11001100] == 3.0
    assert areas[0b10101010] == 2.0
    # One voxel: a triangle between the middles of three edges, of lengths 1/2, 1 and 3/2.
    corner = 0.5 * np.linalg.norm(np.cross([-0.5, 1, 0], [-0.5, 0, 1.5]))
    assert areas[1] == pytest.approx(corner)


# --- Jacobian -----------------------------------------------------------------------------------


def grid_axes(grid: tuple[int, int, int] = GRID) -> Array:
    return np.indices(grid).astype(np.float64)


def test_a_linear_field_has_one_determinant() -> None:
    x, y, z = grid_axes()
    found = jacobian_metrics(field_of(0.5 * x, -0.25 * y, 0.25 * z))
    assert found.sdlogj == pytest.approx(0, abs=1e-12)
    assert found.folded_percent == 0
    assert found.voxels == 8 * 6 * 4
    for value in (found.minimum, found.p01, found.p99, found.maximum):
        assert value == pytest.approx(1.5 * 0.75 * 1.25)


def test_sdlogj_of_two_halves() -> None:
    """det is 1 in one half and 1.5 in the other, but for the planes where they meet."""
    x = grid_axes()[0]
    found = jacobian_metrics(field_of(np.where(x < 6, 0, 0.5 * (x - 5.5)), 0, 0))
    # Central differences at x = 2 to 9: 0, 0, 0, 0.125, 0.375, 0.5, 0.5, 0.5.
    values = np.log(4 + np.array([0, 0, 0, 0.125, 0.375, 0.5, 0.5, 0.5]))
    assert found.sdlogj == pytest.approx(values.std(), rel=1e-12)
    assert (found.minimum, found.maximum) == (1.0, 1.5)


@pytest.mark.parametrize(
    ("slope", "expected"), [(0.0, 0.0), (-0.9, 0.0), (-1.0, 100.0), (-1.5, 100.0)]
)
def test_a_voxel_is_folded_where_the_map_runs_backwards(slope: float, expected: float) -> None:
    for axis in range(3):
        parts = [slope * grid_axes()[a] if a == axis else 0 for a in range(3)]
        found = jacobian_metrics(field_of(*parts), extras=True)
        assert found.folded_percent == expected
        assert found.ndv_vox == pytest.approx(
            max(0.0, -1 - slope) * (10 * 8 * 6), rel=1e-6, abs=1e-9
        )
        assert found.ndv_percent == pytest.approx(100 * max(0.0, -1 - slope), rel=1e-6, abs=1e-9)


def test_ndv_sees_what_central_differences_do_not() -> None:
    """A voxel that alone is far from its place: no central difference at it reads it."""
    x = np.zeros(GRID)
    x[6, 5, 4] = 3.0
    found = jacobian_metrics(field_of(x, 0, 0), _only(6, 5, 4), extras=True)
    assert (found.voxels, found.folded_voxels, found.folded_percent) == (1, 0, 0.0)
    # Of the tetrahedra at the voxel, those with an edge ahead along x shrink by 3 and turn: four
    # of volume (1 - 3) / 6; the one with diagonals (1, 1, 0), (0, 1, 1), (1, 0, 1) has
    # det((-2, 1, 0), (-3, 1, 1), (-2, 0, 1)) = -1. Half of their volumes.
    assert found.ndv_vox == pytest.approx((4 * 2 + 1) / 6 / 2)


def _only(*voxel: int) -> Array:
    mask = np.zeros(GRID)
    mask[voxel] = 1
    return mask


@pytest.mark.parametrize("extras", [False, True])
def test_only_voxels_that_are_exactly_1_count(extras: bool) -> None:
    rng = np.random.default_rng(3)
    field = field_of(*rng.normal(0, 0.2, (3, *GRID)))
    mask = rng.choice([0, 0.5, 1, 2, 255], GRID)
    assert jacobian_metrics(field, mask).voxels == np.count_nonzero(mask[2:-2, 2:-2, 2:-2] == 1)
    empty = jacobian_metrics(field, np.zeros(GRID), extras=extras)
    assert empty.voxels == 0
    assert np.isnan([empty.sdlogj, empty.folded_percent, empty.minimum, empty.p99]).all()
    if extras:
        assert empty.ndv_vox == 0
        assert empty.ndv_percent is not None
        assert math.isnan(empty.ndv_percent)
    alone = jacobian_metrics(field, _only(5, 5, 4))
    assert (alone.voxels, alone.sdlogj) == (1, 0.0)
    assert alone.minimum == alone.maximum == pytest.approx(alone.p01)


def test_a_volume_without_an_inside_has_no_determinants() -> None:
    found = jacobian_metrics(field_of(0, 0, 0, grid=(4, 9, 9)), extras=True)
    assert found.voxels == 0
    assert math.isnan(found.sdlogj)


def test_nan_that_counts_makes_everything_nan() -> None:
    x = np.zeros(GRID)
    x[6, 5, 4] = np.nan
    found = jacobian_metrics(field_of(x, 0, 0))
    assert np.isnan([found.sdlogj, found.folded_percent, found.minimum, found.p01]).all()
    far = np.ones(GRID)
    far[4:9] = 0
    assert jacobian_metrics(field_of(x, 0, 0), far).sdlogj == 0


def test_logarithms_are_clipped() -> None:
    x = grid_axes()[0]
    for slope in (-1e3, 1e30):
        assert jacobian_metrics(field_of(slope * x, 0, 0)).sdlogj == 0


# --- landmarks ----------------------------------------------------------------------------------


def test_landmark_error_is_in_the_spacing_of_each_axis() -> None:
    fixed_vox = np.array([[4.0, 4.0, 4.0], [2.0, 3.0, 4.0]])
    moving_vox = np.array([[5.0, 4.0, 4.0], [2.0, 3.0, 7.0]])
    errors = landmark_errors(None, fixed_vox, moving_vox, (1.0, 2.0, 3.0))
    np.testing.assert_allclose(errors, [1.0, 9.0])
    errors = landmark_errors(field_of(0, 0, 3), fixed_vox, moving_vox, (1.0, 2.0, 3.0))
    np.testing.assert_allclose(errors, [math.hypot(1, 9), 0.0], atol=1e-6)


def test_degenerate_landmarks() -> None:
    field = field_of(3, 3, 3)
    assert landmark_errors(field, np.empty((0, 3)), np.empty((0, 3)), (1, 1, 1)).shape == (0,)
    one = np.array([[1.5, 1.5, 1.5]])
    np.testing.assert_allclose(landmark_errors(field, one, one + 3, (1, 1, 1)), [0], atol=1e-6)
    for outside in ([GRID[0] - 0.999, 1, 1], [-1e-9, 1, 1], [1, 1, 7.0001], [np.nan, 1, 1]):
        point = np.array([outside])
        error = landmark_errors(field, point, np.array([[1.0, 1.0, 1.0]]), (1, 1, 1))
        expected = np.linalg.norm(point[0] - 1)
        np.testing.assert_allclose(error, [expected])
    nowhere = landmark_errors(field_of(np.nan, 0, 0), one, one, (1, 1, 1))
    assert np.isnan(nowhere).all()


def test_a_linear_field_is_read_exactly_far_from_its_ends() -> None:
    grid = (90, 80, 70)
    x, y, z = np.indices(grid).astype(np.float64)
    field = field_of(0.1 * x - 0.2 * y, 0.3 * z, 0.05 * x, grid=grid, single=False)
    points = 35 + 10 * np.random.default_rng(4).random((40, 3))
    a, b, c = points.T
    expected = points + np.stack([0.1 * a - 0.2 * b, 0.3 * c, 0.05 * a], axis=1)
    assert landmark_errors(field, points, expected, (1, 1, 1)).max() < 1e-6


# --- fields -------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", list(Layout))
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4", "int16"])
@pytest.mark.parametrize("file_format", list(FieldFormat))
def test_a_field_from_an_array_of_any_kind(
    layout: Layout, order: Literal["C", "F"], dtype: str, file_format: FieldFormat
) -> None:
    values = np.round(np.random.default_rng(5).normal(0, 40, (3, 5, 6, 7)) * 8) / 8
    stored = values if layout is Layout.CHANNELS_FIRST else np.moveaxis(values, 0, 3)
    stored = np.array(stored, dtype=dtype, order=order)
    field = FieldVolumes.from_array(stored, layout, file_format=file_format)
    expected = values.astype(dtype).astype(np.float32)
    np.testing.assert_array_equal(np.stack(field.components), expected)
    assert field.single is (file_format is FieldFormat.NPZ)
    assert field.x.dtype == (
        np.float32 if field.single or dtype in ("float32", ">f4") else np.float64
    )
    turned = field.oriented()
    assert all(part.flags.c_contiguous for part in turned)


def test_every_half_precision_number_is_read_exactly() -> None:
    numbers = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    array = np.concatenate([numbers, numbers[:2]]).reshape(1, 1, -1, 3)
    field = FieldVolumes.from_array(array, Layout.CHANNELS_LAST)
    for axis, component in enumerate(field.components):
        np.testing.assert_array_equal(component, array[..., axis].astype(np.float32))


def test_what_a_field_gives_does_not_depend_on_its_memory_order() -> None:
    rng = np.random.default_rng(6)
    parts = rng.normal(0, 1, (3, *GRID)).astype(np.float32)
    fixed, moving = rng.integers(0, 3, (2, *GRID))
    points = rng.random((9, 3)) * 7
    plain = FieldVolumes(x=parts[0], y=parts[1], z=parts[2])
    x, y, z = (np.asfortranarray(part) for part in parts)
    turned = FieldVolumes(x=x, y=y, z=z)
    mixed = FieldVolumes(x=parts[0], y=y, z=np.moveaxis(np.moveaxis(parts, 0, 3).copy(), 3, 0)[2])
    mask = fixed > 0
    for other in (turned, mixed):
        for field, reference in product([other], [plain]):
            first, second = (jacobian_metrics(one, mask, extras=True) for one in (field, reference))
            assert first.sdlogj == pytest.approx(second.sdlogj, rel=1e-12)
            assert first.ndv_vox == pytest.approx(second.ndv_vox, rel=1e-12)
            np.testing.assert_allclose(
                landmark_errors(field, points, points + 1, (1, 2, 3)),
                landmark_errors(reference, points, points + 1, (1, 2, 3)),
                atol=1e-6,
            )
            scores, expected = (
                label_metrics(fixed, moving, one, [1, 2], spacing_mm=(1, 2, 3), extras=True)
                for one in (field, reference)
            )
            np.testing.assert_array_equal(scores.dice, expected.dice)
            assert scores.hd95_mm is not None
            assert expected.hd95_mm is not None
            np.testing.assert_allclose(scores.hd95_mm, expected.hd95_mm)
        finer = (one.upsampled() for one in (other, plain))
        first_half, second_half = (np.stack(one.components) for one in finer)
        np.testing.assert_allclose(first_half, second_half, atol=1e-6)
