"""What a field looks like by itself: its size, its trend, its smoothness, its folds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.evaluate.accuracy import folded_percent, upsample

if TYPE_CHECKING:
    from harness.challenge.field import FloatArray
    from harness.challenge.model import Grid

Array = NDArray[Any]

STRIDE = 3  # samples of the field that are skipped where every one is not needed
MIN_ROUGHNESS = 0.5  # 1 is noise
MIN_JUMP_SAMPLES = 2.0  # neighbours differ by more than twice their distance
SURE_UNFOLDED_PERCENT = 1.0  # on the field's own grid; more is worth counting on the image's


@dataclass(frozen=True, kw_only=True)
class Structure:
    """A field's numbers, as stored.

    ``slope`` (3, 3) and ``offset`` (3,): the affine map of the voxel's position that is nearest to
    the field. ``rest``: root mean square of what that map leaves over. ``large`` (3,): each
    component's absolute value that 1 % of the samples exceed. ``jump``: root mean square of the
    difference of neighbouring samples. ``roughness``: that difference relative to the one of
    samples that have nothing to do with each other (1); ``roughest`` is along the worst axis. All
    in stored units.
    """

    slope: Array
    offset: Array
    rest: float
    large: Array
    jump: float
    roughness: float
    roughest: float

    @property
    def is_zero(self) -> bool:
        """No displacement anywhere, as in a method that does not touch a task."""
        return not (self.slope.any() or self.offset.any() or self.rest)


def is_noise(structure: Structure, field_grid: Grid, image_grid: Grid) -> bool:
    """Whether neighbouring displacements have so little to do with each other that counting folds,
    seconds of work for such a field, would say nothing new."""
    ends = zip(image_grid, field_grid, strict=True)
    sample_vox = max((n - 1) / max(m - 1, 1) for n, m in ends)
    jumps = structure.jump > MIN_JUMP_SAMPLES * sample_vox
    return jumps and structure.roughness > MIN_ROUGHNESS


def look_at(stored: FloatArray, image_grid: Grid) -> Structure:
    """Measure a field (3, x, y, z) that spans an image of ``image_grid``."""
    sparse = stored[:, ::STRIDE, ::STRIDE, ::STRIDE].astype(np.float64)
    axes = [
        np.arange(0, m, STRIDE) * ((n - 1) / max(m - 1, 1))
        for m, n in zip(stored.shape[1:], image_grid, strict=True)
    ]
    positions = np.stack(np.meshgrid(*axes, indexing="ij")).reshape(3, -1)
    known = np.vstack([positions, np.ones(positions.shape[1])])
    values = sparse.reshape(3, -1)
    fit = np.linalg.lstsq(known.T, values.T, rcond=None)[0]
    rest = values - fit.T @ known
    jumps = np.array([_neighbour_difference(stored, axis) for axis in (1, 2, 3)])
    unrelated = float(np.sqrt(2 * values.var(axis=1).sum())) or 1.0
    return Structure(
        slope=fit[:3].T,
        offset=fit[3],
        rest=float(np.sqrt((rest**2).sum(axis=0).mean())),
        large=np.percentile(np.abs(values), 99, axis=1),
        jump=float(np.sqrt((jumps**2).mean())),
        roughness=float(np.sqrt((jumps**2).mean())) / unrelated,
        roughest=float(jumps.max()) / unrelated,
    )


def folded_share(stored: FloatArray, image_grid: Grid) -> float:
    """Percent of the image's voxels where the field folds, as the evaluation counts them.

    Counted on the image grid only if the field's own grid, an eighth of the work, shows folds.
    """
    vectors = stored.astype(np.float32)
    steps = [(n - 1) / max(m - 1, 1) for n, m in zip(image_grid, stored.shape[1:], strict=True)]
    own = folded_percent(vectors / np.array(steps, dtype=np.float32)[:, None, None, None])
    if own <= SURE_UNFOLDED_PERCENT or vectors.shape[1:] == tuple(image_grid):
        return own
    return folded_percent(upsample(vectors, image_grid))


def _neighbour_difference(stored: FloatArray, axis: int) -> float:
    """Root mean square length of the difference of samples next to each other on an axis."""
    difference = np.diff(stored.astype(np.float32), axis=axis)
    return float(np.sqrt((difference.astype(np.float32) ** 2).sum(axis=0).mean()))
