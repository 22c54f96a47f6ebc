"""The default method: dense registration of any two modalities, in NumPy and SciPy.

Edit it or replace it. It is one algorithm for all tasks, in three steps:

1. *Describe.* MIND-SSC [1]: twelve numbers a voxel that say how alike the small patches around it
   are to one another. They follow the local shape of the image and not its grey values, so that CT
   and MR, or an emptied and a filled lung, can be compared by a sum of squared differences.
2. *Search.* That sum for 13^3 displacements at every point of a coarse grid, and for each point the
   displacement that is best under a smoothness term, by coupled convex optimisation [2]. There is
   no starting point, hence no local minimum near it: motion of up to 24 voxels is found.
3. *Refine.* Gauss-Newton steps, coarse to fine. Each is smoothed and then composed with the field
   so far rather than added to it: a small smooth step does not fold, and neither does a composition
   of such steps [3].

Both images are halved first. A field has shape (3, X, Y, Z) and is in voxels of its own grid; the
last line of ``register`` makes full-resolution voxels of them.

[1] Heinrich et al., Towards realtime multimodal fusion for image-guided interventions using
    self-similarities, MICCAI 2013. https://doi.org/10.1007/978-3-642-40811-3_24
[2] Heinrich et al., Non-parametric discrete registration with convex optimisation, WBIR 2014.
    https://doi.org/10.1007/978-3-319-08554-8_6
[3] Vercauteren et al., Diffeomorphic demons, NeuroImage 45, 2009.
    https://doi.org/10.1016/j.neuroimage.2008.10.040
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from harness.runner import DisplacementField, ImagePair, RegistrationMethod

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

Array = NDArray[Any]  # float32: an image (X, Y, Z); descriptors and fields with an axis in front

SEARCH_RADIUS = 6  # displacements tried on each side, in steps of 4 image voxels
COUPLING = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # of neighbours in the search, growing as in [2]
ITERATIONS = 3  # of the refinement, on each of its two grids
DATA_SIGMA = 2.5  # voxels over which a step's evidence is pooled
STEP_SIGMA = 1.5  # voxels; smooths a step, as a viscous fluid does
FIELD_SIGMA = 2.0  # voxels; smooths what the steps add up to, as an elastic body does
OUTSIDE = 0.1  # weight of voxels outside the fixed mask; not 0, its border is evidence too

THREADS = min(4, os.cpu_count() or 1)
_pool = ThreadPoolExecutor(THREADS)  # NumPy and SciPy let go of the interpreter while they work


class Method(RegistrationMethod):
    """Register any pair of any task. Nothing is learned, so there is nothing to prepare."""

    def register(self, pair: ImagePair) -> DisplacementField:
        fixed, moving = describe(halved(pair.fixed.array)), describe(halved(pair.moving.array))
        weight = np.ones(fixed.shape[1:], dtype=np.float32)
        if pair.fixed_mask is not None:
            inside = (pair.fixed_mask.array > 0).astype(np.float32)
            weight = np.maximum(halved(inside), np.float32(OUTSIDE))

        coarse = halved(fixed), halved(moving), halved(weight)
        field = refine(*coarse, search(*coarse))
        field = refine(fixed, moving, weight, doubled(field, indices(weight)))

        # The challenge's half-resolution grid has its first and last samples on those of the image.
        places = [np.linspace(0, n - 1, n // 2) for n in pair.fixed.array.shape]
        return DisplacementField(array=doubled(field, places))


# --- 1. Describe --------------------------------------------------------------------------------


def describe(image: Array) -> Array:
    """MIND-SSC: (12, X, Y, Z), values in 0..1; all 1 where the image is constant.

    A value belongs to two of a voxel's six neighbours that are not opposite each other, say at +a
    and -b. They lie a + b apart, as do those at +b and -a: one map of the differences between
    patches that far apart, read at two places, serves both.
    """
    padded = np.pad(np.nan_to_num(image, posinf=0, neginf=0), 2, mode="edge")
    axes = np.eye(3, dtype=int)
    steps = [(axes[i], sign * axes[j]) for i, j in ((0, 1), (0, 2), (1, 2)) for sign in (1, -1)]

    def two_distances(step: tuple[Array, Array]) -> Array:
        a, b = step
        squares = (shifted(padded, a + b) - shifted(padded, 0 * a)) ** 2
        patches = ndimage.uniform_filter(squares, 3, mode="nearest")
        return np.stack([shifted(patches, -a), shifted(patches, -b)])

    distances = np.concatenate(parallel(two_distances, steps))
    distances -= distances.min(axis=0)
    # Patches differ more where contrast is high: divide that out, but do not blow up plain noise.
    contrast = distances.mean(axis=0)
    floor = max(0.1 * float(contrast.mean()), float(np.finfo(np.float32).tiny))
    distances /= np.maximum(contrast, floor)
    descriptor: Array = np.exp(-distances, out=distances)
    return descriptor


def shifted(array: Array, offset: Array) -> Array:
    """The array read ``offset`` voxels further on, one voxel of each border left out."""
    ends = zip(offset, array.shape, strict=True)
    return array[tuple(slice(1 + o, n - 1 + o) for o, n in ends)]


# --- 2. Search ----------------------------------------------------------------------------------


def search(fixed: Array, moving: Array, weight: Array) -> Array:
    """The field that is best among whole-voxel displacements at every second voxel."""
    r = SEARCH_RADIUS
    x, y, z = weight.shape
    reach = np.pad(moving, [(0, 0), (r, r), (r, r), (r, r)], mode="edge")
    # Shortest first: where all displacements are equally good, as in air, the field stays zero.
    cube = sorted(product(range(-r, r + 1), repeat=3), key=lambda s: sum(n * n for n in s))
    shifts = np.array(cube, dtype=np.float32)

    def cost(shift: tuple[int, int, int]) -> Array:
        i, j, k = (r + n for n in shift)
        difference = fixed - reach[:, i : i + x, j : j + y, k : k + z]
        squares = np.einsum("cxyz,cxyz->xyz", difference, difference)
        return ndimage.uniform_filter(halved(squares * weight), 3, mode="nearest")

    costs = np.stack(parallel(cost, cube))
    grid = costs.shape[1:]
    costs = costs.reshape(len(shifts), -1)

    def best(costs: Array) -> Array:
        winners: Array = shifts[costs.argmin(axis=0)]
        return winners.T

    field = smooth(best(costs).reshape(3, *grid), 1.0)
    for coupling in COUPLING:
        # Each point's cost is now also its distance to the smoothed field, |s - u|^2 for shift s;
        # |u|^2 is left out, being the same for all s. In parts, to need less memory.
        far = coupling * (shifts**2).sum(axis=1)[:, None]
        parts = zip(
            np.array_split(costs, 16, axis=1),
            np.array_split(field.reshape(3, -1), 16, axis=1),
            strict=True,
        )
        chosen = [best(part + (far - 2 * coupling * shifts @ u)) for part, u in parts]
        field = smooth(np.concatenate(chosen, axis=1).reshape(3, *grid), 1.0)
    return doubled(field, indices(weight)) / 2  # was in whole voxels already


# --- 3. Refine ----------------------------------------------------------------------------------


def refine(fixed: Array, moving: Array, weight: Array, start: Array) -> Array:
    """The field after some Gauss-Newton steps from ``start``."""
    here = mesh(indices(weight))
    field = start
    for _ in range(ITERATIONS):
        step = smooth(gauss_newton(fixed, sample(moving, here + field), weight), STEP_SIGMA)
        composed = step + sample(field, here + step)
        field = start + smooth(composed - start, FIELD_SIGMA)
    return field


def gauss_newton(fixed: Array, warped: Array, weight: Array) -> Array:
    """The step (3, X, Y, Z) that makes ``warped`` most like ``fixed``, to first order.

    In every voxel it solves H s = b, where H sums the products of the descriptors' gradients and b
    those of gradients and differences, both over a neighbourhood.
    """
    pairs = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))

    def sums(channels: tuple[Array, Array]) -> Array:
        total = np.zeros((9, *weight.shape), dtype=np.float32)
        for f, w in zip(*channels, strict=True):
            gradient = np.gradient((f + w) / 2)
            for n, (i, j) in enumerate(pairs):
                total[n] += gradient[i] * gradient[j]
            for i in range(3):
                total[6 + i] += gradient[i] * (f - w)
        return total

    groups = zip(np.array_split(fixed, THREADS), np.array_split(warped, THREADS), strict=True)
    total = smooth(weight * sum(parallel(sums, groups)), DATA_SIGMA)
    # Where there is little to see, a little of the identity in H keeps the step short.
    total[:3] += 0.05 * float(total[:3].sum(axis=0).mean()) + 1e-9
    xx, yy, zz, xy, xz, yz, *b = total
    inverse = (
        (yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy),
        (xz * yz - xy * zz, xx * zz - xz * xz, xy * xz - xx * yz),
        (xy * yz - xz * yy, xy * xz - xx * yz, xx * yy - xy * xy),
    )
    det = sum(h * i for h, i in zip((xx, xy, xz), inverse[0], strict=True))
    step: Array = np.stack([sum(i * n for i, n in zip(row, b, strict=True)) for row in inverse])
    step /= det
    length = np.sqrt((step**2).sum(axis=0))
    step /= np.maximum(length, 1)  # a gradient is not to be trusted further than a voxel
    return step


# --- Grids --------------------------------------------------------------------------------------


def halved(array: Array) -> Array:
    """Means of blocks of 2 x 2 x 2 voxels; an odd last plane is left out."""
    for axis in (-3, -2, -1):
        even = np.moveaxis(array, axis, 0)[: array.shape[axis] // 2 * 2]
        array = np.moveaxis((even[::2] + even[1::2]) / 2, 0, axis)
    return array


def doubled(field: Array, positions: Sequence[Array]) -> Array:
    """The field in voxels half as large, at the given x, y and z among those voxels."""
    return 2 * sample(field, mesh([(p - 0.5) / 2 for p in positions]))


def indices(image: Array) -> list[Array]:
    return [np.arange(n) for n in image.shape]


def mesh(positions: Sequence[Array]) -> Array:
    return np.stack(np.meshgrid(*(p.astype(np.float32) for p in positions), indexing="ij"))


def sample(channels: Array, positions: Array) -> Array:
    """Each channel at the positions (3, X, Y, Z), linearly; outside counts the border."""

    def one(channel: Array) -> Array:
        return ndimage.map_coordinates(channel, positions, order=1, mode="nearest")

    return np.stack(parallel(one, channels))


def smooth(channels: Array, sigma: float) -> Array:
    return np.stack(parallel(lambda c: ndimage.gaussian_filter(c, sigma, mode="nearest"), channels))


def parallel(function: Callable[[Any], Array], items: Iterable[Any]) -> list[Array]:
    return list(_pool.map(function, items))
