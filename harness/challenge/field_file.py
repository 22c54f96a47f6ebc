"""Reading a field file somebody else wrote: header first, then size, then data; never pickle."""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import stat
import struct
import zipfile
import zlib
from dataclasses import dataclass
from enum import StrEnum
from typing import IO, TYPE_CHECKING

from harness.errors import FieldError

if TYPE_CHECKING:
    from pathlib import Path

    from harness.challenge.field import FloatArray
    from harness.challenge.model import FieldSpec

_MAX_HEADER_BYTES = 4096  # NumPy writes 128 or 192 for an array of four axes
_MAX_OVERHEAD_BYTES = 1 << 16  # zip structures and deflate's worst case beside the array itself
_MAX_MEMBERS = 1
_MAX_READ_BYTES = (1 << 16) + 22  # what a zip archive's end and its comment may take
_CHUNK_BYTES = 1 << 16
_NPY_CODES = {"float16": "f2", "float32": "f4", "float64": "f8"}
# First bytes of values that are not finite, by the size of their type.
_NOT_FINITE = {2: bytes((*range(0x7C, 0x80), *range(0xFC, 0x100))), 4: b"\x7f\xff", 8: b"\x7f\xff"}
_MAX_SHOWN = 60  # characters of a file's own text that a message repeats


class FieldState(StrEnum):
    """What became of one expected field. NOT_ATTEMPTED holds for all fields of a task, or none."""

    VALID = "valid"
    MISSING = "missing"
    INVALID = "invalid"
    NOT_ATTEMPTED = "not_attempted"


@dataclass(frozen=True, kw_only=True)
class _NpyHeader:
    shape: tuple[int, ...]
    dtype: str
    fortran_order: bool


def max_file_bytes(spec: FieldSpec) -> int:
    """The largest file that can hold a legal field: the array, incompressible, and its wrapping."""
    return spec.nbytes + spec.nbytes // 1000 + _MAX_OVERHEAD_BYTES


def read_field(path: Path, spec: FieldSpec) -> FloatArray:
    """The vectors of a field file that keeps the contract, (3, X, Y, Z), finite, as stored.

    Raises FieldError with what was expected and found. Memory stays below twice the legal array's
    size whatever the file claims. Links, pipes and devices are refused.
    """
    header, raw = _read_file(path, spec)
    return _finite_array(header, raw, spec)


def check_field(path: Path, spec: FieldSpec) -> None:
    """As :func:`read_field`, without making the array: a run has no other use for NumPy, whose
    import takes 0.1 s."""
    header, raw = _read_file(path, spec)
    if not _is_surely_finite(header, raw):
        _finite_array(header, raw, spec)


def _read_file(path: Path, spec: FieldSpec) -> tuple[_NpyHeader, bytearray]:
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
    with _FrugalReader(io.FileIO(descriptor)) as file:
        limit = max_file_bytes(spec)
        if status.st_size > limit:
            raise FieldError(f"expected at most {limit} bytes, found {status.st_size}")
        if status.st_size == 0:
            raise FieldError("expected an .npz file, found an empty one")
        return _read_npz(file, spec)


class _FrugalReader(io.BufferedReader):
    """Refuses to read much at once.

    zipfile reads an archive's directory whole, as long as it claims to be, and makes an object of
    each of its entries before we can count them.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _MAX_READ_BYTES:
            raise zipfile.BadZipFile(f"a directory of {size} bytes")
        return super().read(size)


def _read_npz(file: IO[bytes], spec: FieldSpec) -> tuple[_NpyHeader, bytearray]:
    try:
        with zipfile.ZipFile(file) as archive:
            member = _only_member(archive)
            with archive.open(member) as stream:
                header = _read_npy_header(stream)
                _check_header(header, spec)
                header_bytes = member.file_size - spec.nbytes
                if not 0 < header_bytes <= _MAX_HEADER_BYTES:
                    raise FieldError(
                        f"expected an array of {spec.nbytes} bytes, found a member of "
                        f"{member.file_size}"
                    )
                raw, n_read = _read_values(stream, spec.nbytes)
                rest = stream.read(1)
    except (zipfile.BadZipFile, EOFError, zlib.error, struct.error) as error:
        raise FieldError(
            f"expected an .npz file, found a damaged or truncated one ({_shown(str(error))})"
        ) from error
    except (NotImplementedError, RuntimeError, OSError, ValueError, OverflowError) as error:
        # unknown compression, encryption, or offsets that lead outside the file
        raise FieldError(
            f"expected an .npz file as NumPy writes it ({_shown(str(error))})"
        ) from error
    if n_read != spec.nbytes or rest:
        found = "more" if rest else n_read
        raise FieldError(f"expected {spec.nbytes} bytes of values, found {found}")
    return header, raw


def _is_surely_finite(header: _NpyHeader, raw: bytearray) -> bool:
    """Is no value's first byte (sign and most of the exponent, IEEE 754) that of one which is not
    finite? Such a byte may also belong to a very large number."""
    size = int(header.dtype[2:])
    highest = raw[size - 1 if header.dtype[0] == "<" else 0 :: size]
    return len(highest.translate(None, _NOT_FINITE[size])) == len(highest)


def _finite_array(header: _NpyHeader, raw: bytearray, spec: FieldSpec) -> FloatArray:
    import numpy as np  # noqa: PLC0415 - see check_field

    array: FloatArray = np.frombuffer(raw, dtype=np.dtype(header.dtype)).reshape(
        spec.shape, order="F" if header.fortran_order else "C"
    )
    bad = array.size - int(np.count_nonzero(np.isfinite(array)))
    if bad:
        raise FieldError(
            f"expected finite displacements, found {bad} values that are NaN or infinite"
        )
    return array


def _read_values(stream: IO[bytes], n_bytes: int) -> tuple[bytearray, int]:
    """A buffer of ``n_bytes`` and how many of them the stream filled, held once and no more."""
    raw = bytearray(n_bytes)
    n_read = 0
    while chunk := stream.read(min(_CHUNK_BYTES, n_bytes - n_read)):
        raw[n_read : n_read + len(chunk)] = chunk
        n_read += len(chunk)
    return raw, n_read


def _only_member(archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    members = archive.infolist()
    if len(members) != _MAX_MEMBERS:
        names = ", ".join(_shown(repr(member.filename)) for member in members[:4])
        raise FieldError(f"expected one array in the file, found {len(members)} ({names})")
    if members[0].compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise FieldError("expected an array stored or deflated, found another compression")
    return members[0]


def _read_npy_header(stream: IO[bytes]) -> _NpyHeader:
    """The header of NumPy's NPY format, versions 1 to 3 (numpy.lib.format)."""
    start = stream.read(8)
    if start[:6] != b"\x93NUMPY" or start[6:7] not in (b"\1", b"\2", b"\3"):
        raise FieldError("expected a NumPy array inside the .npz file, found something else")
    length_bytes = 2 if start[6] == 1 else 4
    length = int.from_bytes(stream.read(length_bytes), "little")
    if length > _MAX_HEADER_BYTES:
        raise FieldError(
            f"expected an array header of at most {_MAX_HEADER_BYTES} bytes, found {length}"
        )
    try:
        content = ast.literal_eval(stream.read(length).decode("utf-8").strip())
        shape = tuple(int(n) for n in content["shape"])
        descr, fortran_order = content["descr"], bool(content["fortran_order"])
    except (
        *(SyntaxError, ValueError, KeyError, TypeError),
        *(OverflowError, MemoryError, RecursionError),
    ) as error:
        raise FieldError("expected a NumPy array header, found something unreadable") from error
    if not isinstance(descr, str):
        raise FieldError("expected one number a voxel, found an array of records")
    return _NpyHeader(shape=shape, dtype=descr, fortran_order=fortran_order)


def _check_header(header: _NpyHeader, spec: FieldSpec) -> None:
    if header.dtype not in _spellings(spec.dtype):
        found = "pickled Python objects" if "O" in header.dtype else _dtype_name(header.dtype)
        raise FieldError(f"expected dtype {spec.dtype.value}, found {found}")
    if header.shape != spec.shape:
        hint = ""
        if header.shape == (*spec.grid, 3):
            hint = "; components come first: np.moveaxis(field, -1, 0)"
        elif header.shape == (3, *(2 * n for n in spec.grid)):
            hint = "; this is the full resolution, the challenge wants half"
        raise FieldError(f"expected shape {spec.shape}, found {_shown(str(header.shape))}{hint}")


def _spellings(dtype: str) -> tuple[str, ...]:
    """How NPY headers spell a type: in either byte order."""
    code = _NPY_CODES[dtype]
    return "<" + code, ">" + code


def _dtype_name(descr: str) -> str:
    """NumPy's name of a plain type; other texts are not handed to its parser."""
    if re.fullmatch(r"[<>|][biufc][0-9]{1,2}", descr):
        import numpy as np  # noqa: PLC0415 - see check_field

        with contextlib.suppress(TypeError):
            return str(np.dtype(descr))
    return _shown(repr(descr))


def _shown(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "..."
