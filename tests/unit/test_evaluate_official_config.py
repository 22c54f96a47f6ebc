"""The public configurations: what they may say, and which file is whose field."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from harness.errors import ChallengeError, DataError
from harness.evaluate.official import load_official_config, official_cases
from tests.evaluation_data import GRID, config, write_config, write_labels

if TYPE_CHECKING:
    from pathlib import Path

    from harness.evaluate.rules import Case, TaskCases


def load(folder: Path, changes: dict[str, Any]) -> TaskCases:
    path = write_config(folder / "config.json", config((1,), changes=changes))
    return official_cases(load_official_config(path), folder)


def only(cases: TaskCases) -> Case:
    (case,) = cases.cases
    return case


def pair_of(fixed: str, moving: str) -> list[dict[str, str]]:
    return [{"fixed": f"./imagesTr/A_{fixed}.nii.gz", "moving": f"./imagesTr/A_{moving}.nii.gz"}]


def test_short_name_wins_and_npz_wins(tmp_path: Path) -> None:
    case = only(load(tmp_path, {"eval_pairs": pair_of("0011_0000", "0012_0001")}))
    assert [str(name) for name in case.pair.field_names] == [
        "disp_0011_0012.npz",
        "disp_0011_0012.nii.gz",
        "disp_0011_0000_0012_0001.npz",
        "disp_0011_0000_0012_0001.nii.gz",
    ]
    assert case.key == "0011_0000<--0012_0001"


@pytest.mark.parametrize(
    ("fixed", "moving"), [("0000", "0000"), ("0001", "0000"), ("0000", "0002")]
)
def test_other_modalities_have_the_long_name_only(fixed: str, moving: str, tmp_path: Path) -> None:
    case = only(load(tmp_path, {"eval_pairs": pair_of(f"0011_{fixed}", f"0012_{moving}")}))
    assert [str(name) for name in case.pair.field_names] == [
        f"disp_0011_{fixed}_0012_{moving}.npz",
        f"disp_0011_{fixed}_0012_{moving}.nii.gz",
    ]


def test_truth_lies_where_the_official_code_looks(tmp_path: Path) -> None:
    methods = [
        {"name": "DSC", "metric": "dice", "labels": [1]},
        {"name": "TRE_kp", "metric": "tre", "dest": "keypoints"},
    ]
    pairs = pair_of("0003_0000", "0003_0002")
    case = only(
        load(
            tmp_path,
            {"eval_pairs": pairs, "evaluation_methods": methods, "masked_evaluation": True},
        )
    )
    truth = case.truth
    assert truth.fixed_labels == tmp_path / "labelsTr/A_0003_0000.nii.gz"
    assert truth.moving_labels == tmp_path / "labelsTr/A_0003_0002.nii.gz"
    assert truth.mask == tmp_path / "masksTr/A_0003_0000.nii.gz"
    assert truth.moving_images == (tmp_path / "imagesTr/A_0003_0002.nii.gz",)
    (landmarks,) = truth.landmarks
    assert landmarks.moving == tmp_path / "keypoints00000002Tr/A_0003_0002.csv"


def test_usual_modalities_need_no_folder_of_their_own(tmp_path: Path) -> None:
    methods = [{"name": "TRE_lm", "metric": "tre", "dest": "landmarks"}]
    case = only(load(tmp_path, {"evaluation_methods": methods}))
    assert case.truth.landmarks[0].fixed == tmp_path / "landmarksTs/X_0001_0000.csv"
    assert case.truth.mask is None


def test_what_decides_nothing_may_stand_there(tmp_path: Path) -> None:
    assert load(tmp_path, {"note": "of 2023", "description": {"by": "us"}}).rules.name == "Tiny"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"masked_evaluatoin": True}, "did you mean 'masked_evaluation'"),
        ({"expected_shape": [16, 12, 20, 2]}, r"expected an expected_shape of \(X, Y, Z, 3\)"),
        ({"eval_pairs": pair_of("0001", "0002_0001")}, r"ends in _CCCC_MMMM.nii.gz"),
        ({"eval_pairs": []}, "eval_pairs"),
        ({"eval_pairs": pair_of("0001_0000", "0002_0001") * 2}, "stands in eval_pairs twice"),
        (
            {"evaluation_methods": [{"name": "DSC", "metric": "dice", "labels": ["1"]}]},
            "take the quotation marks away",
        ),
        (
            {"evaluation_methods": [{"name": "A", "metric": "sdlogj"}] * 2},
            "found A twice",
        ),
        ({"evaluation_methods": [{"name": "A", "metric": "dise", "labels": [1]}]}, "dise"),
    ],
)
def test_what_cannot_be_meant(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ChallengeError, match=message):
        load(tmp_path, changes)


def test_paths_stay_below_the_truth(tmp_path: Path) -> None:
    pairs = [{"fixed": "../X_0001_0000.nii.gz", "moving": "./X_0001_0001.nii.gz"}]
    with pytest.raises(ChallengeError, match="below the ground truth"):
        load(tmp_path, {"eval_pairs": pairs})


def test_half_resolution_of_2021_is_known_by_the_images(tmp_path: Path) -> None:
    write_labels(tmp_path / "labelsTs/X_0001_0000.nii.gz")
    cases = load(tmp_path, {"expected_shape": [3, 8, 6, 10]})
    assert cases.rules.image_grid == GRID
    assert cases.pairs.task.field.resolution == "half"


def test_half_resolution_without_an_image_to_tell(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="needs the grid of the images: no file"):
        load(tmp_path, {"expected_shape": [3, 8, 6, 10]})


def test_file_that_is_no_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("fixed,moving\n")
    with pytest.raises(ChallengeError, match=r"config\.json"):
        load_official_config(tmp_path / "config.json")
    with pytest.raises(ChallengeError, match="cannot be read"):
        load_official_config(tmp_path / "none.json")


def test_public_configurations_are_accepted(tmp_path: Path) -> None:
    """The keys and values of all that are published: CuRIOUS, NLST, OASIS, ThoraxCBCT, ..."""
    for shape, pairs, methods, version in (
        ([256, 256, 288, 3], pair_of("0023_0000", "0023_0002"), ("tre",), 0.2),
        ([224, 192, 224, 3], pair_of("0101_0000", "0101_0001"), ("tre",), 0.3),
        ([160, 224, 192, 3], pair_of("0415_0000", "0416_0000"), ("dice", "hd95"), 0.2),
        ([390, 280, 300, 3], pair_of("0011_0001", "0011_0000"), ("tre", "dice"), 0.2),
    ):
        parts: dict[str, dict[str, Any]] = {
            "tre": {"name": "TRE_kp", "metric": "tre", "dest": "keypoints"},
            "dice": {"name": "DSC", "metric": "dice", "labels": list(range(1, 36))},
            "hd95": {"name": "HD95", "metric": "hd95", "labels": list(range(1, 36))},
        }
        cases = load(
            tmp_path,
            {
                "expected_shape": shape,
                "eval_pairs": pairs,
                "evaluation_methods": [parts[name] for name in methods],
                "eval_config_version": version,
            },
        )
        assert cases.rules.image_grid == tuple(shape[:3])
