"""The metrics against the straightforward formulation, on volumes made at random."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from surface_distance import lookup_tables

from bench.support import reference
from harness.challenge.model import FieldFormat, Layout
from harness.evaluate import accuracy, surfaces
from harness.evaluate.kernels.surface import REACH
from harness.evaluate.metrics import (
    FieldVolumes,
    jacobian_metrics,
    label_metrics,
    landmark_errors,
)
from harness.evaluate.surface_elements import N_CODES, element_areas

Array = NDArray[Any]

GRIDS = [(20, 23, 26), (31, 16, 12), (9, 40, 21)]


def random_labels(rng: np.random.Generator, grid: tuple[int, int, int], count: int) -> Array:
    """Blobs that touch each other and the image's sides."""
    noise = np.stack([ndimage.gaussian_filter(rng.normal(size=grid), 2) for _ in range(count)])
    labels: Array = noise.argmax(axis=0).astype(np.uint8)
    return labels


def random_field(
    rng: np.random.Generator, grid: tuple[int, int, int], roughness_vox: float, amount_vox: float
) -> Array:
    """(X, Y, Z, 3) float32."""
    noise = rng.normal(size=(3, *grid))
    smooth = np.stack([ndimage.gaussian_filter(c, roughness_vox) for c in noise])
    scaled = smooth * (amount_vox / smooth.std())
    return np.ascontiguousarray(np.moveaxis(scaled, 0, 3), dtype=np.float32)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("file_format", list(FieldFormat))
@pytest.mark.parametrize(("roughness_vox", "amount_vox"), [(3, 1.5), (0.3, 4), (4, 15)])
def test_official_metrics(
    seed: int,
    grid: tuple[int, int, int],
    file_format: FieldFormat,
    roughness_vox: float,
    amount_vox: float,
) -> None:
    rng = np.random.default_rng([seed, *grid])
    fixed, moving = (random_labels(rng, grid, 5) for _ in range(2))
    array = random_field(rng, grid, roughness_vox, amount_vox)
    mask = rng.choice([0.0, 1.0, 1.0, 2.0], grid)
    points = rng.uniform(-1, 1 + np.array(grid), (30, 3))
    points[:10] = np.round(points[:10])
    others = rng.uniform(0, 20, (30, 3))
    spacing_mm = (1.5, 0.7, 2.25)
    plain = array if file_format is FieldFormat.NPZ else array.astype(np.float64)
    field = FieldVolumes.from_array(array, Layout.CHANNELS_LAST, file_format=file_format)

    labels = (1, 2, 3, 4, 9)
    warped = reference.warp(moving, plain)
    found = label_metrics(fixed, moving, field, labels, spacing_mm=spacing_mm, extras=True)
    np.testing.assert_array_equal(found.dice, reference.dice(fixed, moving, warped, labels))
    assert found.hd95_vox is not None
    assert found.hd95_mm is not None
    assert found.mean_surface_distance_mm is not None
    np.testing.assert_array_equal(found.hd95_vox, reference.hd95(fixed, moving, warped, labels))
    np.testing.assert_allclose(
        found.hd95_mm, reference.hd95(fixed, moving, warped, labels, spacing_mm), rtol=1e-12
    )
    for n, label in enumerate(labels[:-1]):
        if (warped == label).any():
            lists = reference.surface_distances(fixed == label, warped == label, spacing_mm)
            there, back = (lists[f"distances_{way}"] for way in ("gt_to_pred", "pred_to_gt"))
            areas = lists["surfel_areas_gt"], lists["surfel_areas_pred"]
            mean_mm = (there @ areas[0] + back @ areas[1]) / (areas[0].sum() + areas[1].sum())
            np.testing.assert_allclose(found.mean_surface_distance_mm[n], mean_mm, rtol=1e-9)

    for one in (None, mask):
        jacobian = jacobian_metrics(field, one)
        expected = reference.sdlogj(plain, one)
        np.testing.assert_allclose(jacobian.sdlogj, expected, rtol=1e-10)
        det = reference.determinant(plain).ravel()
        if one is not None:
            det = det[one[2:-2, 2:-2, 2:-2].ravel() == 1]
        assert jacobian.voxels == det.size
        assert jacobian.folded_percent == pytest.approx(100 * np.mean(det <= 0))
        np.testing.assert_allclose([jacobian.minimum, jacobian.maximum], [det.min(), det.max()])
        np.testing.assert_allclose(
            [jacobian.p01, jacobian.p99], np.percentile(det, (1, 99)), rtol=2e-7, atol=1e-7
        )

    errors = landmark_errors(field, points, others, spacing_mm)
    expected_mm = reference.landmark_errors(points, others, plain, spacing_mm)
    # In single precision the reference rounds what it reads; ours may fall to the other side.
    step_vox = np.spacing(np.abs(array).max()) if field.single else 0.0
    tolerance_mm = 1e-6 + step_vox * max(spacing_mm)
    np.testing.assert_allclose(errors, expected_mm, rtol=0, atol=tolerance_mm)


def test_labels_far_from_where_they_belong() -> None:
    rng = np.random.default_rng(9)
    grid = (60, 55, 50)
    fixed, moving = (random_labels(rng, grid, 4) for _ in range(2))
    fixed[:, :, :20] = 0
    moving[:, :, 25:] = 0
    moving[50, 50, 40] = 3
    array = random_field(rng, grid, 5, 3) + np.array([20, 0, -9], np.float32)
    field = FieldVolumes.from_array(array, Layout.CHANNELS_LAST)
    warped = reference.warp(moving, array)
    found = label_metrics(fixed, moving, field, (1, 2, 3))
    expected = reference.hd95(fixed, moving, warped, (1, 2, 3))
    assert expected.max() > 2 * REACH
    np.testing.assert_array_equal(found.hd95_vox, expected)


def test_the_first_look_has_the_same_numbers() -> None:
    rng = np.random.default_rng(10)
    grid = (22, 20, 24)
    fixed, moving = (random_labels(rng, grid, 4) for _ in range(2))
    half = np.moveaxis(random_field(rng, (11, 10, 12), 1, 3), 3, 0).astype(np.float16)
    field = FieldVolumes.from_array(half, Layout.CHANNELS_FIRST).upsampled()
    vectors = accuracy.upsample(half, grid)
    np.testing.assert_allclose(np.stack(field.components), vectors, atol=1e-6)
    found = label_metrics(fixed, moving, field, (1, 2, 3, 7), surfaces=False)
    warped = accuracy.warp_labels(moving, vectors)
    expected = accuracy.dice(fixed, moving, warped, (1, 2, 3, 7))
    np.testing.assert_array_equal(found.dice, expected)
    share = jacobian_metrics(field).folded_percent
    assert share == pytest.approx(accuracy.folded_percent(vectors))
    points = rng.uniform(0, 19, (20, 3))
    for one, other in ((field, vectors), (None, None)):
        np.testing.assert_allclose(
            landmark_errors(one, points, points + 1, (1, 2, 3)),
            accuracy.landmark_errors(other, points, points + 1, (1, 2, 3)),
            atol=1e-5,
        )


def test_surfaces_in_parts_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """What noise makes of a map does not fit into memory at once."""
    rng = np.random.default_rng(7)
    fixed, warped = rng.integers(0, 6, (2, 20, 21, 22)).astype(np.uint8)
    wanted = np.array([False, True, True, False, True, True])
    whole = surfaces.robust_hausdorff_vox(fixed, warped, wanted)
    for room in (100, 30_000):
        monkeypatch.setattr(surfaces, "_MAX_ELEMENTS", room)
        np.testing.assert_array_equal(surfaces.robust_hausdorff_vox(fixed, warped, wanted), whole)
    labels = np.flatnonzero(wanted)
    expected = reference.hd95(fixed, warped, warped, labels.tolist())
    np.testing.assert_array_equal(whole[labels], expected)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.5, 0.7, 2.25)])
def test_element_areas_are_the_librarys(spacing: tuple[float, float, float]) -> None:
    areas = element_areas(spacing)
    theirs = lookup_tables.create_table_neighbour_code_to_surface_area(list(spacing))
    kernel = lookup_tables.ENCODE_NEIGHBOURHOOD_3D_KERNEL.ravel()
    for code in range(N_CODES):
        their_code = sum(int(kernel[bit]) for bit in range(8) if code >> bit & 1)
        if spacing == (1.0, 1.0, 1.0):  # to the last bit: the order of equal distances hangs on it
            assert areas[code] == theirs[their_code]
        else:
            assert areas[code] == pytest.approx(theirs[their_code], rel=1e-14)


@pytest.mark.parametrize("grid", [(1, 1, 1), (2, 3, 1), (5, 2, 9), (24, 17, 33)])
def test_upsampling_is_scipys_zoom(grid: tuple[int, int, int]) -> None:
    half = np.random.default_rng(8).normal(0, 5, (3, *grid)).astype(np.float16)
    found = FieldVolumes.from_array(half, Layout.CHANNELS_FIRST).upsampled()
    for component, stored in zip(found.components, half, strict=True):
        expected = ndimage.zoom(stored.astype(np.float32), 2, order=2)
        assert component.shape == expected.shape
        np.testing.assert_allclose(component, expected, rtol=1e-6, atol=1e-6)
        if min(grid) > 4:
            assert np.mean(component != expected) < 1e-3
