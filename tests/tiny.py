"""A challenge small enough for a test: two tasks on a 16 x 12 x 20 grid, with real image files."""

from __future__ import annotations

import os
from textwrap import indent
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np

from harness.challenge.model import Challenge, parse_challenge

if TYPE_CHECKING:
    from pathlib import Path

GRID = (16, 12, 20)
HALF = (8, 6, 10)

YAML = """
schema_version: 1
name: tiny
title: Tiny challenge
container:
  mounts:
    - {source: data, target: /l2r/test}
    - {source: output, target: /l2r/submission}
limits:
  memory: 2GiB
  shared_memory: 64MiB
  processes: 256
  setup_time: 60s
  pair_time: 10s
  output_size: 64MiB
  log_size: 64KiB
tasks:
  - &task
    name: task_01
    title: First
    pairs: {format: csv, path: task_01/pairs_val.csv}
    images:
      fixed: task_01/img{fixed:04d}.nii.gz
      moving: task_01/img{moving:04d}.nii.gz
    auxiliary:
      fixed_mask: {path: "task_01/mask{fixed:04d}.nii.gz"}
    image_grid: [16, 12, 20]
    field: {path: "task_01/disp_{fixed:04d}_{moving:04d}.npz", resolution: half,
            shape: [3, 8, 6, 10], dtype: float16}
  - <<: *task
    name: task_02
    title: Second
    pairs: {format: csv, path: task_02/pairs_val.csv}
    images:
      fixed: task_02/img{fixed:04d}.nii.gz
      moving: task_02/img{moving:04d}.nii.gz
    auxiliary: {}
    field: {path: "task_02/disp_{fixed:04d}_{moving:04d}.npz", resolution: half,
            shape: [3, 8, 6, 10], dtype: float16}
"""


def tiny_challenge(*changes: tuple[str, str]) -> Challenge:
    """The challenge, with texts of its YAML file replaced."""
    text = YAML
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return parse_challenge(text, origin="tiny")


def write_image(path: Path, grid: tuple[int, ...] = GRID, *, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 1000, grid).astype(np.int16)
    nib.nifti1.Nifti1Image(values, np.eye(4)).to_filename(path)


def write_data(
    data_dir: Path,
    *,
    first: tuple[tuple[int, int], ...] = ((1, 1), (2, 2)),
    second: tuple[tuple[int, int], ...] = ((7, 8), (8, 9)),
) -> Path:
    """Both tasks; the second is a chain whose inner image serves two pairs."""
    for task, pairs in (("task_01", first), ("task_02", second)):
        folder = data_dir / task
        folder.mkdir(parents=True)
        rows = "".join(f"{fixed},{moving}\n" for fixed, moving in pairs)
        (folder / "pairs_val.csv").write_text("fixed,moving\n" + rows)
        for case in sorted({case for pair in pairs for case in pair}):
            write_image(folder / f"img{case:04d}.nii.gz", seed=case)
    return data_dir


def dig(folder: Path, depth: int, *, name: str = "deeper", content: bytes | None = None) -> None:
    """Folders in folders, deeper than a path can be long; ``content``: of a file in the last."""
    here = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    if content is not None:
        with os.fdopen(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here), "wb") as file:
            file.write(content)
    os.close(here)


def write_challenge(path: Path) -> Path:
    path.write_text(YAML)
    return path


def write_method(folder: Path, body: str, *, members: str = "") -> Path:
    """A folder with ``method/method.py`` whose ``register(self, pair)`` has this body.

    ``members``: further lines of the class.
    """
    method = folder / "method"
    method.mkdir(parents=True, exist_ok=True)
    lines = indent(body.strip(), " " * 8)
    further = indent(members.strip(), " " * 4)
    (method / "method.py").write_text(
        "import os, time\n"
        "import numpy as np\n"
        "from harness.runner import DisplacementField, RegistrationMethod\n"
        "class Method(RegistrationMethod):\n"
        f"{further}\n"
        "    def register(self, pair):\n"
        f"{lines}\n"
    )
    return folder


ZERO = """
pair.fixed.array, pair.moving.array
return DisplacementField(array=np.zeros((3, 8, 6, 10), np.float32))
"""
