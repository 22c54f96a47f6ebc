"""A chain of subjects of one brain; neighbours in the chain are a pair: task_03 of 2021."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from harness.phantom.brain.anatomy import SHAPE, SPACING_MM, Brain, paint_brain
from harness.phantom.files import write_field, write_volume
from harness.phantom.splines import (
    Deformation,
    compose_with_inverse,
    control_noise,
    smooth_noise,
    warp,
    warp_labels,
)

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from harness.phantom.shapes import Float32

TASK_NUMBER = 3
KNOT_STEP_VOX = 8
NOISE = 24.0


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One brain as scanned (int16), its label map and mask (uint8), and what makes it its own."""

    image: npt.NDArray[np.int16]
    labels: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8]
    deformation: Deformation


def paint_subject(case: int, seed: int) -> Subject:
    """One subject: the template brain pulled back by the subject's deformation, and scanned."""
    template = _template(seed)
    deformation = anatomy(case, seed)
    coordinates = deformation.coordinates()
    labels = warp_labels(template.labels, coordinates)
    mask = warp_labels(template.mask, coordinates)
    rng = np.random.default_rng([seed, TASK_NUMBER, case, 1])
    image = scan(rng, warp(template.image, coordinates, fill=0.0), mask)
    return Subject(image=image, labels=labels, mask=mask, deformation=deformation)


def write_subject(case: int, seed: int, *, has_next: bool, data: Path, truth: Path) -> None:
    """Write one subject under the names of task_03 of 2021, and where the chain goes on the field
    to the next subject."""
    subject = paint_subject(case, seed)
    write_volume(truth / f"seg{case:04d}.nii.gz", subject.labels, SPACING_MM)
    write_volume(data / f"img{case:04d}.nii.gz", subject.image, SPACING_MM)
    write_volume(data / f"mask{case:04d}.nii.gz", subject.mask, SPACING_MM)
    if has_next:
        field = compose_with_inverse(subject.deformation, anatomy(case + 1, seed))
        write_field(truth / f"disp_{case:04d}_{case + 1:04d}.npz", field)


@lru_cache(maxsize=1)
def _template(seed: int) -> Brain:
    return paint_brain(np.random.default_rng([seed, TASK_NUMBER]))


def anatomy(case: int, seed: int) -> Deformation:
    """From a subject's voxels to the template's: what makes this brain this subject's own."""
    rng = np.random.default_rng([seed, TASK_NUMBER, case, 0])
    loose = [control_noise(rng, SHAPE, KNOT_STEP_VOX, 22.0) for _ in range(3)]
    tight = [control_noise(rng, SHAPE, KNOT_STEP_VOX, 10.0) for _ in range(3)]
    u = [1.7 * s + 0.8 * t for s, t in zip(loose, tight, strict=True)]
    return Deformation(shape=SHAPE, step=KNOT_STEP_VOX, coefficients=np.stack(u).astype(np.float32))


def scan(
    rng: np.random.Generator, clean: Float32, mask: npt.NDArray[np.uint8]
) -> npt.NDArray[np.int16]:
    """A skull-stripped T1 image: own gain, coil shading and noise; int16 (X, Y, Z)."""
    gain = rng.uniform(0.9, 1.1) * np.exp(0.08 * smooth_noise(rng, SHAPE, 60.0))
    image = clean * gain + NOISE * rng.standard_normal(SHAPE, dtype=np.float32)
    return np.clip(np.rint(np.where(mask > 0, image, 0.0)), 0, 4000).astype(np.int16)
