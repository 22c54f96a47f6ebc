"""The zero field of every pair: the smallest submission, and what every method must beat."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.challenge.field import write_field
from harness.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from harness.challenge.pairs import TaskPairs


def write_zero_fields(
    tasks: Sequence[TaskPairs],
    folder: Path,
    *,
    overwrite: bool = False,
    on_progress: Callable[[], None] = lambda: None,
) -> None:
    """Write a zero field for each pair below ``folder``, in the layout of the upload.

    Raises OutputError before anything is written when a field is there and not to be overwritten.
    """
    paths = [folder / pair.field for found in tasks for pair in found.pairs]
    there = [path for path in paths if path.exists()]
    if there and not overwrite:
        raise OutputError(
            f"{there[0]}: is there already, and {len(there) - 1} more; name another folder, or say "
            "--force to overwrite fields with zeros"
        )
    for found in tasks:
        spec = found.task.field
        zeros = np.zeros(spec.shape, spec.dtype.value)
        for pair in found.pairs:
            path = folder / pair.field
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_field(zeros, path)
            except OSError as error:
                raise OutputError(f"{path}: cannot be written ({error.strerror})") from error
            on_progress()
