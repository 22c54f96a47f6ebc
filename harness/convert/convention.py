"""The conventions a displacement field may come in, and what the numbers of each mean.

Everywhere p is a voxel of the fixed image, as indices along the array's axes, N the image's size
along an axis, and d(p) the challenge's displacement: p of the fixed image lies at p + d(p) of the
moving one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from harness.errors import ConventionError


class Family(StrEnum):
    """Unit and frame of the components.

    CHALLENGE    d in voxels, in the file that a challenge's task describes.
    VOXELS       d in voxels, (3, X, Y, Z) or (X, Y, Z, 3): ``scipy.ndimage.map_coordinates``.
    NIFTI        d in voxels, (X, Y, Z, 3), in a NIfTI file.
    GRID_SAMPLE  normalised units of PyTorch's ``grid_sample``.
    ITK          the vector in millimetres between physical points, x to the left, y to the back,
                 z up (LPS), as ITK and ANTs write displacement images.
    """

    CHALLENGE = "challenge"
    VOXELS = "voxels"
    NIFTI = "nifti"
    GRID_SAMPLE = "grid-sample"
    ITK = "itk"


class Order(StrEnum):
    """Which component comes first. The axes are those of the array: x the first, z the last.

    ZYX  that along the array's last axis, which is what ``grid_sample`` itself expects.
    XYZ  that along its first axis: flows that are flipped just before ``grid_sample``.
    """

    ZYX = "zyx"
    XYZ = "xyz"


@dataclass(frozen=True, kw_only=True)
class FieldConvention:
    """A family and, for GRID_SAMPLE only, the rest of what must be known.

    ``align_corners``: -1 and 1 are the centres of an axis's first and last voxel (True), or its
    outer edges (False). It has no default: PyTorch's has changed, and a field does not tell.
    ``absolute``: the values are positions, identity included, not displacements.
    """

    family: Family
    order: Order = Order.ZYX
    align_corners: bool | None = None
    absolute: bool = False

    def __post_init__(self) -> None:
        normalised = self.family is Family.GRID_SAMPLE
        if normalised and self.align_corners is None:
            raise ConventionError(
                "a grid-sample field: expected align_corners to be said, found neither True nor "
                "False; it is the argument your grid_sample and affine_grid calls get (PyTorch's "
                "default is False): --align-corners or --no-align-corners"
            )
        if not normalised and (
            self.align_corners is not None or self.absolute or self.order is not Order.ZYX
        ):
            raise ConventionError(
                f"a field in convention {self.family}: component order, align_corners and absolute "
                "belong to grid-sample only; leave them out, or is it a grid-sample field?"
            )

    def unit_vox(self, n: int) -> float:
        """How many voxels a component's unit is along an axis of ``n`` voxels."""
        if self.family is not Family.GRID_SAMPLE:
            return 1.0
        return n / 2 if self.align_corners is False else (n - 1) / 2
