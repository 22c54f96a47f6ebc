"""Pairs from a ``<Task>_dataset.json``: names, modalities, which list counts, what is refused."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

import pytest

from harness.challenge.model import Challenge, parse_challenge
from harness.challenge.pairs import Pair, check_data, is_present
from harness.errors import ChallengeError, DataError
from tests.tiny import YAML, write_image

LIST = "Lung_dataset.json"
JSON_TASK = """
  - name: Lung
    title: From a JSON file
    pairs: {format: dataset_json, path: Lung_dataset.json}
    auxiliary:
      fixed_mask: {path: "masks{fixed_split}/{fixed_name}.nii.gz"}
    image_grid: [16, 12, 20]
    field:
      path: "disp_{fixed:04d}_{moving:04d}.nii.gz"
      other_paths:
        - "disp_{fixed:04d}_{fixed_modality:04d}_{moving:04d}_{moving_modality:04d}.nii.gz"
      format: nifti
      layout: channels_last
      resolution: full
      shape: [16, 12, 20, 3]
      dtype: float32
      other_dtypes: [float64]
"""


def json_challenge(*changes: tuple[str, str]) -> Challenge:
    text = YAML[: YAML.index("  - &task")] + JSON_TASK.lstrip("\n")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return parse_challenge(text, origin="json")


def entry(fixed: str, moving: str) -> dict[str, str]:
    return {"fixed": f"./imagesTs/{fixed}.nii.gz", "moving": f"./imagesTs/{moving}.nii.gz"}


def write_dataset(folder: Path, content: object, *, images: tuple[str, ...] = ()) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / LIST).write_text(content if isinstance(content, str) else json.dumps(content))
    for name in images:
        write_image(folder / f"imagesTs/{name}.nii.gz")
    return folder


def pairs_of(folder: Path, *changes: tuple[str, str]) -> tuple[Pair, ...]:
    (found,) = check_data(json_challenge(*changes), folder)
    return found.pairs


def findings(folder: Path, *changes: tuple[str, str]) -> str:
    with pytest.raises(DataError) as caught:
        pairs_of(folder, *changes)
    return str(caught.value)


def test_a_pair_from_a_json_list(tmp_path: Path) -> None:
    images = ("Lung_0111_0000", "Lung_0111_0001")
    folder = write_dataset(tmp_path, {"registration_val": [entry(*images)]}, images=images)
    write_image(folder / "masksTs/Lung_0111_0000.nii.gz")
    (pair,) = pairs_of(folder)
    assert pair.key == "Lung/0111_0111"
    assert pair.fixed == PurePosixPath("imagesTs/Lung_0111_0000.nii.gz")
    assert pair.auxiliary == (("fixed_mask", PurePosixPath("masksTs/Lung_0111_0000.nii.gz")),)
    assert [str(name) for name in pair.field_names] == [
        "disp_0111_0111.nii.gz",
        "disp_0111_0000_0111_0001.nii.gz",
    ]
    assert pair.fill("{moving_name}/{moving_split}") == PurePosixPath("Lung_0111_0001/Ts")


def test_the_first_list_that_is_not_empty_counts(tmp_path: Path) -> None:
    images = ("a_0001_0000", "a_0001_0001", "a_0002_0000", "a_0002_0001")
    first, second = entry(*images[:2]), entry(*images[2:])
    content = {"registration_test": [], "registration_val": [first]}
    folder = write_dataset(tmp_path, content, images=images)
    assert [pair.fixed_id for pair in pairs_of(folder)] == [1]
    write_dataset(tmp_path, content | {"registration_test": [second]})
    assert [pair.fixed_id for pair in pairs_of(folder)] == [2]


def test_pairs_of_two_tasks_need_names_that_differ(tmp_path: Path) -> None:
    images = ("a_0011_0000", "a_0011_0001")
    folder = write_dataset(tmp_path, {"registration_val": [entry(*images)]}, images=images)
    (folder / "Heart_dataset.json").write_text((folder / LIST).read_text())
    second = JSON_TASK.replace("Lung", "Heart").lstrip("\n")
    text = YAML[: YAML.index("  - &task")] + JSON_TASK.lstrip("\n") + second
    with pytest.raises(DataError, match=r"Heart: .* would both be disp_0011_0011\.nii\.gz"):
        check_data(parse_challenge(text, origin="two"), folder)


def test_pairs_that_differ_in_modality_only_need_names_that_do(tmp_path: Path) -> None:
    images = ("a_0011_0000", "a_0011_0001", "a_0011_0002")
    rows = [entry(images[1], images[0]), entry(images[2], images[0])]
    folder = write_dataset(tmp_path, {"registration_val": rows}, images=images)
    assert "would both be disp_0011_0011.nii.gz" in findings(folder)
    long = "disp_{fixed:04d}_{fixed_modality:04d}_{moving:04d}_{moving_modality:04d}"
    pairs = pairs_of(
        folder, ("disp_{fixed:04d}_{moving:04d}", long), (f'- "{long}', '- "x/' + long)
    )
    keys = [pair.key for pair in pairs]
    assert keys == ["Lung/0011_0001_0011_0000", "Lung/0011_0002_0011_0000"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ([], "expected an object with registration_test or registration_val, found a list"),
        ({"training": 1}, r"found none (its keys: training)"),
        (
            {**dict.fromkeys("abcdefghijklmn", 1), "val": [], "test": []},
            "found none (its keys: test, val, a, b, c,",
        ),
        ({"registration_val": {}}, "expected registration_val to be a list, found a mapping"),
        ({"registration_val": ["x"]}, "registration_val[0].fixed: expected a name that ends in"),
        ({"registration_val": [{"fixed": 1}]}, "registration_val[0].moving: expected an image's"),
        (
            {"registration_val": [entry("../../a_0001_0000", "a_0001_0001")]},
            "a path inside the data",
        ),
        ({"registration_val": [entry("a_1_0", "a_0001_0001")]}, "name that ends in _CCCC_MMMM"),
        ({"registration_val": [entry("a_0001_0000", "a_0001_0001")]}, "expected its fixed file"),
    ],
)
def test_a_list_that_cannot_be_used(tmp_path: Path, content: object, message: str) -> None:
    assert message in findings(write_dataset(tmp_path, content))


def test_the_same_pair_twice(tmp_path: Path) -> None:
    images = ("a_0001_0000", "a_0001_0001")
    rows = [entry(*images), entry(*images)]
    folder = write_dataset(tmp_path, {"registration_val": rows}, images=images)
    assert "registration_val[1]: the same pair stands in registration_val[0] too" in findings(
        folder
    )


def test_a_task_in_the_top_folder_is_there_when_its_list_is(tmp_path: Path) -> None:
    (task,) = json_challenge().tasks
    assert not is_present(task, tmp_path)
    with pytest.raises(DataError, match=r"at least one of Lung_dataset\.json, found none"):
        check_data(json_challenge(), tmp_path)
    (tmp_path / LIST).touch()
    assert is_present(task, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("format: nifti", "format: npz"), "expected a path that ends in .npz"),
        (("dtype: float32", "dtype: float16"), "NIfTI has no float16"),
        (("shape: [16, 12, 20, 3]", "shape: [3, 16, 12, 20]"), "channels_last has shape (16, 12"),
        (("{fixed_split}", "{fixed_spilt}"), "{fixed_spilt}; known are"),
        (
            ("    auxiliary:", "    images: {fixed: a, moving: b}\n    auxiliary:"),
            "leave out the key images",
        ),
        (("{format: dataset_json, path: Lung_dataset.json}", "{path: Lung.csv}"), "the key images"),
    ],
)
def test_a_contract_that_contradicts_itself(change: tuple[str, str], message: str) -> None:
    with pytest.raises(ChallengeError) as caught:
        json_challenge(change)
    assert message in str(caught.value)


def test_a_csv_list_tells_no_modalities() -> None:
    old = 'fixed_mask: {path: "task_01/mask{fixed:04d}.nii.gz"}'
    new = 'fixed_mask: {path: "task_01/mask{fixed_name}.nii.gz"}'
    with pytest.raises(ChallengeError, match=r"uses {fixed_name}, which a CSV list"):
        parse_challenge(YAML.replace(old, new), origin="tiny")
