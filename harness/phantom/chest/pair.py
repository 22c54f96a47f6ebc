"""The exhale (fixed) and inhale (moving) images of one chest, and their truth: task_02 of 2021."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from harness.phantom.chest.anatomy import HOUNSFIELD, SHAPE, SPACING_MM, Chest, Tissue, paint_chest
from harness.phantom.files import write_field, write_landmarks, write_volume
from harness.phantom.splines import (
    Deformation,
    control_noise,
    control_positions,
    smooth_noise,
    warp,
    warp_labels,
)

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from harness.phantom.shapes import Float32

KNOT_STEP_VOX = 8
NOISE_HU = 20.0
PADDING_HU = -1024  # what lies outside the scanner's field of view
LANDMARK_COUNT = 100
LANDMARK_GAP_VOX = 9.0  # landmarks keep this distance where the vessels allow it


@dataclass(frozen=True, kw_only=True)
class LungPair:
    """Both images of one chest as scanned (int16 Hounsfield units), lung masks (uint8), and truth.

    Landmarks are (N, 3) voxel coordinates in the same order; `deformation` leads from exhale voxels
    to inhale voxels.
    """

    exhale: npt.NDArray[np.int16]
    inhale: npt.NDArray[np.int16]
    exhale_mask: npt.NDArray[np.uint8]
    inhale_mask: npt.NDArray[np.uint8]
    exhale_landmarks_vox: npt.NDArray[np.float64]
    inhale_landmarks_vox: npt.NDArray[np.float64]
    deformation: Deformation


def paint_lung_pair(rng: np.random.Generator) -> LungPair:
    """One case: inhale as painted, exhale pulled back from it by the true field."""
    chest = paint_chest(rng)
    deformation = breathing(rng)
    coordinates = deformation.coordinates()
    inhale = clean_image(rng, chest)
    exhale = warp(inhale, coordinates, fill=float(PADDING_HU))
    inhale_mask = chest.lungs.astype(np.uint8)
    exhale_mask = warp_labels(inhale_mask, coordinates)
    exhale = compress_air(exhale, volume_ratio(deformation), exhale_mask > 0)

    first, last = int(rng.integers(36, 50)), SHAPE[2] - int(rng.integers(24, 34))
    exhale_mask[:, :, :first] = exhale_mask[:, :, last:] = 0
    image = noisy(rng, exhale)
    image[:, :, :first] = image[:, :, last:] = PADDING_HU
    on_vessel = warp(chest.vessel, coordinates, fill=0.0) * exhale_mask
    fixed_vox = pick_landmarks(rng, on_vessel)
    return LungPair(
        exhale=image,
        inhale=noisy(rng, inhale),
        exhale_mask=exhale_mask,
        inhale_mask=inhale_mask,
        exhale_landmarks_vox=fixed_vox,
        inhale_landmarks_vox=fixed_vox + deformation.at(fixed_vox),
        deformation=deformation,
    )


def write_lung_pair(case: int, rng: np.random.Generator, data: Path, truth: Path) -> None:
    """Write one case under the names of task_02 of 2021."""
    pair = paint_lung_pair(rng)
    name = f"{case:03d}"
    write_field(truth / f"disp_{case:04d}_{case:04d}.npz", pair.deformation.half())
    write_landmarks(truth / f"landmarks_{name}_exp.csv", pair.exhale_landmarks_vox)
    write_landmarks(truth / f"landmarks_{name}_insp.csv", pair.inhale_landmarks_vox)
    write_volume(data / f"case_{name}_exp.nii.gz", pair.exhale, SPACING_MM)
    write_volume(data / f"case_{name}_insp.nii.gz", pair.inhale, SPACING_MM)
    for folder in (data, truth):
        write_volume(folder / f"mask_{name}_exp.nii.gz", pair.exhale_mask, SPACING_MM)
        write_volume(folder / f"mask_{name}_insp.nii.gz", pair.inhale_mask, SPACING_MM)


def breathing(rng: np.random.Generator) -> Deformation:
    """From exhale voxels to inhale voxels: down by the diaphragm's way, the ribs a little out."""
    x, y, z = control_positions(SHAPE, KNOT_STEP_VOX)
    centre = [0.5 * (n - 1) for n in SHAPE]
    stroke = rng.uniform(19.5, 22.5)
    apex, dome, floor = 192.0, 82.0, 0.0
    above = (0.5 - 0.5 * np.cos(np.pi * np.clip((apex - z) / (apex - dome), 0.0, 1.0))) ** 2
    beneath = 0.45 + 0.55 * (
        0.5 - 0.5 * np.cos(np.pi * np.clip((z - floor) / (dome - floor), 0, 1))
    )
    sides = np.exp(-(((x - centre[0]) / 84.0) ** 6) - ((y - centre[1] - 4.0) / 84.0) ** 6)
    spine = 1.0 - 0.5 * np.exp(
        -(((x - centre[0]) / 20.0) ** 2) - ((y - centre[1] + 50.0) / 26.0) ** 2
    )
    loose = [control_noise(rng, SHAPE, KNOT_STEP_VOX, 22.0) for _ in range(3)]
    tight = [control_noise(rng, SHAPE, KNOT_STEP_VOX, 12.0) for _ in range(3)]
    u = [1.0 * s + 0.4 * t for s, t in zip(loose, tight, strict=True)]
    chest = np.exp(-(((z - 90.0) / 70.0) ** 2))
    u[0] = u[0] + 0.035 * (x - centre[0]) * chest * sides
    u[1] = u[1] + 0.055 * (y - centre[1] + 60.0) * chest * sides
    u[2] = u[2] - stroke * np.where(z > dome, above, beneath) * sides * spine
    return Deformation(shape=SHAPE, step=KNOT_STEP_VOX, coefficients=np.stack(u).astype(np.float32))


def clean_image(rng: np.random.Generator, chest: Chest) -> Float32:
    """The inhale CT without noise, Hounsfield units; (X, Y, Z)."""
    tissue = chest.canvas.tissue
    means = np.array([HOUNSFIELD[t] for t in Tissue], dtype=np.float32)
    image = means[tissue]
    fine, broad = smooth_noise(rng, SHAPE, 2.0), smooth_noise(rng, SHAPE, 24.0)
    lung = np.isin(tissue, (Tissue.LUNG, Tissue.FISSURE))
    image += np.where(lung, 26.0 * fine + 14.0 * broad, np.where(tissue > 0, 9.0 * fine, 0.0))
    image += chest.vessel * (np.float32(HOUNSFIELD[Tissue.BLOOD]) - image)
    return np.asarray(ndimage.gaussian_filter(image, 0.5), dtype=np.float32)


def volume_ratio(deformation: Deformation) -> Float32:
    """det J of p + u(p) at every voxel, from a grid four times coarser; (X, Y, Z)."""
    axes = [np.linspace(0.0, n - 1.0, n // 4) for n in deformation.shape]
    u = deformation.on_axes(axes)
    rows = [np.gradient(component, *axes) for component in u]
    jacobian = np.moveaxis(np.array(rows), (0, 1), (-2, -1)) + np.eye(3)
    ratio = np.linalg.det(jacobian).astype(np.float32)
    return np.asarray(ndimage.zoom(ratio, 4, order=1), dtype=np.float32)


def compress_air(image: Float32, ratio: Float32, lungs: npt.NDArray[np.bool_]) -> Float32:
    """Exhaled lung is denser: its mass is kept while its volume shrinks by `ratio`."""
    airy = np.clip((-550.0 - image) / 150.0, 0.0, 1.0) * ndimage.gaussian_filter(
        lungs.astype(np.float32), 0.7
    )
    tracheal = image < -960.0
    gain = np.where(tracheal, 0.0, airy * (1.15 * ratio - 1.0))
    return np.asarray(image + (image + 1000.0) * gain, dtype=np.float32)


def noisy(rng: np.random.Generator, image: Float32) -> npt.NDArray[np.int16]:
    """The image as a scanner stores it: noise inside the body, whole Hounsfield units."""
    noise = NOISE_HU * rng.standard_normal(SHAPE, dtype=np.float32)
    body = image > -998.0
    return np.clip(np.rint(np.where(body, image + noise, image)), -1024, 3000).astype(np.int16)


def pick_landmarks(rng: np.random.Generator, on_vessel: Float32) -> npt.NDArray[np.float64]:
    """100 voxels on vessels, (100, 3) voxel coordinates, spread over both lungs."""
    candidates = np.argwhere(on_vessel > 0.7).astype(np.float64)
    candidates = candidates[rng.permutation(len(candidates))][:20000]
    chosen: list[npt.NDArray[np.float64]] = []
    gap = LANDMARK_GAP_VOX
    while len(chosen) < LANDMARK_COUNT:
        for point in candidates:
            if all(np.linalg.norm(point - other) >= gap for other in chosen):
                chosen.append(point)
                if len(chosen) == LANDMARK_COUNT:
                    break
        gap *= 0.7
    return np.array(chosen)
