"""ConvexAdam in PyTorch: a registration method on the GPU, and a model of how to plug one in.

A few hundred displacements are compared at every point of a coarse grid, a smooth field is made of
the best (``discrete.py``), and gradient descent refines it (``instance.py``). What is compared are
MIND-SSC descriptors of the images (``features.py``). Nothing is learned; all tasks are done alike.

Siebert, Hansen, Heinrich, Fast 3D registration with accurate optimisation and little learning for
Learn2Reg 2021. https://arxiv.org/abs/2112.03053

What a deep-learning team may take from here (docs/gpu-method.md has what each of it is worth):

- ``prepare`` does once, and untimed, what the first pair would pay for.
- A pair is opened in ``register`` and nowhere else, and nothing is opened before its turn.
- Images travel from page-locked memory, and nothing waits for the GPU before the field is needed.
- The field leaves as PyTorch means it, and one helper of the harness makes voxels of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from discrete import search
from features import mind_ssc
from fields import Grid, grid_of, normalised, pooled, resampled, smoothed
from instance import refine

from harness.convert.convention import Family, FieldConvention
from harness.convert.vectors import to_voxels
from harness.runner import DisplacementField, ImagePair, RegistrationMethod, TaskInfo

if TYPE_CHECKING:
    from torch import Tensor

    from harness.runner import LazyImage

DILATION = 2  # voxels between a voxel and the neighbours that its descriptor compares
COARSE = 6  # voxels between the points of the search's grid, and between its displacements
SEARCH_RADIUS = 4  # displacements tried on each side
ITERATIONS = 40  # of Adam
SMOOTHNESS = 0.4  # weight of diffusion beside the descriptors' difference
RATE = 0.8  # of Adam: the first step's length, in voxels of half the image's resolution
SPLINE = 2  # how often the control points are averaged
OUTSIDE = 0.1  # weight of voxels outside the fixed mask; not 0, its border is evidence too

INPUTS = ("fixed", "moving", "fixed_mask", "moving_mask")
PYTORCH = FieldConvention(family=Family.GRID_SAMPLE, align_corners=False)


class Method(RegistrationMethod):
    """Register any pair of any task, on the GPU where there is one."""

    def __init__(self, device: str | torch.device | None = None) -> None:
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        self.pinned = self.device.type == "cuda"
        self.buffers: dict[str, Tensor] = {}

    def prepare(self, task: TaskInfo) -> None:
        """Register noise on the task's grid, the whole way.

        The first time that anything happens on a GPU it costs more: the context is made, kernels
        are loaded, memory is taken from the driver and kept. All of that depends on sizes, so it is
        done with those of the task. On a CPU it is threads and code, for which a little will do.
        """
        grid = task.image_grid if self.pinned else (32, 32, 32)
        if self.pinned:
            self.buffers = {name: torch.empty(grid, pin_memory=True) for name in INPUTS}
        noise = torch.rand(1, 1, *grid, generator=torch.Generator().manual_seed(0))
        registered(*(self.sent(noise, name) for name in INPUTS), iterations=2).cpu()

    def register(self, pair: ImagePair) -> DisplacementField:
        fixed = self.opened(pair.fixed, "fixed")
        moving = self.opened(pair.moving, "moving")  # is read while the fixed image travels
        masks = [
            None if mask is None else self.opened(mask, name)
            for mask, name in ((pair.fixed_mask, "fixed_mask"), (pair.moving_mask, "moving_mask"))
        ]
        field = registered(fixed, moving, *masks)
        # .cpu() waits for the GPU: the only place where this method does.
        flow = normalised(field)[0].cpu().numpy()  # as PyTorch has it: (X, Y, Z, 3), z first, -1..1
        image_grid, field_grid = pair.task.image_grid, pair.task.field.grid
        return DisplacementField(array=to_voxels(flow, PYTORCH, image_grid, field_grid))

    def opened(self, image: LazyImage, name: str) -> Tensor:
        """The image's voxels on the device, (1, 1, X, Y, Z)."""
        return self.sent(torch.from_numpy(image.array)[None, None], name)

    def sent(self, image: Tensor, name: str) -> Tensor:
        """The tensor on the device. From page-locked memory the copy runs beside what follows.

        The buffers are as large as the task's images and made once: to lock memory takes longer
        than to copy. They are free again when a pair is done, as its end waits for the device.
        """
        buffer = self.buffers.get(name)
        if buffer is None or buffer.shape != image.shape[2:]:
            return image.to(self.device)
        return buffer.copy_(image[0, 0])[None, None].to(self.device, non_blocking=True)


def registered(
    fixed: Tensor,
    moving: Tensor,
    fixed_mask: Tensor | None = None,
    moving_mask: Tensor | None = None,
    *,
    iterations: int = ITERATIONS,
) -> Tensor:
    """The field (1, 3, x, y, z), on half the images' grid and in its voxels.

    Everything given is (1, 1, X, Y, Z). No number is read back from the device.
    """
    half, coarse = _grid(fixed, 2), _grid(fixed, COARSE)
    fixed_features = pooled(mind_ssc(fixed, dilation=DILATION), half)
    moving_features = pooled(mind_ssc(moving, dilation=DILATION), half)
    fixed_weight, moving_weight = _weight(fixed_mask, fixed), _weight(moving_mask, moving)
    found = search(
        pooled(fixed_features, coarse),
        pooled(moving_features, coarse),
        pooled(fixed_weight, coarse),
        pooled(moving_weight, coarse),
        SEARCH_RADIUS,
    )
    refined = refine(
        fixed_features,
        moving_features,
        pooled(fixed_weight, half),
        resampled(found, half),
        iterations=iterations,
        smoothness=SMOOTHNESS,
        rate=RATE,
        spline=SPLINE,
    )
    return smoothed(refined)  # takes out the last folds, where the images pull hard


def _weight(mask: Tensor | None, image: Tensor) -> Tensor:
    """How much each voxel counts: all the same where there is no mask."""
    if mask is None:
        return torch.ones_like(image)
    return (mask > 0).to(image.dtype).clamp_min(OUTSIDE)


def _grid(image: Tensor, step: int) -> Grid:
    x, y, z = (max(n // step, 1) for n in grid_of(image))
    return x, y, z
