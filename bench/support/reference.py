"""The metrics in the straightforward way: SciPy's filters, splines and distance transforms, and the
``surface-distance`` package, one label after another, as the public evaluation computes them.

What the harness's own metrics are compared with, in speed (``bench/evaluate.py``) and in numbers
(``tests/unit/test_metrics_agreement.py``). Fields are (X, Y, Z, 3): float32 from .npz files,
float64 from NIfTI files.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Array = NDArray[Any]

with warnings.catch_warnings():  # it names SciPy's functions where they used to be
    warnings.simplefilter("ignore", DeprecationWarning)
    import surface_distance


def load_map(path: Path) -> Array:
    loaded: Array = nib.nifti1.Nifti1Image.from_filename(path).get_fdata()
    return loaded


def load_field(path: Path) -> Array:
    """A field file (X, Y, Z, 3), or a half-resolution one (3, X/2, Y/2, Z/2) brought to that."""
    if path.suffix != ".npz":
        return load_map(path)
    with np.load(path) as arrays:
        array: Array = arrays[arrays.files[0]].astype(np.float32)
    if array.shape[0] == 3:
        return np.stack([ndimage.zoom(component, 2, order=2) for component in array], axis=3)
    return array


def warp(moving: Array, field: Array) -> Array:
    shape = field.shape[:3]
    grid = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    warped: Array = ndimage.map_coordinates(moving, grid + np.moveaxis(field, 3, 0), order=0)
    return warped


def dice(fixed: Array, moving: Array, warped: Array, labels: Sequence[int]) -> Array:
    scores = np.full(len(labels), np.nan)
    for n, label in enumerate(labels):
        if (fixed == label).any() and (moving == label).any():
            first, second = fixed == label, warped == label
            scores[n] = 2 * (first & second).sum() / (first.sum() + second.sum())
    return scores


def hd95(
    fixed: Array,
    moving: Array,
    warped: Array,
    labels: Sequence[int],
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
) -> Array:
    scores = np.full(len(labels), np.nan)
    for n, label in enumerate(labels):
        if (fixed == label).any() and (moving == label).any():
            distances = surface_distances(fixed == label, warped == label, spacing)
            scores[n] = (
                surface_distance.compute_robust_hausdorff(distances, 95.0)
                if len(distances["distances_pred_to_gt"])
                else np.inf
            )
    return scores


def surface_distances(first: Array, second: Array, spacing: Sequence[float]) -> dict[str, Array]:
    """The package's lists; empty if the second mask is, where its version for NumPy 1 fails."""
    if not second.any():
        return {"distances_pred_to_gt": np.empty(0)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        found: dict[str, Array] = surface_distance.compute_surface_distances(
            first, second, list(spacing)
        )
    return found


def determinant(field: Array) -> Array:
    """det(I + grad d) without two voxels at each side."""
    gradient = np.zeros((3, 3, *field.shape[:3]), field.dtype)
    for axis in range(3):
        kernel = np.array([-0.5, 0, 0.5]).reshape([3 if a == axis else 1 for a in range(3)])
        for component in range(3):
            gradient[axis, component] = ndimage.correlate(
                field[..., component], kernel, mode="constant", cval=0.0
            )
    jacobian = gradient + np.eye(3).reshape(3, 3, 1, 1, 1)
    j = jacobian[:, :, 2:-2, 2:-2, 2:-2]
    return np.asarray(
        j[0, 0] * (j[1, 1] * j[2, 2] - j[1, 2] * j[2, 1])
        - j[1, 0] * (j[0, 1] * j[2, 2] - j[0, 2] * j[2, 1])
        + j[2, 0] * (j[0, 1] * j[1, 2] - j[0, 2] * j[1, 1])
    )


def sdlogj(field: Array, mask: Array | None = None) -> float:
    logarithm = np.log((determinant(field) + 3).clip(1e-9, 1e9))
    if mask is None:
        return float(logarithm.std())
    return float(np.ma.MaskedArray(logarithm, 1 - mask[2:-2, 2:-2, 2:-2]).std())


def landmark_errors(
    fixed_vox: Array, moving_vox: Array, field: Array, spacing_mm: Sequence[float]
) -> Array:
    moved = [ndimage.map_coordinates(field[..., c], fixed_vox.T) for c in range(3)]
    errors: Array = np.linalg.norm(
        (fixed_vox + np.stack(moved, axis=1) - moving_vox) * spacing_mm, axis=1
    )
    return errors
