"""The array of an ``.npz`` field file: its headers, checked, then its values; never a pickle."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, TypeGuard

from harness.challenge.field_error import FieldFileError, FieldProblem, unreadable
from harness.challenge.inflate import ByteStream, DamagedError, RandomAccess, read_exactly
from harness.challenge.stored_array import OpenArray, StoredArray, check_stored, shown
from harness.challenge.zip_directory import (
    DEFLATED,
    STORED,
    ZipEnd,
    ZipEntry,
    check_alone,
    open_entry,
    read_end,
    read_entries,
)

if TYPE_CHECKING:
    from harness.challenge.model import FieldSpec

_MAX_HEADER_BYTES = 4096  # NumPy writes 128 or 192 for an array of four axes
_MAX_DIRECTORY_BYTES = 1 << 16  # room for a few names to tell, where several arrays were saved
_MAGIC = b"\x93NUMPY"
_VERSIONS = ((1, 0), (2, 0), (3, 0))
_PICKLE, _PICKLE_PROTOCOLS = b"\x80", (b"\2", b"\3", b"\4", b"\5")  # pickletools, PROTO
_SAVE = "np.savez_compressed(path, field)"
_SHOWN_NAMES = 4
_MAX_AXES = 32  # of NumPy 1; NumPy 2 has room for 64
_MAX_LENGTH = (1 << 63) - 1  # of an axis; Python refuses to print numbers that are far longer
_KEYS = {"descr", "fortran_order", "shape"}
# What an array's header is made of. Python's parser would warn of other texts, to standard error.
_LITERALS = re.compile(r"""(?:[][{}(),:\s]|-?[0-9]+\b|True\b|False\b|'[^'\\]*'|"[^"\\]*")*+""")
# NumPy's names, by the letter of the kind and the size in bytes (numpy.lib.format).
_NAMES = {
    ("b", 1): "bool",
    **{("i", size): f"int{8 * size}" for size in (1, 2, 4, 8)},
    **{("u", size): f"uint{8 * size}" for size in (1, 2, 4, 8)},
    **{("f", size): f"float{8 * size}" for size in (2, 4, 8, 16)},
    **{("c", size): f"complex{8 * size}" for size in (8, 16, 32)},
}


def open_npz(file: RandomAccess, file_bytes: int, spec: FieldSpec) -> OpenArray:
    """The file's one array, its headers checked. Raises FieldError and DamagedError."""
    _check_kind(file)
    end = read_end(file, file_bytes)
    entry = _only_entry(file, end)
    check_alone(file, entry, end)
    stream = open_entry(file, entry, end)
    stored, header_bytes = _read_header(stream)
    layout = check_stored(stored, spec)
    if entry.n_bytes != header_bytes + stored.nbytes:
        raise unreadable(
            expected=f"{stored.nbytes} bytes of values",
            found=shown(str(entry.n_bytes - header_bytes)),
        )
    return OpenArray(stream=stream, stored=stored, layout=layout)


def _check_kind(file: RandomAccess) -> None:
    """Tell a file that is of another kind than its name says."""
    start = file.read(len(_MAGIC))
    file.seek(0)
    found = ""
    if start == _MAGIC:
        found = "an .npy under its name: np.save writes those"
    elif start[:1] == _PICKLE and start[1:2] in _PICKLE_PROTOCOLS:
        found = "a pickle: pickle.dump and np.save of objects write those"
    elif start.startswith(b"\x1f\x8b"):
        found = "a gzip file: is it a .nii.gz?"
    if found:
        raise unreadable(expected="an .npz file", found=found, fix=_SAVE)


def _only_entry(file: RandomAccess, end: ZipEnd) -> ZipEntry:
    if end.n_entries != 1 and end.directory_bytes > _MAX_DIRECTORY_BYTES:
        raise unreadable(expected="one array in the file", found=shown(str(end.n_entries)))
    if end.directory_bytes > 2 * _MAX_DIRECTORY_BYTES:
        raise DamagedError(f"a directory of {end.directory_bytes} bytes")
    entries = read_entries(file, end)
    if len(entries) != 1:
        keys = [entry.name.removesuffix(".npy") for entry in entries[:_SHOWN_NAMES]]
        names = ", ".join(shown(repr(key)) for key in keys)
        rest = ", ..." if len(entries) > _SHOWN_NAMES else ""
        found = f"{len(entries)} ({names}{rest})" if entries else "an empty zip"
        raise unreadable(expected="one array in the file", found=found, fix=_SAVE)
    if entries[0].encrypted:
        raise unreadable(expected="an array anybody can read", found="an encrypted one")
    if entries[0].method not in (STORED, DEFLATED):
        raise unreadable(expected="an array stored or deflated", found="another compression")
    return entries[0]


def _read_header(stream: ByteStream) -> tuple[StoredArray, int]:
    """The header of NumPy's NPY format, versions 1 to 3 (numpy.lib.format), and its length."""
    start = read_exactly(stream, len(_MAGIC) + 2)
    if not start.startswith(_MAGIC) or tuple(start[6:]) not in _VERSIONS:
        raise unreadable(expected="a NumPy array inside the .npz file", found="something else")
    length_bytes = 2 if start[6] == 1 else 4
    length = int.from_bytes(read_exactly(stream, length_bytes), "little")
    if length > _MAX_HEADER_BYTES:
        raise unreadable(
            expected=f"an array header of at most {_MAX_HEADER_BYTES} bytes", found=str(length)
        )
    return _parsed(read_exactly(stream, length)), len(start) + length_bytes + length


def _parsed(header: bytes) -> StoredArray:
    try:
        text = header.decode("ascii")
        if not text.startswith("{") or not _LITERALS.fullmatch(text):
            raise ValueError("other than a mapping of literals")
        content = ast.literal_eval(text)
        if not isinstance(content, dict) or content.keys() != _KEYS:
            raise ValueError("other keys than NumPy's")
        shape, descr = content["shape"], content["descr"]
        fortran_order = content["fortran_order"]
    except (
        *(SyntaxError, ValueError, KeyError, TypeError),
        *(OverflowError, MemoryError, RecursionError),
    ) as error:
        raise unreadable(expected="a NumPy array header", found="something unreadable") from error
    if type(fortran_order) is not bool:
        raise unreadable(expected="a NumPy array header", found="an order that is none")
    if not _is_shape(shape):
        raise unreadable(expected="a NumPy array header", found="a shape that is none")
    if not isinstance(descr, str):
        raise _wrong_dtype("one number a voxel", "an array of records")
    if "O" in descr:
        raise _wrong_dtype("an array of numbers", "pickled Python objects")
    return StoredArray(
        shape=shape,
        dtype=_dtype_name(descr),
        big_endian=descr.startswith(">"),
        fortran_order=fortran_order,
    )


def _is_shape(shape: object) -> TypeGuard[tuple[int, ...]]:
    return (
        isinstance(shape, tuple)
        and len(shape) <= _MAX_AXES
        and all(type(n) is int and 0 <= n <= _MAX_LENGTH for n in shape)
    )


def _wrong_dtype(expected: str, found: str) -> FieldFileError:
    return FieldFileError(expected=expected, found=found, problem=FieldProblem.WRONG_DTYPE)


def _dtype_name(descr: str) -> str:
    """NumPy's name of a plain type; other texts are not handed to its parser."""
    match = re.fullmatch(r"[<>|]([biufc])([0-9]{1,2})", descr)
    name = _NAMES.get((match[1], int(match[2]))) if match else None
    return name or shown(repr(descr))
