"""The phantoms of later editions: the anatomy of 2021 in other layouts, the truth still true."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from harness.challenge.model import TRUTH_DIGESTS_FILE, load_challenge
from harness.challenge.pairs import Pair, check_data
from harness.errors import DataError
from harness.evaluate.provenance import check_images_match
from harness.phantom import CHALLENGES, write_phantoms
from harness.phantom.brain.chain import anatomy

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

EDITIONS = ("learn2reg2022", "lumir2024")
FILES = {
    "learn2reg2022": {
        "test/NLST_dataset.json",
        *(f"test/{kind}Tr/NLST_0111_000{i}.nii.gz" for kind in ("images", "masks") for i in (0, 1)),
        *(f"truth/masksTr/NLST_0111_000{i}.nii.gz" for i in (0, 1)),
        *(f"truth/keypointsTr/NLST_0111_000{i}.csv" for i in (0, 1)),
        "truth/fieldsTr/disp_0111_0111.nii.gz",
        f"truth/{TRUTH_DIGESTS_FILE}",
    },
    "lumir2024": {
        "test/LUMIR_dataset.json",
        *(f"test/imagesVal/LUMIRMRI_345{i}_0000.nii.gz" for i in (4, 5)),
        *(f"truth/labelsVal/LUMIRMRI_345{i}_0000.nii.gz" for i in (4, 5)),
        "truth/fieldsVal/disp_3454_3455.nii.gz",
        f"truth/{TRUTH_DIGESTS_FILE}",
    },
}


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One pair of each edition, written into the same two folders one after the other."""
    root = tmp_path_factory.mktemp("editions")
    for challenge in EDITIONS:
        write_phantoms(root / "test", root / "truth", challenge=challenge, pairs_per_task=1)
    return root


def pair_of(challenge: str, root: Path) -> Pair:
    (found,) = check_data(load_challenge(challenge), root / "test")
    (pair,) = found.pairs
    return pair


def voxels(path: Path) -> npt.NDArray[Any]:
    return np.asarray(nib.nifti1.Nifti1Image.from_filename(path).dataobj)


def true_field(challenge: str, root: Path) -> npt.NDArray[np.float32]:
    (path,) = (root / "truth").glob(f"fields*/{pair_of(challenge, root).field.name}")
    return np.moveaxis(voxels(path), -1, 0)


def test_every_edition_has_its_phantom() -> None:
    assert {*EDITIONS, "learn2reg2021"} == set(CHALLENGES)


def test_names_of_the_release_with_the_truth_apart(root: Path) -> None:
    written = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    assert written == FILES["learn2reg2022"] | FILES["lumir2024"]


@pytest.mark.parametrize("challenge", EDITIONS)
def test_data_fits_its_challenge(root: Path, challenge: str) -> None:
    """check_data opens every image: it would raise."""
    pair = pair_of(challenge, root)
    patterns = load_challenge(challenge).tasks[0].truth.model_dump(exclude_none=True)
    for pattern in (text for text in patterns.values() if isinstance(text, str)):
        assert (root / "truth" / pair.fill(pattern)).is_file()
    if challenge == "learn2reg2022":
        assert {role for role, _ in pair.auxiliary} == {"fixed_mask", "moving_mask"}


def test_both_lists_of_2022_hold_the_pairs(root: Path) -> None:
    content = json.loads((root / "test/NLST_dataset.json").read_text())
    assert content["tensorImageShape"] == {"0": [224, 192, 224]}
    assert content["numRegistration_val"] == content["numRegistration_test"] == 1
    assert content["registration_val"] == content["registration_test"]
    (pair,) = content["registration_test"]
    assert pair["fixed"] == "./imagesTr/NLST_0111_0000.nii.gz"
    assert pair["moving"] == "./imagesTr/NLST_0111_0001.nii.gz"


def test_list_of_lumir(root: Path) -> None:
    content = json.loads((root / "test/LUMIR_dataset.json").read_text())
    assert content["tensorImageShape"] == {"0": [160, 224, 192]}
    assert content["numValidation"] == len(content["validation"]) == 1
    images = voxels(root / "test" / content["validation"][0]["fixed"])
    assert images.dtype == np.uint8
    assert images.max() > 150


def test_truth_says_which_images_it_belongs_to(root: Path) -> None:
    """Both editions' images, and no masks, which have the same names in another folder."""
    lines = (root / "truth" / TRUTH_DIGESTS_FILE).read_text().splitlines()
    images = list((root / "test").glob("images*/*.nii.gz"))
    expected = {f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in images}
    assert set(lines) == expected
    assert len(lines) == 4
    check_images_match(root / "truth", images)


def test_true_field_carries_fixed_keypoints_onto_moving_ones(root: Path) -> None:
    folder = root / "truth/keypointsTr"
    fixed, moving = (np.loadtxt(folder / f"NLST_0111_000{i}.csv", delimiter=",") for i in (0, 1))
    assert 8 < np.linalg.norm(moving - fixed, axis=1).mean() < 12
    field = true_field("learn2reg2022", root)
    moved = [ndimage.map_coordinates(c, fixed.T, order=1) for c in field]
    assert np.linalg.norm(fixed + np.stack(moved, axis=1) - moving, axis=1).max() < 0.1


def test_keypoints_of_the_larger_grid_lie_on_vessels(root: Path) -> None:
    for state in (0, 1):
        name = f"NLST_0111_000{state}"
        image = voxels(root / f"test/imagesTr/{name}.nii.gz").astype(np.float32)
        mask = voxels(root / f"test/masksTr/{name}.nii.gz")
        points = np.loadtxt(root / f"truth/keypointsTr/{name}.csv", delimiter=",")
        here = ndimage.map_coordinates(image, points.T, order=1)
        assert np.mean(here) > np.median(image[mask > 0]) + 300
        assert (image[:16] == -1024).all()
        assert (image[-16:] == -1024).all()


def test_true_field_carries_the_moving_labels_onto_the_fixed_ones(root: Path) -> None:
    pair = pair_of("lumir2024", root)
    fixed, moving = (
        voxels(root / "truth/labelsVal" / path.name) for path in (pair.fixed, pair.moving)
    )
    grid = np.indices(fixed.shape, dtype=np.float32)
    coordinates = grid + true_field("lumir2024", root)
    warped = ndimage.map_coordinates(moving, coordinates, order=0)
    scores = [
        2 * np.sum((fixed == n) & (warped == n)) / ((fixed == n).sum() + (warped == n).sum())
        for n in range(1, 36)
    ]
    assert np.mean(scores) > 0.93


def test_field_between_subjects_is_solved_at_every_voxel(root: Path) -> None:
    """In the anatomy's own axes x, y, z; LUMIR's are x, z, y."""
    first, second = anatomy(3454, 2021), anatomy(3455, 2021)
    field = true_field("lumir2024", root)[[0, 2, 1]].transpose(0, 1, 3, 2)
    rng = np.random.default_rng(0)
    index = np.stack([rng.integers(10, n - 10, 4000) for n in first.shape], axis=1)
    fixed = index.astype(np.float64)
    moving = fixed + field[(slice(None), *index.T)].T.astype(np.float64)
    residual = moving + second.at(moving) - fixed - first.at(fixed)
    assert np.linalg.norm(residual, axis=1).max() < 0.1


@pytest.mark.parametrize("challenge", EDITIONS)
def test_true_fields_do_not_fold(root: Path, challenge: str) -> None:
    field = true_field(challenge, root)
    assert field.dtype == np.float32
    rows = [np.gradient(component[::2, ::2, ::2], 2) for component in field]
    jacobian = np.moveaxis(np.array(rows), (0, 1), (-2, -1)) + np.eye(3, dtype=np.float32)
    assert np.linalg.det(jacobian).min() > 0.2


@pytest.mark.parametrize("name", ["test/NLST_dataset.json", "truth/keypointsTr/a.csv"])
def test_refuses_to_mix_with_what_is_there(tmp_path: Path, name: str) -> None:
    there = tmp_path / name
    there.parent.mkdir(parents=True)
    there.write_text("something")
    with pytest.raises(DataError, match="is there already and not empty"):
        write_phantoms(tmp_path / "test", tmp_path / "truth", challenge="learn2reg2022")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [there]


def test_refuses_a_challenge_without_phantom(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none can be made for challenge mine\.yaml, only for"):
        write_phantoms(tmp_path / "test", tmp_path / "truth", challenge="mine.yaml")
