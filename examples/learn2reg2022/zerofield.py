"""A submission as the 2022 edition's example has it: the zero field of every pair.

The data set's JSON file is the only argument; data/ and output/ lie in the working folder.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import nibabel as nib
import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path, help="NLST_dataset.json")
    parser.add_argument("--long", action="store_true", help="names with the modalities")
    arguments = parser.parse_args()
    dataset = json.loads(arguments.dataset.read_text())
    shape = dataset["tensorImageShape"]["0"]
    for number in range(dataset["numRegistration_test"]):
        pair = dataset["registration_test"][number]
        fixed, moving = (nib.load(Path("data") / pair[role]) for role in ("fixed", "moving"))
        if list(fixed.shape) != shape or list(moving.shape) != shape:
            raise SystemExit(f"pair {number}: {fixed.shape} and {moving.shape}, expected {shape}")
        displacement = np.zeros((*shape, 3))  # float64, components last
        name = f"disp_{words(pair['fixed'], arguments)}_{words(pair['moving'], arguments)}.nii.gz"
        nib.save(nib.Nifti1Image(displacement, np.eye(4)), Path("output") / name)
        print(name, flush=True)


def words(image: str, arguments: argparse.Namespace) -> str:
    """0111 of ./imagesTr/NLST_0111_0000.nii.gz, or 0111_0000."""
    _, case, modality = Path(image).name.removesuffix(".nii.gz").split("_")
    return f"{case}_{modality}" if arguments.long else case


if __name__ == "__main__":
    main()
