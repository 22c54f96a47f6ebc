"""The first look at accuracy: values worked out by hand, the reference's own numbers, bad truth."""

from __future__ import annotations

import json
import os
from pathlib import Path, PurePosixPath
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from harness.challenge.model import Metric, Task, load_challenge
from harness.challenge.pairs import Pair
from harness.errors import DataError, FieldError
from harness.evaluate.accuracy import (
    dice,
    folded_percent,
    landmark_errors,
    mean,
    pair_accuracy,
    upsample,
    warp_labels,
)
from harness.evaluate.provenance import check_images_match, file_digest

Array = NDArray[Any]

GRID = (12, 10, 8)


def zero_field(grid: tuple[int, int, int] = GRID) -> Array:
    return np.zeros((3, *grid), dtype=np.float32)


# --- by hand ------------------------------------------------------------------------------------


def test_warping_rounds_halves_up_and_puts_0_outside() -> None:
    moving = np.arange(1, 7, dtype=np.uint8).reshape(6, 1, 1)
    vectors = np.zeros((3, 6, 1, 1))
    vectors[0, :, 0, 0] = [0.5, 0.49, -2.5, 2.0, -np.inf, np.nan]
    assert warp_labels(moving, vectors)[:, 0, 0].tolist() == [2, 2, 1 - 1, 6, 0, 0]
    vectors[0, :, 0, 0] = [-1e-12, 0, 0, 0, 1.0 + 1e-12, -5.0]
    assert warp_labels(moving, vectors)[:, 0, 0].tolist() == [0, 2, 3, 4, 0, 1]


def test_dice_tells_an_absent_label_from_one_lost_in_warping() -> None:
    fixed = np.array([1, 1, 1, 2, 3, 0])
    moving = np.array([1, 1, 0, 2, 0, 4])
    warped = np.array([1, 1, 0, 0, 0, 4])
    scores = dice(fixed, moving, warped, (1, 2, 3, 4))
    np.testing.assert_allclose(scores, [2 * 2 / (3 + 2), 0, np.nan, np.nan])
    assert mean(scores) == pytest.approx(0.4)
    assert np.isnan(mean(scores[2:]))


def test_landmark_error_is_in_the_spacing_of_each_axis() -> None:
    fixed_vox = np.array([[4.0, 4.0, 4.0], [2.0, 3.0, 4.0]])
    moving_vox = np.array([[5.0, 4.0, 4.0], [2.0, 3.0, 7.0]])
    errors = landmark_errors(None, fixed_vox, moving_vox, (1.0, 2.0, 3.0))
    np.testing.assert_allclose(errors, [1.0, 9.0])
    vectors = zero_field()
    vectors[2] = 3  # puts the second right and takes the first 9 mm away in z
    errors = landmark_errors(vectors, fixed_vox, moving_vox, (1.0, 2.0, 3.0))
    np.testing.assert_allclose(errors, [np.hypot(1, 9), 0.0], atol=1e-5)


def test_a_landmark_outside_the_image_is_not_moved() -> None:
    outside = np.array([[GRID[0] + 2.0, 1.0, 1.0]])
    errors = landmark_errors(zero_field() + 3, outside, outside, (1.0, 1.0, 1.0))
    assert errors.tolist() == [0.0]


@pytest.mark.parametrize(
    ("slope", "expected"), [(0.0, 0.0), (-0.9, 0.0), (-1.0, 100.0), (-1.5, 100.0)]
)
def test_a_voxel_is_folded_where_the_map_runs_backwards(slope: float, expected: float) -> None:
    for axis in range(3):
        vectors = zero_field()
        vectors[axis] = slope * np.indices(GRID)[axis]
        assert folded_percent(vectors) == expected


def test_folding_is_counted_two_voxels_inside_and_across_slabs() -> None:
    grid = (44, 10, 8)  # inside: 40 planes, more than one slab
    vectors = zero_field(grid)
    x = np.arange(grid[0])
    vectors[0] = np.where(x < 22, 0, -3.0 * (x - 21))[:, None, None]
    # Central difference: -1.5 at 21, -3 from 22 on; determinant > 0 up to x = 20.
    inside = np.arange(2, 42)
    assert folded_percent(vectors) == pytest.approx(100 * np.mean(inside > 20))
    assert np.isnan(folded_percent(zero_field((4, 4, 4))))


def test_a_half_field_keeps_its_values_and_its_corners() -> None:
    half = np.random.default_rng(0).normal(size=(3, 6, 5, 4)).astype(np.float16)
    full = upsample(half, GRID)
    assert full.shape == (3, *GRID)
    for corner in ((0, 0, 0), (-1, -1, -1), (0, -1, 0)):
        np.testing.assert_allclose(full[:, *corner], half[:, *corner].astype(float), atol=1e-5)
    with pytest.raises(FieldError, match=r"\(3, 5, 5, 4\)"):
        upsample(zero_field((5, 5, 4)), GRID)


# --- truth folders ------------------------------------------------------------------------------


def small_task(name: str) -> Task:
    return load_challenge().task(name).model_copy(update={"image_grid": GRID})


def pair_of(task: str, fixed_id: int, moving_id: int) -> Pair:
    images = load_challenge().task(task).images
    assert images is not None
    fixed, moving = (
        PurePosixPath(pattern.format(fixed=fixed_id, moving=moving_id))
        for pattern in (images.fixed, images.moving)
    )
    return Pair(
        task=task,
        fixed_id=fixed_id,
        moving_id=moving_id,
        fixed=fixed,
        moving=moving,
        auxiliary=(),
        field=PurePosixPath("field.npz"),
    )


def save_map(path: Path, array: Array, spacing_mm: tuple[float, float, float] = (1, 1, 1)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.nifti1.Nifti1Image(array, np.diag([*spacing_mm, 1])), path)


@pytest.fixture
def labels_truth(tmp_path: Path) -> Path:
    fixed, moving = np.zeros((2, *GRID), dtype=np.uint8)
    fixed[4:6, 3:7, 3:5] = 1
    moving[5:7, 3:7, 3:5] = 1  # one voxel further on in x; labels 2, 3 and 4 are in neither
    save_map(tmp_path / "task_01/seg0012_tcia_MR.nii.gz", fixed)
    save_map(tmp_path / "task_01/seg0014_tcia_CT.nii.gz", moving)
    return tmp_path


@pytest.fixture
def landmarks_truth(tmp_path: Path) -> Path:
    folder = tmp_path / "task_02"
    save_map(folder / "mask_001_exp.nii.gz", np.ones(GRID, dtype=np.uint8), (2, 1, 1))
    (folder / "landmarks_001_exp.csv").write_text("4.0,5.0,3.0\n6.5,2.0,3.0\n")
    (folder / "landmarks_002_insp.csv").write_text("5.0,5.0,3.0\n7.5,2.0,3.0\n")
    return tmp_path


def test_label_overlap_of_a_pair_before_and_after(labels_truth: Path) -> None:
    field = np.zeros((3, 6, 5, 4), dtype=np.float16)
    field[0] = 1
    found = pair_accuracy(
        small_task("task_01"), labels_truth, pair=pair_of("task_01", 12, 14), field=field
    )
    assert found is not None
    assert (found.metric, found.folded_percent) == (Metric.DICE, 0)
    assert (found.initial, found.value) == (0.5, 1.0)


def test_landmark_error_of_a_pair_is_in_the_moving_images_millimetres(
    landmarks_truth: Path, tmp_path: Path
) -> None:
    task = small_task("task_02")
    found = pair_accuracy(task, landmarks_truth, pair=pair_of("task_02", 1, 2), field=zero_field())
    assert found is not None
    assert (found.metric, found.value, found.initial) == (Metric.TRE, 2.0, 2.0)  # the mask's 2 mm
    data_dir = tmp_path / "data"
    save_map(data_dir / "task_02/case_002_insp.nii.gz", np.ones(GRID, dtype=np.uint8), (3, 1, 1))
    found = pair_accuracy(
        task, landmarks_truth, pair=pair_of("task_02", 1, 2), field=zero_field(), data_dir=data_dir
    )
    assert found is not None
    assert found.value == 3.0


def test_a_pair_without_truth_is_none(labels_truth: Path) -> None:
    for task in ("task_01", "task_02"):
        assert (
            pair_accuracy(
                small_task(task), labels_truth, pair=pair_of(task, 99, 98), field=zero_field()
            )
            is None
        )


def test_half_of_a_truth_is_an_error_that_names_the_other_half(labels_truth: Path) -> None:
    (labels_truth / "task_01/seg0014_tcia_CT.nii.gz").unlink()
    with pytest.raises(DataError, match="seg0014_tcia_CT"):
        pair_accuracy(
            small_task("task_01"), labels_truth, pair=pair_of("task_01", 12, 14), field=zero_field()
        )


def test_a_label_map_that_is_no_image_or_of_another_grid_is_named(labels_truth: Path) -> None:
    path = labels_truth / "task_01/seg0012_tcia_MR.nii.gz"
    for spoil in (
        lambda: path.write_bytes(path.read_bytes()[:60]),
        lambda: save_map(path, np.zeros((5, 5, 5), dtype=np.uint8)),
    ):
        spoil()
        with pytest.raises(DataError, match="seg0012_tcia_MR"):
            pair_accuracy(
                small_task("task_01"),
                labels_truth,
                pair=pair_of("task_01", 12, 14),
                field=zero_field(),
            )


@pytest.mark.parametrize("text", ["x,y,z\n1,2,3\n", "1,2\n3,4\n", "", "1,2,nan\n3,4,5\n", "1,2,3"])
def test_landmarks_that_are_no_landmarks_are_named(landmarks_truth: Path, text: str) -> None:
    (landmarks_truth / "task_02/landmarks_002_insp.csv").write_text(text)
    with pytest.raises(DataError, match="landmarks_002_insp"):
        pair_accuracy(
            small_task("task_02"),
            landmarks_truth,
            pair=pair_of("task_02", 1, 2),
            field=zero_field(),
        )


def test_without_any_spacing_the_files_looked_for_are_named(landmarks_truth: Path) -> None:
    (landmarks_truth / "task_02/mask_001_exp.nii.gz").unlink()
    with pytest.raises(DataError, match=r"case_002_insp.*mask_001_exp"):
        pair_accuracy(
            small_task("task_02"),
            landmarks_truth,
            pair=pair_of("task_02", 1, 2),
            field=zero_field(),
        )


# --- the reference's numbers --------------------------------------------------------------------

SMALL = [
    *("zero_identical", "warp_random", "folding", "half_ties_plus", "masked", "nan_in_field"),
    *("all_absent", "label_absent", "label_vanishes", "tre", "tre_out_of_view"),
    *("npz_float64", "nii_float32", "nii_int16_slope"),
]


@pytest.fixture(scope="module")
def reference() -> Path:
    folder = os.environ.get("HARNESS_REFERENCE_DATA")
    if not folder or not (Path(folder) / "evaluation_reference").is_dir():
        pytest.skip("HARNESS_REFERENCE_DATA names no folder with evaluation_reference/")
    return Path(folder) / "evaluation_reference"


def read_map(path: Path) -> Array:
    return np.asarray(nib.nifti1.Nifti1Image.from_filename(path).dataobj)


def read_field(path: Path) -> Array:
    """(3, X, Y, Z) from the file's one array; .npz becomes float32 as in the reference."""
    if path.suffix != ".npz":
        return np.moveaxis(read_map(path), 3, 0)
    with np.load(path) as arrays:
        array: Array = arrays[arrays.files[0]].astype(np.float32)
    return array if array.shape[0] == 3 else np.moveaxis(array, 3, 0)


def assert_agrees(folder: Path, case: dict[str, Any], vectors: Array, files: list[str]) -> None:
    """Dice and landmark errors of one pair, label by label and landmark by landmark.

    ``files`` are the paths of a truth folder's files, with {} for its kind.
    """
    if "DSC" in case:
        config = json.loads((folder / "config.json").read_text())
        labels = next(m["labels"] for m in config["evaluation_methods"] if m["name"] == "DSC")
        fixed, moving = (read_map(folder / f"{file.format('labels')}.nii.gz") for file in files)
        scores = dice(fixed, moving, warp_labels(moving, vectors), labels)
        np.testing.assert_allclose(scores, case["DSC"]["detailed"], atol=1e-6)
        np.testing.assert_allclose(mean(scores), case["DSC"]["mean"], atol=1e-6)
    for metric, kind in (("TRE_lm", "landmarks"), ("TRE_kp", "keypoints")):
        if metric in case:
            image = folder / f"{files[1].format('images')}.nii.gz"
            spacing_mm = nib.nifti1.Nifti1Image.from_filename(image).header.get_zooms()[:3]
            start, end = (
                np.loadtxt(folder / f"{file.format(kind)}.csv", delimiter=",", ndmin=2)
                for file in files
            )
            errors = landmark_errors(vectors, start, end, spacing_mm)
            np.testing.assert_allclose(errors, case[metric]["detailed"], atol=1e-6)


@pytest.mark.parametrize("name", SMALL)
def test_agrees_with_the_reference_on_small_cases(reference: Path, name: str) -> None:
    folder = reference / "edge" / name
    case = json.loads((folder / "official.json").read_text())["cases"]["0001_0000<--0002_0001"]
    assert case.keys() & {"DSC", "TRE_lm"}
    vectors = read_field(next((folder / "disp").iterdir()))
    assert_agrees(folder, case, vectors, ["gt/{}Ts/X_0001_0000", "gt/{}Ts/X_0002_0001"])


@pytest.mark.parametrize(
    ("task", "split", "case_id"), [("AbdomenMRCT", "Ts", "0009"), ("LungCT", "Tr", "0002")]
)
def test_agrees_with_the_reference_on_half_resolution_fields(
    reference: Path, task: str, split: str, case_id: str
) -> None:
    official = json.loads((reference / f"official/{task}_half2021_zoom2.json").read_text())
    case = official["cases"][f"{case_id}_0000<--{case_id}_0001"]
    case.pop("TRE_kp", None)  # two seconds of the same; the small cases have it
    field = read_field(reference / task / f"half/disp_{case_id}_{case_id}.npz")
    x, y, z = (2 * n for n in field.shape[1:])
    files = [f"gt/{{}}{split}/{task}_{case_id}_{modality}" for modality in ("0000", "0001")]
    assert_agrees(reference / task, case, upsample(field, (x, y, z)), files)


def test_truth_of_other_images_gives_no_figure(tmp_path: Path) -> None:
    """Phantom truth left behind beside the challenge's own images once gave plausible figures."""
    image = tmp_path / "test/task_01/img0012.nii.gz"
    truth = tmp_path / "truth/task_01"
    for folder in (image.parent, truth):
        folder.mkdir(parents=True)
    image.write_bytes(b"mine")
    check_images_match(truth, [image])  # nothing is said of it
    (truth / "images.sha256").write_text(f"{file_digest(image)}  {image.name}\n")
    check_images_match(truth, [image])
    image.write_bytes(b"other")
    with pytest.raises(DataError, match=r"belongs to another img0012\.nii\.gz"):
        check_images_match(truth, [image])
