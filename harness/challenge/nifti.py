"""NIfTI headers, read without reading voxels: the grid, and whether the file is all there."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import nibabel as nib
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

if TYPE_CHECKING:
    from nibabel.arrayproxy import ArrayProxy

if TYPE_CHECKING:
    from pathlib import Path
from typing import TYPE_CHECKING, cast

_GZIP_TRAILER_BYTES = 8  # CRC-32 and size modulo 2**32 (RFC 1952)
_CHUNK_BYTES = 1 << 20


class NiftiError(ValueError):
    """The file is no NIfTI file, or not a whole one. The message says what was found."""


@dataclass(frozen=True, kw_only=True)
class NiftiHeader:
    """``grid`` is the array's shape as the file gives it; ``spacing_mm`` per spatial axis."""

    grid: tuple[int, ...]
    spacing_mm: tuple[float, ...]


def read_header(path: Path) -> NiftiHeader:
    """Header of a ``.nii`` or ``.nii.gz`` file whose voxel data is complete. Raises NiftiError."""
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
    _check_complete(path, cast("ArrayProxy", image.dataobj).offset + voxels_bytes)
    return NiftiHeader(
        grid=tuple(int(n) for n in image.shape),
        spacing_mm=tuple(float(s) for s in header.get_zooms()[:3]),
    )


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
