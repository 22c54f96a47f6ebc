"""A daemon that answers but cannot get the base image must not end the main job."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import BaseImageUnavailable
from tests.tiny import ZERO, write_challenge, write_data, write_method

pytestmark = pytest.mark.docker

REPOSITORY = Path(__file__).parents[2]
NOWHERE = "registry.invalid/no/base:1"


@pytest.fixture
def team(tmp_path: Path) -> Path:
    write_method(tmp_path, ZERO)
    (tmp_path / "method/requirements.txt").write_text("")
    for name in ("Dockerfile", ".dockerignore", "constraints.txt", "harness"):
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name)
        else:
            shutil.copy(source, tmp_path / name)
    write_data(tmp_path / "test")
    write_challenge(tmp_path / "tiny.yaml")
    return tmp_path


def harness(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "harness", *arguments, "--base-image", NOWHERE],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )


def test_build_names_the_base_and_both_remedies(team: Path) -> None:
    done = harness("build", cwd=team)
    assert done.returncode == 0
    for part in (NOWHERE, "BASE_IMAGE=", "make base-image", "process engine"):
        assert part in done.stderr


def test_run_goes_on_as_a_process_and_says_so(team: Path) -> None:
    done = harness("run", "--challenge", "tiny.yaml", "--json", cwd=team)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["engine"] == "process"
    assert NOWHERE in done.stderr
    assert "Using the process engine instead" in done.stderr


@pytest.mark.parametrize("command", ["build", "run"])
def test_asked_for_docker_it_is_an_error(team: Path, command: str) -> None:
    options = ("--challenge", "tiny.yaml") if command == "run" else ()
    done = harness(command, "--engine", "docker", *options, cwd=team)
    assert done.returncode == BaseImageUnavailable.exit_code
    assert NOWHERE in done.stderr
    assert list((team / "runs").glob("local/*")) == []
