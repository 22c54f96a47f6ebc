"""The search: the best of many whole-voxel displacements at every point of a coarse grid.

1. *Cost.* The squared difference of the descriptors for (2 r + 1)^3 displacements at each point.
2. *Coupled convex optimisation.* Two copies of the field, one free to take any displacement, one
   smooth. In turn each point takes the displacement whose cost, with its distance to the smooth
   copy, is least, and the smooth copy becomes the smoothed choice, while the weight of the distance
   grows and draws the two together. Each half is solved exactly, and for all points at once.
3. *Inverse consistency.* The same from the moving image to the fixed one; then each field is drawn
   to the inverse of the other, which takes out of both what only one of them says.

Heinrich, Papiez, Schnabel, Handels, Non-parametric discrete registration with convex optimisation,
WBIR 2014. https://doi.org/10.1007/978-3-319-08554-8_6
Siebert, Hansen, Heinrich, Fast 3D registration with accurate optimisation and little learning for
Learn2Reg 2021. https://arxiv.org/abs/2112.03053
"""

from __future__ import annotations

import torch
from fields import Grid, grid_of, identity, normalised, smoothed, warped
from torch import Tensor
from torch.nn import functional

COUPLING = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # weight of the distance to the smooth copy
SMOOTHING = 2  # means over 3^3 points that make the smooth copy
TIE = 1e-6  # a displacement's cost beside the descriptors': of equal ones, as in air, the shortest
CONSISTENCY = 15  # rounds in which the two directions are drawn together
PART = 8192  # points whose costs are compared at once: what this needs stays small


def search(
    fixed: Tensor, moving: Tensor, fixed_weight: Tensor, moving_weight: Tensor, radius: int
) -> Tensor:
    """The field (1, 3, x, y, z) on the grid of the descriptors (1, C, x, y, z).

    The weights (1, 1, x, y, z) say how much a point of either image counts.
    """
    grid = grid_of(fixed)
    there = coupled_convex(costs(fixed, moving, fixed_weight, radius), radius, grid)
    back = coupled_convex(costs(moving, fixed, moving_weight, radius), radius, grid)
    return consistent(there, back)


def displacements(radius: int, device: torch.device) -> Tensor:
    """All (2 radius + 1)^3 of them, ((2 radius + 1)^3, 3), the last component changing fastest."""
    steps = torch.arange(-radius, radius + 1, dtype=torch.float32, device=device)
    return torch.cartesian_prod(steps, steps, steps)


def costs(fixed: Tensor, moving: Tensor, weight: Tensor, radius: int) -> Tensor:
    """Mean squared differences, smoothed: (x y z, (2 radius + 1)^3), in the order of both."""
    x, y, z = grid_of(fixed)
    side = 2 * radius + 1
    reach = functional.pad(moving, (radius,) * 6, mode="replicate")
    volume = fixed.new_empty(side, side, side, x, y, z)
    for i in range(side):
        for j in range(side):
            for k in range(side):
                there = reach[:, :, i : i + x, j : j + y, k : k + z]
                volume[i, j, k] = (there - fixed).square_().mean(dim=1)[0]
    volume = smoothed(volume.view(1, -1, x, y, z) * weight)
    return volume.view(side**3, -1).T.contiguous()


def coupled_convex(cost: Tensor, radius: int, grid: Grid) -> Tensor:
    """The smooth field (1, 3, *grid) that the costs (points, displacements) speak for."""
    shifts = displacements(radius, cost.device)
    lengths = shifts.square().sum(dim=1)
    cost = cost + TIE * lengths
    field = smoothed(shifts[cost.argmin(dim=1)].T.reshape(1, 3, *grid), SMOOTHING)
    for coupling in COUPLING:
        near = field.view(3, -1).T
        # |s - u|^2 of displacement s and field u, less |u|^2, which is the same for all s. In
        # parts, to need less memory.
        best = [
            torch.addmm(c + coupling * lengths, u, shifts.T, alpha=-2 * coupling).argmin(dim=1)
            for c, u in zip(torch.split(cost, PART), torch.split(near, PART), strict=True)
        ]
        field = smoothed(shifts[torch.cat(best)].T.reshape(1, 3, *grid), SMOOTHING)
    return field


def consistent(there: Tensor, back: Tensor, rounds: int = CONSISTENCY) -> Tensor:
    """The field from fixed to moving, after both were drawn to each other's inverse."""
    here = identity(grid_of(there), there.device)
    for _ in range(rounds):
        places_there, places_back = here + normalised(there), here + normalised(back)
        there, back = (
            (there - warped(back, places_there)) / 2,
            (back - warped(there, places_back)) / 2,
        )
    return there
