"""The later editions on a grid small enough for a test: their YAML files with other numbers."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING

from harness.challenge.model import Challenge, challenge_text, parse_challenge
from tests.tiny import GRID, write_image

if TYPE_CHECKING:
    from pathlib import Path

_GRIDS = {"learn2reg2022": "224, 192, 224", "lumir2024": "160, 224, 192"}
NAMES = tuple(_GRIDS)


def tiny_text(name: str, *changes: tuple[str, str]) -> str:
    """The built-in YAML file on the tiny grid, with further texts replaced."""
    text = challenge_text(name)
    numbers = ", ".join(map(str, GRID))
    for old, new in ((_GRIDS[name], numbers), *changes):
        assert old in text
        text = text.replace(old, new)
    return text


def tiny_edition(name: str, *changes: tuple[str, str]) -> Challenge:
    return parse_challenge(tiny_text(name, *changes), origin=name)


def write_edition(data_dir: Path, name: str, *, pairs: int = 2) -> Path:
    """Data in the edition's layout; LUMIR's pairs are a chain."""
    if name == "learn2reg2022":
        rows = [
            (f"imagesTr/NLST_{n:04d}_0000.nii.gz", f"imagesTr/NLST_{n:04d}_0001.nii.gz")
            for n in range(111, 111 + pairs)
        ]
        lists, path = ("registration_test",), data_dir / "NLST_dataset.json"
    else:
        names = [f"imagesVal/LUMIRMRI_{n:04d}_0000.nii.gz" for n in range(3454, 3455 + pairs)]
        rows = list(pairwise(names))
        lists, path = ("validation",), data_dir / "LUMIR_dataset.json"
    for seed, image in enumerate(sorted({image for row in rows for image in row})):
        write_image(data_dir / image, seed=seed)
    listed = [{"fixed": f"./{fixed}", "moving": f"./{moving}"} for fixed, moving in rows]
    content = {"tensorImageShape": {"0": GRID}, "numRegistration_test": len(rows)}
    path.write_text(json.dumps(content | dict.fromkeys(lists, listed)))
    return data_dir
