"""The real loaders as functions of a file's bytes, and legal files to start from.

Each target may raise FieldError and nothing else; what it reads must be legal, and the same that
NumPy and NiBabel, with which the evaluation reads, find in the file. Shared by the property tests
(``tests/unit/test_fuzz_fields.py``) and by the coverage-guided run (``tests/fuzz/fuzz_fields.py``).
"""

from __future__ import annotations

import gzip
import io
import os
import tempfile
import warnings
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from harness.challenge.archive import FieldArchive
from harness.challenge.field_file import check_field, read_field
from harness.challenge.model import FieldDtype, FieldFormat, FieldSpec, Layout
from harness.errors import FieldError

if TYPE_CHECKING:
    from collections.abc import Callable

_MEMORY = Path("/dev/shm")  # rewriting a file on a disk takes ten times as long as reading it
_FOLDER = tempfile.TemporaryDirectory(
    prefix="harness-fuzz-", dir=_MEMORY if _MEMORY.is_dir() else None
)
GRID = (4, 3, 5)
NPZ_SPEC = FieldSpec(
    path="task_01/disp_{fixed:04d}_{moving:04d}.npz",
    other_layouts=(Layout.CHANNELS_LAST,),
    resolution="half",
    shape=(3, *GRID),
    dtype=FieldDtype.FLOAT16,
    other_dtypes=(FieldDtype.FLOAT32,),
)
NIFTI_SPEC = FieldSpec(
    path="task_01/disp_{fixed:04d}_{moving:04d}.nii.gz",
    format=FieldFormat.NIFTI,
    layout=Layout.CHANNELS_LAST,
    other_layouts=(Layout.CHANNELS_FIRST,),
    resolution="half",
    shape=(*GRID, 3),
    dtype=FieldDtype.FLOAT32,
    other_dtypes=(FieldDtype.FLOAT64,),
)
EXPECTED = {
    PurePosixPath("task_01/disp_0001_0002.npz"): NPZ_SPEC,
    PurePosixPath("task_01/disp_0003_0004.nii.gz"): NIFTI_SPEC,
}
FIELD: npt.NDArray[Any] = np.random.default_rng(0).normal(0, 5, NPZ_SPEC.shape).astype(np.float16)


def load(raw: bytes, name: str, spec: FieldSpec) -> bool:
    """Was it a legal field? Both ways to read one must say the same."""
    path = Path(_FOLDER.name, name)
    path.write_bytes(raw)
    refusals = []
    for read in (check_field, read_field):
        try:
            vectors = read(path, spec)
        except FieldError as error:
            _check_message(str(error))
            refusals.append(str(error))
    assert len(refusals) in (0, 2)
    if refusals:
        assert refusals[0] == refusals[1]
        return False
    assert vectors is not None
    assert vectors.shape == (3, *GRID)
    assert vectors.dtype.name in spec.dtypes
    assert np.isfinite(vectors).all()
    assert np.array_equal(vectors, _as_the_evaluation_reads(path))
    return True


def _as_the_evaluation_reads(path: Path) -> npt.NDArray[Any]:
    with warnings.catch_warnings(action="ignore"):  # of odd extensions, and of affines of NaN
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                array: npt.NDArray[Any] = arrays[arrays.files[0]]
        else:
            array = nib.load(path).get_fdata()  # type: ignore[attr-defined]
    return array if array.shape == (3, *GRID) else np.moveaxis(array, -1, 0)


def load_npz(raw: bytes) -> bool:
    return load(raw, "field.npz", NPZ_SPEC)


def load_npy_in_npz(raw: bytes) -> bool:
    """The bytes are the array's, in a zip file that is right: past its checksum."""
    return load(npz_of(raw), "field.npz", NPZ_SPEC)


def load_nii(raw: bytes) -> bool:
    return load(raw, "field.nii", NIFTI_SPEC)


def load_nii_gz(raw: bytes) -> bool:
    return load(raw, "field.nii.gz", NIFTI_SPEC)


def load_nii_in_gz(raw: bytes) -> bool:
    """The bytes are those that a correct gzip file inflates to."""
    return load(gzip.compress(raw, 1, mtime=0), "field.nii.gz", NIFTI_SPEC)


def load_archive(raw: bytes) -> bool:
    """An uploaded zip and every field in it."""
    descriptor = os.memfd_create("archive", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, raw)
        archive = FieldArchive(descriptor, EXPECTED)
        for problem in archive.problems:
            for text in (problem.expected, problem.found, problem.fix):
                _check_message(text)
        for name in archive.names:
            assert not name.is_absolute()
            assert ".." not in name.parts
            with suppress(FieldError), archive.file(name) as copy:
                read_field(copy, EXPECTED.get(name, NPZ_SPEC))
        return not archive.problems
    finally:
        os.close(descriptor)


def _check_message(text: str) -> None:
    assert text
    assert text.isprintable()
    assert len(text) < 400


def npz_of(npy: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("arr_0.npy", npy)
    return file.getvalue()


def _npy(array: npt.NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _nii(array: npt.NDArray[Any], version: int = 1) -> bytes:
    image: Any = nib.nifti1.Nifti1Image if version == 1 else nib.nifti2.Nifti2Image
    raw: bytes = image(array, np.eye(4)).to_bytes()
    return raw


def _gz(raw: bytes, level: int) -> bytes:
    packer = zlib.compressobj(level, zlib.DEFLATED, 31)
    return packer.compress(raw) + packer.flush()


def _archive(compression: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.mkdir("task_01")
        archive.writestr("task_01/disp_0001_0002.npz", NPZ[0])
        archive.writestr("task_01/disp_0003_0004.nii.gz", NII_GZ[0])
        archive.writestr("dummy.txt", b"x")
    return file.getvalue()


NPY = (
    _npy(FIELD),
    _npy(np.asfortranarray(FIELD.astype(">f4"))),
    _npy(np.moveaxis(FIELD, 0, -1).astype("<f4")),
)
NPZ = (*map(npz_of, NPY), npz_of(NPY[0], zipfile.ZIP_DEFLATED))
_LAST = np.moveaxis(FIELD, 0, -1)
NII = (
    _nii(_LAST.astype(np.float32)),
    _nii(_LAST.astype(">f8")),
    _nii(FIELD.astype(np.float64), version=2),
)
NII_GZ = (
    _gz(NII[0], 1),
    _gz(NII[1], 9),
    _gz(NII[2], 0),
    _gz(NII[0][:400], 1) + _gz(NII[0][400:], 0),
)
ARCHIVES = (_archive(zipfile.ZIP_STORED), _archive(zipfile.ZIP_DEFLATED))

TARGETS: dict[str, tuple[Callable[[bytes], bool], tuple[bytes, ...]]] = {
    "npz": (load_npz, NPZ),
    "npy": (load_npy_in_npz, NPY),
    "nii": (load_nii, NII),
    "nii.gz": (load_nii_gz, NII_GZ),
    "nii_in_gz": (load_nii_in_gz, NII),
    "zip": (load_archive, ARCHIVES),
}
