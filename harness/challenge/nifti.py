"""NIfTI headers, read without reading voxels: the grid, and whether the file is all there."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from pathlib import Path

    from nibabel.arrayproxy import ArrayProxy

_GZIP_TRAILER_BYTES = 8  # CRC-32 and size modulo 2**32 (RFC 1952)
_CHUNK_BYTES = 1 << 20

# The header of a NIfTI-1 file and the four bytes that say whether extensions follow (nifti1.h):
# size, unused, dim[8], intent, datatype, bitpix, slice_start, pixdim[8], vox_offset, scaling,
# unused, qform and sform codes, quaternion and offset, sform's rows, intent's name, magic.
_HEADER = struct.Struct("<i36x8h14x2h2x8f3f132x2h6f12f16x4s4s")
_DATA_OFFSET = 352
_BITS = {2: 8, 4: 16, 8: 32, 16: 32, 64: 64, 256: 8, 512: 16, 768: 32}  # by datatype
_TRANSFORM_CODES = range(5)


class NiftiError(ValueError):
    """The file is no NIfTI file, or not a whole one. The message says what was found."""


@dataclass(frozen=True, kw_only=True)
class NiftiHeader:
    """``grid`` is the array's shape as the file gives it; ``spacing_mm`` per spatial axis."""

    grid: tuple[int, ...]
    spacing_mm: tuple[float, ...]


def read_header(path: Path) -> NiftiHeader:
    """Header of a ``.nii`` or ``.nii.gz`` file whose voxel data is complete. Raises NiftiError."""
    header, end = _plain_header(path) or _any_header(path)
    _check_complete(path, end)
    return header


def _plain_header(path: Path) -> tuple[NiftiHeader, int] | None:
    """The header and where its data ends, of a three-dimensional image as most programs write it;
    None for all else, which NiBabel then judges.

    Importing NiBabel and NumPy takes 0.15 s, and checking a challenge's data needs no more of them.
    """
    open_file = gzip.open if path.suffix == ".gz" else open
    try:
        with open_file(path, "rb") as file:
            values = _HEADER.unpack(file.read(_HEADER.size))
    except (OSError, EOFError, zlib.error, struct.error):
        return None
    size, (rank, *shape), (datatype, bits) = values[0], values[1:5], values[9:11]
    qfac, *spacing_mm = values[11:15]
    offset, slope, intercept = values[19:22]
    codes, quaternion, placing, ends = values[22:24], values[24:27], values[24:42], values[42:]
    is_plain = (
        (size, rank, offset) == (_HEADER.size - 4, 3, _DATA_OFFSET)
        and ends == (b"n+1\0", b"\0\0\0\0")
        and min(shape) > 0
        and _BITS.get(datatype) == bits
        and qfac in {-1.0, 1.0}
        and all(0 < step < math.inf for step in spacing_mm)
        and all(map(math.isfinite, (slope, intercept, *placing)))
        and all(code in _TRANSFORM_CODES for code in codes)
        and sum(part**2 for part in quaternion) <= 1.0
    )
    if not is_plain:
        return None
    end = _DATA_OFFSET + math.prod(shape) * bits // 8
    return NiftiHeader(grid=tuple(shape), spacing_mm=tuple(spacing_mm)), end


def _any_header(path: Path) -> tuple[NiftiHeader, int]:
    import nibabel as nib  # noqa: PLC0415 - see _plain_header
    from nibabel.filebasedimages import ImageFileError  # noqa: PLC0415
    from nibabel.spatialimages import HeaderDataError  # noqa: PLC0415
    from nibabel.wrapstruct import WrapStructError  # noqa: PLC0415

    try:
        image = nib.nifti1.Nifti1Image.from_filename(path)
    except (
        ImageFileError,
        HeaderDataError,
        WrapStructError,
        ValueError,
        OverflowError,  # an offset that is infinite
    ) as error:
        raise NiftiError(f"not a NIfTI file ({_first_line(error)})") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise NiftiError(f"unreadable or truncated ({_first_line(error)})") from error
    except OSError as error:
        raise NiftiError(f"cannot be read ({_first_line(error)})") from error
    header = image.header
    voxels_bytes = math.prod(image.shape) * header.get_data_dtype().itemsize
    found = NiftiHeader(
        grid=tuple(int(n) for n in image.shape),
        spacing_mm=tuple(float(s) for s in header.get_zooms()[:3]),
    )
    return found, cast("ArrayProxy", image.dataobj).offset + voxels_bytes


def _check_complete(path: Path, expected_bytes: int) -> None:
    if path.suffix != ".gz":
        found_bytes = path.stat().st_size
    elif _gzip_trailer_size(path) == expected_bytes % 2**32:
        # A gzip file ends with its content's size, so a truncated one ends with something else.
        return
    else:
        found_bytes = _inflated_size(path)
    if found_bytes < expected_bytes:
        raise NiftiError(
            f"truncated: the header promises {expected_bytes} bytes, found {found_bytes}"
        )


def _gzip_trailer_size(path: Path) -> int:
    with path.open("rb") as file:
        file.seek(-min(_GZIP_TRAILER_BYTES, path.stat().st_size), 2)
        trailer = file.read()
    return int(struct.unpack("<I", trailer[-4:])[0]) if len(trailer) == _GZIP_TRAILER_BYTES else -1


def _inflated_size(path: Path) -> int:
    """Content size of a gzip file that has several members or bytes after its end, or is cut."""
    size = 0
    try:
        with gzip.open(path) as file:
            while chunk := file.read(_CHUNK_BYTES):
                size += len(chunk)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise NiftiError(
            f"truncated or damaged after {size} bytes of content ({_first_line(error)})"
        ) from error
    return size


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]
