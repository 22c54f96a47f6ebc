"""Where an image's voxels lie in the patient, as ITK sees it: in millimetres, LPS.

NIfTI's own world is RAS (x to the right, y to the front), ITK's is LPS (x to the left, y to the
back): the first two rows of an affine change their sign between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np

from harness.challenge.nifti import NiftiError, read_header
from harness.convert import simpleitk
from harness.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from harness.challenge.field import FloatArray
    from harness.challenge.model import Grid

NIFTI_SUFFIXES = (".nii", ".nii.gz")
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_SAME_VOX = 1e-3  # far above what float32 affines lose, far below what moves a label
_SAME_MM = 1e-2
_ORTHONORMAL = 1e-3


@dataclass(frozen=True, kw_only=True, eq=False)
class Geometry:
    """An image's grid and the affine, 4 x 4, from its voxel indices to millimetres in LPS."""

    grid: Grid
    affine: FloatArray

    @property
    def affine_ras(self) -> FloatArray:
        ras: FloatArray = _RAS_TO_LPS @ self.affine
        return ras

    @property
    def spacing_mm(self) -> FloatArray:
        """Distance of neighbouring voxels along each array axis."""
        spacing: FloatArray = np.linalg.norm(self.affine[:3, :3], axis=0)
        return spacing

    def is_same(self, other: Geometry) -> bool:
        """Are the grids equal and all corners within a thousandth of a voxel?"""
        if self.grid != other.grid:
            return False
        apart_mm = _corner_distance_mm(self.affine, other.affine, self.grid)
        return apart_mm <= _SAME_VOX * float(self.spacing_mm.min())


def read_geometry(path: Path) -> Geometry:
    """Geometry of a 3D image: NIfTI, or what SimpleITK reads. Raises DataError naming the file."""
    if not path.is_file():
        raise DataError(f"{path}: expected an image, found no such file")
    if not path.name.endswith(NIFTI_SUFFIXES):
        grid, affine = simpleitk.read_geometry(path)
        return Geometry(grid=grid, affine=affine)
    try:
        header = read_header(path)
        image = nib.nifti1.Nifti1Image.from_filename(path)
    except NiftiError as error:
        raise DataError(f"{path}: {error}") from error
    if len(header.grid) != 3:
        raise DataError(f"{path}: expected a 3D image, found shape {header.grid}")
    return nifti_geometry(image, path)


def nifti_geometry(image: nib.nifti1.Nifti1Image, path: Path) -> Geometry:
    """Geometry that ITK gives the first three axes of a NIfTI image.

    Raises DataError where ITK's answer depends on its version (two affines that disagree), where it
    gives none (sheared axes), and for units other than millimetres.
    """
    header = image.header
    try:
        unit = header.get_xyzt_units()[0]
        sform, qform = header.get_sform(coded=True)[0], header.get_qform(coded=True)[0]
    except (KeyError, ValueError) as error:  # a unit or a quaternion that is none
        raise DataError(
            f"{path}: expected a unit and a position in space, found none that can be read "
            f"({error}); save the image again"
        ) from error
    if unit not in ("mm", "unknown"):
        raise DataError(f"{path}: expected spacing in mm, found {unit}; save it in mm")
    x, y, z = (int(n) for n in image.shape[:3])
    if sform is not None and qform is not None:
        apart_mm = _corner_distance_mm(sform, qform, (x, y, z))
        if apart_mm > _SAME_MM:
            raise DataError(
                f"{path}: expected one position in space, found an sform and a qform that are "
                f"{apart_mm:.3g} mm apart, of which ITK takes one or the other, depending on its "
                "version; set both alike: image.set_qform(image.affine, 1), "
                "image.set_sform(image.affine, 1)"
            )
    affine = sform if sform is not None else qform
    if affine is None:
        # Without any, ITK has the first voxel at the origin and the axes along its own. NiBabel
        # would centre the image and flip one.
        affine = _RAS_TO_LPS @ np.diag([*header.get_zooms()[:3], 1.0])
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    if not np.allclose(directions.T @ directions, np.eye(3), atol=_ORTHONORMAL):
        raise DataError(
            f"{path}: expected axes at right angles, found a sheared affine; ITK cannot hold one, "
            "resample the image first"
        )
    return Geometry(grid=(x, y, z), affine=_RAS_TO_LPS @ affine.astype(np.float64))


def _corner_distance_mm(first: FloatArray, second: FloatArray, grid: Grid) -> float:
    corners = np.array([(*corner, 1) for corner in product(*((0, n - 1) for n in grid))])
    apart = (corners @ (first - second).T)[:, :3]
    return float(np.linalg.norm(apart, axis=1).max())
