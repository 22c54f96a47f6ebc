"""Reading a field file somebody else wrote: header first, then size, then data; never pickle."""

from __future__ import annotations

import io
import os
import stat
from enum import StrEnum
from typing import TYPE_CHECKING

from harness.challenge.field_error import unreadable
from harness.challenge.model import FieldFormat
from harness.challenge.nifti_file import read_nifti
from harness.challenge.npz_file import read_npz

if TYPE_CHECKING:
    from pathlib import Path

    from harness.challenge.field import FloatArray
    from harness.challenge.model import FieldSpec
    from harness.challenge.stored_array import FieldValues

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
    they are a view. Raises FieldFileError with what was expected and found and what to try. Memory
    stays below twice the legal array's size whatever the file claims. Links, pipes and devices are
    refused.
    """
    return _read_values(path, spec).vectors()


def check_field(path: Path, spec: FieldSpec) -> None:
    """As :func:`read_field`, without making the array: a run has no other use for NumPy, whose
    import takes 0.1 s."""
    values = _read_values(path, spec)
    if not values.are_surely_finite():
        values.vectors()


def _read_values(path: Path, spec: FieldSpec) -> FieldValues:
    regular = "a regular file"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        found = "a symbolic link" if path.is_symlink() else f"none to read ({error.strerror})"
        raise unreadable(regular, found) from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise unreadable(regular, "a folder, pipe or device")
    with io.FileIO(descriptor) as raw, io.BufferedReader(raw) as file:
        n_bytes = status.st_size
        limit = max_file_bytes(spec)
        if n_bytes > limit:
            raise unreadable(f"at most {limit} bytes", str(n_bytes))
        if n_bytes == 0:
            kind = "an .npz" if spec.format is FieldFormat.NPZ else "a NIfTI"
            raise unreadable(f"{kind} file", "an empty one")
        if spec.format is FieldFormat.NPZ:
            return read_npz(file, n_bytes, spec)
        return read_nifti(file, n_bytes, spec, gzipped=path.name.endswith(".gz"))
