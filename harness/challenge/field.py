"""Displacement fields: the one type that holds them, and the way to a challenge's file.

A displacement field d says where the fixed image's voxel p lies in the moving image: at p + d(p).
The challenge's own convention is that of ``scipy.ndimage.map_coordinates``: components first,
in the order x, y, z of the array axes, in voxels of the full-resolution image (also when the field
itself is sampled on the half grid).
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, cast

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from harness.challenge.model import Layout
from harness.errors import FieldError

if TYPE_CHECKING:
    from io import BufferedIOBase
    from pathlib import Path

    from harness.challenge.model import FieldSpec, Grid

FloatArray = NDArray[np.floating[Any]]

_GZIP_LEVEL = 1  # NiBabel's own; writing is part of a pair's runtime


class Convention(StrEnum):
    """Axis order, component order and unit of a field's array.

    VOXELS       (3, X, Y, Z), components x, y, z, in full-resolution voxels.
    VOXELS_LAST  (X, Y, Z, 3), components x, y, z, in full-resolution voxels.
    GRID_SAMPLE  (X, Y, Z, 3), components z, y, x, normalised so that the image spans -1..1 from the
                 centre of its first voxel to that of its last: PyTorch's ``grid_sample`` with
                 ``align_corners=True``, displacements only.
    """

    VOXELS = "voxels"
    VOXELS_LAST = "voxels_last"
    GRID_SAMPLE = "grid_sample"


@dataclass(frozen=True, kw_only=True)
class DisplacementField:
    """A displacement field and the convention it is in.

    ``array`` has four axes as :class:`Convention` says; its grid is the image's or half of it.
    """

    array: FloatArray
    convention: Convention = Convention.VOXELS

    def __post_init__(self) -> None:
        if not isinstance(self.array, np.ndarray):
            raise FieldError(
                f"expected a NumPy array, found {type(self.array).__name__}; "
                "for a torch tensor use tensor.detach().cpu().numpy()"
            )
        if self.array.ndim != 4 or self.array.shape[self._component_axis] != 3:
            wanted = "(3, X, Y, Z)" if self._component_axis == 0 else "(X, Y, Z, 3)"
            raise FieldError(
                f"expected shape {wanted} for convention {self.convention.value}, "
                f"found {self.array.shape}{self._convention_hint()}"
            )
        if not np.issubdtype(self.array.dtype, np.floating):
            raise FieldError(f"expected floating-point values, found {self.array.dtype}")

    def _convention_hint(self) -> str:
        if self.array.ndim == 5 and self.array.shape[0] == 1:
            return "; take the batch away: array[0]"
        if self.convention is Convention.VOXELS and self.array.shape[-1:] == (3,):
            return (
                "; for (X, Y, Z, 3) say convention=Convention.VOXELS_LAST (x, y, z in voxels) or "
                "Convention.GRID_SAMPLE (z, y, x in -1..1, as PyTorch's grid_sample)"
            )
        return ""

    @property
    def _component_axis(self) -> int:
        return 0 if self.convention is Convention.VOXELS else 3

    @property
    def grid(self) -> Grid:
        """Spatial shape (X, Y, Z)."""
        shape = self.array.shape
        return (shape[1], shape[2], shape[3]) if self._component_axis == 0 else shape[:3]

    def vectors_vox(self, image_grid: Grid) -> FloatArray:
        """The field as (3, X, Y, Z), components x, y, z, in voxels of ``image_grid``."""
        if self.convention is Convention.VOXELS:
            return self.array
        first = np.moveaxis(self.array, 3, 0)
        if self.convention is Convention.VOXELS_LAST:
            return first
        scale = np.array([(n - 1) / 2 for n in image_grid], dtype=np.float32)
        return first[::-1] * scale[:, None, None, None]


def to_challenge(field: DisplacementField, spec: FieldSpec, image_grid: Grid) -> FloatArray:
    """The array a challenge's field file holds: ``spec.shape``, ``spec.dtype``.

    A field on the image grid or on half of it is resampled when the file's resolution is the other
    one; values stay full-resolution voxels. Raises FieldError for any other grid, for values that
    are not finite, and for values that overflow the file's type.
    """
    half = tuple(n // 2 for n in image_grid)
    if field.grid not in (image_grid, half):
        hint = ""
        if sorted(field.grid) in (sorted(image_grid), sorted(half)):
            hint = "; are the axes in another order?"
        raise FieldError(
            f"expected a field on the image grid {image_grid} or on half of it {half}, "
            f"found {field.grid}{hint}"
        )
    vectors = field.vectors_vox(image_grid)
    bad = int(np.count_nonzero(~np.isfinite(vectors)))
    if bad:
        raise FieldError(
            f"expected finite displacements, found {bad} values that are NaN or infinite"
        )
    vectors = resample_corner_aligned(vectors, spec.grid)
    limit = float(np.finfo(spec.dtype.value).max)
    largest = float(np.abs(vectors).max())
    if largest > limit:
        raise FieldError(
            f"expected displacements of at most {limit:.0f} voxels, the largest {spec.dtype.value} "
            f"holds, found {largest:.3g}; are they in voxels?"
        )
    if spec.layout is Layout.CHANNELS_LAST:
        vectors = np.moveaxis(vectors, 0, -1)
    return np.ascontiguousarray(vectors, dtype=spec.dtype.value)


def resample_corner_aligned(vectors: FloatArray, grid: Grid) -> FloatArray:
    """Linear interpolation of (3, X, Y, Z) onto ``grid``; first and last samples coincide.

    Sample i of n lies at i * (m - 1) / (n - 1) of the m input samples: the positions the reference
    evaluation's ``scipy.ndimage.zoom`` uses when it upsamples a half-resolution field.
    """
    for axis, n in enumerate(grid, start=1):
        m = vectors.shape[axis]
        if m != n:
            vectors = interpolate_along(vectors, axis, np.linspace(0.0, m - 1, n))
    return vectors


def interpolate_along(vectors: FloatArray, axis: int, position: FloatArray) -> FloatArray:
    """Linear interpolation along one axis, at positions within 0 .. its length - 1, in samples."""
    m = vectors.shape[axis]
    lower = np.minimum(position.astype(np.intp), max(m - 2, 0))
    shape = [1] * vectors.ndim
    shape[axis] = len(position)
    weight = (position - lower).astype(np.result_type(vectors, np.float32)).reshape(shape)
    left = np.take(vectors, lower, axis=axis)
    right = np.take(vectors, np.minimum(lower + 1, m - 1), axis=axis)
    # Neighbours that half precision holds may differ by more than it holds.
    step = np.subtract(right, left, dtype=np.result_type(right, np.float32))
    interpolated: FloatArray = left + weight * step
    return interpolated


def write_field(array: FloatArray, path: Path) -> None:
    """Write what :func:`to_challenge` gave to ``path``, in the format that its suffix names.

    The final name never names a half-written file. A NIfTI field gets the identity for its affine:
    its values are voxels, and no evaluation reads it.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as file:
            if path.name.endswith(".npz"):
                np.savez_compressed(file, array)
            elif path.name.endswith(".gz"):
                with gzip.GzipFile("", "wb", _GZIP_LEVEL, file, mtime=0) as packed:
                    _write_nifti(array, cast("BufferedIOBase", packed))
            else:
                _write_nifti(array, file)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_nifti(array: FloatArray, file: BufferedIOBase) -> None:
    nib.nifti1.Nifti1Image(array, np.eye(4)).to_stream(file)
