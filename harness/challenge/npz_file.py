"""The array of an ``.npz`` field file: its headers, checked, then its values; never a pickle."""

from __future__ import annotations

import ast
import contextlib
import re
from typing import IO, TYPE_CHECKING

import numpy as np

from harness.challenge.inflate import ByteStream, DamagedError, read_exactly
from harness.challenge.stored_array import StoredArray, check_stored, read_vectors, shown
from harness.challenge.zip_directory import (
    DEFLATED,
    STORED,
    ZipEnd,
    ZipEntry,
    open_entry,
    read_end,
    read_entries,
)
from harness.errors import FieldError

if TYPE_CHECKING:
    from harness.challenge.field import FloatArray
    from harness.challenge.model import FieldSpec

_MAX_HEADER_BYTES = 4096  # NumPy writes 128 or 192 for an array of four axes
_MAX_DIRECTORY_BYTES = 1 << 16  # room for a few names to tell, where several arrays were saved
_MAGIC = b"\x93NUMPY"
_SHOWN_NAMES = 4


def read_npz(file: IO[bytes], file_bytes: int, spec: FieldSpec) -> FloatArray:
    """The vectors, (3, X, Y, Z). Raises FieldError."""
    try:
        end = read_end(file, file_bytes)
        entry = _only_entry(file, end)
        stream = open_entry(file, entry, end)
        stored, header_bytes = _read_header(stream)
        layout = check_stored(stored, spec)
        if entry.n_bytes != header_bytes + stored.nbytes:
            raise FieldError(
                f"expected {stored.nbytes} bytes of values, found "
                f"{shown(str(entry.n_bytes - header_bytes))}"
            )
        return read_vectors(stream, stored, layout)
    except DamagedError as error:
        raise FieldError(
            f"expected an .npz file, found a damaged or truncated one ({error})"
        ) from error


def _only_entry(file: IO[bytes], end: ZipEnd) -> ZipEntry:
    if end.n_entries != 1 and end.directory_bytes > _MAX_DIRECTORY_BYTES:
        raise FieldError(f"expected one array in the file, found {shown(str(end.n_entries))}")
    if end.directory_bytes > 2 * _MAX_DIRECTORY_BYTES:
        raise DamagedError(f"a directory of {end.directory_bytes} bytes")
    entries = read_entries(file, end)
    if len(entries) != 1:
        names = ", ".join(shown(repr(entry.name)) for entry in entries[:_SHOWN_NAMES])
        raise FieldError(f"expected one array in the file, found {len(entries)} ({names})")
    if entries[0].encrypted:
        raise FieldError("expected an array anybody can read, found an encrypted one")
    if entries[0].method not in (STORED, DEFLATED):
        raise FieldError("expected an array stored or deflated, found another compression")
    return entries[0]


def _read_header(stream: ByteStream) -> tuple[StoredArray, int]:
    """The header of NumPy's NPY format, versions 1 to 3 (numpy.lib.format), and its length."""
    start = read_exactly(stream, len(_MAGIC) + 2)
    if not start.startswith(_MAGIC) or start[6] not in (1, 2, 3):
        raise FieldError("expected a NumPy array inside the .npz file, found something else")
    length_bytes = 2 if start[6] == 1 else 4
    length = int.from_bytes(read_exactly(stream, length_bytes), "little")
    if length > _MAX_HEADER_BYTES:
        raise FieldError(
            f"expected an array header of at most {_MAX_HEADER_BYTES} bytes, found {length}"
        )
    return _parsed(read_exactly(stream, length)), len(start) + length_bytes + length


def _parsed(header: bytes) -> StoredArray:
    try:
        content = ast.literal_eval(header.decode("utf-8").strip())
        shape, descr = content["shape"], content["descr"]
        fortran_order = bool(content["fortran_order"])
    except (
        *(SyntaxError, ValueError, KeyError, TypeError),
        *(OverflowError, MemoryError, RecursionError),
    ) as error:
        raise FieldError("expected a NumPy array header, found something unreadable") from error
    if not isinstance(shape, tuple) or not all(type(n) is int for n in shape):
        raise FieldError("expected a NumPy array header, found a shape that is none")
    if not isinstance(descr, str):
        raise FieldError("expected one number a voxel, found an array of records")
    if "O" in descr:
        raise FieldError("expected an array of numbers, found pickled Python objects")
    return StoredArray(
        shape=shape,
        dtype=_dtype_name(descr),
        big_endian=descr.startswith(">"),
        fortran_order=fortran_order,
    )


def _dtype_name(descr: str) -> str:
    """NumPy's name of a plain type; other texts are not handed to its parser."""
    if re.fullmatch(r"[<>|][biufc][0-9]{1,2}", descr):
        with contextlib.suppress(TypeError):
            return np.dtype(descr).name
    return shown(repr(descr))
