"""Instance optimisation: the field of one pair, improved by gradient descent with Adam.

What is optimised are the control points of a smooth field, on the grid of the descriptors: the
field is their mean over a neighbourhood, applied several times, nearly a cubic B-spline. Less is
better of the sum of two means: the squared difference of the descriptors, and the squared
difference between neighbouring displacements (diffusion).

Siebert, Hansen, Heinrich, Fast 3D registration with accurate optimisation and little learning for
Learn2Reg 2021. https://arxiv.org/abs/2112.03053
Kingma, Ba, Adam: a method for stochastic optimization, ICLR 2015. https://arxiv.org/abs/1412.6980
"""

from __future__ import annotations

import torch
from fields import grid_of, identity, normalised, smoothed, warped
from torch import Tensor


def refine(
    fixed: Tensor,
    moving: Tensor,
    weight: Tensor,
    start: Tensor,
    *,
    iterations: int,
    smoothness: float,
    rate: float,
    spline: int,
) -> Tensor:
    """The field (1, 3, X, Y, Z) after ``iterations`` steps from ``start``.

    ``fixed`` and ``moving`` are descriptors (1, C, X, Y, Z); ``weight`` (1, 1, X, Y, Z) says how
    much a fixed voxel counts. ``smoothness`` weighs diffusion, ``rate`` is the length of the first
    step in voxels, from which the steps shrink to nothing; ``spline`` is how often the control
    points are averaged.

    Nothing here waits for the GPU: no number is read back between the first step and the last.
    """
    here = identity(grid_of(start), start.device)
    share = weight / (weight.sum() * fixed.shape[1])
    control = start.clone()
    adam = torch.optim.Adam([control], lr=rate)
    for done in range(iterations):
        adam.param_groups[0]["lr"] = rate * (1 - done / iterations)
        field = smoothed(control, spline)
        slope = data_gradient(fixed, moving, share, here, field)
        slope += smoothness * diffusion_gradient(field)
        control.grad = smoothed(slope, spline)  # which is its own transpose, so that this is exact
        adam.step()
    return smoothed(control, spline)


def data_gradient(
    fixed: Tensor, moving: Tensor, share: Tensor, here: Tensor, field: Tensor
) -> Tensor:
    """Of the sum of ``share`` times the descriptors' squared differences, by the field.

    Only the warp is left to automatic differentiation: what comes after it and before is written
    out, which takes half the time and half the memory.
    """
    with torch.enable_grad():
        field = field.detach().requires_grad_()
        found = warped(moving, here + normalised(field))
    difference = found.detach() - fixed
    (slope,) = torch.autograd.grad(found, field, difference.mul_(2 * share))
    return slope


def diffusion_gradient(field: Tensor) -> Tensor:
    """Of the mean squared difference between neighbours, summed over the three axes, by the
    field."""
    slope = torch.zeros_like(field)
    for axis in (2, 3, 4):
        n = field.shape[axis] - 1
        if n == 0:
            continue
        step = field.diff(dim=axis)
        step *= 2 / max(step.numel(), 1)
        slope.narrow(axis, 1, n).add_(step)
        slope.narrow(axis, 0, n).sub_(step)
    return slope
