"""Reading a field file somebody else wrote: header first, then size, then data; never pickle."""

from __future__ import annotations

import io
import os
import stat
from enum import StrEnum
from typing import TYPE_CHECKING

from harness.challenge.field_error import unreadable
from harness.challenge.inflate import DamagedError, FrugalFile
from harness.challenge.model import FieldFormat
from harness.challenge.nifti_file import open_nifti
from harness.challenge.npz_file import open_npz
from harness.challenge.stored_array import read_values
from harness.errors import FieldError

if TYPE_CHECKING:
    from pathlib import Path

    from harness.challenge.field import FloatArray
    from harness.challenge.model import FieldSpec
    from harness.challenge.stored_array import FieldValues

# Beside the array itself: a zip's structures, NIfTI's extensions, deflate's and gzip's worst case.
_MAX_OVERHEAD_BYTES = 1 << 16
_MAX_STRUCTURE_BYTES = 1 << 19  # what is read twice: a zip's end, its directory, headers


class FieldState(StrEnum):
    """What became of one expected field. NOT_ATTEMPTED holds for all fields of a task, or none.

    UNCOLLECTED: it is there, and the machine had no room for a copy of it, so nobody judged it.
    """

    VALID = "valid"
    MISSING = "missing"
    INVALID = "invalid"
    UNCOLLECTED = "uncollected"
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
    return _read_values(path, spec).vectors()


def check_field(path: Path, spec: FieldSpec) -> None:
    """As :func:`read_field`, without making the array: a run has no other use for NumPy, whose
    import takes 0.1 s."""
    values = _read_values(path, spec)
    if not values.are_surely_finite():
        values.vectors()


def read_open_field(descriptor: int, name: str, spec: FieldSpec) -> FloatArray:
    """As :func:`read_field`, of a file that is open, and stays so, whatever its position; ``name``
    tells whether NIfTI is compressed.

    Of a file that is too large the headers are read all the same: they say why it is.
    """
    return _read_open_values(descriptor, name, spec).vectors()


def _read_values(path: Path, spec: FieldSpec) -> FieldValues:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if path.is_symlink():
            raise unreadable(
                expected="a regular file",
                found="a symbolic link",
                fix="put the file itself there: cp -L copies what a link leads to",
            ) from error
        raise FieldError(f"cannot be read ({error.strerror})") from error
    try:
        return _read_open_values(descriptor, path.name, spec)
    finally:
        os.close(descriptor)


def _read_open_values(descriptor: int, name: str, spec: FieldSpec) -> FieldValues:
    status = os.fstat(descriptor)
    if stat.S_ISDIR(status.st_mode):
        raise unreadable(
            expected="a regular file", found="a folder", fix="put a file there, not a folder"
        )
    if not stat.S_ISREG(status.st_mode):
        raise unreadable(expected="a regular file", found="a pipe or device")
    kind = "an .npz file" if spec.format is FieldFormat.NPZ else "a NIfTI file"
    n_bytes = status.st_size
    if n_bytes == 0:
        raise unreadable(
            expected=kind, found="an empty one", fix="was the program stopped, or the disk full?"
        )
    limit = max_file_bytes(spec)
    too_large = unreadable(expected=f"at most {limit} bytes", found=str(n_bytes))
    file = FrugalFile(io.FileIO(descriptor, closefd=False), limit + _MAX_STRUCTURE_BYTES)
    file.seek(0)
    try:
        if spec.format is FieldFormat.NPZ:
            opened = open_npz(file, n_bytes, spec)
        else:
            opened = open_nifti(file, n_bytes, spec, gzipped=name.endswith(".gz"))
        if n_bytes > limit:
            raise too_large
        return read_values(opened)
    except DamagedError as error:
        if n_bytes > limit:
            raise too_large from error
        raise unreadable(
            expected=kind,
            found=f"a damaged or truncated one ({error})",
            fix="write or copy it again: was the program stopped, or the disk full?",
        ) from error
