"""A harness that is killed while a real container runs, and the next one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest

from harness.challenge.field_file import FieldState
from harness.probe.trace import Placement
from harness.recover import begun_runs
from harness.store import RunDirectory, RunRecord, RunStatus
from tests.tiny import YAML, write_data

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from docker import DockerClient

    from harness.engine.base import Image

pytestmark = pytest.mark.docker

# It finishes the first pair, then hangs; SIGTERM would not end it.
SCRIPT = (
    "trap '' TERM; cd /l2r/test/task_01; cat img0001.nii.gz > /dev/null; "
    "cp zero.npz /l2r/submission/task_01/disp_0001_0001.npz; "
    "touch /l2r/submission/hangs; sleep 300 & wait; wait"
)


@pytest.fixture
def team(tmp_path: Path) -> Path:
    folder = write_data(tmp_path / "test")
    np.savez_compressed(folder / "task_01/zero.npz", np.zeros((3, 8, 6, 10), np.float16))
    limits = "limits:\n"
    arguments = f'  arguments: ["{SCRIPT}"]\n'
    (tmp_path / "tiny.yaml").write_text(YAML.replace(limits, arguments + limits))
    return tmp_path


def left_in(client: DockerClient, folder: Path) -> list[str]:
    return [
        str(container.name)
        for container in client.containers.list(all=True, ignore_removed=True)
        if any(mount["Source"].startswith(str(folder)) for mount in container.attrs["Mounts"])
    ]


@pytest.fixture(autouse=True)
def no_container_left(client: DockerClient, tmp_path: Path) -> Iterator[None]:
    yield
    assert left_in(client, tmp_path) == []


def command(team: Path, image: Image, runs: str, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "harness", "run", image.reference, "--engine", "docker"),
        *("--challenge", str(team / "tiny.yaml"), "--data", str(team / "test")),
        *("--runs", str(team / runs), "--submission", str(team / "submission"), *more),
    ]


def begin(
    team: Path, image: Image, runs: str = "runs", *more: str
) -> tuple[subprocess.Popen[bytes], RunDirectory]:
    """A harness whose container has finished its first pair, and hangs."""
    process = subprocess.Popen(
        command(team, image, runs, *more), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return process, await_first_pair(process, team / runs)


# The command has no option for the image of a witness in a container: tests have one of their own.
WITH_SIDECAR = """
import sys
from pathlib import Path
from harness.challenge.model import load_challenge
from harness.challenge.pairs import read_pairs
from harness.engine.docker import DockerEngine
from harness.execute import execute
from harness.plan import Plan, WitnessChoice
from harness.store import RunDirectory
team, image, witness = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
engine, challenge = DockerEngine.connect(), load_challenge(team / "tiny.yaml")
plan = Plan(
    challenge=challenge, challenge_file=team / "tiny.yaml", data_dir=team / "test",
    tasks=read_pairs(challenge, team / "test"), image=engine.find(image), submission="team",
    witness=WitnessChoice.SIDECAR, witness_image=witness,
)
execute(plan, engine, RunDirectory.create(team / "runs", "team"))
"""


def await_first_pair(process: subprocess.Popen[bytes], runs_dir: Path) -> RunDirectory:
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s and process.poll() is None:
        found = [run for run in begun_runs(runs_dir) if (run.output_dir / "hangs").exists()]
        if found:
            time.sleep(0.5)  # until its events are in the trace
            return found[0]
        time.sleep(0.05)
    raise AssertionError("the run did not come to its first pair")


def kill(process: subprocess.Popen[bytes]) -> None:
    """And see its children, the witness, end by themselves."""
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert [child for child in alive if child.status() != psutil.STATUS_ZOMBIE] == []


def recover(team: Path, runs: str = "runs") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "harness", "recover", "--runs", str(team / runs)],
        capture_output=True,
        text=True,
        check=False,
    )


def assert_first_pair_was_kept(record: RunRecord) -> None:
    assert record.status is RunStatus.INTERRUPTED
    assert "the harness was killed" in record.reason
    assert record.pairs[0].field_state is FieldState.VALID
    assert record.pairs[0].runtime_s is not None
    assert not record.witness.complete
    assert record.witness.lost[0] == "the harness ended before the run did"
    assert record.engine == "docker"


def test_container_of_a_killed_harness_is_swept_and_its_run_finished(
    team: Path, client: DockerClient, shell_image: Image
) -> None:
    process, run_dir = begin(team, shell_image)
    kill(process)
    assert len(left_in(client, team)) == 1  # it hangs on, and whoever killed the harness is gone
    done = recover(team)
    assert done.returncode == 0, done.stderr
    assert "1 of 4 fields kept, 1 with a runtime" in done.stderr
    assert left_in(client, team) == []
    assert_first_pair_was_kept(run_dir.read_record())
    assert sorted(path.name for path in run_dir.path.iterdir()) == [
        *("fields", "log.txt", "run.json", "trace.jsonl.gz")
    ]


def test_witness_in_a_container_is_swept_as_well(
    team: Path, client: DockerClient, shell_image: Image, reference_image: Image
) -> None:
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", WITH_SIDECAR, str(team)),
            *(shell_image.reference, reference_image.reference),
        ]
    )
    run_dir = await_first_pair(process, team / "runs")
    assert len(left_in(client, team)) == 2
    kill(process)
    done = recover(team)
    assert done.returncode == 0, done.stderr
    assert left_in(client, team) == []
    record = run_dir.read_record()
    assert_first_pair_was_kept(record)
    assert record.witness.placement is Placement.SIDECAR


def test_harness_that_lives_keeps_its_container(
    team: Path, client: DockerClient, shell_image: Image, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    write_data(other / "test")
    os.link(team / "test/task_01/zero.npz", other / "test/task_01/zero.npz")
    os.link(team / "tiny.yaml", other / "tiny.yaml")
    living, living_run = begin(other, shell_image)
    try:
        killed, killed_run = begin(team, shell_image)
        kill(killed)
        assert recover(team).returncode == 0
        assert_first_pair_was_kept(killed_run.read_record())
        done = recover(other)
        assert f"still running; its harness lives (process {living.pid})" in done.stderr
        assert len(left_in(client, other)) == 1
        assert living_run.started_path.exists()
    finally:
        living.terminate()
        living.wait(timeout=60)
    assert living_run.read_record().reason == "ended because the harness was asked to stop"
