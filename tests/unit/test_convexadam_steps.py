"""The steps of examples/convexadam against plain NumPy and SciPy, on tiny arrays."""

from __future__ import annotations

import importlib
import sys
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Callable

Array = NDArray[Any]
Tensor = Any  # what belongs to PyTorch, which need not be installed

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed here: extra torch")
sys.path.insert(0, str(Path(__file__).parents[2] / "examples/convexadam"))
features: Any = importlib.import_module("features")
fields: Any = importlib.import_module("fields")
discrete: Any = importlib.import_module("discrete")
instance: Any = importlib.import_module("instance")

GRID = (7, 5, 6)


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


def tensor(array: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float64))


def smooth_features(channels: int, grid: tuple[int, ...], seed: int = 0) -> Array:
    noise = random(channels, *grid, seed=seed)
    return np.stack([ndimage.gaussian_filter(c, 1.5, mode="nearest") for c in noise])


# --- Features -----------------------------------------------------------------------------------


def naive_mind(image: Array, dilation: int, radius: int) -> Array:
    def value(p: Array) -> float:
        inside = np.clip(p, 0, np.array(image.shape) - 1)
        return float(image[tuple(inside)])

    axes = dilation * np.concatenate([np.eye(3, dtype=int), -np.eye(3, dtype=int)])
    pairs = [(a, b) for n, a in enumerate(axes) for b in axes[n + 1 :] if (a + b).any()]
    patch = [np.array(q) for q in product(range(-radius, radius + 1), repeat=3)]
    distances = np.zeros((len(pairs), *image.shape))
    for place in np.ndindex(*image.shape):
        for n, (a, b) in enumerate(pairs):
            p = np.array(place)
            squares = [(value(p + a + q) - value(p + b + q)) ** 2 for q in patch]
            distances[(n, *place)] = np.mean(squares)
    distances -= distances.min(axis=0)
    contrast = distances.mean(axis=0)
    descriptor: Array = np.exp(-distances / np.maximum(contrast, 0.1 * contrast.mean()))
    return descriptor


@pytest.mark.parametrize(("dilation", "radius"), [(1, 1), (2, 1), (1, 0)])
def test_a_descriptor_is_what_its_definition_says(dilation: int, radius: int) -> None:
    image = random(5, 4, 3)
    found = features.mind_ssc(tensor(image)[None, None], dilation=dilation, radius=radius)
    expected = naive_mind(image, dilation, radius)
    assert found.shape == (1, 12, 5, 4, 3)
    # The order of the channels means nothing, as long as it is the same in both images.
    assert np.allclose(np.sort(found[0].numpy(), axis=0), np.sort(expected, axis=0))
    assert np.allclose(np.sort(found[0].sum((1, 2, 3))), np.sort(expected.sum((1, 2, 3))))


def test_a_descriptor_does_not_depend_on_brightness_and_contrast() -> None:
    image = tensor(random(1, 1, *GRID))
    assert torch.allclose(features.mind_ssc(image), features.mind_ssc(100 - 3 * image))


@pytest.mark.parametrize("value", [0.0, 7.0, np.nan, np.inf])
def test_the_descriptor_of_a_constant_is_one_everywhere(value: float) -> None:
    found = features.mind_ssc(torch.full((1, 1, *GRID), value))
    assert (found == 1).all()


# --- Fields -------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("grid", [GRID, (6, 4, 9)])
def test_warping_reads_the_image_at_place_plus_displacement(
    monkeypatch: pytest.MonkeyPatch, threads: int, grid: tuple[int, int, int]
) -> None:
    """As SciPy reads it, in slabs or not: components x, y, z in voxels, the border goes on."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    image, field = random(2, *grid), 2 * random(3, *grid, seed=1)
    places = fields.identity(grid, torch.device("cpu")) + fields.normalised(tensor(field)[None])
    found = fields.warped(tensor(image)[None], places)[0].numpy()
    for channel, warped in zip(image, found, strict=True):
        where = np.indices(grid) + field
        expected = ndimage.map_coordinates(channel, where, order=1, mode="nearest")
        assert np.allclose(warped, expected, atol=1e-5)


def test_a_field_keeps_its_meaning_on_another_grid() -> None:
    """A shift by a tenth of each axis is one, in whatever voxels."""
    there, here = (20, 10, 30), (10, 5, 10)
    field = np.broadcast_to(np.reshape(here, (3, 1, 1, 1)) * 0.1, (3, *here))
    found = fields.resampled(tensor(field)[None], there)[0].numpy()
    assert np.allclose(found, np.reshape(there, (3, 1, 1, 1)) * 0.1)


def test_smoothing_is_the_mean_of_27_and_its_own_transpose() -> None:
    a, b = random(1, 2, *GRID), random(1, 2, *GRID, seed=1)
    found = fields.smoothed(tensor(a)).numpy()
    expected = [ndimage.uniform_filter(c, 3, mode="nearest") for c in a[0]]
    assert np.allclose(found[0], expected)
    across = np.vdot(fields.smoothed(tensor(a), 3).numpy(), b)
    assert np.isclose(across, np.vdot(a, fields.smoothed(tensor(b), 3).numpy()))


# --- Search -------------------------------------------------------------------------------------


def test_costs_are_smoothed_squared_differences() -> None:
    fixed, moving, weight = random(4, *GRID), random(4, *GRID, seed=1), random(*GRID, seed=2) ** 2
    found = discrete.costs(
        tensor(fixed)[None], tensor(moving)[None], tensor(weight)[None, None], 1
    ).numpy()
    reach = np.pad(moving, [(0, 0), (1, 1), (1, 1), (1, 1)], mode="edge")
    shifts = discrete.displacements(1, torch.device("cpu")).numpy().astype(int)
    for number, (i, j, k) in enumerate(shifts):
        x, y, z = GRID
        there = reach[:, 1 + i : 1 + i + x, 1 + j : 1 + j + y, 1 + k : 1 + k + z]
        raw = weight * ((there - fixed) ** 2).mean(axis=0)
        expected = ndimage.uniform_filter(raw, 3, mode="nearest")
        assert np.allclose(found[:, number], expected.ravel())


@pytest.mark.parametrize("shift", [(2, 0, -1), (-3, 1, 2), (0, 0, 0)])
def test_the_search_finds_a_shift(shift: tuple[int, int, int]) -> None:
    moving = smooth_features(6, (16, 14, 12))
    # fixed(p) = moving(p + shift)
    fixed = np.roll(moving, [-s for s in shift], axis=(1, 2, 3))
    ones = torch.ones(1, 1, 16, 14, 12, dtype=torch.float32)
    pair = tensor(fixed)[None].float(), tensor(moving)[None].float()
    found = discrete.search(*pair, ones, ones, 3)
    middle = found[0, :, 7:9, 6:8, 5:7].mean((1, 2, 3))
    assert np.allclose(middle, shift, atol=0.15)


def test_without_evidence_nothing_moves() -> None:
    flat, ones = torch.ones(1, 12, *GRID), torch.ones(1, 1, *GRID)
    assert not discrete.search(flat, flat, ones, ones, 2).any()


def test_the_coupling_takes_out_a_lone_outlier() -> None:
    """One point's costs speak for (2, 2, 2), weakly; all others' for (0, 0, 1)."""
    shifts = discrete.displacements(2, torch.device("cpu"))
    cost = (shifts - torch.tensor([0.0, 0, 1])).square().sum(1).repeat(7 * 7 * 7, 1)
    lone = 3 * 49 + 3 * 7 + 3
    cost[lone] = 0.1 * (shifts - 2.0).square().sum(1)
    found = discrete.coupled_convex(cost, 2, (7, 7, 7))
    assert np.allclose(found[0, :, 3, 3, 3], (0, 0, 1), atol=0.2)


def test_consistent_fields_stay_and_others_are_drawn_together() -> None:
    grid = (12, 12, 12)
    there = torch.tensor([1.0, -2.0, 0.5]).view(1, 3, 1, 1, 1).expand(1, 3, *grid).contiguous()
    kept = discrete.consistent(there, -there)
    assert torch.allclose(kept, there, atol=1e-5)
    # What only one direction says is halved at each look, and both then mean the same.
    met = discrete.consistent(there, torch.zeros_like(there))
    assert torch.allclose(met, there / 2, atol=1e-3)


# --- Instance optimisation ----------------------------------------------------------------------


def numeric_gradient(function: Callable[[Array], float], at: Array) -> Array:
    gradient, width = np.zeros_like(at), 1e-5
    for place in np.ndindex(*at.shape):
        step = np.zeros_like(at)
        step[place] = width
        gradient[place] = (function(at + step) - function(at - step)) / (2 * width)
    return gradient


def test_the_gradient_of_diffusion() -> None:
    def diffusion(field: Array) -> float:
        return float(sum((np.diff(field, axis=axis) ** 2).mean() for axis in (1, 2, 3)))

    field = random(3, 4, 3, 5)
    found = instance.diffusion_gradient(tensor(field)[None])[0].numpy()
    assert np.allclose(found, numeric_gradient(diffusion, field), atol=1e-7)


def test_the_gradient_of_the_difference() -> None:
    grid = (4, 3, 5)
    fixed, moving = smooth_features(2, grid), smooth_features(2, grid, seed=1)
    share, field = random(*grid, seed=2) ** 2, 0.4 * random(3, *grid, seed=3)

    def difference(field: Array) -> float:
        where = np.indices(grid) + field
        warped = [ndimage.map_coordinates(m, where, order=1, mode="nearest") for m in moving]
        return float((share * (np.stack(warped) - fixed) ** 2).sum())

    here = fields.identity(grid, torch.device("cpu")).double()
    found = instance.data_gradient(
        tensor(fixed)[None], tensor(moving)[None], tensor(share)[None, None], here,
        tensor(field)[None],
    )[0].numpy()  # fmt: skip
    # At the border places are held fast, and from voxel to voxel the slope jumps: not there.
    inner = (slice(None), slice(1, -1), slice(1, -1), slice(1, -1))
    assert np.allclose(found[inner], numeric_gradient(difference, field)[inner], atol=1e-4)


def test_adam_finds_a_part_of_a_voxel() -> None:
    """A shift that the coarse grid cannot name, from no displacement at all."""
    grid, shift = (14, 12, 16), np.array([0.6, -0.4, 0.3])
    moving = smooth_features(6, grid)
    where = np.indices(grid) + shift.reshape(3, 1, 1, 1)
    fixed = [ndimage.map_coordinates(m, where, order=1, mode="nearest") for m in moving]
    found = instance.refine(
        tensor(np.stack(fixed))[None].float(),
        tensor(moving)[None].float(),
        torch.ones(1, 1, *grid),
        torch.zeros(1, 3, *grid),
        iterations=40,
        smoothness=0.001,
        rate=0.1,
        spline=3,
    )
    assert np.allclose(found[0, :, 4:-4, 4:-4, 4:-4].mean((1, 2, 3)), shift, atol=0.1)


def test_more_smoothness_makes_a_smoother_field() -> None:
    grid = (10, 10, 10)
    pair = [tensor(smooth_features(3, grid, seed=n))[None].float() for n in range(2)]
    rest = torch.ones(1, 1, *grid), torch.zeros(1, 3, *grid)
    rough, smooth = (
        instance.refine(*pair, *rest, iterations=15, smoothness=s, rate=0.3, spline=2)
        for s in (0.001, 1.0)
    )
    assert smooth.diff(dim=2).abs().mean() < 0.5 * rough.diff(dim=2).abs().mean()
