"""Inputs and outputs of the official evaluation, kept outside the repository.

``HARNESS_REFERENCE_DATA`` names the folder that holds ``evaluation_reference/``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from numpy.typing import NDArray

Json = dict[str, Any]
_VARIABLE = "HARNESS_REFERENCE_DATA"
_ABSENT = Path("/nonexistent/evaluation_reference")


def evaluation_reference() -> Path:
    """The folder; one that is not there where the variable is not set."""
    root = os.environ.get(_VARIABLE)
    return Path(root) / "evaluation_reference" if root else _ABSENT


needs_reference = pytest.mark.skipif(
    not evaluation_reference().is_dir(),
    reason=f"{_VARIABLE} names no folder with evaluation_reference/",
)


def edge_cases() -> list[str]:
    folder = evaluation_reference() / "edge"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def read_json(path: Path) -> Json:
    content: Json = json.loads(path.read_text("utf-8"))
    return content


def expand(half: NDArray[Any]) -> NDArray[np.float32]:
    """The full-resolution field (X, Y, Z, 3) that the official results were made from: linear
    interpolation, exact in every type, the last sample of each axis twice."""
    field = half.astype(np.float64)
    for axis in (1, 2, 3):
        last = np.take(field, [-1], axis=axis)
        ahead = np.concatenate([np.delete(field, 0, axis=axis), last], axis=axis)
        between = np.stack([field, (field + ahead) / 2], axis=axis + 1)
        shape = list(field.shape)
        shape[axis] *= 2
        field = between.reshape(shape)
    return np.moveaxis(field, 0, -1).astype(np.float32)
