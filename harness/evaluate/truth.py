"""Truth files, read whole and held to what their pair needs; every error names the file."""

from __future__ import annotations

import gzip
import zlib
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from harness.challenge.nifti import NiftiError, read_header
from harness.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from harness.challenge.model import Grid
    from harness.evaluate.rules import Case, Landmarks, TaskRules

LabelMap = NDArray[np.integer[Any]]
Points = NDArray[np.float64]

_MAX_LABEL = 65535


def read_labels(path: Path, grid: Grid) -> LabelMap:
    """A label map on ``grid``, (X, Y, Z), in the smallest unsigned type that holds it; 0 is
    background.

    Raises DataError for a file that cannot be read, another grid, and values that are no labels:
    not whole, negative or beyond 65535.
    """
    values = _read_volume(path, grid, "a label map")
    if values.dtype.kind not in "ui":
        whole = np.rint(values)
        if not np.array_equal(whole, values):  # NaN is not equal to itself
            raise DataError(f"{path}: expected whole numbers, for labels, found others")
        values = whole
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    if low < 0 or high > _MAX_LABEL:
        raise DataError(f"{path}: expected labels of 0 to {_MAX_LABEL}, found {low} to {high}")
    labels: LabelMap = values.astype(np.uint8 if high <= 255 else np.uint16, copy=False)
    return labels


def read_mask(path: Path, grid: Grid) -> NDArray[np.bool_]:
    """A mask on ``grid``, (X, Y, Z): only voxels that are exactly 1 count. Raises DataError."""
    mask: NDArray[np.bool_] = _read_volume(path, grid, "a mask") == 1
    return mask


def read_landmarks(path: Path) -> Points:
    """Rows of x,y,z in voxels, (N, 3) float64, N >= 1; ``#`` begins a comment.

    Raises DataError for anything else, NaN and infinity among it.
    """
    try:
        lines = (line.partition("#")[0].strip() for line in path.read_text("utf-8").splitlines())
        rows = [line.split(",") for line in lines if line]
        points: Points = np.array(rows, dtype=np.float64).reshape(len(rows), 3)
    except OSError as error:
        raise DataError(f"{path}: expected landmarks, found none ({error.strerror})") from error
    except ValueError as error:
        raise DataError(
            f"{path}: expected rows of three numbers x,y,z and no header: {error}"
        ) from error
    if not len(points) or not np.isfinite(points).all():
        raise DataError(f"{path}: expected at least one landmark, all finite")
    return points


def read_landmark_pair(files: Landmarks) -> tuple[Points, Points]:
    """Fixed and moving points, as many of one as of the other. Raises DataError."""
    fixed, moving = read_landmarks(files.fixed), read_landmarks(files.moving)
    if len(fixed) != len(moving):
        raise DataError(
            f"{files.moving}: expected {len(fixed)} rows as in {files.fixed}, found {len(moving)}"
        )
    return fixed, moving


def read_spacing_mm(candidates: Sequence[Path]) -> tuple[float, float, float]:
    """Voxel size of the first of these images that exists. Raises DataError."""
    for path in candidates:
        if path.is_file():
            x, y, z = _grid_and_spacing(path)[1]
            return x, y, z
    names = " or ".join(map(str, candidates))
    raise DataError(f"landmark errors need the moving image's spacing: no file {names}")


def truth_problems(rules: TaskRules, cases: Iterable[Case]) -> list[str]:
    """What is wrong with the truth of these cases, as far as headers and landmark files tell.

    A mask that is missing is no problem: the official rule is to do without, and to say so.
    """
    problems: dict[str, None] = {}  # one image may serve in two cases
    for case in cases:
        truth = case.truth
        for path in (truth.fixed_labels, truth.moving_labels, truth.mask):
            if path is None or (path == truth.mask and not path.exists()):
                continue
            try:
                _check_grid(path, rules.image_grid)
            except DataError as error:
                problems[str(error)] = None
        try:
            for files in truth.landmarks:
                read_landmark_pair(files)
            if truth.landmarks:
                read_spacing_mm(truth.moving_images)
        except DataError as error:
            problems[str(error)] = None
    return list(problems)


def _check_grid(path: Path, grid: Grid) -> None:
    found = _grid_and_spacing(path)[0]
    if found != tuple(grid):
        raise DataError(f"{path}: expected the images' grid {tuple(grid)}, found {found}")


def _grid_and_spacing(path: Path) -> tuple[tuple[int, ...], tuple[float, ...]]:
    if not path.is_file():
        raise DataError(f"{path}: expected a NIfTI file, found no file")
    try:
        header = read_header(path)
    except NiftiError as error:
        raise DataError(f"{path}: {error}") from error
    if len(header.grid) != 3 or len(header.spacing_mm) != 3:
        raise DataError(f"{path}: expected a 3D image, found shape {header.grid}")
    return header.grid, header.spacing_mm


def _is_gzip(raw: bytes) -> bool:
    return raw[:2] == b"\x1f\x8b"


def _read_volume(path: Path, grid: Grid, kind: str) -> NDArray[Any]:
    """Stored values, scaled where the header says so."""
    try:
        raw = path.read_bytes()
        # To its end, where the checksum is: NiBabel stops at the last voxel, and takes what it got.
        image = nib.nifti1.Nifti1Image.from_bytes(gzip.decompress(raw) if _is_gzip(raw) else raw)
        values = np.asarray(image.dataobj)
    except (OSError, EOFError, ValueError, zlib.error, ImageFileError, HeaderDataError) as error:
        raise DataError(f"{path}: expected {kind}, found none that can be read: {error}") from error
    if values.shape != tuple(grid):
        raise DataError(
            f"{path}: expected {kind} on the images' grid {tuple(grid)}, found {values.shape}"
        )
    return values
