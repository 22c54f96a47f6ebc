"""Reading a field file somebody else wrote: header first, then size, then data; never pickle."""

from __future__ import annotations

import io
import os
import stat
from enum import StrEnum
from typing import TYPE_CHECKING

from harness.challenge.model import FieldFormat
from harness.errors import FieldError

if TYPE_CHECKING:
    from pathlib import Path

    from harness.challenge.field import FloatArray
    from harness.challenge.model import FieldSpec

# Beside the array itself: a zip's structures, NIfTI's extensions, deflate's and gzip's worst case.
_MAX_OVERHEAD_BYTES = 1 << 16


class FieldState(StrEnum):
    """What became of one expected field. NOT_ATTEMPTED holds for all fields of a task, or none."""

    VALID = "valid"
    MISSING = "missing"
    INVALID = "invalid"
    NOT_ATTEMPTED = "not_attempted"


def max_file_bytes(spec: FieldSpec) -> int:
    """The largest file that can hold a legal field: the array, incompressible, and its wrapping."""
    return spec.nbytes + spec.nbytes // 1000 + _MAX_OVERHEAD_BYTES


def read_field(path: Path, spec: FieldSpec) -> FloatArray:
    """The vectors of a field file that keeps the contract, (3, X, Y, Z), x, y, z, all finite.

    Their type is the stored one, in this machine's byte order; where the file has another layout
    they are a view. Raises FieldError with what was expected and found and what to try. Memory
    stays below twice the legal array's size whatever the file claims. Links, pipes and devices are
    refused.
    """
    # Here, as they need NumPy: a tenth of a second that a run's start need not wait.
    from harness.challenge.nifti_file import read_nifti  # noqa: PLC0415
    from harness.challenge.npz_file import read_npz  # noqa: PLC0415

    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if path.is_symlink():
            raise FieldError("expected a regular file, found a symbolic link") from error
        raise FieldError(f"cannot be read ({error.strerror})") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise FieldError("expected a regular file, found a folder, pipe or device")
    with io.FileIO(descriptor) as raw, io.BufferedReader(raw) as file:
        n_bytes = status.st_size
        limit = max_file_bytes(spec)
        if n_bytes > limit:
            raise FieldError(f"expected at most {limit} bytes, found {n_bytes}")
        if n_bytes == 0:
            kind = "an .npz" if spec.format is FieldFormat.NPZ else "a NIfTI"
            raise FieldError(f"expected {kind} file, found an empty one")
        if spec.format is FieldFormat.NPZ:
            return read_npz(file, n_bytes, spec)
        return read_nifti(file, n_bytes, spec, gzipped=path.name.endswith(".gz"))
