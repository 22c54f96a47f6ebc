"""LUMIR of 2024: the chain of brains of task_03 with its last two axes swapped, which is LUMIR's
grid, under the names of a Learn2Reg data set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from harness.phantom.brain.anatomy import SPACING_MM
from harness.phantom.brain.chain import anatomy, paint_subject
from harness.phantom.files import write_dataset, write_full_field, write_volume
from harness.phantom.splines import compose_with_inverse_dense

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import numpy.typing as npt

GRID = (160, 224, 192)
LIST = "LUMIR_dataset.json"
DATA_NAMES = (LIST, "imagesVal")
TRUTH_NAMES = ("labelsVal", "fieldsVal")
FIRST_CASE = 3454
ORDER = [0, 2, 1]  # our x, z, y are LUMIR's axes
INTENSITY_STEP = 5.0  # LUMIR's images have values of 0 to 255


def write_lumir_subject(case: int, seed: int, *, has_next: bool, data: Path, truth: Path) -> None:
    """Write one subject and, where the chain goes on, the field to the next subject."""
    subject = paint_subject(case, seed)
    name = _name(case)
    image = np.clip(np.rint(subject.image / INTENSITY_STEP), 0, 255).astype(np.uint8)
    write_volume(data / "imagesVal" / name, _turned(image), SPACING_MM)
    write_volume(truth / "labelsVal" / name, _turned(subject.labels), SPACING_MM)
    if has_next:
        field = compose_with_inverse_dense(subject.deformation, anatomy(case + 1, seed))
        turned = np.stack([_turned(field[axis]) for axis in ORDER])
        write_full_field(truth / "fieldsVal" / f"disp_{case:04d}_{case + 1:04d}.nii.gz", turned)


def write_lumir_list(data: Path, pairs: Iterable[tuple[int, int]]) -> None:
    write_dataset(
        data / LIST,
        name="LUMIR",
        modality={"0": "MRI"},
        grid=GRID,
        pairs=[
            (
                f"./imagesVal/LUMIRMRI_{f:04d}_0000.nii.gz",
                f"./imagesVal/LUMIRMRI_{m:04d}_0000.nii.gz",
            )
            for f, m in pairs
        ],
        lists=("validation",),
    )


def _name(case: int) -> str:
    return f"LUMIRMRI_{case:04d}_0000.nii.gz"


def _turned(volume: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return volume.transpose(ORDER)
