"""Whole runs of real images: what a team's container does, and what the record says of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest

from harness.challenge.field_file import FieldState
from harness.challenge.pairs import read_pairs
from harness.errors import Blame
from harness.execute import execute
from harness.plan import Plan
from harness.store import RunDirectory, RunRecord, RunStatus
from tests.tiny import tiny_challenge, write_challenge, write_data

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docker import DockerClient

    from harness.engine.base import Image
    from harness.engine.docker import DockerEngine

pytestmark = pytest.mark.docker

REPOSITORY = Path(__file__).parents[2]
PAIRS = ("task_01 0001 0001", "task_01 0002 0002", "task_02 0007 0008", "task_02 0008 0009")
LABEL = "org.learn2reg.harness"

# A method in shell: it reads both images, works a while and copies a field that was prepared.
REGISTER = r"""
register() {
  cat /l2r/test/$1/img$2.nii.gz /l2r/test/$1/img$3.nii.gz > /dev/null
  sleep 0.3
  cp /l2r/test/task_01/zero.npz /l2r/submission/$1/.part
  mv /l2r/submission/$1/.part /l2r/submission/$1/disp_$2_$3.npz
}
"""
ALL_PAIRS = REGISTER + "".join(f"register {pair}\n" for pair in PAIRS)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    folder = write_data(tmp_path / "test")
    np.savez_compressed(folder / "task_01/zero.npz", np.zeros((3, 8, 6, 10), np.float16))
    return folder


@pytest.fixture(autouse=True)
def no_container_left(client: DockerClient, tmp_path: Path) -> Iterator[None]:
    yield
    left = [
        container.name
        for container in client.containers.list(all=True, ignore_removed=True)
        if any(mount["Source"].startswith(str(tmp_path)) for mount in container.attrs["Mounts"])
    ]
    assert left == []


def run(
    engine: DockerEngine,
    image: Image,
    tmp_path: Path,
    *,
    script: str | None = None,
    changes: tuple[tuple[str, str], ...] = (),
) -> tuple[RunRecord, RunDirectory]:
    challenge = tiny_challenge(*changes)
    if script is not None:
        contract = challenge.container.model_copy(update={"arguments": (script,)})
        challenge = challenge.model_copy(update={"container": contract})
    plan = Plan(
        challenge=challenge,
        challenge_file=write_challenge(tmp_path / "tiny.yaml"),
        data_dir=tmp_path / "test",
        tasks=read_pairs(challenge, tmp_path / "test"),
        image=image,
        submission="team",
    )
    run_dir = RunDirectory.create(tmp_path / "runs", "team")
    return execute(plan, engine, run_dir), run_dir


def states(record: RunRecord) -> list[FieldState]:
    return [pair.field_state for pair in record.pairs]


def test_image_without_python_is_timed_from_outside(
    engine: DockerEngine, shell_image: Image, tmp_path: Path, data_dir: Path
) -> None:
    record, run_dir = run(engine, shell_image, tmp_path, script=ALL_PAIRS)
    assert record.status is RunStatus.SUCCEEDED, (record.reason, run_dir.log_path.read_text())
    assert record.witness.complete
    for pair in record.pairs:
        assert pair.runtime_s is not None
        assert 0.3 <= pair.runtime_s < 1.5
        assert pair.inside_runtime_s is None
        assert pair.flags == ()
    assert record.image_id == shell_image.id


def test_work_of_a_container_is_its_own(
    engine: DockerEngine, shell_image: Image, tmp_path: Path, data_dir: Path
) -> None:
    """A container that keeps a CPU busy for 4 s is not taken for another program: its group's CPU
    time is found and subtracted."""
    busy = "end=$(($(date +%s) + 4)); while [ $(date +%s) -lt $end ]; do i=0; "
    busy += "while [ $i -lt 9999 ]; do i=$((i + 1)); done; done\n"
    before, started = psutil.cpu_times(), time.monotonic()
    record, _ = run(engine, shell_image, tmp_path, script=busy + ALL_PAIRS)
    rate = (sum(psutil.cpu_times()[:3]) - sum(before[:3])) / (time.monotonic() - started)
    assert record.contamination.foreign_cpus is not None
    assert record.contamination.foreign_cpus < rate - 0.3


def test_two_witnesses_agree(
    engine: DockerEngine, reference_image: Image, tmp_path: Path, data_dir: Path
) -> None:
    """The host's probe and the one in the container, on every pair, within their precision."""
    record, run_dir = run(engine, reference_image, tmp_path)
    assert record.status is RunStatus.SUCCEEDED, (record.reason, run_dir.log_path.read_text())
    of_the_engine = "may not raise the limit of open files"
    assert all("disagree" in text or of_the_engine in text for text in record.warnings)
    for pair in record.pairs:
        assert pair.runtime_s is not None
        assert pair.inside_runtime_s is not None
        assert pair.inside_runtime_s == pytest.approx(pair.runtime_s, abs=0.05)


@pytest.mark.parametrize(
    ("script", "status", "exit_code", "first"),
    [
        (f"{REGISTER} register {PAIRS[0]}; exit 3", RunStatus.CRASHED, 3, FieldState.VALID),
        (f"{REGISTER} register {PAIRS[0]}; kill -9 $$", RunStatus.CRASHED, 137, FieldState.VALID),
        ("cat /l2r/test/*/*", RunStatus.INCOMPLETE, 0, FieldState.MISSING),
        ("true", RunStatus.INCOMPLETE, 0, FieldState.NOT_ATTEMPTED),
        (
            (
                f"{REGISTER} register {PAIRS[0]}; cp /etc/passwd /l2r/submission/task_01/"
                "disp_0002_0002.npz"
            ),
            RunStatus.REJECTED,
            0,
            FieldState.VALID,
        ),
    ],
    ids=["exits 3", "killed", "reads only", "does nothing", "writes nonsense"],
)
def test_what_went_wrong(
    engine: DockerEngine,
    shell_image: Image,
    tmp_path: Path,
    data_dir: Path,
    script: str,
    status: RunStatus,
    exit_code: int,
    first: FieldState,
) -> None:
    record, _ = run(engine, shell_image, tmp_path, script=script)
    assert record.status is status
    assert record.exit_code == exit_code
    assert record.blame is Blame.SUBMISSION
    assert record.pairs[0].field_state is first


def test_data_is_read_only(
    engine: DockerEngine, shell_image: Image, tmp_path: Path, data_dir: Path
) -> None:
    image = data_dir / "task_01/img0001.nii.gz"
    before = image.read_bytes()
    script = "echo forged > /l2r/test/task_01/img0001.nii.gz || exit 9; exit 0"
    record, run_dir = run(engine, shell_image, tmp_path, script=script)
    assert record.exit_code == 9
    assert "Read-only file system" in run_dir.log_path.read_text()
    assert image.read_bytes() == before


def test_of_the_data_folder_only_what_the_tasks_need_is_seen(
    engine: DockerEngine, shell_image: Image, tmp_path: Path, data_dir: Path
) -> None:
    """Not the answers of a careless organiser, nor anything else that lies beside the tasks."""
    (data_dir / "answers").mkdir()
    (data_dir / "answers/secret").write_text("secret")
    (data_dir / "old.zip").touch()
    script = "ls -A /l2r/test; touch /l2r/test/x; " + ALL_PAIRS
    record, run_dir = run(engine, shell_image, tmp_path, script=script)
    assert record.status is RunStatus.SUCCEEDED
    listed, told = run_dir.log_path.read_text().splitlines()[:2], run_dir.log_path.read_text()
    assert listed == ["task_01", "task_02"]
    assert "Read-only file system" in told
    assert record.witness.complete


def test_memory_limit(
    engine: DockerEngine, shell_image: Image, tmp_path: Path, data_dir: Path
) -> None:
    script = f"{REGISTER} register {PAIRS[0]}; python3 -c 'bytearray(1 << 30)'; exit 0"
    less = (("memory: 2GiB", "memory: 128MiB"),)
    record, _ = run(engine, shell_image, tmp_path, script=script, changes=less)
    assert record.status is RunStatus.OUT_OF_MEMORY
    assert "child process" in record.reason
    assert states(record)[0] is FieldState.VALID


def test_deadline(engine: DockerEngine, shell_image: Image, tmp_path: Path, data_dir: Path) -> None:
    shorter = (("setup_time: 60s", "setup_time: 2s"), ("pair_time: 10s", "pair_time: 0.1s"))
    script = f"{REGISTER} register {PAIRS[0]}; trap '' TERM; while :; do sleep 1; done"
    record, _ = run(engine, shell_image, tmp_path, script=script, changes=shorter)
    assert record.status is RunStatus.TIMED_OUT
    assert record.duration_s < 15
    assert states(record)[0] is FieldState.VALID


def test_output_limit(
    engine: DockerEngine, shell_image: Image, tmp_path: Path, data_dir: Path
) -> None:
    script = "while :; do head -c 4000000 /dev/zero >> /l2r/submission/big; sleep 0.02; done"
    record, run_dir = run(engine, shell_image, tmp_path, script=script)
    assert record.status is RunStatus.OUTPUT_LIMIT
    assert not run_dir.output_dir.exists()


def test_container_removed_by_somebody_else(
    engine: DockerEngine,
    client: DockerClient,
    shell_image: Image,
    tmp_path: Path,
    data_dir: Path,
) -> None:
    before = {container.id for container in client.containers.list(all=True)}

    def remove() -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            for container in client.containers.list():
                if container.id not in before and container.status == "running":
                    time.sleep(0.8)
                    container.remove(force=True)
                    return
            time.sleep(0.1)

    remover = threading.Thread(target=remove)
    remover.start()
    script = f"{REGISTER} register {PAIRS[0]}; sleep 60"
    record, _ = run(engine, shell_image, tmp_path, script=script)
    remover.join()
    assert record.status is RunStatus.INFRASTRUCTURE
    assert record.blame is Blame.MACHINE
    assert states(record)[0] is FieldState.VALID


@pytest.mark.parametrize("how", ["SIGINT", "SIGHUP", "parent shell killed"])
def test_ended_from_outside(
    how: str,
    client: DockerClient,
    shell_image: Image,
    tmp_path: Path,
    data_dir: Path,
) -> None:
    """Ctrl-C, a lost terminal, and the death of the shell that called: no container stays."""
    script = f"{REGISTER} register {PAIRS[0]}; sleep 8"
    challenge = write_challenge(tmp_path / "tiny.yaml")
    text = challenge.read_text()
    argument = script.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    challenge.write_text(text.replace("limits:", f'  arguments: ["{argument}"]\nlimits:', 1))
    command = (
        f"{sys.executable} -m harness.cli run {shell_image.id} --challenge tiny.yaml"
        " --engine docker; :"
    )
    with (tmp_path / "err").open("wb") as err:
        shell = subprocess.Popen(
            ["sh", "-c", command],
            cwd=tmp_path,
            stdout=err,
            stderr=err,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )
    deadline = time.monotonic() + 30
    while b"1/4" not in (tmp_path / "err").read_bytes() and time.monotonic() < deadline:
        time.sleep(0.1)
    (harness_pid,) = map(
        int, Path(f"/proc/{shell.pid}/task/{shell.pid}/children").read_text().split()
    )
    if how == "parent shell killed":
        shell.kill()
    else:
        os.kill(harness_pid, getattr(signal, how))
    shell.wait(30)
    deadline = time.monotonic() + 40
    while Path(f"/proc/{harness_pid}/cmdline").exists() and time.monotonic() < deadline:
        if not Path(f"/proc/{harness_pid}/cmdline").read_bytes():
            break  # ended, not reaped
        time.sleep(0.1)
    (run_dir,) = (tmp_path / "runs/local").iterdir()
    record = RunDirectory(run_dir).read_record()
    assert record.pairs[0].field_state is FieldState.VALID
    if how == "parent shell killed":
        assert record.status is RunStatus.INCOMPLETE  # the run went on to its own end
    else:
        assert record.status is RunStatus.INTERRUPTED
