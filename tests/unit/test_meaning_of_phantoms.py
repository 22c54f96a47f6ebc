"""On images of the challenge's size, with anatomy: mistakes are named and none is invented.

The limits of the check were set on phantoms of seed 2021; these are others. (One of them, half size
missed where little moves, is why only the blocks that move are asked.) Everything, over more
pairs, is `bench/planted_mistakes.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.support.mistakes import degraded_fields, planted_mistakes
from harness.challenge.model import load_challenge
from harness.challenge.pairs import read_pairs
from harness.check.meaning import examine_meaning
from harness.check.meaning.decide import judge
from harness.check.meaning.evidence import gather
from harness.phantom import write_phantoms
from harness.runner.plugin import LazyImage

if TYPE_CHECKING:
    from pathlib import Path

    from harness.challenge.model import Grid
    from harness.check.findings import FindingKind

Array = NDArray[Any]

TASKS = ("task_01", "task_02", "task_03")
SEED = 31
PLANTED = {
    "normalised, z y x",
    "components z y x",
    "negated",
    "fixed and moving exchanged",
    "x and y negated (LPS)",
    "millimetres",
    "half-grid voxels (half size)",
    "ITK: LPS millimetres",
    "grid of grid_sample, z y x",
}
DEGRADED = {
    "true x 0.7",
    "true, smoothed over 20 voxels",
    "the nearest affine map",
    "true + smooth error of 2 voxels",
    "true field of another pair",
    "random, smooth, 3 voxels",
}


class Phantom:
    """One pair of a task: its images and its true field, (3, X, Y, Z) in voxels."""

    def __init__(self, root: Path, task: str) -> None:
        (found,) = (t for t in read_pairs(load_challenge(), root / "test") if t.task.name == task)
        (pair,) = found.pairs
        self.grid: Grid = found.task.image_grid
        self.fixed, self.moving = (LazyImage(root / "test" / p) for p in (pair.fixed, pair.moving))
        self.fixed_mask = LazyImage(root / "test" / dict(pair.auxiliary)["fixed_mask"])
        with np.load(root / "truth" / task / pair.field.name) as stored:
            self.field: Array = np.asarray(stored["arr_0"], dtype=np.float32)


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("meaning")
    write_phantoms(folder / "test", folder / "truth", pairs_per_task=1, seed=SEED, workers=2)
    return folder


@pytest.mark.parametrize("task", TASKS)
def test_a_true_field_stored_wrongly_is_named(root: Path, task: str) -> None:
    phantom = Phantom(root, task)
    wrong = {}
    for plant in planted_mistakes(phantom.field, phantom.grid, np.array(phantom.fixed.spacing_mm)):
        if plant.mistake not in PLANTED:
            continue
        stored = plant.field.astype(np.float16)
        support = judge(
            gather(stored, phantom.fixed, phantom.moving, fixed_mask=phantom.fixed_mask)
        ).support
        if support is None or frozenset(support.reading.kinds) not in plant.names:
            wrong[plant.mistake] = support
    assert wrong == {}


@pytest.mark.parametrize("task", TASKS)
def test_a_field_in_the_right_convention_is_not_accused(root: Path, task: str) -> None:
    phantom = Phantom(root, task)
    fields = {"true": phantom.field}
    rng = np.random.default_rng(SEED)
    other = phantom.field[:, ::-1, ::-1]
    for bad in degraded_fields(phantom.field, other, phantom.grid, rng):
        if bad.what in DEGRADED:
            fields[bad.what] = bad.field
    accused: dict[str, FindingKind] = {}
    for what, field in fields.items():
        stored = field.astype(np.float16)
        # Without a mask: not every task has one.
        for finding in examine_meaning(stored, phantom.fixed, phantom.moving):
            accused[what] = finding.kind
    assert accused == {}
