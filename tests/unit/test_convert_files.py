"""Field files from one convention to another: containers, geometry, names, the command."""

from __future__ import annotations

import gzip
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from harness.challenge.field_file import read_field
from harness.challenge.model import FieldDtype, FieldFormat, FieldSpec, Layout
from harness.convert.batch import Batch, parse_name
from harness.convert.convention import Family, FieldConvention, Order
from harness.convert.conversion import Conversion
from harness.convert.geometry import Geometry, read_geometry
from harness.errors import ConventionError, DataError, FieldError, HarnessError, OutputError
from harness.evaluate.accuracy import upsample
from tests.field_files import peak_bytes
from tests.tiny import GRID, HALF, tiny_challenge, write_challenge, write_image

if TYPE_CHECKING:
    from collections.abc import Callable

Array = npt.NDArray[Any]
Foreign = Any  # what belongs to SimpleITK, which need not be installed

TASK = tiny_challenge().task("task_01")
FULL_TASK = TASK.model_copy(
    update={
        "field": FieldSpec(
            path="disp_{fixed:04d}_{moving:04d}.nii.gz",
            other_paths=(
                "disp_{fixed:04d}_{fixed_modality:04d}_{moving:04d}_{moving_modality:04d}.nii.gz",
            ),
            format=FieldFormat.NIFTI,
            layout=Layout.CHANNELS_LAST,
            resolution="full",
            shape=(*GRID, 3),
            dtype=FieldDtype.FLOAT32,
        )
    }
)
CHALLENGE, VOXELS, NIFTI, ITK = (
    FieldConvention(family=family)
    for family in (Family.CHALLENGE, Family.VOXELS, Family.NIFTI, Family.ITK)
)
OTHERS = {
    "voxels": (VOXELS, "npy"),
    "voxels-npz": (VOXELS, "npz"),
    "nifti": (NIFTI, "nii.gz"),
    "itk": (ITK, "nii.gz"),
    "itk-nii": (ITK, "nii"),
    "itk-mha": (ITK, "mha"),
    "itk-nrrd": (ITK, "nrrd"),
} | {
    f"grid-sample-{order}-{align}-{absolute}": (
        FieldConvention(
            family=Family.GRID_SAMPLE, order=order, align_corners=align, absolute=absolute
        ),
        "npy",
    )
    for order in Order
    for align in (True, False)
    for absolute in (True, False)
}
TURNED = np.array(
    [
        [1.4716, -0.2821, 0.3982, 7.0],
        [0.1287, 1.8619, 1.0648, 8.0],
        [-0.2605, -0.6736, 2.7762, 9.0],
        [0, 0, 0, 1],
    ]
)


def orthogonal(affine: Array) -> Array:
    """The nearest affine without shear: spacing 1.5, 2 and 3 mm."""
    left, _, right = np.linalg.svd(affine[:3, :3] / [1.5, 2, 3])
    result = affine.copy()
    result[:3, :3] = left @ right * [1.5, 2, 3]
    return result


FIXED_RAS = orthogonal(TURNED)
MOVING_RAS = np.diag([-1.6, 1.9, 2.9, 1.0])
MOVING_RAS[:3, 3] = (25, 3, -4)


def smooth(grid: tuple[int, ...], *, seed: int = 3, largest: float = 2) -> Array:
    noise = np.random.default_rng(seed).normal(size=(3, *grid))
    sigmas = [0, *(3 * n / full for n, full in zip(grid, GRID, strict=True))]
    values = ndimage.gaussian_filter(noise, sigmas)
    scaled: Array = values * (largest / np.abs(values).max())
    return scaled


@pytest.fixture
def images(tmp_path: Path) -> dict[str, Path]:
    """A fixed and a moving image that lie askew to each other."""
    paths = {"fixed": tmp_path / "fixed.nii.gz", "moving": tmp_path / "moving.nii.gz"}
    for (name, path), affine in zip(paths.items(), (FIXED_RAS, MOVING_RAS), strict=True):
        values = ndimage.gaussian_filter(
            np.random.default_rng(len(name)).normal(size=GRID) * 100, 1.2
        ).astype(np.float32)
        image = nib.nifti1.Nifti1Image(values, affine)
        image.set_sform(affine, 1)
        image.set_qform(affine, 1)
        image.to_filename(path)
    return paths


def stored_half(path: Path) -> Array:
    """A field file of the 2021 kind, and what is in it."""
    array = smooth(HALF).astype(np.float16)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, array)
    return array


def stored_full(path: Path) -> Array:
    array = np.moveaxis(smooth(GRID), 0, -1).astype(np.float32)
    nib.nifti1.Nifti1Image(array, np.eye(4)).to_filename(path)
    return array


def need_sitk(suffix: str = "mha") -> Foreign:
    if suffix in ("mha", "nrrd"):
        return pytest.importorskip("SimpleITK", reason="SimpleITK is not installed here")
    return None


# --- There and back, in files -------------------------------------------------------------------


@pytest.mark.parametrize("name", OTHERS)
def test_a_full_field_comes_back_as_it_was(
    name: str, tmp_path: Path, images: dict[str, Path]
) -> None:
    convention, suffix = OTHERS[name]
    need_sitk(suffix)
    array = stored_full(tmp_path / "in.nii.gz")
    other, back = tmp_path / f"other.{suffix}", tmp_path / "back.nii.gz"
    there = Conversion(source=CHALLENGE, target=convention, task=FULL_TASK)
    there.convert(tmp_path / "in.nii.gz", other, **images)
    Conversion(source=convention, target=CHALLENGE, task=FULL_TASK).convert(other, back, **images)
    found = nib.nifti1.Nifti1Image.from_filename(back)
    assert found.shape == (*GRID, 3)
    assert found.get_data_dtype() == np.float32
    assert np.abs(np.asarray(found.dataobj) - array).max() < 1e-4


@pytest.mark.parametrize("name", OTHERS)
def test_a_half_field_goes_out_as_the_evaluation_upsamples_it(
    name: str, tmp_path: Path, images: dict[str, Path]
) -> None:
    """And comes back near what it was, for between the grids there is interpolation."""
    convention, suffix = OTHERS[name]
    need_sitk(suffix)
    array = stored_half(tmp_path / "in.npz")
    other, full, back = tmp_path / f"other.{suffix}", tmp_path / "full.npy", tmp_path / "back.npz"
    there = Conversion(source=CHALLENGE, target=convention, task=TASK)
    there.convert(tmp_path / "in.npz", other, **images)
    Conversion(source=convention, target=VOXELS).convert(other, full, **images)
    assert np.abs(np.load(full) - upsample(array, GRID)).max() < 1e-4
    Conversion(source=convention, target=CHALLENGE, task=TASK).convert(other, back, **images)
    again = read_field(back, TASK.field)
    assert np.abs(again - array).max() < 0.2
    assert np.sqrt(np.mean((again - array) ** 2)) < 0.03


# --- Against SimpleITK's own files --------------------------------------------------------------


def sitk_warp(displacement: Path, images: dict[str, Path]) -> Array:
    sitk = need_sitk()
    fixed, moving = (sitk.ReadImage(str(images[name])) for name in ("fixed", "moving"))
    transform = sitk.DisplacementFieldTransform(
        sitk.ReadImage(str(displacement), sitk.sitkVectorFloat64)
    )
    warped = sitk.Resample(moving, fixed, transform, sitk.sitkLinear, np.nan, sitk.sitkFloat64)
    result: Array = sitk.GetArrayFromImage(warped).transpose(2, 1, 0)
    return result


def index_warp(vectors: Array, images: dict[str, Path]) -> Array:
    """The challenge's warp: by indices, without any affine."""
    moving = np.asarray(nib.nifti1.Nifti1Image.from_filename(images["moving"]).dataobj, float)
    positions = np.indices(GRID) + vectors
    warped: Array = ndimage.map_coordinates(moving, positions, order=1, cval=np.nan)
    return warped


def difference(first: Array, second: Array) -> float:
    inside = np.isfinite(first) & np.isfinite(second)
    assert inside.mean() > 0.3
    return float(np.abs(first - second)[inside].max())


@pytest.mark.parametrize("suffix", ["nii.gz", "nii", "mha", "nrrd"])
def test_simpleitk_warps_what_we_write_as_the_challenge_would(
    suffix: str, tmp_path: Path, images: dict[str, Path]
) -> None:
    need_sitk()
    array = smooth(GRID).astype(np.float32)
    np.save(tmp_path / "field.npy", array)
    target = tmp_path / f"itk.{suffix}"
    Conversion(source=VOXELS, target=ITK).convert(tmp_path / "field.npy", target, **images)
    assert difference(index_warp(array, images), sitk_warp(target, images)) < 1e-2


@pytest.mark.parametrize(
    ("suffix", "intent"), [("nii.gz", 1007), ("nii.gz", 1006), ("mha", None), ("nrrd", None)]
)
def test_what_simpleitk_reads_becomes_the_same_warp(
    suffix: str, intent: int | None, tmp_path: Path, images: dict[str, Path]
) -> None:
    """Files of SimpleITK's own, and NIfTI with the intent whose vectors ITK takes for RAS."""
    sitk = need_sitk()
    displacement = tmp_path / f"itk.{suffix}"
    fixed = sitk.ReadImage(str(images["fixed"]))
    start = sitk.CenteredTransformInitializer(
        fixed, sitk.ReadImage(str(images["moving"])), sitk.Euler3DTransform()
    )
    affine = sitk.TransformToDisplacementField(
        start,
        sitk.sitkVectorFloat64,
        *(fixed.GetSize(), fixed.GetOrigin(), fixed.GetSpacing(), fixed.GetDirection()),
    )
    values = sitk.GetArrayFromImage(affine) + smooth(GRID, largest=3).transpose(3, 2, 1, 0)
    made = sitk.GetImageFromArray(values, isVector=True)
    made.CopyInformation(fixed)
    sitk.WriteImage(made, str(displacement))
    if intent is not None:
        image = nib.nifti1.Nifti1Image.from_filename(displacement)
        assert image.header["intent_code"] == 1007
    if intent == 1006:
        turned = np.asarray(image.dataobj) * [-1, -1, 1]
        image = nib.nifti1.Nifti1Image(turned, image.affine, image.header)
        image.header["intent_code"] = 1006
        image.to_filename(displacement)
    target = tmp_path / "voxels.npy"
    Conversion(source=ITK, target=VOXELS).convert(displacement, target, **images)
    expected = sitk_warp(displacement, images)
    found = index_warp(np.load(target), images)
    assert np.isfinite(expected)[np.isfinite(found)].all()
    assert difference(found, expected) < 1e-2


def nifti_file(path: Path, sform: tuple[Array, int], qform: tuple[Array, int]) -> Path:
    image = nib.nifti1.Nifti1Image(np.zeros((4, 5, 6), np.float32), None)
    image.header.set_zooms((1.5, 2, 3))
    image.set_sform(*sform)
    image.set_qform(*qform)
    image.to_filename(path)
    return path


MIRRORED = FIXED_RAS @ np.diag([1, -1, 1, 1])


@pytest.mark.parametrize("affine", [FIXED_RAS, MIRRORED], ids=["right-handed", "left-handed"])
@pytest.mark.parametrize("codes", [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1), (4, 2)])
def test_geometry_is_what_simpleitk_reads(
    affine: Array, codes: tuple[int, int], tmp_path: Path
) -> None:
    """With none of the two affines too, where NiBabel and ITK differ."""
    sitk = need_sitk()
    path = nifti_file(tmp_path / "image.nii.gz", (affine, codes[0]), (affine, codes[1]))
    image = sitk.ReadImage(str(path))
    geometry = read_geometry(path)
    for index in ((0, 0, 0), (3, 4, 5), (1, 0, 2)):
        point = geometry.affine @ (*index, 1)
        expected = image.TransformIndexToPhysicalPoint(index)
        assert np.allclose(point[:3], expected, atol=1e-3)
    sitk.WriteImage(image, str(tmp_path / "image.mha"))
    assert read_geometry(tmp_path / "image.mha").is_same(geometry)


def sheared(affine: Array) -> Array:
    result = affine.copy()
    result[0, 1] += 0.3
    return result


@pytest.mark.parametrize(
    ("sform", "qform", "message"),
    [
        ((FIXED_RAS, 1), (MIRRORED, 1), "an sform and a qform that are"),
        ((sheared(FIXED_RAS), 1), (FIXED_RAS, 0), "found a sheared affine"),
    ],
)
def test_geometry_that_itk_versions_read_differently_is_refused(
    sform: tuple[Array, int], qform: tuple[Array, int], message: str, tmp_path: Path
) -> None:
    path = nifti_file(tmp_path / "image.nii.gz", sform, qform)
    with pytest.raises(DataError, match=message) as caught:
        read_geometry(path)
    assert str(path) in str(caught.value)


def test_geometry_in_other_units_is_refused(tmp_path: Path) -> None:
    image = nib.nifti1.Nifti1Image(np.zeros((4, 5, 6), np.float32), FIXED_RAS)
    image.header.set_xyzt_units("meter")
    image.to_filename(tmp_path / "image.nii.gz")
    with pytest.raises(DataError, match="expected spacing in mm, found meter"):
        read_geometry(tmp_path / "image.nii.gz")


def test_geometries_a_hair_apart_are_the_same() -> None:
    """What float32 affines lose; a tenth of a voxel is not the same."""
    one = Geometry(grid=GRID, affine=FIXED_RAS)
    for shift, same in ((1e-4, True), (0.1, False)):
        affine = FIXED_RAS.copy()
        affine[0, 3] += shift
        assert one.is_same(Geometry(grid=GRID, affine=affine)) is same
    assert not one.is_same(Geometry(grid=(*GRID[:2], 21), affine=FIXED_RAS))


# --- Containers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape", [(3, *GRID), (*GRID, 3), (1, 3, *GRID), (1, *GRID, 3), (*GRID, 1, 3)]
)
def test_components_first_or_last_and_a_batch(shape: tuple[int, ...], tmp_path: Path) -> None:
    array = smooth(GRID).astype(np.float32)
    last = shape[-1] == 3
    stored = (np.moveaxis(array, 0, -1) if last else array).reshape(shape)
    source = tmp_path / ("in.nii.gz" if shape[-2] == 1 else "in.npy")
    if source.name == "in.npy":
        np.save(source, stored)
    else:
        nib.nifti1.Nifti1Image(stored, np.eye(4)).to_filename(source)
    Conversion(source=VOXELS, target=VOXELS, task=TASK).convert(source, tmp_path / "out.npy")
    assert np.array_equal(np.load(tmp_path / "out.npy"), array)


def _pickled(path: Path) -> None:
    np.save(path, np.array([{}, 1], dtype=object), allow_pickle=True)


def _two_arrays(path: Path) -> None:
    np.savez(path, warp=np.zeros(3), other=np.zeros(3))


def _saved(array: Array) -> Callable[[Path], object]:
    def save(path: Path) -> None:
        with path.open("wb") as file:
            np.save(file, array)

    return save


def _cut(path: Path) -> None:
    np.savez_compressed(path, smooth(GRID))
    path.write_bytes(path.read_bytes()[:-200])


def _cut_nifti(path: Path) -> None:
    nib.nifti1.Nifti1Image(np.zeros((*GRID, 3)), np.eye(4)).to_filename(path)
    path.write_bytes(path.read_bytes()[:-20])


def _damaged_nifti(path: Path) -> None:
    noise = np.random.default_rng(0).normal(size=(*GRID, 3))
    nib.nifti1.Nifti1Image(noise, np.eye(4)).to_filename(path)
    content = bytearray(path.read_bytes())
    content[20_000:20_100] = bytes(100)
    path.write_bytes(content)


def _headed(header: str) -> Callable[[Path], object]:
    raw = header.encode("latin1")
    return lambda path: path.write_bytes(
        b"\x93NUMPY\x01\0" + len(raw).to_bytes(2, "little") + raw + bytes(1000)
    )


def _shaped(shape: str) -> Callable[[Path], object]:
    return _headed(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}\n")


def _more_values(path: Path) -> None:
    _saved(np.zeros((3, *GRID)))(path)
    path.write_bytes(path.read_bytes() + b"x")


def _no_unit(path: Path) -> None:
    image = nib.nifti1.Nifti1Image(np.zeros((*GRID, 3)), np.eye(4))
    image.header["xyzt_units"] = 7
    image.to_filename(path)


def _no_quaternion(path: Path) -> None:
    image = nib.nifti1.Nifti1Image(np.zeros((*GRID, 3)), np.eye(4))
    image.set_qform(np.eye(4), 1)
    image.set_sform(np.eye(4), 1)
    image.header["quatern_b"] = 5
    image.to_filename(path)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("a.pt", lambda path: path.write_bytes(pickle.dumps(1)), "numpy.save.'field.npy'"),
        ("a.h5", lambda path: path.write_bytes(b""), "antsApplyTransforms"),
        ("a.jpg", lambda path: path.write_bytes(b""), "expected a file that ends in one of .npy"),
        ("a.npy", lambda _: None, "expected a file, found none"),
        ("a.npy", lambda path: path.write_bytes(b"no array"), "cannot be read as a NumPy file"),
        ("a.npy", _pickled, "pickled Python objects, which are not opened"),
        ("a.npz", _two_arrays, r"expected one array in the file, found 2 \(warp.npy, other.npy\)"),
        ("a.npz", _cut, "a damaged one"),
        ("a.nii.gz", _cut_nifti, "not a whole NIfTI file"),
        ("a.nii.gz", _damaged_nifti, "expected a NIfTI file, found a damaged one"),
        ("a.NPY", _saved(np.zeros((3, *GRID))), "expected a file that ends in one of .npy"),
        ("a.npy", _saved(np.zeros((3, *GRID), int)), "expected floating-point values, found int64"),
        ("a.npy", _saved(np.zeros((*GRID, 2))), r"found \(16, 12, 20, 2\)"),
        ("a.npy", _saved(np.zeros((3, 3, 3, 3))), r"found \(3, 3, 3, 3\)"),
        ("a.npy", _saved(np.zeros((*GRID[::-1], 3))), "transpose them"),
        ("a.npy", _saved(np.zeros((3, 12, 16, 20))), "are the axes in another order"),
        ("a.npy", _shaped(f"(0x{'f' * 3900},)"), "axes no array can have"),
        ("a.npy", _shaped(f"({1 << 63}, 3)"), "axes no array can have"),
        ("a.npy", _shaped("(-1, 3)"), "axes no array can have"),
        ("a.npy", _headed("{'descr': ("), "NumPy file"),
        ("a.npy", _headed("-" * 4000 + "1"), "NumPy file"),
        ("a.npy", _headed("[" * 4000), "NumPy file"),
        ("a.npy", _headed("{'descr': 0, 'fortran_order': False, 'shape': 1}"), "NumPy file"),
        ("a.npy", _headed("{[]: 1}"), "NumPy file"),
        ("a.npy", _more_values, "expected 92160 bytes of values, found more"),
        ("a.npy", _saved(np.full((3, *GRID), np.nan)), "found 11520 that are NaN or infinite"),
        ("a.npy", _saved(np.full((3, *GRID), 1e6)), "at most 65504 voxels"),
    ],
)
def test_what_cannot_be_converted_is_said(
    name: str,
    write: Callable[[Path], object],
    message: str,
    tmp_path: Path,
) -> None:
    write(tmp_path / name)
    target = tmp_path / "out/disp_0001_0001.npz"
    with pytest.raises(FieldError, match=message):
        Conversion(source=VOXELS, target=CHALLENGE, task=TASK).convert(tmp_path / name, target)
    assert not list(tmp_path.glob("out/*"))


def test_a_shape_that_fits_no_memory(tmp_path: Path) -> None:
    """Without a task or an image there is nothing to hold it against."""
    _shaped(f"(3, {1 << 20}, {1 << 20}, {1 << 20})")(tmp_path / "a.npy")
    with pytest.raises(FieldError, match=r"memory|damaged|NumPy"):
        Conversion(source=VOXELS, target=NIFTI).convert(tmp_path / "a.npy", tmp_path / "b.nii.gz")


@pytest.mark.parametrize("write", [_no_unit, _no_quaternion])
def test_a_place_in_space_that_cannot_be_read(
    write: Callable[[Path], object], tmp_path: Path
) -> None:
    write(tmp_path / "a.nii.gz")
    with pytest.raises(HarnessError, match=r"position in space|not a whole NIfTI file"):
        Conversion(source=NIFTI, target=CHALLENGE, task=TASK).convert(
            tmp_path / "a.nii.gz", tmp_path / "disp_0001_0001.npz"
        )


def test_what_follows_the_values_is_not_read(tmp_path: Path) -> None:
    """Two gigabytes of zeros behind the last voxel, in a file of nine megabytes, took 4.3 GB."""
    image = nib.nifti1.Nifti1Image(np.zeros((*GRID, 3), np.float32), np.eye(4))
    with gzip.open(tmp_path / "a.nii.gz", "wb", 1) as file:
        file.write(image.to_bytes())
        for _ in range(100):
            file.write(bytes(1 << 20))

    def convert() -> None:
        with pytest.raises(FieldError, match="than the 46432 bytes that its header promises"):
            Conversion(source=NIFTI, target=CHALLENGE, task=TASK).convert(
                tmp_path / "a.nii.gz", tmp_path / "disp_0001_0001.npz"
            )

    assert peak_bytes(convert) < 8 << 20


def test_an_itk_field_without_geometry_is_refused(tmp_path: Path, images: dict[str, Path]) -> None:
    np.save(tmp_path / "a.npy", smooth(GRID))
    with pytest.raises(FieldError, match="expected an ITK displacement image"):
        Conversion(source=ITK, target=VOXELS).convert(
            tmp_path / "a.npy", tmp_path / "b.npy", **images
        )


def test_without_simpleitk_its_files_say_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    (tmp_path / "a.mha").write_bytes(b"")
    with pytest.raises(ConventionError, match=r"pip install 'l2r-harness\[convert\]'"):
        Conversion(source=VOXELS, target=VOXELS).convert(tmp_path / "a.mha", tmp_path / "b.npy")


def test_a_fixed_image_on_another_grid_than_the_tasks(tmp_path: Path) -> None:
    write_image(tmp_path / "fixed.nii.gz", (16, 12, 21))
    conversion = Conversion(source=ITK, target=CHALLENGE, task=TASK)
    with pytest.raises(DataError, match=r"expected the grid \(16, 12, 20\) of task_01"):
        conversion.convert(
            tmp_path / "a.nii.gz", tmp_path / "b.npz", fixed=tmp_path / "fixed.nii.gz"
        )


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", smooth(GRID))
    target = tmp_path / "b.npy"
    target.write_bytes(b"old")
    target.with_name(".part.b.npy").mkdir()  # where the new one would be written
    with pytest.raises(OutputError, match="cannot be written"):
        Conversion(source=VOXELS, target=VOXELS).convert(tmp_path / "a.npy", target)
    assert target.read_bytes() == b"old"


@pytest.mark.parametrize(
    ("stored", "read", "message"),
    [
        ({"absolute": True}, {"absolute": False}, "as positions do.*--absolute"),
        ({"absolute": False}, {"absolute": True}, "are they displacements"),
        ({"absolute": True}, {"absolute": True, "order": Order.XYZ}, "or in the other --order"),
        (None, {}, r"\(--from voxels\)"),
    ],
)
def test_a_flow_that_cannot_be_what_it_is_said_to_be(
    stored: dict[str, Any] | None, read: dict[str, Any], message: str, tmp_path: Path
) -> None:
    conventions = [
        VOXELS
        if options is None
        else FieldConvention(family=Family.GRID_SAMPLE, align_corners=True, **options)
        for options in (stored, read)
    ]
    np.save(tmp_path / "voxels.npy", smooth(GRID) + 2)
    Conversion(source=VOXELS, target=conventions[0]).convert(
        tmp_path / "voxels.npy", tmp_path / "flow.npy"
    )
    with pytest.raises(FieldError, match=message):
        Conversion(source=conventions[1], target=VOXELS).convert(
            tmp_path / "flow.npy", tmp_path / "out.npy"
        )
    assert not (tmp_path / "out.npy").exists()


# --- Options that do not fit ---------------------------------------------------------------------


def test_align_corners_must_be_said() -> None:
    with pytest.raises(ConventionError, match="--no-align-corners"):
        FieldConvention(family=Family.GRID_SAMPLE)


def test_the_rest_belongs_to_grid_sample() -> None:
    for options in ({"align_corners": True}, {"absolute": True}, {"order": Order.XYZ}):
        with pytest.raises(ConventionError, match="belong to grid-sample only"):
            FieldConvention(family=Family.VOXELS, **options)


def test_the_challenges_format_needs_its_task() -> None:
    with pytest.raises(ConventionError, match="--task"):
        Conversion(source=VOXELS, target=CHALLENGE)


def test_millimetres_need_the_fixed_image() -> None:
    with pytest.raises(ConventionError, match="--fixed"):
        Batch(conversion=Conversion(source=ITK, target=VOXELS))
    with pytest.raises(ConventionError, match="beside the moving one"):
        Batch(conversion=Conversion(source=VOXELS, target=VOXELS), moving="a.nii.gz")


# --- Names and folders --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "ids"),
    [
        ("disp_0001_0002.npz", "disp_0001_0002", (1, 2)),
        ("disp_0001_0002_Warp.nii.gz", "disp_0001_0002", (1, 2)),
        ("disp_0001_00021Warp.nii.gz", "disp_0001_00021", (1, 21)),
        ("disp_0011_0001_0012_0000.nii.gz", "disp_0011_0001_0012_0000", (11, 12)),
    ],
)
def test_a_name_tells_the_pair(name: str, text: str, ids: tuple[int, int]) -> None:
    found = parse_name(Path(name))
    assert (found.text, found.fixed, found.moving) == (text, *ids)


def test_a_name_that_tells_no_pair() -> None:
    with pytest.raises(FieldError, match="expected a name disp_FFFF_MMMM"):
        parse_name(Path("flow.npy"))


def test_a_folder_becomes_the_layout_of_the_upload(tmp_path: Path) -> None:
    fields = {(1, 2): smooth(GRID, seed=1), (3, 4): smooth(GRID, seed=2)}
    for (fixed, moving), array in fields.items():
        np.save(tmp_path / f"disp_{fixed:04d}_{moving:04d}_flow.npy", array)
    batch = Batch(conversion=Conversion(source=VOXELS, target=CHALLENGE, task=TASK))
    outcomes = list(batch.convert_files(batch.find(tmp_path), tmp_path / "out"))
    assert [outcome.error for outcome in outcomes] == [None, None]
    for (fixed, moving), array in fields.items():
        path = tmp_path / f"out/task_01/disp_{fixed:04d}_{moving:04d}.npz"
        stored = read_field(path, TASK.field)
        corners = np.ix_(range(3), *([0, n - 1] for n in GRID))
        ends = np.ix_(range(3), *([0, n - 1] for n in HALF))
        assert np.allclose(stored[ends], array[corners], atol=2e-3)


def test_names_with_modalities_are_taken_where_the_challenge_takes_them(tmp_path: Path) -> None:
    np.save(tmp_path / "disp_0001_0000_0002_0001.npy", smooth(GRID))
    for task, expected in ((FULL_TASK, None), (TASK, "expected a name the challenge takes")):
        batch = Batch(conversion=Conversion(source=VOXELS, target=CHALLENGE, task=task))
        (outcome,) = batch.convert_files(batch.find(tmp_path), tmp_path / "out")
        assert outcome.error is None if expected is None else expected in str(outcome.error)
    assert (tmp_path / "out/disp_0001_0000_0002_0001.nii.gz").is_file()


def test_two_files_of_one_pair_are_not_both_written(tmp_path: Path) -> None:
    np.save(tmp_path / "disp_0001_0002_a.npy", smooth(GRID))
    np.save(tmp_path / "disp_0001_0002_b.npy", smooth(GRID))
    batch = Batch(conversion=Conversion(source=VOXELS, target=NIFTI), force=True)
    outcomes = list(batch.convert_files(batch.find(tmp_path), tmp_path / "out"))
    assert [isinstance(outcome.error, HarnessError) for outcome in outcomes] == [False, True]
    assert "disp_0001_0002_a.npy would become" in str(outcomes[1].error)


def test_an_empty_folder(tmp_path: Path) -> None:
    batch = Batch(conversion=Conversion(source=VOXELS, target=CHALLENGE, task=TASK))
    with pytest.raises(DataError, match="expected files disp_FFFF_MMMM"):
        batch.find(tmp_path)


# --- The command --------------------------------------------------------------------------------


def convert(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "harness.cli", "convert", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )


def test_convert_one_file_there_and_back(tmp_path: Path, images: dict[str, Path]) -> None:
    write_challenge(tmp_path / "tiny.yaml")
    array = stored_half(tmp_path / "disp_0001_0001.npz")
    task = ("--challenge", "tiny.yaml", "--task", "task_01")
    torch = ("grid-sample", "--no-align-corners", "--absolute", "--order", "xyz")
    done = convert(
        "disp_0001_0001.npz", "a.npy", "--from", "challenge", *task, "--to", *torch, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "disp_0001_0001.npz -> a.npy" in done.stderr
    done = convert("a.npy", "out/b.npz", "--from", *torch, *task, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert np.abs(read_field(tmp_path / "out/b.npz", TASK.field) - array).max() < 0.2
    again = convert("a.npy", "out/b.npz", "--from", *torch, *task, cwd=tmp_path)
    assert again.returncode == OutputError.exit_code
    assert "b.npz is there already; name another, or --force" in again.stderr
    forced = convert("a.npy", "out/b.npz", "--from", *torch, *task, "--force", cwd=tmp_path)
    assert forced.returncode == 0, forced.stderr


def test_a_folder_with_a_bad_file_does_the_rest(tmp_path: Path) -> None:
    """Each pair's own images, by the ids in the field's name; one line for what went wrong."""
    write_challenge(tmp_path / "tiny.yaml")
    for case in (1, 2, 3):
        write_image(tmp_path / f"img{case:04d}.nii.gz", seed=case)
    source = tmp_path / "ants"
    source.mkdir()
    array = np.zeros((*GRID, 1, 3), np.float32)
    array[..., 0] = 2  # mm to the left: -2 voxels, for the images' affine is the identity, RAS
    for name in ("disp_0001_0001", "disp_0002_0002", "disp_0009_0009"):
        nib.nifti1.Nifti1Image(array, np.eye(4)).to_filename(source / f"{name}.nii.gz")
    (source / "disp_0003_0003.pt").write_bytes(pickle.dumps(1))
    options = ("--from", "itk", "--challenge", "tiny.yaml", "--task", "task_01")
    done = convert("ants", "out", *options, "--fixed", "img{fixed:04d}.nii.gz", cwd=tmp_path)
    assert done.returncode == FieldError.exit_code
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 2
    assert "disp_0003_0003.pt: expected a file that ends in" in errors[0]
    assert "img0009.nii.gz: expected an image, found no such file" in errors[1]
    assert "2 of 4 fields converted, in out/" in done.stderr
    assert sorted(path.name for path in (tmp_path / "out/task_01").iterdir()) == [
        "disp_0001_0001.npz",
        "disp_0002_0002.npz",
    ]
    stored = read_field(tmp_path / "out/task_01/disp_0001_0001.npz", TASK.field)
    assert np.allclose(stored[0], -2)
    assert np.allclose(stored[1:], 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--from", "voxels"), "--task task_01 or task_02"),
        (("--from", "voxels", "--task", "task_9"), "found 'task_9'"),
        (("--from", "grid-sample", "--task", "task_01"), "--no-align-corners"),
        (("--from", "voxels", "--task", "task_01", "--absolute"), "describe a grid-sample field"),
        (("--from", "grid-sample", "--to", "grid-sample", "--align-corners"), "one side that is"),
        (("--from", "itk", "--task", "task_01"), "--fixed"),
    ],
)
def test_options_that_do_not_fit(options: tuple[str, ...], message: str, tmp_path: Path) -> None:
    write_challenge(tmp_path / "tiny.yaml")
    done = convert("a.npy", "b.npz", "--challenge", "tiny.yaml", *options, cwd=tmp_path)
    assert done.returncode == ConventionError.exit_code
    assert message in done.stderr
