"""A displacement field as three volumes, in the precision that the reference computes with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.challenge.model import FieldFormat, Layout
from harness.evaluate.kernels.layout import split_halves, split_singles
from harness.evaluate.kernels.spline import zoom_twice

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.challenge.field import FloatArray


@dataclass(frozen=True, kw_only=True)
class FieldVolumes:
    """A displacement field d: the fixed image's voxel p lies at p + d(p) in the moving image.

    ``x``, ``y``, ``z``: the components along the array's axes, each (X, Y, Z), all float32 or all
    float64, in voxels, in any memory order. ``single``: gradients are rounded to float32, as the
    reference does with fields from .npz files; with those from NIfTI files it computes in float64.
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
        the file applies its slope and intercept. Volumes that are contiguous already are not
        copied. Raises ValueError for another shape.
        """
        if array.ndim != 4 or array.shape[0 if layout is Layout.CHANNELS_FIRST else 3] != 3:
            raise ValueError(f"expected a field, {layout.value}, found shape {array.shape}")
        single = file_format is FieldFormat.NPZ
        parts = array if layout is Layout.CHANNELS_FIRST else np.moveaxis(array, 3, 0)
        if single:
            x, y, z = _as_singles(parts)
        else:
            wide = np.float32 if parts.dtype.newbyteorder("=") == np.float32 else np.float64
            x, y, z = (np.asarray(part, dtype=wide) for part in parts)
        return cls(x=x, y=y, z=z, single=single)

    @property
    def components(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        return self.x, self.y, self.z

    @property
    def shape(self) -> tuple[int, int, int]:
        """Spatial shape (X, Y, Z)."""
        x, y, z = self.x.shape
        return x, y, z

    @property
    def is_reversed(self) -> bool:
        """Whether the first axis runs fastest in memory, as in NIfTI files."""
        return self.x.flags.f_contiguous and not self.x.flags.c_contiguous

    def oriented(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """The volumes with the last axis running fastest, and in the order of their axes: for a
        reversed field that is z, y, x, each (Z, Y, X). What is copied is only what must be."""
        parts = self.components
        if self.is_reversed:
            parts = self.z.T, self.y.T, self.x.T
        first, second, last = (np.ascontiguousarray(part) for part in parts)
        return first, second, last

    def upsampled(self) -> FieldVolumes:
        """The field on the image grid, twice as fine, by the rule of the 2021 edition.

        Each component goes as float32 through a quadratic spline, corner-aligned: what
        ``scipy.ndimage.zoom(component, 2, order=2)`` gives. The values are voxels of the image grid
        already and are not rescaled.
        """
        parts = [part.astype(np.float32, copy=False) for part in self.oriented()]
        finer = []
        for part in parts:
            finer.append(np.empty([2 * n for n in part.shape], np.float32))
            zoom_twice(part, finer[-1])
        x, y, z = (part.T for part in reversed(finer)) if self.is_reversed else finer
        return FieldVolumes(x=x, y=y, z=z, single=True)


def _as_singles(parts: NDArray[Any]) -> NDArray[np.float32]:
    """(3, X, Y, Z) as float32, each component contiguous, in the memory order it has."""
    interleaved = np.moveaxis(parts, 0, 3)
    if interleaved.flags.c_contiguous:
        return _deinterleaved(interleaved)
    if parts.T.flags.c_contiguous:
        return _deinterleaved(parts.T).transpose(0, 3, 2, 1)
    return parts.astype(np.float32, copy=False)


def _deinterleaved(array: NDArray[Any]) -> NDArray[np.float32]:
    """(A, B, C, 3), contiguous, to (3, A, B, C)."""
    singles = np.empty((3, array.size // 3), np.float32)
    pairs = array.reshape(-1, 3)
    if array.dtype == np.float16 and array.dtype.isnative:
        split_halves(pairs.view(np.uint16), singles)
    elif array.dtype in (np.float32, np.float64) and array.dtype.isnative:
        split_singles(pairs, singles)
    else:
        singles[:] = pairs.T
    return singles.reshape(3, *array.shape[:3])
