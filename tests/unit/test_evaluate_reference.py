"""`harness evaluate` in place of the official script: the same numbers on the same inputs."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import ChallengeError, FieldError
from tests.reference_data import (
    edge_cases,
    evaluation_reference,
    expand,
    needs_reference,
    read_json,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tests.reference_data import Json

pytestmark = [needs_reference, pytest.mark.usefixtures("running_workers")]

REFERENCE = evaluation_reference()
EXACT = ("DSC", "HD95")
TOLERANCE = 1e-6

# Where the official code accepts what it should not, or has no result.
REFUSED = {"labels_as_strings", "missing", "nan_in_field", "npz_channels_first", "npz_two_arrays"}


def evaluate(fields: Path, truth: Path, config: Path, output: Path) -> tuple[int, str]:
    arguments = ["-i", fields, "-d", truth, "-c", config, "-o", output]
    done = CliRunner().invoke(app, ["evaluate", *map(str, arguments), "--no-initial"])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


def number(value: object) -> float:
    """As the documentation says they are written."""
    assert value is None or isinstance(value, int | float) or value == "Infinity"
    return math.nan if value is None else float(value)


def assert_same(name: str, ours: object, official: object) -> None:
    if isinstance(official, list):
        assert isinstance(ours, list), name
        assert len(ours) == len(official), name
        for pair in zip(ours, official, strict=True):
            assert_same(name, *pair)
        return
    assert isinstance(official, float), name
    if math.isnan(official):
        assert ours is None, name
    elif name in EXACT or math.isinf(official):
        assert number(ours) == official, name
    else:
        assert number(ours) == pytest.approx(official, abs=TOLERANCE, rel=0), name


def assert_all_same(ours: Json, official: Json) -> None:
    assert ours["name"] == official["name"]
    assert ours["eval_version"] == official["eval_version"]
    assert list(ours["cases"]) == list(official["cases"])
    for key, case in official["cases"].items():
        assert list(ours["cases"][key]) == list(case)
        for name, score in case.items():
            if name != "num_foldings":  # always 0 there, as it is counted after a clip
                assert_same(name, ours["cases"][key][name]["mean"], score["mean"])
                assert_same(name, ours["cases"][key][name]["detailed"], score["detailed"])
    assert list(ours["aggregates"]) == list(official["aggregates"])
    for name, values in official["aggregates"].items():
        assert list(ours["aggregates"][name]) == list(values)
        for kind, value in values.items():
            exact = name if kind != "std" else ""
            assert_same(exact, ours["aggregates"][name][kind], value)


def strict_json(path: Path) -> Json:
    """No NaN, no Infinity."""

    def refuse(literal: str) -> None:
        raise AssertionError(f"{literal} is no JSON")

    content: Json = json.loads(path.read_text("utf-8"), parse_constant=refuse)
    return content


@pytest.mark.parametrize("name", [name for name in edge_cases() if name not in REFUSED])
def test_edge_cases(name: str, tmp_path: Path) -> None:
    case = REFERENCE / "edge" / name
    output = tmp_path / "out.json"
    code, text = evaluate(case / "disp", case / "gt", case / "config.json", output)
    assert code == 0, text
    ours = strict_json(output)
    assert_all_same(ours, read_json(case / "official.json"))
    assert ("no mask" in text) == (name == "mask_missing_file")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing", "no such file"),
        ("nan_in_field", "NaN"),
        ("npz_channels_first", "expected shape (36, 32, 40, 3), found (3, 36, 32, 40)"),
        ("npz_two_arrays", "one array"),
    ],
)
def test_fields_that_cannot_be_used(name: str, reason: str, tmp_path: Path) -> None:
    """Their case is listed with the reason, and its metrics are absent."""
    case = REFERENCE / "edge" / name
    fields = case / "disp" if (case / "disp").is_dir() else tmp_path
    output = tmp_path / "out.json"
    code, text = evaluate(fields, case / "gt", case / "config.json", output)
    assert code == FieldError.exit_code
    assert reason in text
    ours = strict_json(output)
    (key,) = ours["cases"]
    for score in ours["cases"][key].values():
        assert score == {"mean": None, "detailed": None}
    for values in ours["aggregates"].values():
        assert values == {"mean": None, "std": None, "30": None}
    assert reason in ours["detail"]["cases"][key]["reason"]


def test_labels_written_as_strings(tmp_path: Path) -> None:
    """The official code finds no label "1", and every metric is NaN."""
    case = REFERENCE / "edge" / "labels_as_strings"
    with pytest.raises(ChallengeError, match=r"evaluation_methods\.1\.labels: expected labels as"):
        evaluate(case / "disp", case / "gt", case / "config.json", tmp_path / "out.json")


@pytest.mark.parametrize("task", ["AbdomenMRCT", "LungCT"])
@pytest.mark.parametrize("kind", ["full_npz", "full_nii", "half2021_zoom2"])
def test_full_size(task: str, kind: str, tmp_path: Path) -> None:
    source = REFERENCE / task
    fields = source / "half"
    config = read_json(source / "config.json")
    if kind == "half2021_zoom2":
        x, y, z, _ = config["expected_shape"]
        config["expected_shape"] = [3, x // 2, y // 2, z // 2]
    else:
        fields = tmp_path / "fields"
        fields.mkdir()
        for path in (source / "half").iterdir():
            write(expand(np.load(path)["arr_0"]), fields / path.stem, kind)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    output = tmp_path / "out.json"
    code, text = evaluate(fields, source / "gt", path, output)
    assert code == 0, text
    assert_all_same(strict_json(output), read_json(REFERENCE / f"official/{task}_{kind}.json"))


def write(field: NDArray[np.float32], stem: Path, kind: str) -> None:
    if kind == "full_npz":
        np.savez(f"{stem}.npz", field.astype(np.float16))
    else:
        content = nib.nifti1.Nifti1Image(field, np.eye(4)).to_bytes()
        Path(f"{stem}.nii.gz").write_bytes(gzip.compress(content, compresslevel=0))


@pytest.mark.parametrize(
    ("name", "displacement"),
    [("zero", (0, 0, 0)), ("shift25", (25, 0, 0)), ("shift40", (0, -40, 10))],
)
def test_constant_fields(name: str, displacement: tuple[int, int, int], tmp_path: Path) -> None:
    source = REFERENCE / "AbdomenMRCT"
    config = read_json(source / "config.json")
    config["eval_pairs"] = config["eval_pairs"][:1]
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    shape = config["expected_shape"]
    field = np.broadcast_to(np.array(displacement, np.float16), shape)
    np.savez_compressed(tmp_path / "disp_0009_0009.npz", field)
    output = tmp_path / "out.json"
    code, text = evaluate(tmp_path, source / "gt", path, output)
    assert code == 0, text
    official = read_json(REFERENCE / f"official/AbdomenMRCT_stress_{name}.json")
    assert_all_same(strict_json(output), official)
