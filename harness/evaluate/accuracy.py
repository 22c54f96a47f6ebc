"""A first look at how accurate a field is: Dice or landmark error, before and after, and folding.

Agrees with the public Learn2Reg evaluation where that gives a number: how a half-resolution field
is upsampled, how labels are warped, what counts as absent, where landmarks are read.

The same numbers as :mod:`harness.evaluate.metrics` gives, by SciPy (a test compares them): to
compile the loops of those takes ten seconds and more at a newcomer's first dry run, which are paid
back only where many fields are evaluated.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray
from scipy import ndimage

from harness.challenge.model import Metric
from harness.challenge.nifti import read_header
from harness.errors import DataError, FieldError
from harness.evaluate.provenance import check_images_match

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from harness.challenge.field import FloatArray
    from harness.challenge.model import Grid, Task, TruthPatterns
    from harness.challenge.pairs import Pair

Labels = NDArray[Any]

CROP = 2  # voxels of each side that the reference leaves out of the Jacobian
SLAB = 16  # planes of the Jacobian computed at once: 30 MB instead of 500


@dataclass(frozen=True, kw_only=True)
class PairAccuracy:
    """What a field is worth on one pair.

    ``value`` is the mean Dice over the labels, or the mean landmark error in millimetres;
    ``initial`` is the same of the zero field. Both are NaN if every label is absent.
    ``folded_percent`` is the share of voxels whose Jacobian determinant is not positive.
    """

    metric: Metric
    value: float
    initial: float
    folded_percent: float


def pair_accuracy(
    task: Task,
    truth_dir: Path,
    *,
    pair: Pair,
    field: FloatArray,
    data_dir: Path | None = None,
) -> PairAccuracy | None:
    """Accuracy of one field, (3, X, Y, Z) as stored; None if the pair has no truth.

    Landmark errors are in the moving image's millimetres: its spacing is read from ``data_dir`` or,
    without one, from the truth folder, where the fixed mask stands in for an absent moving image.
    Raises DataError naming the file for truth that is there in part or cannot be used.
    """

    def found(first: str | None, second: str | None) -> tuple[Path, Path] | None:
        if first is None or second is None:
            return None
        paths = [truth_dir / pair.fill(pattern) for pattern in (first, second)]
        missing = [path for path in paths if not path.is_file()]
        if len(missing) == 1:
            raise DataError(f"truth of pair {pair.key}: no file {missing[0]}")
        return None if missing else (paths[0], paths[1])

    if data_dir is not None:
        images = (data_dir / pair.fixed, data_dir / pair.moving)
        check_images_match(truth_dir / task.folder, images)
    truth: TruthPatterns = task.truth
    if paths := found(truth.fixed_labels, truth.moving_labels):
        fixed, moving = (_read_labels(path, task.image_grid) for path in paths)
        labels = truth.labels or tuple(int(n) for n in np.unique(fixed) if n != 0)
        vectors = upsample(field, task.image_grid)
        value = mean(dice(fixed, moving, warp_labels(moving, vectors), labels))
        initial = mean(dice(fixed, moving, moving, labels))
        metric = Metric.DICE
    elif paths := found(truth.fixed_landmarks, truth.moving_landmarks):
        start, end = (_read_landmarks(path) for path in paths)
        if len(start) != len(end):
            raise DataError(
                f"{paths[1]}: expected {len(start)} rows as in {paths[0]}, found {len(end)}"
            )
        files = [(data_dir or truth_dir) / pair.moving]
        if truth.fixed_mask is not None:
            files.append(truth_dir / pair.fill(truth.fixed_mask))
        spacing_mm = _read_spacing(files)
        vectors = upsample(field, task.image_grid)
        value = mean(landmark_errors(vectors, start, end, spacing_mm))
        initial = mean(landmark_errors(None, start, end, spacing_mm))
        metric = Metric.TRE
    else:
        return None
    return PairAccuracy(
        metric=metric, value=value, initial=initial, folded_percent=folded_percent(vectors)
    )


def upsample(field: FloatArray, image_grid: Grid) -> FloatArray:
    """The field (3, X, Y, Z) on the image grid as float32, by the rule of the 2021 edition.

    Values are voxels of the image grid already and are not rescaled.
    """
    if field.shape[1:] == tuple(image_grid):
        return field.astype(np.float32, copy=False)
    if field.shape[1:] != tuple(n / 2 for n in image_grid):
        raise FieldError(f"expected a field on {image_grid} or half of it, found {field.shape}")
    return np.stack([ndimage.zoom(c.astype(np.float32), 2, order=2) for c in field])


def warp_labels(moving: Labels, vectors: FloatArray) -> Labels:
    """Nearest moving label at p + d(p) for each fixed voxel p; 0 where that lies outside.

    Halves are rounded up, positions are float64, and NaN or infinite displacements give 0.
    """
    inside = np.ones(vectors.shape[1:], dtype=bool)
    nearest = []
    for axis, n in enumerate(moving.shape):
        index = np.arange(vectors.shape[1 + axis], dtype=np.float64)
        position = index.reshape([-1 if a == axis else 1 for a in range(3)]) + vectors[axis]
        valid = (position >= 0) & (position <= n - 1)
        nearest.append(np.floor(np.where(valid, position, 0) + 0.5).astype(np.intp))
        inside &= valid
    warped: Labels = np.where(inside, moving[tuple(nearest)], 0)
    return warped


def dice(fixed: Labels, moving: Labels, warped: Labels, labels: Sequence[int]) -> FloatArray:
    """Dice of the fixed and the warped map for each label, float64.

    NaN for a label that the fixed or the (unwarped) moving map lacks; 0 for one lost in warping.
    """
    scores = np.full(len(labels), np.nan)
    for n, label in enumerate(labels):
        in_fixed = fixed == label
        if not in_fixed.any() or not (moving == label).any():
            continue
        in_warped = warped == label
        overlap = np.count_nonzero(in_fixed & in_warped)
        scores[n] = 2 * overlap / (np.count_nonzero(in_fixed) + np.count_nonzero(in_warped))
    return scores


def landmark_errors(
    vectors: FloatArray | None,
    fixed_vox: FloatArray,
    moving_vox: FloatArray,
    spacing_mm: Sequence[float],
) -> FloatArray:
    """Distance in mm of each fixed landmark, moved by the field, to its moving landmark.

    Landmarks are (N, 3) voxel positions in the same order. The field is read by a cubic spline and
    is 0 outside the image; None is the zero field. N = 0 gives shape (0,).
    """
    moved = fixed_vox.astype(np.float64)
    if vectors is not None and len(moved):
        moved += np.stack(
            [ndimage.map_coordinates(c, fixed_vox.T, order=3) for c in vectors], axis=1
        )
    errors: FloatArray = np.linalg.norm((moved - moving_vox) * np.asarray(spacing_mm), axis=1)
    return errors


def folded_percent(vectors: FloatArray) -> float:
    """Share of voxels, in percent, where the field's Jacobian determinant is <= 0.

    Central differences, without the outer two voxels of each side; NaN if nothing is left.
    """
    folded = total = 0
    for first in range(CROP, vectors.shape[1] - CROP, SLAB):
        last = min(first + SLAB, vectors.shape[1] - CROP)
        det = _jacobian_determinant(vectors[:, first - 1 : last + 1, 1:-1, 1:-1])
        folded += int(np.count_nonzero(det <= 0))
        total += det.size
    return 100 * folded / total if total else float("nan")


def _jacobian_determinant(vectors: FloatArray) -> FloatArray:
    """det(I + grad d) of the inner voxels: each side loses one."""
    inner = slice(1, -1)
    rows = []
    for axis in range(3):
        ahead, behind = ([inner, inner, inner] for _ in range(2))
        ahead[axis], behind[axis] = slice(2, None), slice(None, -2)
        rows.append((vectors[:, *ahead] - vectors[:, *behind]) / 2)
        rows[axis][axis] += 1
    (a, b, c), (d, e, f), (g, h, i) = rows
    det: FloatArray = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
    return det


def mean(values: FloatArray) -> float:
    """Mean of what is not NaN; NaN if nothing is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _read_labels(path: Path, image_grid: Grid) -> Labels:
    try:
        labels = np.asarray(nib.nifti1.Nifti1Image.from_filename(path).dataobj)
    except (OSError, EOFError, ValueError, zlib.error, ImageFileError) as error:
        raise DataError(f"{path}: not a readable label map: {error}") from error
    if labels.shape != tuple(image_grid):
        raise DataError(f"{path}: expected a label map of shape {image_grid}, found {labels.shape}")
    return labels


def _read_landmarks(path: Path) -> FloatArray:
    try:
        rows = [line.split(",") for line in path.read_text("utf-8").splitlines() if line.strip()]
        points = np.array(rows, dtype=np.float64).reshape(len(rows), 3)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: expected rows of three numbers x,y,z and no header: {error}"
        ) from error
    if not len(points) or not np.isfinite(points).all():
        raise DataError(f"{path}: expected at least one landmark, all finite")
    return points


def _read_spacing(candidates: Sequence[Path]) -> tuple[float, float, float]:
    for path in candidates:
        if not path.is_file():
            continue
        try:
            x, y, z = read_header(path).spacing_mm
        except ValueError as error:  # a NiftiError, or an image that is not 3D
            raise DataError(f"{path}: expected a 3D image: {error}") from error
        return x, y, z
    names = " or ".join(map(str, candidates))
    raise DataError(f"landmark errors need the moving image's spacing: no file {names}")
