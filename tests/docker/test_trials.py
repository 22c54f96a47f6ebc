"""The doctor's trials on the real engine: they pass as runs are made, and fail without a limit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from harness.doctor.evidence import (
    DATA,
    LOOK,
    TAKE_MEMORY,
    TAKE_PROCESSES,
    judge_look,
    judge_memory_trial,
    judge_processes_trial,
)
from harness.doctor.finding import Level
from harness.doctor.trials import printed_by, trial_image, trials
from harness.engine.arguments import RUN_LABEL
from tests.docker.conftest import MIB
from tests.tiny import tiny_challenge

if TYPE_CHECKING:
    from pathlib import Path

    from docker import DockerClient

    from harness.engine.base import Image
    from harness.engine.docker import DockerEngine

pytestmark = pytest.mark.docker

LIMITS = tiny_challenge().limits


def containers_of_the_doctor(client: DockerClient) -> list[str]:
    label = f"{RUN_LABEL}=doctor"
    return [c.name or "" for c in client.containers.list(all=True, filters={"label": label})]


def test_trials_pass(engine: DockerEngine, shell_image: Image, client: DockerClient) -> None:
    """With an image that has an entry point of its own, as submissions have."""
    found = [finding for trial in trials(engine, shell_image, LIMITS) for finding in trial.run()]
    assert [finding for finding in found if finding.level is not Level.OK] == []
    subjects = {finding.subject for finding in found}
    assert {"network", "capabilities", "seccomp filter", "/tmp", "memory limit"} <= subjects
    assert containers_of_the_doctor(client) == []


def test_without_the_memory_limit_it_fails(engine: DockerEngine, shell_image: Image) -> None:
    roomy = LIMITS.model_copy(update={"memory_bytes": 1024 * MIB})
    text = printed_by(engine, shell_image, roomy, TAKE_MEMORY)
    assert judge_memory_trial(text, 64 * MIB).level is Level.FAILURE


def test_without_the_process_limit_it_fails(engine: DockerEngine, shell_image: Image) -> None:
    roomy = LIMITS.model_copy(update={"processes": 500})
    text = printed_by(engine, shell_image, roomy, TAKE_PROCESSES)
    assert judge_processes_trial(text, 48).level is Level.FAILURE


def test_in_a_plain_container_everything_fails(
    client: DockerClient, shell_image: Image, tmp_path: Path
) -> None:
    """A container that is asked for the opposite of what a run is."""
    printed = client.containers.run(
        shell_image.id,
        [LOOK],
        volumes={str(tmp_path): {"bind": DATA, "mode": "rw"}},
        network_mode="host",
        security_opt=["seccomp=unconfined"],
        remove=True,
        stderr=True,
    )
    small = LIMITS.model_copy(update={"shared_memory_bytes": 48 * MIB})
    found = list(
        judge_look(printed.decode(), small, (0,) if len(os.sched_getaffinity(0)) > 1 else None)
    )
    assert [finding.subject for finding in found if finding.level is not Level.FAILURE] == []


def test_images(engine: DockerEngine, shell_image: Image, base: str) -> None:
    found = trial_image(engine, None, ("nobody/nothing:1", base))
    assert found is not None
    assert found.reference == base
    assert trial_image(engine, "nobody/nothing:1", (base,)) is None


def doctor(*options: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "harness", "doctor", *options],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_command(base: str, tmp_path: Path, client: DockerClient) -> None:
    done = doctor("--json", "--image", base, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    document = json.loads(done.stdout)
    assert document["schema_version"] == 1
    assert "memory limit" in {finding["subject"] for finding in document["findings"]}
    assert containers_of_the_doctor(client) == []


def test_quick_starts_no_container(tmp_path: Path) -> None:
    done = doctor("--quick", cwd=tmp_path)
    assert done.returncode == 0
    assert "container engine" in done.stdout
    assert "memory limit" not in done.stdout


def test_no_image_is_said_with_what_to_do(tmp_path: Path) -> None:
    done = doctor("--image", "nobody/nothing:1", cwd=tmp_path)
    assert done.returncode == 1
    assert "not tried: there is no image nobody/nothing:1" in done.stdout
    assert "$ docker image ls" in done.stdout
