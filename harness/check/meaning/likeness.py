"""How alike two images are at the ends of some displacements, whatever made the images.

Voxels are compared by self-similarity: how alike the small patches around a voxel are to one
another (MIND-SSC: Heinrich et al., MICCAI 2013, https://doi.org/10.1007/978-3-642-40811-3_24).
That follows the shape of the anatomy and not its grey values, so CT and MR can be compared, and an
offset or a scale of the intensities changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from harness.check.meaning.trilinear import Trilinear

if TYPE_CHECKING:
    from harness.challenge.field import FloatArray

Array = NDArray[Any]

N_POINTS = 20_000  # voxels of the fixed image that are looked at
SEED = 2021  # of the choice of points: the same pair is always judged by the same points
BLOCK = 14  # half-grid voxels; the points of a block count as one witness
MIN_BLOCK_POINTS = 10
CHANNELS = 12
MIN_CONTRAST = 0.1  # of the mean contrast; below it is air, or a constant
MIN_POINTS = 500  # fewer cannot say anything


class Image(Protocol):
    """An image as the checks see it: array (X, Y, Z) float32, affine (4, 4) voxels to RAS mm."""

    @property
    def array(self) -> FloatArray: ...
    @property
    def affine(self) -> FloatArray: ...
    @property
    def spacing_mm(self) -> tuple[float, float, float]: ...


@dataclass(frozen=True, kw_only=True)
class Score:
    """How alike the images are under one field.

    ``value`` is 1 where every point finds its like and 0 where the points find nothing better than
    a place picked at random; it can be a little below 0. ``blocks`` is the same, (B,), by block,
    and ``moved_vox`` (B,) how long the displacements of a block are on average.
    """

    value: float
    blocks: FloatArray
    moved_vox: FloatArray

    def share_better_than(self, *others: Score) -> float:
        """The share of blocks, 0..1, in which this field does better than any of the others.

        Only the half of the blocks that it moves most is asked: where nothing moves, one field is
        as good as another. 0 where there is no block.
        """
        if not self.blocks.size:
            return 0.0
        better = self.blocks > np.max([o.blocks for o in others], axis=0)
        return float(better[self.moved_vox >= np.median(self.moved_vox)].mean())


class Likeness:
    """Two images made ready for comparison.

    ``points_vox`` is (3, N), positions in the fixed image in full-resolution voxels; N = 0 where
    the fixed image shows nothing (constant, or too small).
    """

    def __init__(self, fixed: Array, moving: Array, fixed_mask: Array | None = None) -> None:
        """Images are (X, Y, Z), of any real type; not finite voxels count as 0."""
        described, contrast = describe(halved(_finite(fixed)))
        self._moving = Trilinear(describe(halved(_finite(moving)))[0])
        rng = np.random.default_rng(SEED)
        points = _choose_points(contrast, fixed_mask, rng)
        self._fixed = described[tuple(points.T)]  # (N, 12)
        self.points_vox: FloatArray = (2 * points.T + 0.5).astype(np.float32)
        self._blocks, self._block_sizes = _blocks(points, contrast.shape)
        self._random = self._chance(points, rng)

    def _chance(self, points: Array, rng: np.random.Generator) -> float:
        """The mean difference of points that do not belong together."""
        if not len(points):
            return 1.0
        others = points[rng.permutation(len(points))].T
        return float(((self._fixed - self._moving.at(others)) ** 2).mean()) or 1.0

    def score(self, vectors_vox: Array) -> Score:
        """Of displacements (3, N) at the points. A point sent outside finds nothing."""
        errors = self._errors(vectors_vox) / self._random
        lengths = np.sqrt(np.einsum("cn,cn->n", vectors_vox, vectors_vox))
        return Score(
            value=1 - float(errors.mean()) if len(errors) else 0.0,
            blocks=1 - self._by_block(errors),
            moved_vox=self._by_block(lengths),
        )

    def _by_block(self, values: Array) -> FloatArray:
        """Means (B,) of values (N,) over the points of each block that has enough of them."""
        sums = np.bincount(self._blocks, weights=values, minlength=len(self._block_sizes))
        large = self._block_sizes >= MIN_BLOCK_POINTS
        means: FloatArray = sums[large] / self._block_sizes[large]
        return means

    def _errors(self, vectors_vox: Array) -> Array:
        """(N,) mean squared difference of each point's descriptor and the one where it is sent."""
        position = (self.points_vox + vectors_vox - 0.5) / 2
        bounds = self._moving.shape
        outside = ((position < -0.5) | (position > bounds - 0.5)).any(axis=0)
        difference = self._fixed - self._moving.at(np.where(outside, 0, position))
        errors: Array = np.einsum("nc,nc->n", difference, difference) / CHANNELS
        errors[outside] = self._random
        return errors


def describe(image: Array) -> tuple[Array, Array]:
    """Descriptors (X, Y, Z, 12) in 0..1, and the contrast (X, Y, Z) they were divided by.

    A channel belongs to two of a voxel's six neighbours that are not opposite each other, say at +a
    and -b: how different the patches around them are. Those at +b and -a are as far apart, so one
    map of differences serves both.
    """
    padded = np.pad(image, 2, mode="edge")
    axes = np.eye(3, dtype=int)
    channels = np.empty((*image.shape, CHANNELS), dtype=np.float32)
    steps = [(axes[i], sign * axes[j]) for i, j in ((0, 1), (0, 2), (1, 2)) for sign in (1, -1)]
    for n, (a, b) in enumerate(steps):
        squares = (_shifted(padded, a + b) - _shifted(padded, 0 * a)) ** 2
        patches = ndimage.uniform_filter(squares, 3, mode="nearest")
        channels[..., 2 * n] = _shifted(patches, -a)
        channels[..., 2 * n + 1] = _shifted(patches, -b)
    channels -= channels.min(axis=-1, keepdims=True)
    contrast = channels.mean(axis=-1)
    floor = max(MIN_CONTRAST * float(contrast.mean()), float(np.finfo(np.float32).tiny))
    channels /= np.maximum(contrast, floor)[..., None]
    np.negative(channels, out=channels)
    return np.exp(channels, out=channels), contrast


def halved(array: Array) -> Array:
    """Means of blocks of 2 x 2 x 2 voxels as float32; an odd last plane is left out."""
    array = array.astype(np.float32, copy=False)
    for axis in range(3):
        even = np.moveaxis(array, axis, 0)[: array.shape[axis] // 2 * 2]
        array = np.moveaxis((even[::2] + even[1::2]) / 2, 0, axis)
    return np.ascontiguousarray(array)


def _finite(array: Array) -> Array:
    return np.nan_to_num(array, nan=0.0, posinf=0.0, neginf=0.0)


def _shifted(array: Array, offset: Array) -> Array:
    """The array read ``offset`` voxels further on, one voxel of each border left out."""
    ends = zip(offset, array.shape, strict=True)
    return array[tuple(slice(1 + o, n - 1 + o) for o, n in ends)]


def _choose_points(contrast: Array, mask: Array | None, rng: np.random.Generator) -> Array:
    """Half-grid voxels (N, 3) where there is something to see: the better half of the foreground.

    The mask (X, Y, Z), not 0 inside, is left aside where it leaves too little.
    """
    seen = contrast > MIN_CONTRAST * contrast.mean()
    if mask is not None:
        inside = seen & (halved(mask != 0) > 0.5)
        seen = inside if np.count_nonzero(inside) >= 2 * MIN_POINTS else seen
    if np.count_nonzero(seen) < 2 * MIN_POINTS:
        return np.zeros((0, 3), dtype=np.intp)
    points = np.argwhere(seen & (contrast >= np.median(contrast[seen])))
    if len(points) > N_POINTS:
        points = points[rng.choice(len(points), N_POINTS, replace=False)]
    return points


def _blocks(points: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """The block (N,) of each point, numbered from 0, and how many points each block has (B,)."""
    counts = tuple(n // BLOCK + 1 for n in shape)
    numbers = np.ravel_multi_index(tuple((points // BLOCK).T), counts)
    _, blocks, sizes = np.unique(numbers, return_inverse=True, return_counts=True)
    return blocks, sizes
