"""Witnesses of real containers: beside the harness, beside the submission, and with a CPU of their
own."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
import pytest

from harness.challenge.field_file import FieldState
from harness.challenge.pairs import read_pairs
from harness.engine.base import HelperSpec
from harness.engine.helper import HelperContainer
from harness.engine.own_image import own_name
from harness.errors import EngineError, ImageMissing, ProbeError
from harness.execute import Step, execute
from harness.plan import Plan, WitnessChoice
from harness.probe.client import Probe
from harness.probe.realtime import Precision
from harness.probe.spec import WatchSpec
from harness.probe.trace import Event, Placement, Root
from harness.store import RunDirectory, RunRecord, RunStatus
from harness.witness import sidecar, start_witness
from tests.docker.conftest import shell_spec
from tests.tiny import tiny_challenge, write_challenge, write_data

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docker import DockerClient

    from harness.engine.base import Image
    from harness.engine.docker import DockerEngine
    from harness.execute import Progress

pytestmark = pytest.mark.docker

PAIRS = ("task_01 0001 0001", "task_01 0002 0002", "task_02 0007 0008", "task_02 0008 0009")
# Reads both images, works a while and moves a prepared field to its name.
SCRIPT = r"""
register() {
  cat /l2r/test/$1/img$2.nii.gz /l2r/test/$1/img$3.nii.gz > /dev/null
  sleep 0.2
  cp /l2r/test/task_01/zero.npz /l2r/submission/$1/.part
  mv /l2r/submission/$1/.part /l2r/submission/$1/disp_$2_$3.npz
}
""" + "".join(f"register {pair}\n" for pair in PAIRS)
LATE_FOLDERS = 50


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


def make_plan(
    tmp_path: Path,
    image: Image,
    script: str = SCRIPT,
    *,
    witness: WitnessChoice = WitnessChoice.SIDECAR,
    witness_image: Image | None = None,
    realtime: bool = True,
) -> Plan:
    challenge = tiny_challenge()
    contract = challenge.container.model_copy(update={"arguments": (script,)})
    # So few that every engine grants them: that it does not is a warning.
    limits = challenge.limits.model_copy(update={"open_files": 1024})
    return Plan(
        challenge=challenge.model_copy(update={"container": contract, "limits": limits}),
        challenge_file=None,
        data_dir=tmp_path / "test",
        tasks=read_pairs(challenge, tmp_path / "test"),
        image=image,
        submission="team",
        witness=witness,
        witness_image=witness_image.reference if witness_image else "l2r-nobody-has-this",
        realtime=realtime,
    )


def run(engine: DockerEngine, tmp_path: Path, plan: Plan) -> tuple[RunRecord, RunDirectory]:
    run_dir = RunDirectory.create(tmp_path / "runs", "team")
    return execute(plan, engine, run_dir), run_dir


def test_sidecar_sees_what_the_host_sees(
    engine: DockerEngine,
    shell_image: Image,
    reference_image: Image,
    tmp_path: Path,
    data_dir: Path,
) -> None:
    """Both watch the same container: the same runtimes, within what both may be off."""
    plan = make_plan(tmp_path, shell_image)
    run_dir = RunDirectory.create(tmp_path / "runs", "team")
    outside = WatchSpec(
        placement=Placement.HOST,
        trace=tmp_path / "host.jsonl",
        data_dir=plan.data_dir,
        output_dir=run_dir.output_dir,
        inputs=tuple(path for pair in plan.pairs for path in pair.inputs),
        fields=tuple(pair.field for pair in plan.pairs),
    )
    for task in ("task_01", "task_02"):
        (run_dir.output_dir / task).mkdir(parents=True)
    host = Probe(outside)

    def start_host(progress: Progress) -> None:
        if progress.step is Step.STARTED:  # not sooner: the harness itself reads the inputs before
            host.start()

    aside = make_plan(tmp_path, shell_image, witness_image=reference_image)
    record = execute(aside, engine, run_dir, start_host)
    seen = host.finish()
    assert record.status is RunStatus.SUCCEEDED
    assert record.witness.placement is Placement.SIDECAR
    assert record.witness.complete
    assert record.warnings == ()
    tolerance_s = record.witness.precision.worst_error_s + seen.precision.worst_error_s
    closed = {e.path: e.t_ns for e in seen.events if e.event is Event.MOVED_IN}
    opened = {e.path: e.t_ns for e in reversed(seen.events) if e.root is Root.DATA}
    # The second pair: the first may have begun before the other witness was there.
    pair, found = record.pairs[1], plan.pairs[1]
    runtime_s = (closed[str(found.field)] - opened[str(found.fixed)]) * 1e-9
    assert pair.runtime_s == pytest.approx(runtime_s, abs=tolerance_s)


def test_sidecar_for_a_reference_run_agrees_with_the_witness_inside(
    engine: DockerEngine, reference_image: Image, tmp_path: Path, data_dir: Path
) -> None:
    """That beside it runs from the harness's own image."""
    plan = make_plan(tmp_path, reference_image)
    plan = dataclasses.replace(
        plan,
        challenge=tiny_challenge().model_copy(update={"limits": plan.challenge.limits}),
        challenge_file=write_challenge(tmp_path / "tiny.yaml"),
        witness_image=None,
    )
    record, run_dir = run(engine, tmp_path, plan)
    assert record.status is RunStatus.SUCCEEDED, run_dir.log_path.read_text()
    assert record.warnings == ()
    assert all(pair.inside_runtime_s is not None for pair in record.pairs)


def test_sidecar_killed_during_the_run_costs_the_ranking_not_the_fields(
    engine: DockerEngine,
    client: DockerClient,
    shell_image: Image,
    reference_image: Image,
    tmp_path: Path,
    data_dir: Path,
) -> None:
    plan = make_plan(
        tmp_path,
        shell_image,
        witness_image=reference_image,
    )
    run_dir = RunDirectory.create(tmp_path / "runs", "team")

    def kill(progress: Progress) -> None:
        if progress.done == 1:
            for container in client.containers.list(ignore_removed=True):
                if run_dir.run_id in str(container.name) and "witness" in str(container.name):
                    container.kill()

    record = execute(plan, engine, run_dir, kill)
    assert record.status is RunStatus.SUCCEEDED
    assert {pair.field_state for pair in record.pairs} == {FieldState.VALID}
    assert not record.witness.complete
    assert "the witness: ended by SIGKILL" in record.witness.lost
    assert {record.ranked_runtime_s(pair) for pair in record.pairs} == {None}


def test_missing_reference_image_is_an_error_with_the_way_on(
    engine: DockerEngine, shell_image: Image, tmp_path: Path, data_dir: Path
) -> None:
    plan = make_plan(tmp_path, shell_image)
    run_dir = RunDirectory.create(tmp_path / "runs", "team")
    with pytest.raises(ImageMissing, match="make base-image"):
        start_witness(plan, engine, run_dir)


def test_image_without_the_probe_is_refused_before_the_run(
    engine: DockerEngine,
    shell_image: Image,
    reference_image: Image,
    tmp_path: Path,
    data_dir: Path,
) -> None:
    """Its own words are in the message."""
    plan = make_plan(
        tmp_path,
        reference_image,
        witness_image=shell_image,
    )
    with pytest.raises((ProbeError, EngineError), match=r"No module named|executable file not"):
        run(engine, tmp_path, plan)


def test_own_image_holds_the_probe_and_no_method(
    engine: DockerEngine, client: DockerClient, reference_image: Image
) -> None:
    """The image of that purpose was the one of the last folder that was run: a team's."""
    own = engine.own_image()
    assert own == engine.own_image()
    assert own.reference == own_name()
    assert own.id != reference_image.id
    script = "find / -xdev -name method.py; python3 -c 'import harness.probe.watch; print(1)'"
    assert client.containers.run(own.id, ["sh", "-c", script], remove=True) == b"1\n"


def test_this_engine_runs_on_our_kernel(
    engine: DockerEngine, reference_image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the boot ID, as when what the engine says of itself leaves a doubt."""
    monkeypatch.setattr("harness.engine.kernel.told_by", lambda _: None)
    monkeypatch.setattr(engine, "_our_kernel", None)
    assert engine.shares_our_kernel(lambda: reference_image)
    monkeypatch.setattr(engine, "_our_kernel", None)
    monkeypatch.setattr("harness.engine.kernel.boot_id", lambda: "another")
    assert not engine.shares_our_kernel(lambda: reference_image)
    monkeypatch.setattr(engine, "_our_kernel", None)


def test_helper_ends_when_its_stdin_is_closed(
    engine: DockerEngine, client: DockerClient, reference_image: Image
) -> None:
    code = "import sys; print(sys.stdin.readline(), end=''); sys.stdin.read(); sys.exit(7)"
    helper = HelperContainer(
        client, HelperSpec(image=reference_image, name="echo", command=("python", "-c", code))
    )
    helper.start()
    helper.send(b"hello\n")
    assert helper.read_line(30.0) == b"hello\n"
    with pytest.raises(TimeoutError):
        helper.read_line(0.2)
    assert helper.end(30.0) == 7
    assert helper.end(30.0) is None


@pytest.mark.parametrize("placement", [WitnessChoice.HOST, WitnessChoice.SIDECAR])
def test_submission_is_kept_off_the_reserved_cpu(
    engine: DockerEngine,
    shell_image: Image,
    reference_image: Image,
    tmp_path: Path,
    data_dir: Path,
    placement: WitnessChoice,
) -> None:
    cpus = engine.cpus()
    if len(cpus) < 2:
        pytest.skip("needs two CPUs")
    script = "grep Cpus_allowed_list /proc/self/status; " + SCRIPT
    plan = make_plan(
        tmp_path,
        shell_image,
        script,
        realtime=False,
        witness=placement,
        witness_image=reference_image,
    )
    record, run_dir = run(engine, tmp_path, plan)
    assert record.status is RunStatus.SUCCEEDED
    assert record.witness.precision is Precision.RESERVED_CPU
    assert record.witness.reserved_cpu == cpus[-1]
    allowed = run_dir.log_path.read_text().split()[1]
    assert str(cpus[-1]) not in allowed.replace("-", ",").split(",")


@pytest.mark.parametrize("placement", [Placement.HOST, Placement.SIDECAR])
def test_folders_made_by_a_container_are_caught_or_declared_lost(
    engine: DockerEngine,
    shell_image: Image,
    reference_image: Image,
    folder: Path,
    placement: Placement,
) -> None:
    """Fifty folders, each with a field written into it at once: the race that a watch of a folder
    tree can only lose or win, but must never lose silently."""
    fields = tuple(PurePosixPath(f"late{i:02d}/deep/disp.npz") for i in range(LATE_FOLDERS))
    (folder / "witness").mkdir()
    spec = WatchSpec(
        placement=placement,
        trace=folder / "witness/trace.jsonl",
        data_dir=folder / "data",
        output_dir=folder / "out",
        inputs=(PurePosixPath("pairs_val.csv"),),
        fields=fields,
    )
    script = (
        "cd /l2r/submission; for i in $(seq -w 0 49); do"
        " mkdir -p late$i/deep; echo field > late$i/deep/disp.npz; done"
    )
    probe = (
        Probe(spec)
        if placement is Placement.HOST
        else sidecar(spec, engine, reference_image, name="witness-test")
    )
    with probe, engine.prepare(shell_spec(shell_image, folder, script)) as execution:
        execution.start()
        state = execution.wait(60.0)
        time.sleep(0.1)
        trace = probe.finish()
    assert state is not None
    assert state.exit_code == 0, (folder / "log.txt").read_text()
    caught = {event.path for event in trace.events if event.event is Event.CLOSED}
    lost = {reason.split(":")[0] for reason in trace.lost}
    assert caught | lost == {str(path) for path in fields}
    assert not caught & lost
    assert os.geteuid() != 0 or trace.precision is not Precision.FIFO or len(caught) > 0
