"""Field files as the evaluation takes them: by the contract, or as the official code reads them."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, cast

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from harness.challenge.field_error import FieldFileError, FieldProblem
from harness.challenge.field_file import max_file_bytes, read_field
from harness.challenge.model import FieldFormat, Layout
from harness.evaluate.metrics import FieldVolumes

if TYPE_CHECKING:
    from pathlib import Path

    from nibabel.arrayproxy import ArrayProxy

    from harness.challenge.field import FloatArray
    from harness.challenge.model import FieldSpec
    from harness.evaluate.rules import TaskRules

_SCALED_KINDS = "iu"  # stored whole numbers, which a slope makes displacements of


def read_volumes(path: Path, spec: FieldSpec, rules: TaskRules) -> FieldVolumes:
    """The field on the image grid, in the precision of its file's format.

    A half-resolution field is upsampled by the rule of 2021. Raises FieldError.
    """
    vectors = None
    if rules.scaled_nifti and spec.format is FieldFormat.NIFTI:
        vectors = _read_scaled(path, spec)
    if vectors is None:
        vectors = read_field(path, spec)
    volumes = FieldVolumes.from_array(vectors, Layout.CHANNELS_FIRST, file_format=spec.format)
    return volumes if volumes.shape == tuple(rules.image_grid) else volumes.upsampled()


def _read_scaled(path: Path, spec: FieldSpec) -> FloatArray | None:
    """(3, X, Y, Z) float64 of a NIfTI file with whole numbers or a scaling; None for a file that
    has neither, or is for :func:`read_field` to refuse."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size > max_file_bytes(spec):
        return None
    try:
        image = nib.nifti1.Nifti1Image.from_filename(path)
        proxy = cast("ArrayProxy", image.dataobj)
        slope, intercept = proxy.slope, proxy.inter
        stored = image.get_data_dtype()
        is_plain = stored.kind not in _SCALED_KINDS and (slope, intercept) == (1, 0)
        is_small = stored.kind in "iuf" and stored.itemsize <= np.dtype(np.float64).itemsize
        layout = spec.layout_of(tuple(int(n) for n in image.shape))
        if is_plain or not is_small or layout is None:
            return None  # sizes are known now: no more than the contract's largest field
        values = np.asarray(image.get_fdata(dtype=np.float64, caching="unchanged"))
    except (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, zlib.error):
        return None
    if not np.isfinite(values).all():
        raise FieldFileError(
            expected="finite displacements",
            found="values that are NaN or infinite",
            problem=FieldProblem.NOT_FINITE,
        )
    return values if layout is Layout.CHANNELS_FIRST else np.moveaxis(values, -1, 0)
