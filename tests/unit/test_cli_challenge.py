"""`harness challenge`: what it shows of the rules, and what it finds in a file and a folder."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import indent

import pytest
from pydantic import BaseModel

from harness import errors
from harness.challenge.model import builtin_names, load_challenge, parse_challenge
from harness.outline import docker_line, doubts, example_pair, outline
from tests.tiny import YAML, tiny_challenge, write_challenge, write_data, write_image

PAGE = Path(__file__).parents[2] / "docs/challenges.md"


def challenge(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "harness.cli", "challenge", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )


def test_show_says_what_files_are_expected(tmp_path: Path) -> None:
    done = challenge("show", "lumir2024", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for text in (
        "LUMIR (Learn2Reg 2024)",
        "160 x 224 x 192 voxels",
        "NIfTI, float32 or float64, full resolution",
        "(160, 224, 192, 3), components last or (3, 160, 224, 192), components first",
        "disp_0001_0002.nii.gz",
        "or disp_0001_0000_0002_0001.nii.gz",
        'src="$(pwd)/test/LUMIR_dataset.json",target=/LUMIR_dataset.json,readonly',
        "--shm-size 8g",
        "dice, dice30, hd95, sdlogj",
    ):
        assert text in done.stdout


@pytest.mark.parametrize("name", builtin_names())
def test_every_built_in_challenge_is_shown_and_valid(name: str, tmp_path: Path) -> None:
    rules = load_challenge(name)
    assert doubts(rules) == []
    assert all(task.title in outline(rules) for task in rules.tasks)
    done = challenge("validate", name, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"valid: {rules.title} ({name}), ")


def test_show_as_json_is_the_challenge(tmp_path: Path) -> None:
    done = challenge("show", "learn2reg2022", "--json", cwd=tmp_path)
    content = json.loads(done.stdout)
    rules = load_challenge("learn2reg2022")
    assert content.pop("digest") == rules.digest
    assert content.pop("docker_line").endswith("IMAGE /l2r/data/NLST_dataset.json")
    assert parse_challenge(json.dumps(content), origin="printed").digest == rules.digest


def test_show_as_yaml_is_a_start_for_ones_own(tmp_path: Path) -> None:
    done = challenge("show", "learn2reg2021", "--yaml", cwd=tmp_path)
    (tmp_path / "mine.yaml").write_text(done.stdout)
    assert "# The challenge published no limits" in done.stdout
    assert load_challenge(tmp_path / "mine.yaml").digest == load_challenge().digest


def test_docker_line_quotes_and_rounds_nothing() -> None:
    rules = tiny_challenge(
        ("container:", "container:\n  arguments: ['a b']\n  environment: {MODE: 'x y'}"),
        ("  memory: 2GiB", "  memory: 67108865B"),
    )
    line = docker_line(rules, image="team").replace(" \\\n ", "")
    assert "--memory 67108865 --memory-swap 67108865 --shm-size 64m --pids-limit 256" in line
    assert "--env 'MODE=x y' team 'a b'" in line
    assert '--mount type=bind,src="$(pwd)/submission",target=/l2r/submission ' in line


def test_example_pair_fills_every_pattern() -> None:
    pair = example_pair(load_challenge("learn2reg2022").task("NLST"))
    assert str(pair.fixed) == "imagesTs/NLST_0001_0000.nii.gz"
    assert dict(pair.auxiliary)["moving_keypoints"].as_posix() == "keypointsTs/NLST_0002_0001.csv"
    assert [str(name) for name in pair.field_names] == [
        "disp_0001_0002.nii.gz",
        "disp_0001_0000_0002_0001.nii.gz",
    ]


def test_validate_names_every_wrong_key(tmp_path: Path) -> None:
    text = YAML.replace("memory: 2GiB", "memmory: 2GiB").replace("dtype: float16", "dtype: half")
    (tmp_path / "mine.yaml").write_text(text)
    done = challenge("validate", "mine.yaml", cwd=tmp_path)
    assert done.returncode == errors.ChallengeError.exit_code
    assert "limits.memory: expected this key, found none" in done.stderr
    assert "limits.memmory: unknown key; did you mean 'memory'?" in done.stderr
    assert "tasks.0.field.dtype: expected 'float16', 'float32' or 'float64'" in done.stderr
    assert "tasks.1.field.dtype" in done.stderr
    assert done.stdout == ""


def test_validate_with_data_that_fits(tmp_path: Path) -> None:
    write_challenge(tmp_path / "mine.yaml")
    write_data(tmp_path / "test")
    done = challenge("validate", "mine.yaml", "--data", "test", cwd=tmp_path)
    assert done.returncode == 0
    assert "data fits: task_01, 2 pairs in task_01/pairs_val.csv, 2 files" in done.stdout
    assert "data fits: task_02, 2 pairs in task_02/pairs_val.csv, 3 files" in done.stdout


def test_validate_names_the_tasks_that_are_not_there(tmp_path: Path) -> None:
    write_challenge(tmp_path / "mine.yaml")
    (write_data(tmp_path / "test", second=((7, 7),)) / "task_01").rename(tmp_path / "elsewhere")
    done = challenge("validate", "mine.yaml", "--data", "test", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.splitlines()[1:] == [
        "data fits: task_02, 1 pair in task_02/pairs_val.csv, 1 file",
        "not there, skipped: task_01",
    ]


def test_show_has_one_format_at_a_time(tmp_path: Path) -> None:
    done = challenge("show", "--json", "--yaml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--json and --yaml: ask for one of the two" in done.stderr


def test_validate_with_data_that_does_not_fit(tmp_path: Path) -> None:
    write_challenge(tmp_path / "mine.yaml")
    write_image(write_data(tmp_path / "test") / "task_01/img0001.nii.gz", (16, 12, 21))
    done = challenge("validate", "mine.yaml", "--data", "test", cwd=tmp_path)
    assert done.returncode == errors.DataError.exit_code
    assert "expected grid (16, 12, 20) for task_01, found (16, 12, 21)" in done.stderr


def test_validate_with_data_that_lacks_what_is_mounted(tmp_path: Path) -> None:
    mount = "    - {source: data, path: list.json, target: /list.json}\n"
    (tmp_path / "mine.yaml").write_text(YAML.replace("  mounts:\n", "  mounts:\n" + mount))
    write_data(tmp_path / "test")
    done = challenge("validate", "mine.yaml", "--data", "test", cwd=tmp_path)
    assert done.returncode == errors.DataError.exit_code
    assert "list.json: expected it in the data folder, for it is mounted at /list" in done.stderr


def test_validate_warns_of_what_is_perhaps_not_meant(tmp_path: Path) -> None:
    text = YAML.replace("title: First", "title: First\n    metrics: [dice, tre]").replace(
        "target: /l2r/test}", "target: /l2r/test, path: task_01}"
    )
    text = text.replace("task_02/disp", "task_01/disp")
    (tmp_path / "mine.yaml").write_text(text)
    done = challenge("validate", "mine.yaml", cwd=tmp_path)
    assert done.returncode == 0
    assert "tasks.0.truth: task_01 has the metrics dice and not both fixed_labels" in done.stderr
    assert "tasks.0.truth: task_01 has the metrics tre and not both fixed_landm" in done.stderr
    assert "container.mounts: none shows the whole data folder" in done.stderr
    assert "tasks.1.field.path: task_02 has that of task_01, so" in done.stderr


@pytest.mark.parametrize("command", ["show", "validate"])
def test_commands_have_help(command: str, tmp_path: Path) -> None:
    done = challenge(command, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert f"harness challenge {command}" in PAGE.read_text()


def challenge_of_the_page() -> str:
    (block,) = re.findall(r"^   ```yaml\n(.*?)^   ```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return str(block)


def test_findings_of_the_page_are_what_is_printed(tmp_path: Path) -> None:
    text = challenge_of_the_page().replace(" memory:", " memmory:").replace("float32", "flaot32")
    (tmp_path / "mychallenge.yaml").write_text(text)
    done = challenge("validate", "mychallenge.yaml", cwd=tmp_path)
    assert indent(done.stderr, "   ") in PAGE.read_text()
    assert done.stderr.count("\n") == 4


def test_challenge_of_the_page_is_valid(tmp_path: Path) -> None:
    rules = parse_challenge(challenge_of_the_page(), origin="page")
    assert doubts(rules) == []
    assert rules.task("Knee").field.path == "disp_{fixed:04d}_{moving:04d}.nii.gz"


def test_page_has_every_key() -> None:
    """By the last part of its name, in the table; limits as the file spells them."""
    rows = [line.split("|")[1] for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    told = {word for row in rows for word in re.findall(r"\w+", row)}
    for model in BaseModel.__subclasses__():
        if not model.__module__.startswith("harness.challenge"):
            continue
        for part in model.__subclasses__():
            assert {field.alias or name for name, field in part.model_fields.items()} <= told
