"""NLST of 2022: the chests of task_02 on a larger grid, under the names of a Learn2Reg data set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from harness.phantom.chest.anatomy import SHAPE, SPACING_MM
from harness.phantom.chest.pair import PADDING_HU, paint_lung_pair
from harness.phantom.files import write_dataset, write_full_field, write_landmarks, write_volume

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import numpy.typing as npt

GRID = (224, 192, 224)
LIST = "NLST_dataset.json"
DATA_NAMES = (LIST, "imagesTr", "masksTr")
TRUTH_NAMES = ("keypointsTr", "masksTr", "fieldsTr")
FIRST_CASE = 111  # of the challenge's own test pairs
FIXED, MOVING = "0000", "0001"
BEFORE = tuple((n - m) // 2 for n, m in zip(GRID, SHAPE, strict=True))  # voxels added in front
AROUND = tuple((b, n - m - b) for b, n, m in zip(BEFORE, GRID, SHAPE, strict=True))


def write_nlst_pair(case: int, rng: np.random.Generator, data: Path, truth: Path) -> None:
    """Write one case: exhale (fixed) is modality 0, inhale (moving) modality 1.

    What the larger grid adds is air, where the true field goes on as at the border of the image.
    """
    pair = paint_lung_pair(rng)
    for state, image, mask, landmarks_vox in (
        (FIXED, pair.exhale, pair.exhale_mask, pair.exhale_landmarks_vox),
        (MOVING, pair.inhale, pair.inhale_mask, pair.inhale_landmarks_vox),
    ):
        name = f"NLST_{case:04d}_{state}"
        write_volume(data / "imagesTr" / f"{name}.nii.gz", _pad(image, PADDING_HU), SPACING_MM)
        for folder in (data, truth):
            write_volume(folder / "masksTr" / f"{name}.nii.gz", _pad(mask, 0), SPACING_MM)
        write_landmarks(truth / "keypointsTr" / f"{name}.csv", landmarks_vox + np.array(BEFORE))
    field = np.pad(pair.deformation.dense(), ((0, 0), *AROUND), mode="edge")
    write_full_field(truth / "fieldsTr" / f"disp_{case:04d}_{case:04d}.nii.gz", field)


def write_nlst_list(data: Path, pairs: Iterable[tuple[int, int]]) -> None:
    """Write the pairs as both lists, so that whichever a submission reads is there."""
    write_dataset(
        data / LIST,
        name="NLST",
        modality={"0": "CT", "1": "CT"},
        grid=GRID,
        pairs=[
            (f"./imagesTr/NLST_{f:04d}_{FIXED}.nii.gz", f"./imagesTr/NLST_{m:04d}_{MOVING}.nii.gz")
            for f, m in pairs
        ],
        lists=("registration_val", "registration_test"),
    )


def _pad(volume: npt.NDArray[Any], fill: int) -> npt.NDArray[Any]:
    return np.pad(volume, AROUND, constant_values=fill)
