"""Truth and fields small enough for a test, as a public evaluation configuration names them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

GRID = (16, 12, 20)


def write_labels(path: Path, *, shift: int = 0, grid: tuple[int, ...] = GRID) -> None:
    """Two boxes, 1 and 2, ``shift`` voxels along x."""
    labels = np.zeros(grid, np.uint8)
    labels[3 + shift : 9 + shift, 2:8, 4:10] = 1
    labels[4 + shift : 8 + shift, 3:9, 12:17] = 2
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.nifti1.Nifti1Image(labels, np.eye(4)).to_filename(path)


def write_truth(folder: Path, ids: tuple[int, ...] = (1, 2), *, tre: bool = False) -> None:
    """Each moving label map is the fixed one, two voxels further along x; so are the landmarks."""
    for case in ids:
        for modality, shift in ((0, 0), (1, 2)):
            name = f"X_{case:04d}_{modality:04d}"
            write_labels(folder / f"labelsTs/{name}.nii.gz", shift=shift)
            if tre:
                (folder / "landmarksTs").mkdir(exist_ok=True)
                rows = f"{4 + shift},5,6\n{8 + shift},5,9.5\n"
                (folder / f"landmarksTs/{name}.csv").write_text(rows)
                image = nib.nifti1.Nifti1Image(np.zeros(GRID, np.uint8), np.diag([1.5, 1, 2, 1]))
                (folder / "imagesTs").mkdir(exist_ok=True)
                image.to_filename(folder / f"imagesTs/{name}.nii.gz")


def config(
    ids: tuple[int, ...] = (1, 2),
    *,
    tre: bool = False,
    changes: dict[str, Any] | None = None,
) -> dict[str, Any]:
    methods: list[dict[str, Any]] = [
        {"name": "LogJacDetStd", "metric": "sdlogj"},
        {"name": "DSC", "metric": "dice", "labels": [1, 2]},
        {"name": "HD95", "metric": "hd95", "labels": [1, 2]},
    ]
    if tre:
        methods.append({"name": "TRE_lm", "metric": "tre", "dest": "landmarks"})
    content = {
        "task_name": "Tiny",
        "evaluation_methods": methods,
        "expected_shape": [*GRID, 3],
        "eval_pairs": [
            {
                "fixed": f"./imagesTs/X_{case:04d}_0000.nii.gz",
                "moving": f"./imagesTs/X_{case:04d}_0001.nii.gz",
            }
            for case in ids
        ],
        "eval_config_version": 0.2,
        "masked_evaluation": False,
    }
    return content | (changes or {})


def write_config(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def write_field(path: Path, displacement: tuple[float, float, float] = (2, 0, 0)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, np.broadcast_to(np.array(displacement, np.float16), (*GRID, 3)))
