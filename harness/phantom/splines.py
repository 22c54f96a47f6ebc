"""Cubic B-splines on a coarse control grid: smooth deformations and smooth random textures.

A deformation *is* its spline, so it can be evaluated exactly on the full grid, on the half grid
of the field file and at landmarks; no resampled copy stands between the image and the truth.
Everything here runs on one thread, so that equal seeds give equal bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage, sparse

from harness.challenge.field import resample_corner_aligned

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Float32 = npt.NDArray[np.float32]

Shape = tuple[int, int, int]

FIXED_POINT_ROUNDS = 14  # leaves under 0.01 voxel between subjects of task_03
FURTHER_ROUNDS = 3  # from the half grid's solution to every voxel's, with no more left than there


def half_positions(n: int) -> npt.NDArray[np.float64]:
    """Full-grid indices of the n/2 half-grid samples of an axis of n voxels.

    The evaluation upsamples with corner-aligned zoom: the first and last samples of both grids
    coincide, so half sample i lies at i * (n - 1) / (n/2 - 1).
    """
    return np.linspace(0.0, n - 1.0, n // 2)


def control_count(n: int, step: int) -> int:
    """Control points along an axis of n voxels; number j sits at voxel (j - 1) * step."""
    return -(-(n - 1) // step) + 3


def control_positions(shape: Shape, step: int) -> list[Float32]:
    """Voxel coordinates of the control points as an open (broadcastable) grid."""
    axes = [(np.arange(control_count(n, step), dtype=np.float32) - 1) * step for n in shape]
    return list(np.meshgrid(*axes, indexing="ij", sparse=True))


def _basis(positions: npt.NDArray[np.float64], step: int, count: int) -> sparse.csr_array:
    """Row i holds the four B-spline weights of voxel coordinate positions[i]; (P, count)."""
    scaled = positions / step + 1.0
    first = np.clip(np.floor(scaled).astype(np.int64) - 1, 0, count - 4)
    t = scaled - (first + 1)
    weights = np.stack(
        [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1
    )
    columns = first[:, None] + np.arange(4)
    starts = np.arange(0, 4 * len(positions) + 1, 4)
    data = (weights / 6.0).astype(np.float32).ravel()
    return sparse.csr_array((data, columns.ravel(), starts), shape=(len(positions), count))


def evaluate(coefficients: Float32, step: int, axes: Sequence[npt.NDArray[np.float64]]) -> Float32:
    """Evaluate a scalar spline, coefficients (Kx, Ky, Kz), on the product of three voxel axes."""
    bx, by, bz = (_basis(a, step, k) for a, k in zip(axes, coefficients.shape, strict=True))
    kx, ky, kz = coefficients.shape
    nx, ny, nz = (len(a) for a in axes)
    along_z = np.ascontiguousarray((bz @ coefficients.reshape(-1, kz).T).T).reshape(kx, ky, nz)
    swapped = np.ascontiguousarray(along_z.transpose(1, 0, 2)).reshape(ky, -1)
    along_y = np.ascontiguousarray((by @ swapped).reshape(ny, kx, nz).transpose(1, 0, 2))
    dense: Float32 = (bx @ along_y.reshape(kx, -1)).reshape(nx, ny, nz)
    return dense


def control_noise(rng: np.random.Generator, shape: Shape, step: int, scale_vox: float) -> Float32:
    """Control values of a random field of standard deviation 1 that varies over `scale_vox`."""
    counts = [control_count(n, step) for n in shape]
    white = rng.standard_normal(counts, dtype=np.float32)
    smooth = ndimage.gaussian_filter(white, scale_vox / step, mode="wrap")
    return np.asarray((smooth - smooth.mean()) / smooth.std(), dtype=np.float32)


def smooth_noise(rng: np.random.Generator, shape: Shape, scale_vox: float) -> Float32:
    """A random volume of the given shape, standard deviation near 1, varying over `scale_vox`."""
    step = max(1, round(scale_vox))
    coefficients = control_noise(rng, shape, step, scale_vox)
    return evaluate(coefficients, step, [np.arange(n, dtype=np.float64) for n in shape])


@dataclass(frozen=True, kw_only=True)
class Deformation:
    """A smooth displacement u of a voxel grid: voxel index p goes to p + u(p).

    `coefficients` is (3, Kx, Ky, Kz) in voxels, component order x, y, z; control points lie
    every `step` voxels.
    """

    shape: Shape
    step: int
    coefficients: Float32

    def on_axes(self, axes: Sequence[npt.NDArray[np.float64]]) -> Float32:
        """u on the product of three voxel axes; (3, len(x), len(y), len(z))."""
        return np.stack([evaluate(c, self.step, axes) for c in self.coefficients])

    def dense(self) -> Float32:
        """u at every voxel; (3, X, Y, Z)."""
        return self.on_axes([np.arange(n, dtype=np.float64) for n in self.shape])

    def coordinates(self) -> Float32:
        """p + u(p) at every voxel p; (3, X, Y, Z)."""
        return grid_plus(self.dense(), [np.arange(n, dtype=np.float64) for n in self.shape])

    def half(self) -> Float32:
        """u at the samples of the field file, still in full-grid voxels; (3, X/2, Y/2, Z/2)."""
        return self.on_axes([half_positions(n) for n in self.shape])

    def at(self, points_vox: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """u at (N, 3) voxel coordinates; (N, 3)."""
        control = points_vox.T / self.step + 1.0
        columns = [
            ndimage.map_coordinates(c.astype(np.float64), control, order=3, prefilter=False)
            for c in self.coefficients
        ]
        return np.stack(columns, axis=1)


def grid_plus(displacement: Float32, axes: Sequence[npt.NDArray[np.float64]]) -> Float32:
    """Absolute voxel coordinates p + u(p) for a (3, ...) displacement on a product grid."""
    x, y, z = (np.asarray(a, dtype=np.float32) for a in axes)
    moved = displacement.copy()
    moved[0] += x[:, None, None]
    moved[1] += y[:, None]
    moved[2] += z
    return moved


def compose_with_inverse(first: Deformation, second: Deformation) -> Float32:
    """The half-grid field d with second(p + d(p)) = first(p); (3, X/2, Y/2, Z/2), voxels.

    With both deformations leading from a subject to one template, d leads from the first
    subject's voxels to the second's. Solved by fixed-point iteration, which converges because
    the deformations stretch by less than one voxel a voxel.
    """
    half_axes = [half_positions(n) for n in first.shape]
    target = grid_plus(first.half(), half_axes)
    solution = target - second.half()
    _iterate(solution, target, second.dense(), FIXED_POINT_ROUNDS)
    return grid_plus(solution, [-a for a in half_axes])


def compose_with_inverse_dense(first: Deformation, second: Deformation) -> Float32:
    """As :func:`compose_with_inverse` at every voxel; (3, X, Y, Z), voxels."""
    axes = [np.arange(n, dtype=np.float64) for n in first.shape]
    near = resample_corner_aligned(compose_with_inverse(first, second), first.shape)
    solution = grid_plus(near.astype(np.float32), axes)
    _iterate(solution, first.coordinates(), second.dense(), FURTHER_ROUNDS)
    return grid_plus(solution, [-a for a in axes])


def _iterate(solution: Float32, target: Float32, field: Float32, rounds: int) -> None:
    """Bring ``solution`` closer to where solution + field(solution) = target, in place."""
    for _ in range(rounds):
        for axis in range(3):  # Gauss-Seidel: each axis already uses the others' newest value
            moved = ndimage.map_coordinates(field[axis], solution, order=1, mode="nearest")
            solution[axis] = target[axis] - moved


def warp(volume: npt.NDArray[np.float32], coordinates: Float32, fill: float) -> Float32:
    """Linear pull-back of `volume` at (3, X, Y, Z) voxel coordinates; outside gives `fill`."""
    return np.asarray(
        ndimage.map_coordinates(volume, coordinates, order=1, mode="constant", cval=fill),
        dtype=np.float32,
    )


def warp_labels(labels: npt.NDArray[np.uint8], coordinates: Float32) -> npt.NDArray[np.uint8]:
    """Nearest-voxel pull-back of `labels` at (3, X, Y, Z) voxel coordinates; outside gives 0."""
    return np.asarray(
        ndimage.map_coordinates(labels, coordinates, order=0, mode="constant", cval=0),
        dtype=np.uint8,
    )
