"""`harness evaluate` by a challenge's own file: tasks, runs, and what is not there."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import ChallengeError, DataError, FieldError
from harness.store import RunDirectory
from tests.tiny import GRID, HALF, YAML
from tests.unit.test_compare import CLEAN

if TYPE_CHECKING:
    from pathlib import Path

FIRST = """
    truth: {fixed_labels: "task_01/seg{fixed:04d}.nii.gz",
            moving_labels: "task_01/seg{moving:04d}_moving.nii.gz"}
    metrics: [dice, dice30, hd95, sdlogj]
"""
SECOND = """
    truth: {fixed_landmarks: "task_02/fixed{fixed:04d}.csv",
            moving_landmarks: "task_02/moving{moving:04d}.csv",
            fixed_mask: "task_02/mask{fixed:04d}.nii.gz"}
    metrics: [tre, tre30, sdlogj]
"""


def save(path: Path, values: np.ndarray[Any, Any], spacing_mm: tuple[float, ...]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.nifti1.Nifti1Image(values, np.diag([*spacing_mm, 1])).to_filename(path)


def write_half(path: Path, displacement: tuple[float, float, float]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    vectors = np.array(displacement, np.float16)[:, None, None, None]
    np.savez_compressed(path, np.broadcast_to(vectors, (3, *HALF)))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Challenge, truth with the lists of pairs, and fields of both tasks that are right.

    Everything moving lies two voxels further along x.
    """
    monkeypatch.chdir(tmp_path)
    first, second = YAML.split("  - <<: *task")
    (tmp_path / "tiny.yaml").write_text(f"{first}{FIRST}  - <<: *task{second}{SECOND}")
    truth = tmp_path / "truth"
    for case in (1, 2):
        for name, shift in ((f"seg{case:04d}", 0), (f"seg{case:04d}_moving", 2)):
            labels = np.zeros(GRID, np.uint8)
            labels[4 + shift : 8 + shift, 3:9, 5:9] = 7
            save(truth / f"task_01/{name}.nii.gz", labels, (1, 1, 1))
        write_half(tmp_path / f"fields/task_01/disp_{case:04d}_{case:04d}.npz", (2, 0, 0))
    save(truth / "task_02/mask0007.nii.gz", np.ones(GRID, np.uint8), (1.5, 1, 1))
    (truth / "task_02/fixed0007.csv").write_text("4,5,6\n")
    (truth / "task_02/moving0008.csv").write_text("6,5,6\n")
    (truth / "task_01/pairs_val.csv").write_text("fixed,moving\n1,1\n2,2\n")
    (truth / "task_02/pairs_val.csv").write_text("fixed,moving\n7,8\n")
    write_half(tmp_path / "fields/task_02/disp_0007_0008.npz", (2, 0, 0))
    return tmp_path


def evaluate(*arguments: str, code: int = 0) -> str:
    line = ["evaluate", *arguments, "--challenge", "tiny.yaml", "--workers", "1"]
    if "--truth" not in arguments:
        line += ["--truth", "truth"]
    done = CliRunner().invoke(app, line)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return done.output


def read(path: Path) -> Any:  # noqa: ANN401 - whatever JSON has
    return json.loads(path.read_text(), parse_constant=pytest.fail)


def test_every_task_in_the_official_shape(site: Path) -> None:
    """Of the 2021 kind: half resolution, upsampled, not rescaled."""
    text = evaluate("fields")
    tasks = read(site / "metrics.json")["tasks"]
    assert tasks["task_01"]["aggregates"]["DSC"] == {"mean": 1, "std": 0, "30": 1}
    assert list(tasks["task_01"]["cases"]) == ["0001_0000<--0001_0001", "0002_0000<--0002_0001"]
    assert tasks["task_01"]["detail"]["cases"]["0001_0000<--0001_0001"]["labels"]["DSC"] == [7]
    second = tasks["task_02"]
    assert second["aggregates"]["TRE"]["mean"] == pytest.approx(0, abs=1e-6)
    assert second["detail"]["initial"]["TRE"]["mean"] == 3.0
    assert "folded %" in text
    assert "Initial" in text


def test_task_of_which_there_is_nothing_is_not_attempted(site: Path) -> None:
    for path in (site / "fields/task_02").iterdir():
        path.unlink()
    (site / "truth/task_02/moving0008.csv").unlink()  # nobody needs it
    assert "task_02 not attempted" in evaluate("fields")
    record = read(site / "metrics.json")
    assert record["not_attempted"] == ["task_02"]
    assert list(record["tasks"]) == ["task_01"]


def test_nothing_at_all(site: Path) -> None:
    (site / "empty").mkdir()
    evaluate("empty", code=FieldError.exit_code)
    assert read(site / "metrics.json")["not_attempted"] == ["task_01", "task_02"]


def test_only_a_task(site: Path) -> None:
    evaluate("fields", "--task", "task_02")
    assert list(read(site / "metrics.json")["tasks"]) == ["task_02"]
    with pytest.raises(DataError, match="task_03: expected one of task_01, task_02"):
        evaluate("fields", "--task", "task_03")


def test_run_directory_keeps_its_evaluation(site: Path) -> None:
    run = RunDirectory(site / "runs/local/20260101-000000")
    run.path.mkdir(parents=True)
    (site / "fields").rename(run.fields_dir)
    run.write_record(CLEAN)
    evaluate("20260101-000000")
    assert read(run.evaluation_path)["tasks"]["task_01"]["aggregates"]["DSC"]["mean"] == 1
    assert not (site / "metrics.json").exists()
    assert "0 computed, 6 known" in evaluate(str(run.path))


def test_json_of_several(site: Path) -> None:
    write_half(site / "zero/task_02/disp_0007_0008.npz", (0, 0, 0))
    text = evaluate("fields", "zero", "--json", "--no-initial")
    start = text.index("[")
    found = json.JSONDecoder().raw_decode(text[start:])[0]
    assert [one["source"] for one in found] == ["fields", "zero"]
    assert found[1]["tasks"]["task_02"]["aggregates"]["TRE"]["mean"] == 3.0
    assert found[1]["tasks"]["task_02"]["detail"]["initial"] == {}


def test_truth_that_belongs_to_other_images(site: Path) -> None:
    save(site / "test/task_02/img0007.nii.gz", np.zeros(GRID, np.uint8), (1.5, 1, 1))
    for task in ("task_01", "task_02"):
        (site / f"test/{task}").mkdir(exist_ok=True)
        (site / f"truth/{task}/pairs_val.csv").rename(site / f"test/{task}/pairs_val.csv")
    evaluate("fields", "--data", "test")
    (site / "truth/task_02/images.sha256").write_text(f"{'0' * 64}  img0007.nii.gz\n")
    with pytest.raises(DataError, match="belongs to another img0007"):
        evaluate("fields", "--data", "test")


def test_mask_that_is_missing_means_the_whole_image(site: Path) -> None:
    (site / "truth/task_02/mask0007.nii.gz").unlink()
    save(site / "truth/task_02/img0008.nii.gz", np.zeros(GRID, np.uint8), (1.5, 1, 1))
    text = evaluate("fields")
    assert "SDlogJ is of the whole image: no mask" in text
    assert "mask0007.nii.gz" in text


def test_empty_mask_leaves_sdlogj_absent(site: Path) -> None:
    """The official code fails on it."""
    save(site / "truth/task_02/mask0007.nii.gz", np.zeros(GRID, np.uint8), (1.5, 1, 1))
    assert "SDlogJ is absent" in evaluate("fields")
    task = read(site / "metrics.json")["tasks"]["task_02"]
    assert task["aggregates"]["LogJacDetStd"] == {"mean": None, "std": None, "30": None}
    assert task["cases"]["0007_0000<--0008_0001"]["LogJacDetStd"]["mean"] is None


def test_metric_without_its_truth(site: Path) -> None:
    text = (site / "tiny.yaml").read_text()
    (site / "tiny.yaml").write_text(text.replace("[tre, tre30,", "[hd95,"))
    with pytest.raises(ChallengeError, match="ask for hd95, which needs label maps"):
        evaluate("fields")


@pytest.mark.parametrize("truth", ["nowhere", "fields"])
def test_no_truth(site: Path, truth: str) -> None:
    with pytest.raises(DataError, match=r"truth folder nowhere|expected a list of pairs"):
        evaluate("fields", "--truth", truth)


def test_the_command_line_does_not_wait_for_numba() -> None:
    """Its import takes half a second, and only workers need it."""
    code = (
        "import sys, harness.__main__, harness.cli, harness.evaluation\n"
        "print(*{'numba'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_run_says_under_which_challenge_it_was(site: Path) -> None:
    for name, challenge in (("a", "tiny"), ("b", "lumir2024")):
        run = RunDirectory(site / f"runs/local/{name}")
        run.fields_dir.mkdir(parents=True)
        run.write_record(CLEAN.model_copy(update={"challenge": challenge}))
    invoke = CliRunner().invoke
    done = invoke(app, ["evaluate", "a", "--truth", "truth"])
    assert "under the challenge tiny, which is not built in" in str(done.exception)
    done = invoke(app, ["evaluate", "a", "b", "--truth", "truth"])
    assert "expected runs under one challenge, found lumir2024 and tiny" in str(done.exception)
    done = invoke(app, ["evaluate", "b", "--truth", "truth"])
    assert "LUMIR_dataset.json" in str(done.exception)
