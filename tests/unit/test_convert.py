"""Conversions, held against the libraries whose conventions they are.

Each test warps one image twice: with the library's own resampler and the field in the library's
convention, and with ``map_coordinates`` and the converted field. No formula is derived again here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.transform import Rotation

from harness.challenge.field import resample_corner_aligned
from harness.convert.convention import Family, FieldConvention, Order
from harness.convert.geometry import Geometry
from harness.convert.itk import itk_to_voxels, voxels_to_itk
from harness.convert.vectors import from_voxels, to_voxels

Array = npt.NDArray[Any]
Foreign = Any  # what belongs to torch and SimpleITK, which need not be installed

GRID = (26, 20, 32)
HALF = (13, 10, 16)
SPACING = (1.5, 2.0, 0.8)
CHALLENGE = FieldConvention(family=Family.CHALLENGE)
VOXELS = FieldConvention(family=Family.VOXELS)
NIFTI = FieldConvention(family=Family.NIFTI)
ITK = FieldConvention(family=Family.ITK)


def grid_sample(
    *, align_corners: bool, order: Order = Order.ZYX, absolute: bool = False
) -> FieldConvention:
    return FieldConvention(
        family=Family.GRID_SAMPLE, order=order, align_corners=align_corners, absolute=absolute
    )


GRID_SAMPLES = [
    grid_sample(align_corners=align, order=order, absolute=absolute)
    for align in (True, False)
    for order in Order
    for absolute in (True, False)
]


def name_of(convention: FieldConvention) -> str:
    kind = "absolute" if convention.absolute else "displacement"
    return f"{convention.order}-align_corners={convention.align_corners}-{kind}"


def smooth(shape: tuple[int, ...], *, seed: int, sigma: float, largest: float) -> Array:
    """Smooth noise, float64."""
    noise = np.random.default_rng(seed).normal(size=shape)
    sigmas = [0.0] * (len(shape) - 3) + [sigma] * 3
    values = ndimage.gaussian_filter(noise, sigmas)
    scaled: Array = values * (largest / np.abs(values).max())
    return scaled


def image(grid: tuple[int, ...] = GRID) -> Array:
    return smooth(grid, seed=1, sigma=1.5, largest=100)


def field(grid: tuple[int, ...] = GRID) -> Array:
    """Displacements in voxels, (3, X, Y, Z), other ones along each axis."""
    values = smooth((3, *grid), seed=2, sigma=4, largest=2)
    values += np.array([0.7, -1.2, 1.9])[:, None, None, None]
    return values


def warp(moving: Array, vectors: Array) -> Array:
    """The challenge's own warp, linear: the moving image at p + d(p)."""
    positions = np.indices(vectors.shape[1:]) + vectors
    warped: Array = ndimage.map_coordinates(moving, positions, order=1, cval=np.nan)
    return warped


def torch_warp(moving: Array, array: Array, convention: FieldConvention) -> Array:
    """The same with ``torch.nn.functional.grid_sample``, (X, Y, Z, 3) in the convention."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed here")
    assert convention.align_corners is not None
    flow = torch.from_numpy(np.ascontiguousarray(array))[None]
    if convention.order is Order.XYZ:
        flow = flow.flip(-1)
    if not convention.absolute:
        identity = torch.nn.functional.affine_grid(
            torch.eye(3, 4, dtype=flow.dtype)[None],
            [1, 1, *flow.shape[1:4]],
            align_corners=convention.align_corners,
        )
        flow = flow + identity
    warped = torch.nn.functional.grid_sample(
        torch.from_numpy(moving)[None, None],
        flow,
        align_corners=convention.align_corners,
        padding_mode="border",
    )
    result: Array = warped[0, 0].numpy()
    return result


def difference(first: Array, second: Array) -> float:
    """Largest absolute difference where both are inside the image."""
    inside = np.isfinite(first) & np.isfinite(second)
    assert inside.mean() > 0.5
    return float(np.abs(first - second)[inside].max())


def torch_affine(
    convention: FieldConvention, grid: tuple[int, ...], *, identity: bool = False
) -> Array:
    """What PyTorch's ``affine_grid`` gives in a convention, (X, Y, Z, 3), float64."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed here")
    matrix = torch.eye(3, 4, dtype=torch.float64)

    def made(matrix: Foreign) -> Array:
        size = [1, 1, *grid]
        align = convention.align_corners
        found = torch.nn.functional.affine_grid(matrix[None], size, align_corners=align)
        values: Array = found[0].numpy()
        return values

    one = made(matrix)
    if not identity:
        other = matrix + 0.1 * torch.arange(-5, 7, dtype=torch.float64).reshape(3, 4) / 6
        one = made(other) - (0 if convention.absolute else one)
    result: Array = one if convention.order is Order.ZYX else one[..., ::-1]
    return result


def torch_identity(convention: FieldConvention, grid: tuple[int, ...]) -> Array:
    """PyTorch's own identity where the convention includes it, otherwise zero; (X, Y, Z, 3)."""
    if not convention.absolute:
        return np.zeros((*grid, 3))
    return torch_affine(convention, grid, identity=True)


def torch_flow(convention: FieldConvention, grid: tuple[int, ...] = GRID) -> Array:
    """A flow in torch's units that none of our code has made, (X, Y, Z, 3)."""
    flow = smooth((3, *grid), seed=5, sigma=4 * grid[0] / GRID[0], largest=0.2)
    flow += np.array([0.05, -0.1, 0.08])[:, None, None, None]
    return np.moveaxis(flow, 0, -1) + torch_identity(convention, grid)


# --- PyTorch ------------------------------------------------------------------------------------


@pytest.mark.parametrize("convention", GRID_SAMPLES, ids=name_of)
def test_a_torch_flow_becomes_voxels_that_warp_as_torch_does(convention: FieldConvention) -> None:
    flow = torch_flow(convention)
    vectors = to_voxels(flow, convention, GRID, GRID)
    expected = torch_warp(image(), flow, convention)
    assert difference(warp(image(), vectors), expected) < 1e-9


@pytest.mark.parametrize("convention", GRID_SAMPLES, ids=name_of)
def test_voxels_become_a_torch_flow_that_warps_as_they_do(convention: FieldConvention) -> None:
    flow = from_voxels(field(), convention)
    assert flow.shape == (*GRID, 3)
    expected = torch_warp(image(), flow, convention)
    assert difference(warp(image(), field()), expected) < 1e-9


@pytest.mark.parametrize("convention", GRID_SAMPLES, ids=name_of)
def test_a_wrong_option_gives_another_image(convention: FieldConvention) -> None:
    """The tests above would notice: the image is rough enough, and the field large enough."""
    flow = torch_flow(convention)
    expected = torch_warp(image(), flow, convention)
    other_order = Order.XYZ if convention.order is Order.ZYX else Order.ZYX
    for wrong in (
        replace(convention, order=other_order),
        replace(convention, align_corners=not convention.align_corners),
        replace(convention, absolute=not convention.absolute),
    ):
        warped = warp(image(), to_voxels(flow, wrong, GRID, GRID))
        inside = np.isfinite(warped)
        assert not inside.any() or np.abs(warped - expected)[inside].max() > 1


@pytest.mark.parametrize("convention", GRID_SAMPLES, ids=name_of)
def test_a_torch_flow_of_half_the_resolution(convention: FieldConvention) -> None:
    """Upsampled by the library that upsamples it in the end, it warps as torch warps.

    With ``align_corners`` its samples are those of the challenge's half grid, which the evaluation
    upsamples by SciPy; without, they are not, and torch's own ``interpolate`` does.
    """
    torch = pytest.importorskip("torch", reason="PyTorch is not installed here")
    half = torch_flow(convention, HALF)
    components = np.moveaxis(half - torch_identity(convention, HALF), -1, 0)
    if convention.align_corners:
        full = np.stack([ndimage.zoom(c, 2, order=2) for c in components])
    else:
        full = torch.nn.functional.interpolate(
            torch.from_numpy(components.copy())[None], size=GRID, mode="trilinear"
        )[0].numpy()
    flow = np.moveaxis(full, 0, -1) + torch_identity(convention, GRID)
    expected = torch_warp(image(), flow, convention)
    vectors = to_voxels(half, convention, GRID, GRID)
    assert difference(warp(image(), vectors), expected) < 1e-3  # the evaluation is in float32


@pytest.mark.parametrize("convention", GRID_SAMPLES, ids=name_of)
def test_a_half_torch_flow_keeps_its_place_on_the_half_grid(convention: FieldConvention) -> None:
    """One affine flow on both grids, made by torch: without ``align_corners`` the half one's
    samples lie in the middle of two voxels, those of the challenge's half grid do not."""
    half, full = (torch_affine(convention, grid) for grid in (HALF, GRID))
    stored = to_voxels(half, convention, GRID, HALF)
    expected = resample_corner_aligned(to_voxels(full, convention, GRID, GRID), HALF)
    inner = (slice(None), *[slice(1, -1)] * 3)  # beyond the outermost samples the flow is constant
    assert np.abs(expected[:, -1, -1, -1] - expected[:, 0, 0, 0]).max() > 1
    assert np.abs(stored - expected)[inner].max() < 1e-9


def test_half_precision_is_lost_where_it_is_stored_only() -> None:
    """The product with the unit, 12.5 voxels along x, is not rounded to float16 again."""
    flow = np.full((*GRID, 3), 0.3, np.float16)
    vectors = to_voxels(flow, grid_sample(align_corners=True), GRID, GRID)
    assert vectors.dtype == np.float32
    assert vectors[0, 0, 0, 0] == np.float32(float(np.float16(0.3)) * 12.5)


# --- SimpleITK ----------------------------------------------------------------------------------


def oblique(angles: tuple[float, float, float], spacing: tuple[float, float, float]) -> Array:
    """An affine, index to LPS mm, whose axes lie askew."""
    affine = np.eye(4)
    rotation = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    affine[:3, :3] = rotation * spacing
    affine[:3, 3] = (-31.0, 12.5, 77.0)
    return affine


FIXED = Geometry(grid=GRID, affine=oblique((20, -10, 35), SPACING))
SAME = FIXED
ELSEWHERE = Geometry(grid=GRID, affine=oblique((17, -6, 31), (1.6, 1.9, 0.85)))
MIRRORED = Geometry(grid=GRID, affine=FIXED.affine @ np.diag([-1.0, 1, 1, 1]))


def itk_image(values: Array, geometry: Geometry, *, vector: bool = False) -> Foreign:
    sitk = pytest.importorskip("SimpleITK", reason="SimpleITK is not installed here")
    axes = (2, 1, 0, 3) if vector else (2, 1, 0)
    made = sitk.GetImageFromArray(np.ascontiguousarray(values.transpose(axes)), isVector=vector)
    spacing = np.linalg.norm(geometry.affine[:3, :3], axis=0)
    made.SetSpacing(spacing.tolist())
    made.SetDirection((geometry.affine[:3, :3] / spacing).ravel().tolist())
    made.SetOrigin(geometry.affine[:3, 3].tolist())
    return made


def itk_warp(moving: Array, geometry: Geometry, displacement: Foreign) -> Array:
    """SimpleITK's resampling of the moving image onto FIXED by a displacement image."""
    sitk = pytest.importorskip("SimpleITK", reason="SimpleITK is not installed here")
    transform = sitk.DisplacementFieldTransform(sitk.Cast(displacement, sitk.sitkVectorFloat64))
    warped = sitk.Resample(
        itk_image(moving, geometry),
        itk_image(np.zeros(GRID), FIXED),
        transform,
        sitk.sitkLinear,
        np.nan,
        sitk.sitkFloat64,
    )
    result: Array = sitk.GetArrayFromImage(warped).transpose(2, 1, 0)
    return result


MOVING = pytest.mark.parametrize("moving", [FIXED, ELSEWHERE], ids=["same", "elsewhere"])


@MOVING
def test_voxels_become_an_itk_field_that_warps_as_they_do(moving: Geometry) -> None:
    vectors_mm = voxels_to_itk(field(), FIXED, moving)
    displacement = itk_image(np.moveaxis(vectors_mm, 0, -1), FIXED, vector=True)
    expected = itk_warp(image(), moving, displacement)
    assert difference(warp(image(), field()), expected) < 1e-6
    if moving is not FIXED:
        ignored = warp(image(), itk_to_voxels(vectors_mm, FIXED, FIXED, FIXED, GRID))
        assert difference(ignored, expected) > 1


@MOVING
def test_an_itk_field_becomes_voxels_that_warp_as_itk_does(moving: Geometry) -> None:
    vectors_mm = itk_vectors(GRID)
    expected = itk_warp(
        image(), moving, itk_image(np.moveaxis(vectors_mm, 0, -1), FIXED, vector=True)
    )
    vectors = itk_to_voxels(vectors_mm, FIXED, FIXED, moving, GRID)
    assert difference(warp(image(), vectors), expected) < 1e-6
    ras = vectors_mm * np.array([-1, -1, 1])[:, None, None, None]
    wrong = itk_to_voxels(ras, FIXED, FIXED, moving, GRID)
    assert difference(warp(image(), wrong), expected) > 1


def itk_vectors(grid: tuple[int, ...]) -> Array:
    """Millimetres, (3, *grid), that none of our code has made."""
    vectors = smooth((3, *grid), seed=7, sigma=4 * grid[0] / GRID[0], largest=3)
    vectors += np.array([1.1, -0.8, 0.6])[:, None, None, None]
    return vectors


@MOVING
def test_an_itk_field_on_a_domain_of_its_own(moving: Geometry) -> None:
    """Coarser than the fixed image, turned, and too small for it: ITK has zero outside."""
    domain = Geometry(grid=(9, 11, 10), affine=oblique((5, 3, 40), (3.1, 3.3, 2.2)))
    centre = FIXED.affine @ np.array([(n - 1) / 2 for n in GRID] + [1])
    domain.affine[:3, 3] += (centre - domain.affine @ np.array([4, 5, 4.5, 1]))[:3]
    vectors_mm = itk_vectors(domain.grid)
    displacement = itk_image(np.moveaxis(vectors_mm, 0, -1), domain, vector=True)
    expected = itk_warp(image(), moving, displacement)
    vectors = itk_to_voxels(vectors_mm, domain, FIXED, moving, GRID)
    outside = (itk_to_voxels(vectors_mm * 2, domain, FIXED, moving, GRID) == vectors).all(axis=0)
    assert 0.05 < outside.mean() < 0.95
    assert difference(warp(image(), vectors), expected) < 1e-6


@MOVING
def test_an_itk_field_on_the_half_grid(moving: Geometry) -> None:
    """Half the full field's samples are those that ITK's transform has there."""
    sitk = pytest.importorskip("SimpleITK", reason="SimpleITK is not installed here")
    vectors_mm = itk_vectors(GRID)
    vectors = itk_to_voxels(vectors_mm, FIXED, FIXED, moving, HALF)
    transform = sitk.DisplacementFieldTransform(
        itk_image(np.moveaxis(vectors_mm, 0, -1), FIXED, vector=True)
    )
    fixed, other = (itk_image(np.zeros(GRID), one) for one in (FIXED, moving))
    for index in ((0, 0, 0), (12, 9, 15), (5, 6, 7), (12, 0, 3)):
        position = [i * (n - 1) / (m - 1) for i, n, m in zip(index, GRID, HALF, strict=True)]
        point = fixed.TransformContinuousIndexToPhysicalPoint(position)
        there = other.TransformPhysicalPointToContinuousIndex(transform.TransformPoint(point))
        assert np.allclose(vectors[:, *index], np.subtract(there, position), atol=1e-6)


# --- Round trips --------------------------------------------------------------------------------

SHAPES = st.tuples(*[st.integers(4, 9)] * 3)


@settings(deadline=None, max_examples=40)
@given(
    grid=SHAPES, seed=st.integers(0, 99), convention=st.sampled_from([*GRID_SAMPLES, VOXELS, NIFTI])
)
def test_every_convention_and_back(
    grid: tuple[int, int, int], seed: int, convention: FieldConvention
) -> None:
    vectors = np.random.default_rng(seed).normal(size=(3, *grid)) * 5
    back = to_voxels(from_voxels(vectors, convention), convention, grid, grid)
    assert np.allclose(back, vectors, atol=1e-9)


@settings(deadline=None, max_examples=40)
@given(
    grid=SHAPES,
    seed=st.integers(0, 99),
    angles=st.tuples(*[st.floats(-90, 90)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 5)] * 3),
)
def test_itk_and_back(
    grid: tuple[int, int, int],
    seed: int,
    angles: tuple[float, float, float],
    spacing: tuple[float, float, float],
) -> None:
    vectors = np.random.default_rng(seed).normal(size=(3, *grid)) * 5
    fixed = Geometry(grid=grid, affine=oblique(angles, spacing))
    moving = Geometry(grid=grid, affine=oblique((3, 2, 1), (1, 2, 3)))
    vectors_mm = voxels_to_itk(vectors, fixed, moving)
    assert np.allclose(itk_to_voxels(vectors_mm, fixed, fixed, moving, grid), vectors, atol=1e-6)
