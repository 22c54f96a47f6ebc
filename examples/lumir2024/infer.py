"""A submission as LUMIR's template has it: a loader with two workers, a model, a field a pair.

The model is the zero field. LUMIR_dataset.json, input/ and output/ lie in the working folder.
"""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
from loader import make_loader


class Pairs:
    """What a loader's workers read: moving and fixed image of a pair, (1, X, Y, Z) in 0..1."""

    def __init__(self, folder: Path, rows: list[dict[str, str]]) -> None:
        self.folder = folder
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        moving, fixed = (self._read(self.rows[index][role]) for role in ("moving", "fixed"))
        return moving, fixed

    def _read(self, name: str) -> np.ndarray:
        values = np.asarray(nib.load(self.folder / name).dataobj, dtype=np.float32)
        return np.ascontiguousarray(values[None] / 255)


def model(moving: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """(3, X, Y, Z) displacements in voxels, as a network gives them."""
    if moving.shape != fixed.shape:
        raise SystemExit(f"expected images of one shape, found {moving.shape} and {fixed.shape}")
    return np.zeros((3, *fixed.shape[-3:]), np.float32)


def main() -> None:
    pairs = Pairs(Path("input"), json.loads(Path("LUMIR_dataset.json").read_text())["validation"])
    kind, loader = make_loader(pairs, num_workers=2)
    print("loader:", kind, flush=True)
    for row, (moving, fixed) in zip(pairs.rows, loader, strict=True):
        flow = model(np.asarray(moving), np.asarray(fixed))
        fixed_id, moving_id = (row[role].split("_")[-2] for role in ("fixed", "moving"))
        path = Path("output") / f"disp_{fixed_id}_{moving_id}.nii.gz"
        nib.save(nib.Nifti1Image(flow, np.eye(4)), path)
        print(path.name, flush=True)


if __name__ == "__main__":
    main()
