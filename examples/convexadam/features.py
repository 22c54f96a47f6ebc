"""MIND-SSC: what an image looks like around each voxel, whatever its grey values are.

The modality independent neighbourhood descriptor with the self-similarity context: twelve numbers a
voxel. A voxel p has six neighbours; twelve pairs of them are not opposite each other. The number of
the pair (a, b) is exp(-D / V), where D is the mean squared difference between the patches around
p + a and p + b, less the smallest of the twelve, and V is the mean of the twelve.

Heinrich et al., Towards realtime multimodal fusion for image-guided interventions using
self-similarities, MICCAI 2013. https://doi.org/10.1007/978-3-642-40811-3_24
"""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional

FLOOR = 0.1  # of V, as a share of its mean over the image: plain noise is not blown up to structure

NEIGHBOURS = ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1))
PAIRS = tuple(
    (a, b)
    for a, b in combinations(NEIGHBOURS, 2)
    if any(m + n for m, n in zip(a, b, strict=True))  # not opposite each other
)


def mind_ssc(image: Tensor, *, dilation: int = 1, radius: int = 1) -> Tensor:
    """The descriptor (1, 12, X, Y, Z) of an image (1, 1, X, Y, Z).

    Its values are in 0..1, all 1 where the image is constant.

    ``dilation``: how many voxels off the six neighbours are. ``radius``: of a patch, whose sides
    are 2 radius + 1 voxels. The image goes on beyond its borders as at them. Values that are not
    finite count as 0.
    """
    reach = dilation + radius
    image = torch.nan_to_num(image, nan=0.0, posinf=0.0, neginf=0.0)
    padded = functional.pad(image, (reach,) * 6, mode="replicate")

    def around(offset: tuple[int, int, int]) -> Tensor:
        """The image at each voxel's neighbour, with what its patches need on every side."""
        part = padded
        for axis, step in enumerate(offset, start=2):
            part = part.narrow(axis, dilation * (1 + step), part.shape[axis] - 2 * dilation)
        return part

    distances = torch.cat(
        [box_mean((around(a) - around(b)).square_(), radius) for a, b in PAIRS], dim=1
    )
    distances -= distances.amin(dim=1, keepdim=True)
    contrast = distances.mean(dim=1, keepdim=True)
    floor = (FLOOR * contrast.mean()).clamp_min(torch.finfo(contrast.dtype).tiny)
    distances /= torch.maximum(contrast, floor)
    return distances.neg_().exp_()


def box_mean(image: Tensor, radius: int) -> Tensor:
    """Means over (2 radius + 1)^3 voxels; the result is ``radius`` smaller on each side."""
    for axis in (2, 3, 4):
        size = image.shape[axis] - 2 * radius
        total = image.narrow(axis, 0, size).clone()
        for start in range(1, 2 * radius + 1):
            total += image.narrow(axis, start, size)
        image = total
    return image / (2 * radius + 1) ** 3
