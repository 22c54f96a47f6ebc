"""The phantom's promises: names, grids, determinism, and a truth that is true."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from harness.challenge.model import TRUTH_DIGESTS_FILE
from harness.errors import DataError
from harness.phantom import write_phantoms
from harness.phantom.brain.chain import anatomy
from harness.phantom.splines import (
    Deformation,
    compose_with_inverse,
    control_positions,
    half_positions,
)

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

GRIDS = {"task_01": (192, 160, 192), "task_02": (192, 192, 208), "task_03": (160, 192, 224)}
SPACINGS_MM = {
    "task_01": [2.0, 2.0, 2.0],
    "task_02": [1.75, 1.25, 1.75],
    "task_03": [1.0, 1.0, 1.0],
}
FIELDS = {
    "task_01": "disp_0012_0012.npz",
    "task_02": "disp_0001_0001.npz",
    "task_03": "disp_0438_0439.npz",
}
DATA_FILES = {
    "task_01": {
        "pairs_val.csv",
        "img0012_tcia_MR.nii.gz",
        "img0012_tcia_CT.nii.gz",
        "mask0012_tcia_MR.nii.gz",
        "mask0012_tcia_CT.nii.gz",
    },
    "task_02": {
        "pairs_val.csv",
        "case_001_exp.nii.gz",
        "case_001_insp.nii.gz",
        "mask_001_exp.nii.gz",
        "mask_001_insp.nii.gz",
    },
    "task_03": {
        "pairs_val.csv",
        "img0438.nii.gz",
        "img0439.nii.gz",
        "mask0438.nii.gz",
        "mask0439.nii.gz",
    },
}
TRUTH_FILES = {
    "task_01": {"seg0012_tcia_MR.nii.gz", "seg0012_tcia_CT.nii.gz"},
    "task_02": {
        "landmarks_001_exp.csv",
        "landmarks_001_insp.csv",
        "mask_001_exp.nii.gz",
        "mask_001_insp.nii.gz",
    },
    "task_03": {"seg0438.nii.gz", "seg0439.nii.gz"},
}
SEGMENTATIONS = {
    "task_01": ("seg0012_tcia_MR.nii.gz", "seg0012_tcia_CT.nii.gz", 4),
    "task_03": ("seg0438.nii.gz", "seg0439.nii.gz", 35),
}


@dataclass(frozen=True, kw_only=True)
class Phantom:
    """Where one pair a task was written."""

    data: Path
    truth: Path


@dataclass(frozen=True, kw_only=True)
class Interrupted:
    """A generation stopped after its first case, and that case's files at that moment."""

    root: Path
    files: dict[str, bytes]
    announced: list[tuple[int, float]]


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Phantom:
    """One pair of each task, written by two processes."""
    root = tmp_path_factory.mktemp("phantom")
    write_phantoms(root / "test", root / "truth", pairs_per_task=1, workers=2)
    return Phantom(data=root / "test", truth=root / "truth")


@pytest.fixture(scope="session")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Interrupted:
    """Two pairs of task_01 begun by one process and stopped after the first."""
    root = tmp_path_factory.mktemp("interrupted")
    files: dict[str, bytes] = {}
    announced: list[tuple[int, float]] = []

    def stop(message: str) -> None:
        files.update({p.name: p.read_bytes() for p in root.rglob("*") if p.is_file()})
        raise KeyboardInterrupt(message)

    with pytest.raises(KeyboardInterrupt, match="task_01 case 12"):
        write_phantoms(
            root / "test",
            root / "truth",
            pairs_per_task=2,
            tasks=["task_01"],
            workers=1,
            on_begin=lambda *told: announced.append(told),
            on_progress=stop,
        )
    return Interrupted(root=root, files=files, announced=announced)


def half_field(phantom: Phantom, task: str) -> npt.NDArray[np.float32]:
    with np.load(phantom.truth / task / FIELDS[task]) as stored:
        return np.asarray(stored["arr_0"], dtype=np.float32)


@cache
def upsampled_field(phantom: Phantom, task: str) -> npt.NDArray[np.float32]:
    """The true field as the evaluation upsamples it, (3, X, Y, Z) voxels."""
    return np.stack([ndimage.zoom(c, 2, order=2) for c in half_field(phantom, task)])


def nifti(path: Path) -> Any:  # noqa: ANN401 - nibabel types what it loads as its barest base
    return nib.load(path)


def voxels(path: Path) -> npt.NDArray[Any]:
    return np.asarray(nifti(path).dataobj)


def mean_dice(a: npt.NDArray[Any], b: npt.NDArray[Any], label_count: int) -> float:
    scores = []
    for label in range(1, label_count + 1):
        in_a, in_b = a == label, b == label
        scores.append(2 * np.sum(in_a & in_b) / (in_a.sum() + in_b.sum()))
    return float(np.mean(scores))


def landmarks(phantom: Phantom) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    folder = phantom.truth / "task_02"
    fixed = np.loadtxt(folder / "landmarks_001_exp.csv", delimiter=",")
    moving = np.loadtxt(folder / "landmarks_001_insp.csv", delimiter=",")
    return fixed, moving


@pytest.mark.parametrize("task", GRIDS)
def test_released_names_with_the_truth_apart(phantom: Phantom, task: str) -> None:
    in_data = {p.name for p in (phantom.data / task).iterdir()}
    in_truth = {p.name for p in (phantom.truth / task).iterdir()}
    assert in_data == DATA_FILES[task]
    assert in_truth == TRUTH_FILES[task] | {FIELDS[task], TRUTH_DIGESTS_FILE}


@pytest.mark.parametrize("task", GRIDS)
def test_truth_says_which_images_it_belongs_to(phantom: Phantom, task: str) -> None:
    lines = (phantom.truth / task / TRUTH_DIGESTS_FILE).read_text().splitlines()
    images = sorted((phantom.data / task).glob("*.nii.gz"))
    expected = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.name}" for p in images]
    assert lines == expected


@pytest.mark.parametrize("task", GRIDS)
def test_volumes_have_the_grid_spacing_and_type_of_the_challenge(
    phantom: Phantom, task: str
) -> None:
    for folder in (phantom.data, phantom.truth):
        for path in (folder / task).glob("*.nii.gz"):
            image = nifti(path)
            assert image.shape == GRIDS[task], path.name
            is_image = path.name.startswith(("img", "case"))
            assert image.get_data_dtype() == (np.int16 if is_image else np.uint8), path.name
            np.testing.assert_allclose(np.diag(image.affine)[:3], SPACINGS_MM[task])
            assert image.header.get_xyzt_units()[0] == "mm"
            assert image.header["qform_code"] > 0
            assert image.header["sform_code"] > 0


@pytest.mark.parametrize("task", GRIDS)
def test_true_field_has_the_format_of_a_submission(phantom: Phantom, task: str) -> None:
    with np.load(phantom.truth / task / FIELDS[task]) as stored:
        assert stored.files == ["arr_0"]
        assert stored["arr_0"].dtype == np.float16
        assert stored["arr_0"].shape == (3, *(n // 2 for n in GRIDS[task]))


def test_pair_lists_follow_the_release(phantom: Phantom) -> None:
    texts = [(phantom.data / task / "pairs_val.csv").read_text() for task in GRIDS]
    assert texts == ["fixed,moving\n12,12\n", "fixed,moving\n1,1\n", "fixed,moving\n438,439\n"]


def test_bytes_depend_neither_on_workers_nor_on_the_number_of_pairs(
    phantom: Phantom, interrupted: Interrupted
) -> None:
    for folder in (phantom.data, phantom.truth):
        for path in (folder / "task_01").iterdir():
            if path.name not in ("pairs_val.csv", TRUTH_DIGESTS_FILE):
                assert interrupted.files[path.name] == path.read_bytes(), path.name


def test_an_interrupted_generation_leaves_nothing(interrupted: Interrupted) -> None:
    assert [p for p in interrupted.root.rglob("*") if p.is_file() or "task" in p.name] == []


def test_cases_and_time_are_told_in_proportion(interrupted: Interrupted) -> None:
    ((cases, about_s),) = interrupted.announced
    assert cases == 2
    assert about_s == pytest.approx(10.0)


def test_subjects_differ_by_case_and_by_seed() -> None:
    reference = anatomy(438, 1).coefficients
    for other in (anatomy(439, 1), anatomy(438, 2)):
        assert np.abs(reference - other.coefficients).mean() > 0.5


def refuse_to_be_told(cases: int, about_s: float) -> None:
    pytest.fail(f"{cases} cases were announced before the folders were looked at")


@pytest.mark.parametrize("folder", ["test", "truth"])
def test_refuses_a_folder_that_holds_something(tmp_path: Path, folder: str) -> None:
    kept = tmp_path / folder / "task_02" / "case.nii.gz"
    kept.parent.mkdir(parents=True)
    kept.write_text("precious")
    with pytest.raises(DataError, match="task_02 is there already"):
        write_phantoms(tmp_path / "test", tmp_path / "truth", on_begin=refuse_to_be_told)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [kept]


@pytest.mark.parametrize("truth", ["test", "test/truth"])
def test_refuses_to_put_the_truth_where_submissions_see_it(tmp_path: Path, truth: str) -> None:
    with pytest.raises(DataError, match="lies in the data folder"):
        write_phantoms(tmp_path / "test", tmp_path / truth)
    assert list(tmp_path.iterdir()) == []


def test_refuses_a_task_it_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no task 'task_04'"):
        write_phantoms(tmp_path / "test", tmp_path / "truth", tasks=["task_04"])


@pytest.mark.parametrize("task", SEGMENTATIONS)
def test_true_field_carries_the_moving_labels_onto_the_fixed_ones(
    phantom: Phantom, task: str
) -> None:
    fixed_name, moving_name, count = SEGMENTATIONS[task]
    fixed = voxels(phantom.truth / task / fixed_name)
    moving = voxels(phantom.truth / task / moving_name)
    assert np.array_equal(np.unique(fixed), np.arange(count + 1))
    assert np.array_equal(np.unique(moving), np.arange(count + 1))
    assert 0.45 < mean_dice(fixed, moving, count) < 0.75
    grid = np.indices(fixed.shape, dtype=np.float32)
    warped = ndimage.map_coordinates(moving, grid + upsampled_field(phantom, task), order=0)
    assert mean_dice(fixed, warped, count) > 0.93


def test_true_field_carries_fixed_landmarks_onto_moving_ones(phantom: Phantom) -> None:
    fixed, moving = landmarks(phantom)
    assert fixed.shape == moving.shape == (100, 3)
    motion = np.linalg.norm(moving - fixed, axis=1)
    assert 8 < motion.mean() < 12
    assert motion.max() > 15
    half = half_field(phantom, "task_02")
    steps = [(n - 1) / (n / 2 - 1) for n in GRIDS["task_02"]]
    columns = [ndimage.map_coordinates(c, fixed.T / np.vstack(steps), order=1) for c in half]
    assert np.linalg.norm(fixed + np.stack(columns, axis=1) - moving, axis=1).mean() < 0.1


def test_landmarks_lie_on_vessels_in_both_images(phantom: Phantom) -> None:
    for points, state in zip(landmarks(phantom), ("exp", "insp"), strict=True):
        image = voxels(phantom.data / "task_02" / f"case_001_{state}.nii.gz").astype(np.float32)
        mask = voxels(phantom.data / "task_02" / f"mask_001_{state}.nii.gz")
        here = ndimage.map_coordinates(image, points.T, order=1)
        assert np.mean(here) > np.median(image[mask > 0]) + 300
        nearest = tuple(np.rint(points).astype(int).T)
        assert np.mean(mask[nearest]) > 0.97


def test_exhale_is_cropped_and_denser_than_inhale(phantom: Phantom) -> None:
    folder = phantom.data / "task_02"
    exhale, inhale = (voxels(folder / f"case_001_{s}.nii.gz") for s in ("exp", "insp"))
    exhale_mask, inhale_mask = (voxels(folder / f"mask_001_{s}.nii.gz") for s in ("exp", "insp"))
    empty = np.all(exhale == -1024, axis=(0, 1))
    assert empty[0]
    assert empty[-1]
    assert 40 < empty.sum() < 90
    assert not exhale_mask[:, :, empty].any()
    assert exhale_mask.sum() < 0.9 * inhale_mask.sum()
    assert np.median(exhale[exhale_mask > 0]) > np.median(inhale[inhale_mask > 0]) + 30


def test_mr_is_no_monotonic_map_of_ct(phantom: Phantom) -> None:
    """Fat, soft tissue and bone are in this order in CT; MR shows fat brighter than both."""
    ct = voxels(phantom.data / "task_01" / "img0012_tcia_CT.nii.gz").astype(np.float32)
    mr = voxels(phantom.data / "task_01" / "img0012_tcia_MR.nii.gz")
    mask = voxels(phantom.data / "task_01" / "mask0012_tcia_MR.nii.gz") > 0
    grid = np.indices(ct.shape, dtype=np.float32)
    aligned = ndimage.map_coordinates(ct, grid + upsampled_field(phantom, "task_01"), order=1)
    fat = np.median(mr[mask & (np.abs(aligned + 100) < 25)])
    soft = np.median(mr[mask & (np.abs(aligned - 70) < 30)])
    bone = np.median(mr[mask & (aligned > 500)])
    assert fat > 1.5 * soft
    assert soft > 1.5 * bone


@pytest.mark.parametrize("task", GRIDS)
def test_true_fields_do_not_fold(phantom: Phantom, task: str) -> None:
    axes = [half_positions(n) for n in GRIDS[task]]
    rows = [np.gradient(c, *axes) for c in half_field(phantom, task)]
    jacobian = np.moveaxis(np.array(rows), (0, 1), (-2, -1)) + np.eye(3, dtype=np.float32)
    determinant = np.linalg.det(jacobian)
    assert determinant.min() > 0.2


def test_field_between_subjects_is_consistent_with_both_anatomies() -> None:
    first, second = anatomy(438, 2021), anatomy(439, 2021)
    field = compose_with_inverse(first, second)
    rng = np.random.default_rng(0)
    index = np.stack([rng.integers(10, n - 10, 4000) for n in field.shape[1:]], axis=1)
    axes = [half_positions(n) for n in first.shape]
    fixed = np.stack([a[i] for a, i in zip(axes, index.T, strict=True)], axis=1)
    moving = fixed + field[(slice(None), *index.T)].T.astype(np.float64)
    residual = moving + second.at(moving) - fixed - first.at(fixed)
    assert np.linalg.norm(residual, axis=1).max() < 0.1


def test_spline_reproduces_a_linear_displacement_on_every_grid() -> None:
    """Grid of 21 x 18 x 24 voxels, knots every 5: neither length is a multiple of the knots."""
    shape = (21, 18, 24)
    x, y, z = control_positions(shape, 5)
    u = np.stack(np.broadcast_arrays(0.1 * x + 1, 0.2 * y - 0.1 * z, 0.3 * z + 0.05 * x))
    deformation = Deformation(shape=shape, step=5, coefficients=u.astype(np.float32))
    dense = deformation.dense()
    np.testing.assert_allclose(dense[1, 3, 17, 23], 0.2 * 17 - 0.1 * 23, atol=1e-5)
    half = deformation.half()
    assert half.shape == (3, 10, 9, 12)
    np.testing.assert_allclose(half[2, 4, 0, 5], 0.3 * 5 * 23 / 11 + 0.05 * 4 * 20 / 9, atol=1e-5)
    point = np.array([[6.3, 11.2, 8.7]])
    np.testing.assert_allclose(deformation.at(point)[0, 0], 1.63, atol=1e-5)
