"""A displacement field as three volumes, in the precision that the reference computes with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from harness.challenge.model import FieldFormat, Layout

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.challenge.field import FloatArray


@dataclass(frozen=True, kw_only=True)
class FieldVolumes:
    """A displacement field d: the fixed image's voxel p lies at p + d(p) in the moving image.

    ``x``, ``y``, ``z``: the components along the array's axes, each (X, Y, Z), float32 or float64,
    in voxels, in any memory order. ``single``: gradients are rounded to float32, as the reference
    does with fields from .npz files; with fields from NIfTI files it computes in float64.
    """

    x: FloatArray
    y: FloatArray
    z: FloatArray
    single: bool = True

    @classmethod
    def from_array(
        cls, array: NDArray[Any], layout: Layout, *, file_format: FieldFormat = FieldFormat.NPZ
    ) -> FieldVolumes:
        """From a field file's array, (3, X, Y, Z) or (X, Y, Z, 3) as ``layout`` says, of any number
        type and memory order.

        From .npz it is cast to float32. From NIfTI the numbers are taken as they are: whoever reads
        the file applies its slope and intercept.
        """
        if array.ndim != 4 or array.shape[0 if layout is Layout.CHANNELS_FIRST else 3] != 3:
            raise ValueError(f"expected a field, {layout.value}, found shape {array.shape}")
        single = file_format is FieldFormat.NPZ
        parts = array if layout is Layout.CHANNELS_FIRST else np.moveaxis(array, 3, 0)
        if single or parts.dtype not in (np.float32, np.float64):
            parts = parts.astype(np.float32 if single else np.float64, copy=False)
        return cls(x=parts[0], y=parts[1], z=parts[2], single=single)

    @property
    def components(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        return self.x, self.y, self.z

    @property
    def shape(self) -> tuple[int, int, int]:
        """Spatial shape (X, Y, Z)."""
        x, y, z = self.x.shape
        return x, y, z

    def upsampled(self) -> FieldVolumes:
        """The field on the image grid, twice as fine, by the rule of the 2021 edition.

        Each component goes as float32 through ``scipy.ndimage.zoom(component, 2, order=2)``:
        corner-aligned quadratic splines. The values are voxels of the image grid already and are
        not rescaled.
        """
        x, y, z = (ndimage.zoom(c.astype(np.float32), 2, order=2) for c in self.components)
        return FieldVolumes(x=x, y=y, z=z, single=True)
