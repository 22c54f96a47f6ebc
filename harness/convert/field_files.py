"""Field files of any container: what their header says first, then their values; never pickle."""

from __future__ import annotations

import gzip
import math
import tokenize
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, cast

import nibabel as nib
import numpy as np

from harness.challenge.nifti import NiftiError, read_header
from harness.convert import simpleitk
from harness.convert.geometry import NIFTI_SUFFIXES, Geometry, nifti_geometry
from harness.errors import DataError, FieldError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from nibabel.arrayproxy import ArrayProxy

    from harness.challenge.field import FloatArray

NUMPY_SUFFIXES = (".npy", ".npz")
SUFFIXES = (*NUMPY_SUFFIXES, *NIFTI_SUFFIXES, *simpleitk.SUFFIXES)
PART = ".part."  # goes before a file's name until it is whole

_PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".ckpt")
_ITK_TRANSFORMS = (".h5", ".hdf5", ".mat", ".tfm", ".xfm", ".txt")
_MAX_HEADER_BYTES = 4096  # NumPy writes 128 or 192
_MAX_OFFSET_BYTES = 1 << 24  # NIfTI's header and extensions, which nobody reads here
_MAX_AXIS = 1 << 63  # NumPy's own; a larger number may be too long even to be shown
_DISPVECT = 1006  # NIFTI_INTENT_DISPVECT: ITK takes these vectors for RAS
_VECTOR = 1007  # NIFTI_INTENT_VECTOR: what ITK itself writes, LPS
_HEADER_READERS: dict[tuple[int, int], Callable[..., tuple[tuple[int, ...], bool, np.dtype]]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


@dataclass(frozen=True, kw_only=True)
class FieldFile:
    """What the header of a field file says. ``shape`` is without axes of length 1 that hold no
    space: a batch in front, NIfTI's time.

    ``geometry`` is what the file says of its place in space, None for NumPy's, which say nothing.
    ``is_ras``: ITK takes its vectors for RAS and turns them to LPS.
    """

    path: Path
    shape: tuple[int, ...]
    geometry: Geometry | None
    is_ras: bool = False

    def values(self) -> FloatArray:
        """The array, of :attr:`shape`, as stored. Raises FieldError or DataError."""
        name = self.path.name
        if name.endswith(NUMPY_SUFFIXES):
            values = _numpy_values(self.path)
        elif name.endswith(NIFTI_SUFFIXES):
            values = _nifti_values(self.path)
        else:
            values = simpleitk.read_vectors(self.path)
        array = values.reshape(self.shape)
        bad = array.size - int(np.count_nonzero(np.isfinite(array)))
        if bad:
            raise FieldError(f"expected finite values, found {bad} that are NaN or infinite")
        return array


def check_suffix(path: Path) -> None:
    """Raises FieldError for a file whose name no reader here knows, with the way to one."""
    if path.name.endswith(SUFFIXES):
        return
    name, hint = path.name.lower(), ""
    if name.endswith(_PICKLES):
        hint = (
            ". It is a pickle, which could run any code, and is not opened; where it was made, "
            "save the array: numpy.save('field.npy', tensor.detach().cpu().float().numpy())"
        )
    elif name.endswith(_ITK_TRANSFORMS):
        hint = (
            "; a transform becomes a displacement image with antsApplyTransforms -d 3 -r FIXED "
            "-t TRANSFORM -o '[field.nii.gz,1]', or SimpleITK's TransformToDisplacementField"
        )
    raise FieldError(f"expected a file that ends in one of {', '.join(SUFFIXES)}{hint}")


def open_field(path: Path) -> FieldFile:
    """Read the header of a field file. Raises FieldError or DataError; messages lack the name."""
    check_suffix(path)
    if not path.is_file():
        raise FieldError("expected a file, found none")
    if path.name.endswith(NUMPY_SUFFIXES):
        return FieldFile(path=path, shape=_without_batch(_numpy_shape(path)), geometry=None)
    if path.name.endswith(NIFTI_SUFFIXES):
        return _open_nifti(path)
    size, components = simpleitk.read_header(path)
    if len(size) != 3 or components != 3:
        raise FieldError(
            f"expected a 3D image of 3 components a voxel, found size {size} with {components}"
        )
    grid, affine = simpleitk.read_geometry(path)
    return FieldFile(path=path, shape=(*grid, 3), geometry=Geometry(grid=grid, affine=affine))


def read_itk(file: FieldFile) -> tuple[FloatArray, Geometry]:
    """Vectors (3, X, Y, Z) in mm, LPS, and the domain they are on, as ITK reads the file."""
    if file.geometry is None:
        raise FieldError(
            f"expected an ITK displacement image, (X, Y, Z) with three components and its position "
            f"in space (.nii.gz, .mha, .nrrd), found an array {file.shape}"
        )
    vectors = np.moveaxis(file.values(), 3, 0)
    if file.is_ras:
        vectors = vectors * np.array([-1, -1, 1], vectors.dtype)[:, None, None, None]
    return vectors, file.geometry


def _without_batch(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[1:] if len(shape) == 5 and shape[0] == 1 else shape


def _open_nifti(path: Path) -> FieldFile:
    try:
        shape = read_header(path).grid
        image = nib.nifti1.Nifti1Image.from_filename(path)
    except NiftiError as error:
        raise FieldError(f"not a whole NIfTI file: {error}") from error
    if len(shape) == 5 and shape[3] == 1:
        shape = (*shape[:3], shape[4])
    geometry = nifti_geometry(image, path) if shape[3:] == (3,) else None
    intent = int(image.header["intent_code"])
    return FieldFile(path=path, shape=shape, geometry=geometry, is_ras=intent == _DISPVECT)


def _nifti_values(path: Path) -> FloatArray:
    try:
        if path.name.endswith(".gz"):
            image = nib.nifti1.Nifti1Image.from_bytes(_inflated(path))
        else:
            image = nib.nifti1.Nifti1Image.from_filename(path)
        values: FloatArray = np.asanyarray(image.dataobj)
    except (OSError, EOFError, ValueError, OverflowError, zlib.error) as error:
        raise FieldError(f"expected a NIfTI file, found a damaged one ({error})") from error
    except MemoryError as error:
        raise FieldError("expected values that fit into memory, found more") from error
    if not np.issubdtype(values.dtype, np.floating):
        raise FieldError(f"expected floating-point values, found {values.dtype}")
    return values


def _inflated(path: Path) -> bytes:
    """Header and values of a compressed NIfTI file, and no more of what it may inflate to.

    One byte more is asked for: NiBabel stops at the last voxel, before the checksum, and damage
    would go unnoticed.
    """
    image = nib.nifti1.Nifti1Image.from_filename(path)
    offset = cast("ArrayProxy", image.dataobj).offset
    if offset > _MAX_OFFSET_BYTES:
        raise FieldError(
            f"expected values within {_MAX_OFFSET_BYTES} bytes, found them {offset} in"
        )
    n_bytes = offset + math.prod(image.shape) * image.header.get_data_dtype().itemsize
    with gzip.open(path) as file:
        content = file.read(n_bytes)
        if file.read(1):
            raise FieldError(
                f"expected a NIfTI file, found a damaged one (more than the {n_bytes} bytes that "
                "its header promises)"
            )
    return content


@contextmanager
def _numpy_stream(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of the one array in a .npy or .npz file, with what can go wrong while reading."""
    try:
        if path.name.endswith(".npy"):
            with path.open("rb") as file:
                yield file
            return
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if len(names) != 1:
                shown = ", ".join(names[:4])
                raise FieldError(f"expected one array in the file, found {len(names)} ({shown})")
            with archive.open(names[0]) as member:
                yield member
    except (
        *(zipfile.BadZipFile, EOFError, zlib.error, NotImplementedError, RuntimeError),
        *(tokenize.TokenError, SyntaxError, TypeError, OverflowError),
    ) as error:  # the last four, and RecursionError, come from headers that are no Python literal
        raise FieldError(f"expected a NumPy file, found a damaged one ({error})") from error
    except MemoryError as error:
        raise FieldError("expected values that fit into memory, found more") from error
    except (OSError, ValueError) as error:
        raise FieldError(f"cannot be read as a NumPy file ({error})") from error


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(stream)
    read = _HEADER_READERS.get(version)
    if read is None:
        raise FieldError(f"expected an array of NPY version 1 or 2, found {version}")
    shape, _, dtype = read(stream, max_header_size=_MAX_HEADER_BYTES)
    if dtype.hasobject:
        raise FieldError("expected numbers, found pickled Python objects, which are not opened")
    if not np.issubdtype(dtype, np.floating):
        raise FieldError(f"expected floating-point values, found {dtype}")
    if not all(0 <= n < _MAX_AXIS for n in shape):
        raise FieldError("expected a shape, found axes no array can have")
    return shape, dtype


def _numpy_shape(path: Path) -> tuple[int, ...]:
    with _numpy_stream(path) as stream:
        return _read_header(stream)[0]


def _numpy_values(path: Path) -> FloatArray:
    with _numpy_stream(path) as stream:
        values: FloatArray = np.lib.format.read_array(
            stream, allow_pickle=False, max_header_size=_MAX_HEADER_BYTES
        )
        if stream.read(1):  # of a zip's member this checks the CRC-32, too
            raise FieldError(f"expected {values.nbytes} bytes of values, found more")
        return values


def write_numpy(array: FloatArray, path: Path) -> None:
    """Write to ``.npy`` or, compressed, ``.npz``."""
    with _whole(path) as part, part.open("wb") as file:
        if path.name.endswith(".npz"):
            np.savez_compressed(file, array)
        else:
            np.save(file, array)


def write_nifti(array: FloatArray, affine_ras: FloatArray, path: Path) -> None:
    """Write (X, Y, Z, 3) as it is."""
    _write_nifti(nib.nifti1.Nifti1Image(array, affine_ras), affine_ras, path)


def write_itk(vectors: FloatArray, geometry: Geometry, path: Path) -> None:
    """Write (X, Y, Z, 3), mm in LPS, as ITK writes displacement images."""
    if not path.name.endswith(NIFTI_SUFFIXES):
        with _whole(path) as part:
            simpleitk.write_vectors(vectors, geometry.affine, part)
        return
    image = nib.nifti1.Nifti1Image(vectors[:, :, :, None, :], geometry.affine_ras)
    image.header.set_intent(_VECTOR)
    _write_nifti(image, geometry.affine_ras, path)


def _write_nifti(image: nib.nifti1.Nifti1Image, affine_ras: FloatArray, path: Path) -> None:
    image.set_qform(affine_ras, 1)
    image.set_sform(affine_ras, 1)
    image.header.set_xyzt_units("mm")
    with _whole(path) as part:
        image.to_filename(part)


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A name to write to; the final name never names a half-written file."""
    part = path.with_name(PART + path.name)
    try:
        yield part
        part.replace(path)
    except RuntimeError as error:  # SimpleITK's
        raise DataError(f"{path}: cannot be written ({error})") from error
    finally:
        part.unlink(missing_ok=True)
