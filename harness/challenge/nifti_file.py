"""The array of a NIfTI field file: its header in full, checked, then its values.

NIfTI-1 and NIfTI-2, one file, in either byte order, compressed or not (nifti1.h, nifti2.h). The
header is parsed here and not by NiBabel, which repairs, warns, and maps files into memory. But the
evaluation reads with NiBabel, so what that refuses is refused, too.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

from harness.challenge.field_error import unreadable
from harness.challenge.inflate import (
    ByteStream,
    GunzippedStream,
    RandomAccess,
    StoredStream,
    read_exactly,
)
from harness.challenge.stored_array import OpenArray, StoredArray, check_stored

if TYPE_CHECKING:
    from harness.challenge.model import FieldSpec

MAX_DATA_OFFSET = 1 << 15  # header and extensions; programs that write any write some hundred bytes

_GZIP_MAGIC = b"\x1f\x8b"
_ZIP_MAGIC = b"PK\3\4"
_SFORM_CODES = range(1, 5)  # with which the quaternion is not used
_NIFTI1_MAGIC_PLACE = 344
_CIFTI_INTENTS = range(3000, 3100)
_MIN_EXTENSION_BYTES = 8  # its size and its code
_EXTENSION_STEP_BYTES = 16  # fewer before the values are no extension
# nifti1.h; the names are NumPy's where it has the type.
_DATATYPES = {
    2: "uint8",
    4: "int16",
    8: "int32",
    16: "float32",
    32: "complex64",
    64: "float64",
    128: "RGB colours",
    256: "int8",
    512: "uint16",
    768: "uint32",
    1024: "int64",
    1280: "uint64",
    1536: "float128",
    1792: "complex128",
    2048: "complex256",
    2304: "RGBA colours",
}


@dataclass(frozen=True, kw_only=True)
class _Version:
    """Where a version keeps what we need; ``fields``: dim[8], datatype, bitpix, vox_offset,
    scl_slope, scl_inter, qform_code, sform_code, quatern_b, _c, _d, intent_code, magic, in the
    order of ``order``. ``epsilon``: the precision of the quaternion."""

    layout: str
    order: tuple[int, ...]
    magic: bytes
    pair_magic: bytes
    min_offset: int
    epsilon: float

    @property
    def n_bytes(self) -> int:
        return struct.calcsize("<" + self.layout)


# size, unused, dim, intent, datatype, bitpix, slice start, pixdim, vox_offset, slope, intercept,
# unused, codes, quaternion, unused, magic.
_NIFTI1 = _Version(
    layout="i36x8h12xhhh2x32x3f132x2h3f76x4s",
    order=(*range(1, 9), *range(10, 20), 9, 20),
    magic=b"n+1\0",
    pair_magic=b"ni1\0",
    min_offset=352,
    epsilon=2**-23,
)
# size, magic, datatype, bitpix, dim, intent's parameters, pixdim, vox_offset, slope, intercept,
# unused, codes, quaternion, unused, intent, unused.
_NIFTI2 = _Version(
    layout="i8shh8q24x64xqdd152x2i3d128xi32x",
    order=(*range(4, 12), 2, 3, *range(12, 20), 20, 1),
    magic=b"n+2\0\r\n\x1a\n",
    pair_magic=b"ni2\0\r\n\x1a\n",
    min_offset=544,
    epsilon=2**-52,
)
_VERSIONS = {version.n_bytes: version for version in (_NIFTI1, _NIFTI2)}


@dataclass(frozen=True, kw_only=True)
class _Header:
    n_bytes: int
    dim: tuple[int, ...]
    datatype: int
    bits: int
    offset: float
    slope: float
    intercept: float
    qform_code: int
    sform_code: int
    quaternion: tuple[float, ...]
    intent: int
    magic: bytes
    looks_like_nifti1: bool
    version: _Version
    big_endian: bool


def open_nifti(file: RandomAccess, file_bytes: int, spec: FieldSpec, *, gzipped: bool) -> OpenArray:
    """The file's array, its header checked and its scaling known to be none.

    Raises FieldError and DamagedError.
    """
    _check_kind(file, gzipped=gzipped)
    stream: ByteStream = StoredStream(file, file_bytes)
    if gzipped:
        stream = GunzippedStream(file, file_bytes)
    header = _read_header(stream)
    stored = StoredArray(
        shape=_shape(header),
        dtype=_DATATYPES.get(header.datatype, f"datatype {header.datatype}"),
        big_endian=header.big_endian,
        fortran_order=True,
        scaled=_is_scaled(header),
    )
    layout = check_stored(stored, spec)
    _check_header(header, stored)
    _check_kind_of_image(header)
    _check_orientation(header)
    _check_extensions(read_exactly(stream, int(header.offset) - header.n_bytes), header)
    return OpenArray(stream=stream, stored=stored, layout=layout)


def _check_kind(file: RandomAccess, *, gzipped: bool) -> None:
    """Tell a file that is of another kind than its name says."""
    start = file.read(4)
    file.seek(0)
    if start == _ZIP_MAGIC:
        raise unreadable(expected="a NIfTI file", found="a zip file", fix="is it an .npz?")
    if gzipped and not start.startswith(_GZIP_MAGIC):
        plain = len(start) == 4 and _version(start) is not None
        fix = "it is not compressed: name it .nii, or compress it" if plain else ""
        raise unreadable(expected="a compressed NIfTI file", found="something else", fix=fix)
    if not gzipped and start.startswith(_GZIP_MAGIC):
        raise unreadable(expected="a NIfTI file", found="a compressed one", fix="name it .nii.gz")


def _version(start: bytes) -> tuple[_Version, bool] | None:
    """The version that the first four bytes name, and whether in big-endian order."""
    if version := _VERSIONS.get(int.from_bytes(start, "little")):
        return version, False
    if version := _VERSIONS.get(int.from_bytes(start, "big")):
        return version, True
    return None


def _read_header(stream: ByteStream) -> _Header:
    start = read_exactly(stream, 4)
    known = _version(start)
    if known is None:
        raise unreadable(expected="a NIfTI file", found="something else")
    version, big_endian = known
    raw = start + read_exactly(stream, version.n_bytes - len(start))
    values = struct.unpack((">" if big_endian else "<") + version.layout, raw)
    fields = [values[place] for place in version.order]
    datatype, bits, offset, slope, intercept, qform_code, sform_code = fields[8:15]
    *quaternion, intent, magic = fields[15:]
    return _Header(
        n_bytes=version.n_bytes,
        dim=tuple(fields[:8]),
        datatype=datatype,
        bits=bits,
        offset=offset,
        slope=slope,
        intercept=intercept,
        qform_code=qform_code,
        sform_code=sform_code,
        quaternion=tuple(quaternion),
        intent=intent,
        magic=magic,
        looks_like_nifti1=raw[_NIFTI1_MAGIC_PLACE:].startswith((_NIFTI1.magic, _NIFTI1.pair_magic)),
        version=version,
        big_endian=big_endian,
    )


def _shape(header: _Header) -> tuple[int, ...]:
    n_axes = header.dim[0]
    if header.magic == header.version.pair_magic:
        raise unreadable(
            expected="header and values in one NIfTI file",
            found="the header of a pair (.hdr, .img)",
        )
    if header.magic != header.version.magic or not 1 <= n_axes <= 7:
        raise unreadable(expected="a NIfTI header", found="something unreadable")
    return header.dim[1 : n_axes + 1]


def _check_header(header: _Header, stored: StoredArray) -> None:
    """What the values depend on beside shape and type."""
    bits = 8 * stored.nbytes // math.prod(stored.shape)
    if header.bits != bits:
        raise unreadable(
            expected=f"{bits} bits a value, those of {stored.dtype}", found=str(header.bits)
        )
    first, last = header.version.min_offset, MAX_DATA_OFFSET
    if not (first <= header.offset <= last and header.offset == int(header.offset)):
        raise unreadable(
            expected=f"values that start at byte {first} to {last} (vox_offset)",
            found=f"{header.offset:.10g}",
        )
    # The reference evaluation would apply a scaling in float64, twice the memory of float32; nobody
    # scales floating-point values but by mistake, so it is refused rather than guessed at.
    if stored.scaled:
        raise unreadable(
            expected="unscaled values (scl_slope 1, scl_inter 0)",
            found=f"scl_slope {header.slope:.6g}, scl_inter {header.intercept:.6g}",
            fix="store the displacements themselves",
        )


def _check_kind_of_image(header: _Header) -> None:
    """NiBabel looks for NIfTI-1 first, and then for CIFTI, which is NIfTI-2 with an intent."""
    if header.version is not _NIFTI2:
        return
    if header.looks_like_nifti1:
        raise unreadable(
            expected="a NIfTI header", found="one of both versions, NIfTI-1 and NIfTI-2"
        )
    if header.intent in _CIFTI_INTENTS:
        raise unreadable(expected="a NIfTI image", found=f"a CIFTI one (intent {header.intent})")


def _check_orientation(header: _Header) -> None:
    """Affines are not used, but NiBabel does not open an image where the one that counts is none:
    a unit quaternion of which three parts are stored. The tolerance is NiBabel's."""
    if header.sform_code in _SFORM_CODES or header.qform_code == 0:
        return
    if all(map(math.isfinite, header.quaternion)):
        excess = sum(Fraction(part) ** 2 for part in header.quaternion) - 1
        if excess < 3 * Fraction(header.version.epsilon):
            return
    raise unreadable(
        expected="a rotation (quatern_b, quatern_c, quatern_d of length 1 at most)",
        found=", ".join(f"{part:.6g}" for part in header.quaternion),
        fix="set the affine, or qform_code 0",
    )


def _check_extensions(between: bytes, header: _Header) -> None:
    """What lies between header and values: whether extensions follow, and each one's size first."""
    order: Literal["big", "little"] = "big" if header.big_endian else "little"
    has_extensions, place = between[0] != 0, 4
    while has_extensions and len(between) - place >= _EXTENSION_STEP_BYTES:
        size = int.from_bytes(between[place : place + 4], order, signed=True)
        if not _MIN_EXTENSION_BYTES <= size <= len(between) - place:
            raise unreadable(
                expected=f"extensions that end at byte {header.offset:.10g}, before the values",
                found=f"one of {size} bytes at byte {header.n_bytes + place}",
            )
        place += size


def _is_scaled(header: _Header) -> bool:
    """Unset, 0 or NaN, means unscaled, whatever the intercept (nifti1.h)."""
    is_unset = header.slope == 0 or math.isnan(header.slope)
    return not is_unset and (header.slope, header.intercept) != (1, 0)
