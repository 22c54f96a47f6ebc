"""The plugins we ship: they load as a team's would, and the default one registers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from harness.challenge.field import to_challenge
from harness.challenge.model import FieldSpec, load_challenge
from harness.evaluate.accuracy import folded_percent, upsample
from harness.runner import DisplacementField, ImagePair, LazyImage, TaskInfo
from harness.runner.plugin import load_method

Array = NDArray[Any]

ROOT = Path(__file__).resolve().parents[2]
GRID = (32, 32, 40)
HALF = (16, 16, 20)
SHIFT = (3.0, -2.0, 4.0)


def make_pair(
    folder: Path, fixed: Array, moving: Array, masks: dict[str, Array] | None = None
) -> ImagePair:
    def save(name: str, array: Array) -> Path:
        path = folder / f"{name}.nii.gz"
        nib.save(nib.nifti1.Nifti1Image(array, np.eye(4)), path)
        return path

    x, y, z = (n // 2 for n in fixed.shape)
    spec = load_challenge().task("task_01").field
    task = TaskInfo(
        name="task_01",
        title="small",
        image_grid=(2 * x, 2 * y, 2 * z),
        field=FieldSpec.model_validate({**spec.model_dump(), "shape": (3, x, y, z)}),
    )
    return ImagePair(
        task=task,
        fixed_id=1,
        moving_id=2,
        fixed=LazyImage(save("fixed", fixed)),
        moving=LazyImage(save("moving", moving)),
        auxiliary={role: save(role, mask) for role, mask in (masks or {}).items()},
    )


def vectors_of(field: DisplacementField, pair: ImagePair) -> Array:
    """The field as the evaluation sees it: through the challenge's file format."""
    challenge_file = to_challenge(field, pair.task.field, pair.task.image_grid)
    return upsample(challenge_file, pair.task.image_grid)


def anatomy(seed: int = 3) -> Array:
    """Smooth blobs with texture, dark at the border."""
    rng = np.random.default_rng(seed)
    blobs = ndimage.gaussian_filter(rng.normal(size=GRID), 3)
    texture = ndimage.gaussian_filter(rng.normal(size=GRID), 1)
    image: Array = 200 * (blobs > 0) + 3000 * blobs + 60 * texture
    return image.astype(np.float32)


def pulled(image: Array, vectors: Array) -> Array:
    """The fixed image for which ``vectors`` is the true field to ``image``."""
    warped: Array = ndimage.map_coordinates(
        image, np.indices(image.shape) + vectors, order=1, mode="nearest"
    )
    return warped


def translation() -> Array:
    return np.broadcast_to(np.reshape(SHIFT, (3, 1, 1, 1)), (3, *GRID)).astype(np.float32)


def swirl() -> Array:
    """A smooth field of up to 5 voxels, the smaller the nearer the border."""
    x, y, z = np.indices(GRID)
    hill = np.prod([np.sin(np.pi * i / (n - 1)) for i, n in zip((x, y, z), GRID, strict=True)], 0)
    return np.stack([5 * hill, -4 * hill * np.cos(z / 8), 5 * hill * np.sin(x / 8)])


def errors(found: Array, true: Array) -> Array:
    """Lengths of the differences in voxels, 4 voxels inside: what leaves the image is unknown."""
    lengths: Array = np.linalg.norm(found - true, axis=0)
    return lengths[4:-4, 4:-4, 4:-4]


def test_the_zero_example_opens_both_images_and_moves_nothing(tmp_path: Path) -> None:
    pair = make_pair(tmp_path, anatomy(), anatomy())
    assert not load_method(ROOT / "examples/zero").register(pair).array.any()
    pair.moving.path.unlink()
    unreadable = ImagePair(**{**vars(pair), "moving": LazyImage(pair.moving.path)})
    with pytest.raises(FileNotFoundError):
        load_method(ROOT / "examples/zero").register(unreadable)


def test_the_command_example_finds_a_translation(tmp_path: Path) -> None:
    pair = make_pair(tmp_path, pulled(anatomy(), translation()), anatomy())
    found = load_method(ROOT / "examples/command").register(pair)
    assert vectors_of(found, pair)[:, 9, 9, 9].tolist() == list(SHIFT)


@pytest.mark.parametrize("true", [translation(), swirl()], ids=["translation", "swirl"])
@pytest.mark.parametrize("contrast", ["same", "inverted", "another"])
def test_the_default_method_registers(tmp_path: Path, true: Array, contrast: str) -> None:
    moving = anatomy()
    fixed = pulled(moving, true)
    if contrast == "inverted":
        fixed = 400 - fixed
    elif contrast == "another":  # not monotonic: the darkest and the brightest become alike
        fixed = np.abs(fixed - fixed.mean())
    pair = make_pair(tmp_path, fixed, moving)
    found = vectors_of(load_method(ROOT / "method").register(pair), pair)
    before, after = errors(np.zeros_like(true), true), errors(found, true)
    assert after.mean() < 0.5 * before.mean()
    assert folded_percent(found) == 0


def test_the_default_method_follows_the_inside_of_the_mask(tmp_path: Path) -> None:
    """Where inside and outside disagree, as lung and rib cage do, the mask says whom to believe."""
    inside = np.zeros(GRID, dtype=np.uint8)
    inside[8:24, 8:24, 8:32] = 1
    still, moving = np.zeros((3, *GRID)), anatomy()
    fixed = np.where(inside, pulled(moving, translation()), pulled(moving, still))
    found = {}
    for name, masks in (("masked", {"fixed_mask": inside}), ("plain", {})):
        (tmp_path / name).mkdir()
        pair = make_pair(tmp_path / name, fixed.astype(np.float32), moving, masks)
        vectors = vectors_of(load_method(ROOT / "method").register(pair), pair)
        lengths = np.linalg.norm(vectors - translation(), axis=0)
        found[name] = lengths[inside > 0].mean()
    assert found["masked"] < 0.8 * found["plain"]


@pytest.mark.parametrize("grid", [GRID, (33, 31, 17), (9, 12, 8)])
def test_the_default_method_survives_images_without_content(
    tmp_path: Path, grid: tuple[int, int, int]
) -> None:
    flat = np.full(grid, 7, dtype=np.float32)
    noise = np.random.default_rng(0).normal(size=grid).astype(np.float32)
    broken = noise.copy()
    broken[grid[0] // 2] = np.nan
    broken[0, 0] = np.inf
    empty_mask = {"fixed_mask": np.zeros(grid, dtype=np.uint8)}
    method = load_method(ROOT / "method")
    for n, (fixed, moving, masks) in enumerate(
        [(flat, flat, None), (flat, noise, None), (noise, flat, empty_mask), (broken, noise, None)]
    ):
        (tmp_path / str(n)).mkdir()
        pair = make_pair(tmp_path / str(n), fixed, moving, masks)
        field = method.register(pair)
        assert field.grid == tuple(k // 2 for k in grid)
        assert np.isfinite(field.array).all()
        if n == 0:
            assert not field.array.any()
