"""examples/convexadam as a plugin: what it finds, in whose convention, and how it uses a device."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from harness.challenge.field import to_challenge
from harness.challenge.model import FieldSpec, load_challenge
from harness.evaluate.accuracy import folded_percent
from harness.runner import ImagePair, TaskInfo
from harness.runner.plugin import load_method
from tests.unit.test_examples import (
    GRID,
    ROOT,
    Array,
    anatomy,
    errors,
    make_pair,
    pulled,
    swirl,
    translation,
    vectors_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed here: extra torch")
EXAMPLE = ROOT / "examples/convexadam"
Method = Any  # the example's, which has more than every method has


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """PyTorch's threads wait by spinning: beside busy programs many are slower than one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def method() -> Method:
    return load_method(EXAMPLE)


def image(grid: tuple[int, int, int], seed: int = 3) -> Array:
    """Smooth blobs of two sizes on a grid of any size."""
    noise = torch.rand(2, 1, 1, *grid, generator=torch.Generator().manual_seed(seed))
    smoothed = sys.modules["fields"].smoothed
    found: Array = (smoothed(noise[0], 3) + smoothed(noise[1], 1))[0, 0].numpy()
    return found


def in_layout_of(pair: ImagePair, challenge: str, name: str) -> ImagePair:
    """The pair as one of the task's, whose field file is as large as the pair's images make it."""
    task = load_challenge(challenge).task(name)
    x, y, z = pair.fixed.array.shape
    grid = [x, y, z] if task.field.grid == task.image_grid else [x // 2, y // 2, z // 2]
    shape = [3, *grid] if task.field.shape[0] == 3 else [*grid, 3]
    info = TaskInfo(
        name=task.name,
        title=task.title,
        image_grid=(x, y, z),
        field=FieldSpec.model_validate({**task.field.model_dump(), "shape": shape}),
    )
    return ImagePair(**{**vars(pair), "task": info})


@pytest.mark.parametrize(
    ("challenge", "name"),
    [
        *(("learn2reg2021", f"task_0{n}") for n in (1, 2, 3)),
        ("learn2reg2022", "NLST"),
        ("lumir2024", "LUMIR"),
    ],
)
def test_a_planted_shift_comes_back_in_every_tasks_layout(
    tmp_path: Path, method: Method, challenge: str, name: str
) -> None:
    """Sign, order and unit of all three components, on grids whose sides differ."""
    shift = np.array([3.0, -2.0, 5.0])
    x, y, z = (n // 8 * 2 for n in load_challenge(challenge).task(name).image_grid)
    moving = image((x, y, z))
    fixed = pulled(moving, np.broadcast_to(shift.reshape(3, 1, 1, 1), (3, x, y, z)))
    pair = in_layout_of(make_pair(tmp_path, fixed, moving), challenge, name)
    found = to_challenge(method.register(pair), pair.task.field, pair.task.image_grid)
    assert found.shape == pair.task.field.shape
    vectors = found if found.shape[0] == 3 else np.moveaxis(found, -1, 0)
    inner = vectors[:, 6:-6, 6:-6, 6:-6].astype(np.float32)
    assert np.allclose(inner.mean(axis=(1, 2, 3)), shift, atol=0.1)
    assert np.abs(inner - shift.reshape(3, 1, 1, 1)).mean() < 0.25


@pytest.mark.parametrize("contrast", ["same", "inverted"])
def test_it_beats_the_zero_field_and_the_default_method(
    tmp_path: Path, method: Method, contrast: str
) -> None:
    moving, true = anatomy(), swirl()
    fixed = pulled(moving, true)
    pair = make_pair(tmp_path, fixed if contrast == "same" else 400 - fixed, moving)
    default = load_method(ROOT / "method").register(pair)
    found = vectors_of(method.register(pair), pair)
    ours, theirs = errors(found, true), errors(vectors_of(default, pair), true)
    assert ours.mean() < theirs.mean() < errors(np.zeros_like(true), true).mean()
    assert folded_percent(found) == 0


def test_the_mask_says_whom_to_believe(tmp_path: Path, method: Method) -> None:
    inside = np.zeros(GRID, dtype=np.uint8)
    inside[8:24, 8:24, 8:32] = 1
    moving = anatomy()
    fixed = np.where(inside, pulled(moving, translation()), moving).astype(np.float32)
    found = {}
    for name, masks in (("masked", {"fixed_mask": inside}), ("plain", {})):
        (tmp_path / name).mkdir()
        pair = make_pair(tmp_path / name, fixed, moving, masks)
        lengths = np.linalg.norm(vectors_of(method.register(pair), pair) - translation(), axis=0)
        found[name] = lengths[inside > 0].mean()
    assert found["masked"] < 0.9 * found["plain"]


@pytest.mark.parametrize("grid", [(32, 30, 26), (33, 31, 17), (9, 12, 8)])
def test_images_without_content_give_a_finite_field(
    tmp_path: Path, method: Method, grid: tuple[int, int, int]
) -> None:
    flat = np.full(grid, 7, dtype=np.float32)
    broken = np.random.default_rng(0).normal(size=grid).astype(np.float32)
    broken[grid[0] // 2] = np.nan
    broken[0, 0] = np.inf
    empty = {role: np.zeros(grid, dtype=np.uint8) for role in ("fixed_mask", "moving_mask")}
    for n, (fixed, moving, masks) in enumerate([(flat, flat, {}), (broken, flat, empty)]):
        (tmp_path / str(n)).mkdir()
        pair = make_pair(tmp_path / str(n), fixed, moving, masks)
        field = method.register(pair)
        assert field.grid == tuple(k // 2 for k in grid)
        assert np.isfinite(field.array).all()
        if n == 0:
            assert np.abs(field.array).max() < 1e-3


def test_preparing_needs_no_image_and_changes_no_field(tmp_path: Path, method: Method) -> None:
    pair = make_pair(tmp_path, pulled(anatomy(), swirl()), anatomy())
    fresh = load_method(EXAMPLE)
    before = fresh.register(pair).array
    fresh.prepare(pair.task)
    again = fresh.register(make_pair(tmp_path, pulled(anatomy(), swirl()), anatomy())).array
    assert np.array_equal(before, again)


def test_the_buffers_carry_each_pair_anew(tmp_path: Path, method: Method) -> None:
    """As on a GPU, where they are page-locked: the second pair must not see the first one's."""
    pairs = []
    for seed in (3, 4):
        (tmp_path / str(seed)).mkdir()
        fixed = pulled(anatomy(seed), translation())
        mask = {"fixed_mask": (fixed > fixed.mean()).astype(np.uint8)}
        pairs.append(make_pair(tmp_path / str(seed), fixed, anatomy(seed), mask))
    expected = [method.register(pair).array for pair in pairs]
    buffered: Any = load_method(EXAMPLE)
    buffered.buffers = {name: torch.empty(GRID) for name in ("fixed", "moving", "fixed_mask")}
    for pair, field in zip(pairs, expected, strict=True):
        assert np.array_equal(buffered.register(pair).array, field)


def test_nothing_waits_for_the_device_and_nothing_is_left_on_another() -> None:
    """On PyTorch's meta device a number read back, or a tensor of another device, is an error."""
    registered = vars(sys.modules["method"])["registered"]
    inputs = [torch.empty(1, 1, 36, 32, 40, device="meta") for _ in range(4)]
    field = registered(*inputs, iterations=2)
    assert field.device.type == "meta"
    assert field.shape == (1, 3, 18, 16, 20)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU here")
def test_a_gpu_finds_what_the_cpu_finds(tmp_path: Path) -> None:
    fixed, moving = pulled(anatomy(), swirl()), anatomy()
    pair = make_pair(tmp_path, fixed, moving)
    on_gpu, on_cpu = load_method(EXAMPLE), load_method(EXAMPLE)
    vars(on_cpu).update(device=torch.device("cpu"), pinned=False)
    on_gpu.prepare(pair.task)
    assert all(buffer.is_pinned() for buffer in vars(on_gpu)["buffers"].values())
    apart = np.abs(on_gpu.register(pair).array - on_cpu.register(pair).array)
    assert apart.mean() < 0.05
