"""Images that SimpleITK reads and writes (.mha, .mhd, .nrrd), where it is installed.

The only module that knows it: an optional extra, loaded when it is needed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import ConventionError, DataError

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from harness.challenge.field import FloatArray
    from harness.challenge.model import Grid

SUFFIXES = (".mha", ".mhd", ".nrrd")


def _library(path: Path) -> ModuleType:
    try:
        return import_module("SimpleITK")
    except ImportError as error:
        raise ConventionError(
            f"{path}: files of this kind need SimpleITK, which is not installed: "
            "pip install 'l2r-harness[convert]', or use .nii.gz"
        ) from error


def read_header(path: Path) -> tuple[tuple[int, ...], int]:
    """Size along each axis and components a voxel, without reading the voxels."""
    reader = _reader(path)
    return tuple(reader.GetSize()), int(reader.GetNumberOfComponents())


def read_geometry(path: Path) -> tuple[Grid, FloatArray]:
    """Grid and affine (4 x 4, index to LPS mm) of a 3D image, without reading its voxels."""
    reader = _reader(path)
    if reader.GetDimension() != 3:
        raise DataError(f"{path}: expected a 3D image, found {reader.GetDimension()} axes")
    x, y, z = reader.GetSize()
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(reader.GetDirection(), (3, 3)) * reader.GetSpacing()
    affine[:3, 3] = reader.GetOrigin()
    return (x, y, z), affine


def read_vectors(path: Path) -> FloatArray:
    """The values of a 3D image with three components, (X, Y, Z, 3)."""
    library = _library(path)
    try:
        values = library.GetArrayFromImage(library.ReadImage(str(path)))
    except RuntimeError as error:
        raise _unreadable(path, error) from error
    vectors: FloatArray = values.transpose(2, 1, 0, 3)
    return vectors


def write_vectors(vectors: FloatArray, affine: FloatArray, path: Path) -> None:
    """A vector image of (X, Y, Z, 3); ``affine`` 4 x 4 from index to LPS mm, no shear."""
    library = _library(path)
    image = library.GetImageFromArray(
        np.ascontiguousarray(vectors.transpose(2, 1, 0, 3)), isVector=True
    )
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    library.WriteImage(image, str(path), True)


def _reader(path: Path) -> Any:  # noqa: ANN401 - a class that may not be installed
    reader = _library(path).ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise _unreadable(path, error) from error
    return reader


def _unreadable(path: Path, error: RuntimeError) -> DataError:
    line = next((line for line in reversed(str(error).splitlines()) if line.strip()), "no reason")
    return DataError(f"{path}: not an image that SimpleITK can read ({line.strip()[:200]})")
