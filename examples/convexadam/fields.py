"""Fields and images on grids: sampling, resampling, smoothing.

A field is (1, 3, X, Y, Z), components x, y, z, in voxels of its own grid. All grids here span the
image from edge to edge, as PyTorch means it with ``align_corners=False``: sample i of n lies in the
middle of the i-th of n equal parts of the axis.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

Grid = tuple[int, int, int]


def grid_of(image: Tensor) -> Grid:
    """The last three axes' lengths."""
    x, y, z = image.shape[-3:]
    return x, y, z


def voxels_per_unit(grid: Grid, device: torch.device) -> Tensor:
    """How many voxels the units of ``grid_sample`` are, a component, shaped to go with a field."""
    return (torch.tensor(grid, dtype=torch.float32, device=device) / 2).view(1, 3, 1, 1, 1)


def pooled(image: Tensor, grid: Grid) -> Tensor:
    """Means over the parts of the image that belong to each sample of a coarser grid."""
    return functional.adaptive_avg_pool3d(image, grid)


def resampled(field: Tensor, grid: Grid) -> Tensor:
    """The field on another grid, in voxels of that grid."""
    ratio = voxels_per_unit(grid, field.device) / voxels_per_unit(grid_of(field), field.device)
    finer = functional.interpolate(field, size=grid, mode="trilinear", align_corners=False)
    return finer * ratio


def identity(grid: Grid, device: torch.device) -> Tensor:
    """Where the samples lie: (1, X, Y, Z, 3), components z, y, x, as ``grid_sample`` has it."""
    nothing = torch.eye(3, 4, device=device)[None]
    return functional.affine_grid(nothing, [1, 1, *grid], align_corners=False)


def normalised(field: Tensor) -> Tensor:
    """The displacements in ``grid_sample``'s units and order: (1, X, Y, Z, 3)."""
    units = field / voxels_per_unit(grid_of(field), field.device)
    return units.flip(1).permute(0, 2, 3, 4, 1)


def warped(image: Tensor, places: Tensor) -> Tensor:
    """The image at ``places``, linearly; beyond its borders it goes on as at them.

    On the CPU one volume keeps one thread busy, however many there are. A batch of slabs of it
    takes them all, and none of them is copied.
    """
    x, y, z = places.shape[1:4]
    slabs = 1
    if places.device.type == "cpu":
        slabs = max(n for n in range(1, torch.get_num_threads() + 1) if x % n == 0)
    batch = places.reshape(slabs, x // slabs, y, z, 3)
    channels = image.expand(slabs, -1, -1, -1, -1)
    found = functional.grid_sample(channels, batch, padding_mode="border", align_corners=False)
    return found if slabs == 1 else found.transpose(0, 1).reshape(1, -1, x, y, z)


def smoothed(image: Tensor, times: int = 1) -> Tensor:
    """Means over 3^3 voxels, ``times`` times; three make nearly a Gaussian, or a cubic B-spline."""
    for _ in range(times):
        padded = functional.pad(image, (1,) * 6, mode="replicate")
        image = functional.avg_pool3d(padded, 3, stride=1)
    return image
