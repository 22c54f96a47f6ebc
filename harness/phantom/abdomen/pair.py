"""task_01: the MR (fixed) and CT (moving) images of one abdomen, and their truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from harness.phantom.abdomen.tissue import CONTRASTS, SHAPE, SPACING_MM, Tissue, label_map
from harness.phantom.abdomen.trunk import paint_abdomen
from harness.phantom.files import write_field, write_volume
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

    from harness.phantom.shapes import Canvas, Float32

KNOT_STEP_VOX = 8
CT_NOISE_HU = 14.0
MR_NOISE = 22.0


def write_abdomen_pair(case: int, rng: np.random.Generator, data: Path, truth: Path) -> None:
    """Write one case: CT as painted, MR pulled back from the same anatomy by the true field."""
    canvas = paint_abdomen(rng)
    deformation = breathing(rng)
    coordinates = deformation.coordinates()
    mottle = smooth_noise(rng, SHAPE, 2.0)

    body = canvas.tissue != Tissue.AIR
    labels = label_map(canvas.tissue)
    write_volume(truth / f"seg{case:04d}_tcia_CT.nii.gz", labels, SPACING_MM)
    write_volume(data / f"img{case:04d}_tcia_CT.nii.gz", ct_image(rng, canvas, mottle), SPACING_MM)
    write_volume(data / f"mask{case:04d}_tcia_CT.nii.gz", body.astype(np.uint8), SPACING_MM)

    first, last = int(rng.integers(9, 14)), SHAPE[2] - int(rng.integers(9, 14))
    seen = np.zeros(SHAPE, dtype=np.uint8)
    seen[:, :, first:last] = 1
    fixed_labels = warp_labels(labels, coordinates) * seen
    fixed_body = warp_labels(body.astype(np.uint8), coordinates) * seen
    image = mr_image(rng, canvas, mottle, coordinates) * seen
    write_volume(truth / f"seg{case:04d}_tcia_MR.nii.gz", fixed_labels, SPACING_MM)
    write_volume(data / f"img{case:04d}_tcia_MR.nii.gz", image.astype(np.int16), SPACING_MM)
    write_volume(data / f"mask{case:04d}_tcia_MR.nii.gz", fixed_body, SPACING_MM)
    write_field(truth / f"disp_{case:04d}_{case:04d}.npz", deformation.half())


def breathing(rng: np.random.Generator) -> Deformation:
    """Organs pushed along z by another state of breathing, plus posture and gut everywhere."""
    x, y, z = control_positions(SHAPE, KNOT_STEP_VOX)
    centre = [0.5 * (n - 1) for n in SHAPE]
    push = rng.choice([-1.0, 1.0]) * rng.uniform(7.0, 10.0)
    column = np.exp(-(((z - centre[2] - 20.0) / 52.0) ** 2))
    inside = np.exp(-(((x - centre[0]) / 66.0) ** 4) - ((y - centre[1] - 6.0) / 48.0) ** 4)
    loose = [control_noise(rng, SHAPE, KNOT_STEP_VOX, 30.0) for _ in range(3)]
    tight = [control_noise(rng, SHAPE, KNOT_STEP_VOX, 14.0) for _ in range(3)]
    scales = ((3.0, 1.5), (2.6, 1.4), (2.6, 1.5))
    u = [a * s + b * t for (a, b), s, t in zip(scales, loose, tight, strict=True)]
    u[2] = u[2] + push * column * inside
    u[1] = u[1] - 0.25 * push * column * inside
    return Deformation(shape=SHAPE, step=KNOT_STEP_VOX, coefficients=np.stack(u).astype(np.float32))


def ct_image(rng: np.random.Generator, canvas: Canvas, mottle: Float32) -> npt.NDArray[np.int16]:
    """CT in Hounsfield units with the scanner's couch under the patient; int16 (X, Y, Z)."""
    means = np.array([CONTRASTS[t].ct_hu for t in Tissue], dtype=np.float32)
    grain = np.array([CONTRASTS[t].mottle for t in Tissue], dtype=np.float32)
    image = means[canvas.tissue] + 22.0 * grain[canvas.tissue] * mottle
    x, y, _ = np.meshgrid(
        *[s * (np.arange(n) - 0.5 * (n - 1)) for n, s in zip(SHAPE, SPACING_MM, strict=True)],
        indexing="ij",
        sparse=True,
    )
    bend = np.abs(y + 142.0 - 0.0011 * x**2)
    couch = (np.abs(x) < 170.0) & (bend < 7.0)
    image[couch[..., 0]] = np.where(bend < 4.0, -820.0, -40.0)[couch][:, None]
    image = ndimage.gaussian_filter(image, 0.55)
    noise = rng.standard_normal(SHAPE, dtype=np.float32)
    image += CT_NOISE_HU * np.where(image > -980.0, noise, 0.0)
    return np.clip(np.rint(image), -1024, 3000).astype(np.int16)


def mr_image(
    rng: np.random.Generator, canvas: Canvas, mottle: Float32, coordinates: Float32
) -> npt.NDArray[np.int16]:
    """MR at the given (3, X, Y, Z) coordinates, with coil shading and Rician noise; int16."""
    means = np.array([CONTRASTS[t].mr for t in Tissue], dtype=np.float32)
    grain = np.array([CONTRASTS[t].mottle for t in Tissue], dtype=np.float32)
    texture = mottle * 0.5 + smooth_noise(rng, SHAPE, 3.0)
    clean = means[canvas.tissue] * (1.0 + np.float32(0.09) * grain[canvas.tissue] * texture)
    sharp = np.asarray(ndimage.gaussian_filter(clean, 0.5), dtype=np.float32)
    image = warp(sharp, coordinates, fill=0.0)
    image *= np.exp(0.22 * smooth_noise(rng, SHAPE, 60.0))
    first = image + MR_NOISE * rng.standard_normal(SHAPE, dtype=np.float32)
    second = MR_NOISE * rng.standard_normal(SHAPE, dtype=np.float32)
    return np.asarray(np.rint(np.hypot(first, second)), dtype=np.int16)
