"""The metrics against what the public evaluation gave on the same data, case by case."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from harness.challenge.model import FieldFormat, Layout
from harness.evaluate.metrics import (
    FieldVolumes,
    jacobian_metrics,
    label_metrics,
    landmark_errors,
)

Array = NDArray[Any]

# The cases that the public evaluation has an answer for and that are arrays to begin with.
EDGES = (
    *("zero_identical", "warp_random", "folding", "half_ties_plus", "masked", "nan_in_field"),
    *("all_absent", "label_absent", "label_vanishes", "labels_as_strings", "long_name"),
    *("mask_missing_file", "tre", "tre_out_of_view"),
    *("npz_float64", "nii_float32", "nii_int16_slope"),
)


@pytest.fixture(scope="module")
def reference() -> Path:
    folder = os.environ.get("HARNESS_REFERENCE_DATA")
    if not folder or not (Path(folder) / "evaluation_reference").is_dir():
        pytest.skip("HARNESS_REFERENCE_DATA names no folder with evaluation_reference/")
    return Path(folder) / "evaluation_reference"


def read_map(path: Path) -> Array:
    return np.asarray(nib.nifti1.Nifti1Image.from_filename(path).dataobj)


def read_field(path: Path) -> FieldVolumes:
    """With a NIfTI file's slope applied, as NiBabel does."""
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return FieldVolumes.from_array(arrays[arrays.files[0]], Layout.CHANNELS_LAST)
    return FieldVolumes.from_array(
        read_map(path), Layout.CHANNELS_LAST, file_format=FieldFormat.NIFTI
    )


def expanded(half: Array) -> Array:
    """The full-resolution field (X, Y, Z, 3) of the reference's full cases, exact in float16:
    samples in between are means of two, and the last one is there twice."""
    full = half.astype(np.float32)
    for axis in (1, 2, 3):
        last = np.take(full, [-1], axis=axis)
        following = np.concatenate([np.delete(full, 0, axis=axis), last], axis=axis)
        pairs = np.stack([full, (full + following) / 2], axis=axis + 1)
        shape = list(full.shape)
        shape[axis] *= 2
        full = pairs.reshape(shape)
    return np.moveaxis(full, 0, 3)


def assert_case_agrees(
    config: dict[str, Any],
    official: dict[str, Any],
    truth: Path,
    pair: dict[str, str],
    field: FieldVolumes,
) -> None:
    """Every number of one case of the official output; its truth lies in ``truth``."""

    def file(image: str, kind: str) -> Path:
        return truth / pair[image].replace("images", kind)

    for method in config["evaluation_methods"]:
        expected = official[method["name"]]["detailed"]
        match method["metric"]:
            case "sdlogj":
                path = file("fixed", "masks")
                masked = config.get("masked_evaluation") and path.exists()
                found = jacobian_metrics(field, read_map(path) if masked else None)
                np.testing.assert_allclose(found.sdlogj, expected, rtol=1e-9, atol=1e-12)
            case "dice" | "hd95":
                maps = read_map(file("fixed", "labels")), read_map(file("moving", "labels"))
                scores = label_metrics(*maps, field, [int(n) for n in method["labels"]])
                if all(isinstance(label, int) for label in method["labels"]):
                    metric = scores.dice if method["metric"] == "dice" else scores.hd95_vox
                    np.testing.assert_array_equal(metric, expected)
                else:  # labels as texts are equal to no number: the reference finds none of them
                    assert np.isnan(expected).all()
            case "tre":
                start, end = (
                    np.loadtxt(file(image, method["dest"]).with_suffix("").with_suffix(".csv"),
                               delimiter=",", ndmin=2)
                    for image in ("fixed", "moving")
                )  # fmt: skip
                image = nib.nifti1.Nifti1Image.from_filename(truth / pair["moving"])
                errors = landmark_errors(field, start, end, image.header.get_zooms()[:3])
                np.testing.assert_allclose(errors, expected, rtol=0, atol=1e-6)
            case other:
                raise AssertionError(other)


@pytest.mark.parametrize("name", EDGES)
def test_small_cases(reference: Path, name: str) -> None:
    folder = reference / "edge" / name
    config = json.loads((folder / "config.json").read_text())
    official = json.loads((folder / "official.json").read_text())["cases"]
    pair = config["eval_pairs"][0]
    field = read_field(next((folder / "disp").iterdir()))
    assert_case_agrees(config, next(iter(official.values())), folder / "gt", pair, field)


@pytest.mark.parametrize("kind", ["full_npz", "full_nii", "half2021_zoom2"])
@pytest.mark.parametrize("task", ["AbdomenMRCT", "LungCT"])
def test_full_size_cases(reference: Path, task: str, kind: str) -> None:
    folder = reference / task
    config = json.loads((folder / "config.json").read_text())
    official = json.loads((reference / f"official/{task}_{kind}.json").read_text())["cases"]
    for pair, (key, case) in zip(config["eval_pairs"], official.items(), strict=True):
        subject = key.split("_")[0]
        with np.load(folder / f"half/disp_{subject}_{subject}.npz") as arrays:
            half = arrays["arr_0"]
        match kind:
            case "full_npz":
                stored = expanded(half).astype(np.float16)
                field = FieldVolumes.from_array(stored, Layout.CHANNELS_LAST)
            case "full_nii":
                stored = np.asfortranarray(expanded(half))
                field = FieldVolumes.from_array(
                    stored, Layout.CHANNELS_LAST, file_format=FieldFormat.NIFTI
                )
            case _:
                field = FieldVolumes.from_array(half, Layout.CHANNELS_FIRST).upsampled()
        assert_case_agrees(config, case, folder / "gt", pair, field)


@pytest.mark.parametrize(
    ("name", "shift_vox"), [("zero", (0, 0, 0)), ("shift25", (25, 0, 0)), ("shift40", (0, -40, 10))]
)
def test_shifted_far_away(reference: Path, name: str, shift_vox: tuple[int, int, int]) -> None:
    folder = reference / "AbdomenMRCT"
    config = json.loads((folder / "config.json").read_text())
    path = reference / f"official/AbdomenMRCT_stress_{name}.json"
    case = next(iter(json.loads(path.read_text())["cases"].values()))
    array = np.broadcast_to(np.array(shift_vox, np.float16), config["expected_shape"])
    field = FieldVolumes.from_array(array, Layout.CHANNELS_LAST)
    assert_case_agrees(config, case, folder / "gt", config["eval_pairs"][0], field)
