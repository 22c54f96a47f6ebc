"""One field file from one convention to another, by way of the challenge's voxels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.challenge.field import DisplacementField, to_challenge, write_field
from harness.convert import simpleitk
from harness.convert.convention import Family, FieldConvention
from harness.convert.field_files import (
    NUMPY_SUFFIXES,
    open_field,
    read_itk,
    write_itk,
    write_nifti,
    write_numpy,
)
from harness.convert.geometry import NIFTI_SUFFIXES, read_geometry
from harness.convert.itk import itk_to_voxels, voxels_to_itk
from harness.convert.vectors import (
    check_grid,
    check_plausible,
    component_axis,
    from_voxels,
    to_voxels,
)
from harness.errors import ConventionError, DataError, FieldError, OutputError

if TYPE_CHECKING:
    from pathlib import Path

    from harness.challenge.field import FloatArray
    from harness.challenge.model import Grid, Task
    from harness.convert.field_files import FieldFile
    from harness.convert.geometry import Geometry

_SUFFIXES = {  # what each family is written to; the first is the usual one
    Family.VOXELS: NUMPY_SUFFIXES,
    Family.GRID_SAMPLE: NUMPY_SUFFIXES,
    Family.NIFTI: tuple(reversed(NIFTI_SUFFIXES)),
    Family.ITK: (".nii.gz", ".nii", *(s for s in simpleitk.SUFFIXES if s != ".mhd")),
}


@dataclass(frozen=True, kw_only=True)
class _Images:
    """Where the fixed and the moving image lie."""

    fixed: Geometry
    moving: Geometry


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """From which convention to which. ``task`` is needed where one of them is the challenge's.

    With a task, the image's grid is the task's. Without one it is the fixed image's; without that
    either, a field is taken to lie on the full grid.
    """

    source: FieldConvention
    target: FieldConvention
    task: Task | None = None

    def __post_init__(self) -> None:
        if self.task is None and Family.CHALLENGE in self.families:
            raise ConventionError(
                "a field in the challenge's format: expected the challenge's task, found none; "
                "its file's shape and type depend on it: --task"
            )

    @property
    def families(self) -> tuple[Family, Family]:
        return self.source.family, self.target.family

    @property
    def suffixes(self) -> tuple[str, ...]:
        """What a file in the target convention may end in, the usual one first."""
        if self.target.family is Family.CHALLENGE:
            return self._task.field.format.suffixes
        return _SUFFIXES[self.target.family]

    @property
    def _task(self) -> Task:
        if self.task is None:
            raise ConventionError("expected the challenge's task, found none: --task")
        return self.task

    def convert(
        self, source: Path, target: Path, *, fixed: Path | None = None, moving: Path | None = None
    ) -> None:
        """Read ``source``, write ``target``, whose name says the container. Replaces a file there.

        ``fixed`` is the fixed image, needed where one side is ITK's; ``moving`` the moving one,
        where it lies elsewhere in space or has another spacing. Raises ConventionError, FieldError,
        DataError or OutputError.
        """
        if not target.name.endswith(self.suffixes):
            raise ConventionError(
                f"{target}: expected a name that ends in {' or '.join(self.suffixes)}"
            )
        images = self._images(fixed, moving)
        vectors, image_grid = self._read(source, images)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._write(vectors, image_grid, target, images)
        except OSError as error:
            raise OutputError(f"{target}: cannot be written ({error.strerror})") from error

    def check_images(self, fixed: Path | str | None, moving: Path | str | None) -> None:
        """Raises ConventionError where an image is needed and none is named."""
        if fixed is None and Family.ITK in self.families:
            raise ConventionError(
                "an ITK field is in millimetres: expected the fixed image, for its spacing and "
                "direction, found none: --fixed, and --moving where the moving image's differ"
            )
        if fixed is None and moving is not None:
            raise ConventionError("expected a fixed image beside the moving one: --fixed")

    def _images(self, fixed: Path | None, moving: Path | None) -> _Images | None:
        self.check_images(fixed, moving)
        if fixed is None:
            return None
        geometry = read_geometry(fixed)
        if self.task is not None and geometry.grid != self.task.image_grid:
            raise DataError(
                f"{fixed}: expected the grid {self.task.image_grid} of {self.task.name}, found "
                f"{geometry.grid}"
            )
        other = geometry if moving is None else read_geometry(moving)
        return _Images(fixed=geometry, moving=other)

    def _image_grid(self, file: FieldFile, images: _Images | None) -> Grid:
        if self.task is not None:
            return self.task.image_grid
        if images is not None:
            return images.fixed.grid
        axis = component_axis(file.shape)
        x, y, z = (n for a, n in enumerate(file.shape) if a != axis)
        return x, y, z

    def _read(self, source: Path, images: _Images | None) -> tuple[FloatArray, Grid]:
        """The field in voxels, on the target's grid, and the image's grid."""
        file = open_field(source)
        image_grid = self._image_grid(file, images)
        grid = image_grid
        if self.target.family is Family.CHALLENGE:
            grid = self._task.field.grid
        if self.source.family is Family.ITK and images is not None:
            vectors_mm, domain = read_itk(file)
            return itk_to_voxels(vectors_mm, domain, images.fixed, images.moving, grid), image_grid
        if self.source.family is Family.CHALLENGE:
            spec = self._task.field
            if spec.layout_of(file.shape) is None:
                raise FieldError(f"expected shape {spec.shape}, found {file.shape}")
        check_grid(file.shape, image_grid)
        values = file.values()
        check_plausible(values, self.source)
        return to_voxels(values, self.source, image_grid, grid), image_grid

    def _write(
        self, vectors: FloatArray, image_grid: Grid, target: Path, images: _Images | None
    ) -> None:
        if self.target.family is Family.CHALLENGE:
            field = DisplacementField(array=vectors)
            write_field(to_challenge(field, self._task.field, image_grid), target)
        elif self.target.family is Family.ITK and images is not None:
            vectors_mm = np.moveaxis(voxels_to_itk(vectors, images.fixed, images.moving), 0, -1)
            write_itk(vectors_mm.astype(np.float32), images.fixed, target)
        else:
            array = from_voxels(vectors, self.target).astype(np.float32)
            if self.target.family is Family.NIFTI:
                affine = np.eye(4) if images is None else images.fixed.affine_ras
                write_nifti(array, affine, target)
            else:
                write_numpy(array, target)
