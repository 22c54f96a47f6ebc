"""Where the witness runs and what it may have: decisions, without a container engine."""

from __future__ import annotations

import dataclasses
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import psutil
import pytest

from harness.challenge.pairs import read_pairs
from harness.engine.base import BindMount, Helper, HelperSpec, Image
from harness.engine.helper import helper_arguments, privileges
from harness.engine.kernel import told_by
from harness.engine.owner import OWNER_LABEL, Owner
from harness.engine.process import ProcessEngine
from harness.errors import EngineError, ImageMissing
from harness.plan import Plan, WitnessChoice
from harness.probe.trace import Placement
from harness.store import RunDirectory
from harness.witness import choose_placement, start_witness
from tests.tiny import tiny_challenge, write_data

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGE = Image(id="sha256:" + "b" * 64, reference="own")
OURS = {
    "KernelVersion": os.uname().release,
    "Name": platform.node(),
    "MemTotal": psutil.virtual_memory().total,
    "NCPU": os.cpu_count(),
}


class DistantEngine(ProcessEngine):
    """As an engine in a virtual machine: it shares no kernel, and starts helpers."""

    def __init__(self, *images: str, cpus: tuple[int, ...] = (0, 1, 2, 3)) -> None:
        super().__init__()
        self._images = images
        self._cpus = cpus
        self.helpers: list[HelperSpec] = []

    def cpus(self) -> tuple[int, ...]:
        return self._cpus

    def find(self, reference: str) -> Image:
        if reference not in self._images:
            raise ImageMissing(reference)
        return IMAGE

    def own_image(self) -> Image:
        return self.find("own")

    def shares_our_kernel(self, find_image: Callable[[], Image]) -> bool:
        find_image()
        return False

    def helper(self, spec: HelperSpec) -> Helper:
        self.helpers.append(spec)
        return NoHelper()


class NoHelper:
    complaint = ""

    def start(self) -> NoReturn:
        raise EngineError("not in this test")

    def send(self, line: bytes) -> None: ...

    def read_line(self, timeout_s: float) -> bytes:  # noqa: ARG002
        return b""

    def end(self, timeout_s: float) -> int | None:  # noqa: ARG002
        return None


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "runs", "team")


def plan(tmp_path: Path, witness: WitnessChoice, *changes: tuple[str, str]) -> Plan:
    challenge = tiny_challenge(*changes)
    return Plan(
        challenge=challenge,
        challenge_file=None,
        data_dir=write_data(tmp_path / "test"),
        tasks=read_pairs(challenge, tmp_path / "test"),
        image=Image(id="sha256:" + "a" * 64, reference="some-image"),
        submission="team",
        witness=witness,
    )


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({}, True),
        ({"KernelVersion": "5.15.49-linuxkit"}, False),
        ({"MemTotal": 8 << 30}, None),
        ({"Name": "another"}, None),
        ({"NCPU": 1000}, None),
    ],
)
def test_what_an_engine_says_of_itself(told: dict[str, Any], expected: bool | None) -> None:
    assert told_by({**OURS, **told}) is expected


def test_auto_takes_the_host_where_the_kernel_is_ours(tmp_path: Path) -> None:
    assert choose_placement(plan(tmp_path, WitnessChoice.AUTO), ProcessEngine()) is Placement.HOST


def test_auto_takes_a_sidecar_where_it_is_not(tmp_path: Path, run_dir: RunDirectory) -> None:
    engine = DistantEngine("own")
    wanted = plan(tmp_path, WitnessChoice.AUTO)
    probe = start_witness(wanted, engine, run_dir)
    (spec,) = engine.helpers
    assert spec.image is IMAGE
    assert spec.command[-2:] == ("-m", "harness.probe")
    assert {(m.source, m.read_only) for m in spec.mounts} == {
        (wanted.data_dir, True),
        (run_dir.output_dir, True),
        (run_dir.growing_trace, False),
    }
    inside = {str(m.target) for m in spec.mounts}
    assert {str(probe.spec.data_dir), str(probe.spec.output_dir), str(probe.spec.trace)} == inside


def test_without_its_image_a_sidecar_is_refused_with_the_way_on(
    tmp_path: Path, run_dir: RunDirectory
) -> None:
    with pytest.raises(ImageMissing, match=r"another kernel.*make base-image"):
        start_witness(plan(tmp_path, WitnessChoice.AUTO), DistantEngine(), run_dir)


def test_the_submissions_own_image_is_no_witness(tmp_path: Path, run_dir: RunDirectory) -> None:
    """Whatever its name: the last folder that was run used to have that of the harness's image."""
    engine = DistantEngine("l2r_submission")
    own = plan(tmp_path, WitnessChoice.SIDECAR)
    of_the_run = dataclasses.replace(own, image=IMAGE, witness_image="l2r_submission")
    with pytest.raises(ImageMissing, match="is the submission's own"):
        start_witness(of_the_run, engine, run_dir)
    assert engine.helpers == []


def test_witness_may_be_forced_to_the_host(tmp_path: Path) -> None:
    wanted = plan(tmp_path, WitnessChoice.HOST)
    assert choose_placement(wanted, DistantEngine()) is Placement.HOST


@pytest.mark.parametrize(
    ("cpus", "changes", "spare"),
    [
        ((0, 1, 2, 3), (), 3),
        ((4, 9), (), 9),
        ((0,), (), None),
        ((0, 1), (("log_size: 64KiB", "log_size: 64KiB\n  reserve_cpu: false"),), None),
    ],
)
def test_spare_cpu(
    tmp_path: Path,
    run_dir: RunDirectory,
    cpus: tuple[int, ...],
    changes: tuple[tuple[str, str], ...],
    spare: int | None,
) -> None:
    wanted = plan(tmp_path, WitnessChoice.HOST, *changes)
    assert start_witness(wanted, DistantEngine(cpus=cpus), run_dir).spec.spare_cpu == spare


HELPER = HelperSpec(
    image=IMAGE,
    name="witness-of-team",
    command=("python", "-m", "harness.probe"),
    mounts=(BindMount(source=Path("/data"), target="/witness/data", read_only=True),),
    realtime=True,
)


def test_helper_is_confined() -> None:
    found = helper_arguments(HELPER, name="l2r-x", owner=Owner.current())
    assert found["entrypoint"] == ["python", "-m", "harness.probe"]
    assert found["network_mode"] == "none"
    assert found["cap_drop"] == ["ALL"]
    assert found["read_only"] is True
    assert found["user"] == f"{os.getuid()}:{os.getgid()}"
    assert Owner.from_text(found["labels"][OWNER_LABEL]) == Owner.current()
    assert [m["ReadOnly"] for m in found["mounts"]] == [True]
    assert not {"privileged", "devices", "cap_add", "pid_mode"} & set(found)


def test_helper_asks_for_less_when_it_is_refused() -> None:
    asked = list(privileges(HELPER))
    assert {limit["Name"] for limit in asked[0]["ulimits"]} == {"rtprio", "memlock"}
    assert asked[1]["cap_add"] == ["SYS_NICE"]
    assert all(each["cpu_rt_runtime"] < each["cpu_rt_period"] for each in asked[:2])
    assert not any("cpu_rt_runtime" in each for each in asked[2:])
    assert asked[-1] == {}


def test_helper_without_realtime_asks_for_nothing() -> None:
    plain = HelperSpec(image=IMAGE, name="x", command=("true",))
    assert list(privileges(plain)) == [{}]


def test_process_engine_has_no_helpers() -> None:
    with pytest.raises(EngineError, match="no containers"):
        ProcessEngine().helper(HELPER)
