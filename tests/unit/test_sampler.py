"""The sampler as a program: the driver's real bindings, on a library that replays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.sampler.client import Sampler
from harness.sampler.driver import COUNTERS
from harness.sampler.spec import OwnContainer, OwnTree, SampleSpec
from tests.conftest import lacks
from tests.nvml.library import LIBRARY, UUIDS, build, compiler, replay
from tests.nvml.record import as_replay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from harness.sampler.records import Sample

PERIOD_NS = 10_000_000
DEADLINE_S = 30.0
NOT_SUPPORTED, NO_PERMISSION, INVALID = "!3", "!4", "!2"
SYMBOLS = {
    "busy": ("nvmlDeviceGetSamples",),
    "memory_used_bytes": ("nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetMemoryInfo"),
    "processes": ("nvmlDeviceGetComputeRunningProcesses",),
    "power_mw": ("nvmlDeviceGetPowerUsage",),
    "energy_mj": ("nvmlDeviceGetTotalEnergyConsumption",),
    "sm_clock_mhz": ("nvmlDeviceGetClockInfo/1",),
    "memory_clock_mhz": ("nvmlDeviceGetClockInfo/2",),
    "temperature_c": ("nvmlDeviceGetTemperature",),
    "events": (
        "nvmlDeviceGetCurrentClocksEventReasons",
        "nvmlDeviceGetCurrentClocksThrottleReasons",
    ),
}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _built(tmp_path_factory, old_driver=False)


@pytest.fixture(scope="module")
def old_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _built(tmp_path_factory, old_driver=True)


def _built(tmp_path_factory: pytest.TempPathFactory, *, old_driver: bool) -> Path:
    if compiler() is None:
        lacks("there is no C compiler (Debian's packages gcc and libc6-dev)")
    return build(tmp_path_factory.mktemp("nvml"), old_driver=old_driver)


class Made:
    """Samplers in one folder, with one library."""

    def __init__(self, folder: Path, library: Path) -> None:
        self.folder = folder
        self.library = library
        self.file = folder / "gpu.jsonl"

    def sampler(
        self,
        changes: dict[str, str] | None = None,
        *,
        uuids: Sequence[str] = UUIDS[:1],
        file: Path | None = None,
        max_samples: int = 100_000,
        ready_timeout_s: float = DEADLINE_S,
    ) -> Sampler:
        said = self.folder / "replay"
        said.write_text(replay(changes or {}))
        return Sampler(
            SampleSpec(
                uuids=tuple(uuids),
                file=file or self.file,
                period_ns=PERIOD_NS,
                max_samples=max_samples,
            ),
            environment={"LD_LIBRARY_PATH": str(self.library), "NVML_REPLAY": str(said)},
            ready_timeout_s=ready_timeout_s,
        )

    def wait_for_the_worst(self) -> None:
        until((self.folder / "replay.worst").exists)

    def lines(self) -> int:
        return self.file.read_bytes().count(b"\n")

    def wait_for_lines(self, count: int) -> None:
        until(lambda: self.lines() >= count)


@pytest.fixture
def made(tmp_path: Path, library: Path) -> Made:
    return Made(tmp_path, library)


def until(is_so: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def values(samples: Sequence[Sample], name: str) -> list[object]:
    return [getattr(sample, name) for sample in samples]


def test_all_counters_of_two_gpus_of_three(made: Made) -> None:
    before_ns = time.monotonic_ns()
    changes = {"nvmlDeviceGetPowerUsage 0": "30000", "nvmlDeviceGetTemperature 2": "71"}
    with made.sampler(changes, uuids=(UUIDS[2], UUIDS[0])) as sampler:
        made.wait_for_lines(20)
        found = sampler.finish()
    assert found.problem is None
    assert found.header is not None
    assert found.end is not None
    assert found.header.driver == "550.54.15"
    assert found.header.period_ns == PERIOD_NS
    assert [(gpu.uuid, gpu.index, gpu.name) for gpu in found.header.gpus] == [
        (UUIDS[2], 2, "NVIDIA Example C"),
        (UUIDS[0], 0, "NVIDIA Example A"),
    ]
    assert {gpu.memory_bytes for gpu in found.header.gpus} == {25769803776}
    assert {gpu.power_limit_mw for gpu in found.header.gpus} == {230000}
    assert all(gpu.absent == {} for gpu in found.header.gpus)
    assert found.end.absent == {}
    assert found.end.samples == len(found.samples)
    assert found.end.cpu_s > 0
    first, second = ([one for one in found.samples if one.gpu == place] for place in (0, 1))
    assert set(values(first, "power_mw")) == {71250}
    assert set(values(second, "power_mw")) == {30000}
    assert set(values(first, "temperature_c")) == {71}
    assert set(values(second, "temperature_c")) == {54}
    assert set(values(first, "memory_used_bytes")) == {629145600}
    assert set(values(first, "sm_clock_mhz")) == {1695}
    assert set(values(first, "memory_clock_mhz")) == {7601}
    assert set(values(first, "events")) == {4}
    assert set(values(first, "processes")) == {()}
    stamps_ns = [one.t_ns for one in first]
    assert stamps_ns == sorted(stamps_ns)
    assert before_ns < stamps_ns[0]
    assert stamps_ns[-1] < found.end.t_ns < time.monotonic_ns()
    energy_mj = [one.energy_mj or 0 for one in first]
    spent_mj, passed_s = energy_mj[-1] - energy_mj[0], (stamps_ns[-1] - stamps_ns[0]) * 1e-9
    longest_s = max(one.took_ns for one in first) * 1e-9
    assert abs(spent_mj - 71250 * passed_s) <= 71250 * 2 * longest_s + 2


def test_busy_has_each_entry_of_the_driver_once_on_the_traces_clock(made: Made) -> None:
    """The library has one at every multiple of 20 ms of the wall clock."""
    with made.sampler() as sampler:
        made.wait_for_lines(30)
        found = sampler.finish()
    told = [entry for sample in found.samples for entry in sample.busy or ()]
    steps_ns = [after.t_ns - before.t_ns for before, after in pairwise(told)]
    assert len(steps_ns) > 5
    assert all(abs(step_ns - 20_000_000) < 2_000_000 for step_ns in steps_ns)
    assert {entry.ratio for entry in told} == {0.73}
    # Of the entries before the first look the last one: where the time of the next one begins.
    assert len(found.samples[0].busy or ()) == 1
    for sample in found.samples:
        assert all(entry.t_ns <= sample.t_ns + sample.took_ns for entry in sample.busy or ())


@pytest.mark.parametrize("error", [NOT_SUPPORTED, NO_PERMISSION, INVALID])
@pytest.mark.parametrize("counter", COUNTERS)
def test_what_a_gpu_does_not_have_is_none_with_a_reason(
    made: Made, counter: str, error: str
) -> None:
    """It is asked once: a second time the library would answer."""
    there = {"busy": "@20000,5", "processes": "none", "memory_used_bytes": "9,5"}
    errors = f"{error} {error}" if counter == "processes" else error  # of its two versions
    changes = {symbol: f"{errors} {there.get(counter, '5')}" for symbol in SYMBOLS[counter]}
    with made.sampler(changes) as sampler:
        made.wait_for_lines(4)
        found = sampler.finish()
    assert found.problem is None
    assert found.header is not None
    assert found.end is not None
    reasons = {"!2": "Invalid Argument", "!3": "Not Supported", "!4": "Insufficient Permissions"}
    assert found.header.gpus[0].absent == {counter: reasons[error]}
    assert found.end.absent == {}
    assert set(values(found.samples, counter)) == {None}
    for other in set(COUNTERS) - {counter}:
        assert None not in values(found.samples, other), other


def test_an_old_driver_is_asked_by_its_own_symbols(tmp_path: Path, old_library: Path) -> None:
    made = Made(tmp_path, old_library)
    changes = {"nvmlDeviceGetComputeRunningProcesses": f"{os.getpid()}=4096"}
    with made.sampler(changes) as sampler:
        made.wait_for_lines(4)
        found = sampler.finish()
    assert found.problem is None
    assert found.header is not None
    assert found.header.gpus[0].absent == {}
    assert found.samples[0].events == 8
    assert found.samples[0].memory_used_bytes == 1073741824
    assert [one.pid for one in found.samples[0].processes or ()] == [os.getpid()]


@pytest.mark.parametrize(
    ("symbol", "answer", "hint"),
    [
        ("nvmlDeviceGetMigMode", "1", "(MIG is on)"),
        ("nvmlDeviceGetVirtualizationMode", "2", "(a vGPU)"),
    ],
)
def test_reasons_name_mig_and_vgpu(made: Made, symbol: str, answer: str, hint: str) -> None:
    with made.sampler({symbol: answer, "nvmlDeviceGetSamples": NOT_SUPPORTED}) as sampler:
        assert sampler.header is not None
        assert sampler.header.gpus[0].absent == {"busy": f"Not Supported {hint}"}


def test_a_mig_instance_has_the_index_of_its_gpu_and_its_own_memory(made: Made) -> None:
    mig = "MIG-11111111-0000-0000-0000-000000000001"
    whole = set(COUNTERS) - {"memory_used_bytes", "processes"}
    symbols = [symbol for counter in sorted(whole) for symbol in SYMBOLS[counter]]
    sampler = made.sampler(
        {
            **{f"{symbol} 3": INVALID for symbol in symbols},
            "nvmlDeviceGetMemoryInfo_v2 3": "5000,40",
            "nvmlDeviceGetMemoryInfo 3": "5000,60",
            "nvmlDeviceGetPowerManagementLimit 3": NOT_SUPPORTED,
        },
        uuids=(mig,),
    )
    said = made.folder / "replay"
    said.write_text(said.read_text() + f"gpu {mig} NVIDIA Example A MIG 1g.5gb\n")
    with sampler:
        made.wait_for_lines(3)
        found = sampler.finish()
    assert found.header is not None
    [gpu] = found.header.gpus
    assert (gpu.uuid, gpu.index, gpu.memory_bytes, gpu.power_limit_mw) == (mig, 0, 5000, None)
    assert gpu.absent.keys() == whole
    assert all("of the whole GPU only" in reason for reason in gpu.absent.values())
    assert set(values(found.samples, "memory_used_bytes")) == {40}
    assert set(values(found.samples, "processes")) == {()}


@pytest.mark.parametrize("code", [999, 10, 16, 19])
def test_what_fails_for_a_moment_is_none_that_time(made: Made, code: int) -> None:
    with made.sampler({"nvmlDeviceGetPowerUsage": f"5 5 !{code} 6"}) as sampler:
        made.wait_for_lines(6)
        found = sampler.finish()
    assert found.header is not None
    assert found.end is not None
    assert values(found.samples, "power_mw")[:4] == [5, None, 6, 6]
    assert found.header.gpus[0].absent == {}
    assert found.end.absent == {}


def test_what_always_fails_for_a_moment_has_its_reason_at_the_end(made: Made) -> None:
    with made.sampler({"nvmlDeviceGetPowerUsage": "!10"}) as sampler:
        made.wait_for_lines(4)
        found = sampler.finish()
    assert found.header is not None
    assert found.end is not None
    assert found.header.gpus[0].absent == {}
    assert found.end.absent == {0: {"power_mw": "Timeout"}}


def test_a_counter_that_goes_away_has_its_reason_at_the_end(made: Made) -> None:
    with made.sampler({"nvmlDeviceGetPowerUsage": "5 5 !3 5"}) as sampler:
        made.wait_for_lines(6)
        found = sampler.finish()
    assert found.end is not None
    assert values(found.samples, "power_mw")[:4] == [5, None, None, None]
    assert found.end.absent == {0: {"power_mw": "Not Supported"}}


def test_a_lost_gpu_is_told_once_and_the_other_goes_on(made: Made) -> None:
    changes = {"nvmlDeviceGetTotalEnergyConsumption 0": "1 1 !15 1"}
    with made.sampler(changes, uuids=UUIDS[:2]) as sampler:
        made.wait_for_lines(12)
        found = sampler.finish()
    assert found.problem is None
    assert found.end is not None
    lost, other = ([one for one in found.samples if one.gpu == place] for place in (0, 1))
    assert len(lost) == 2
    assert values(lost, "energy_mj") == [1, None]
    assert len(other) > 5
    assert None not in values(other, "energy_mj")
    assert found.end.absent == {0: dict.fromkeys(COUNTERS, "the GPU is lost")}


def test_processes_of_all_lists_once_each(made: Made) -> None:
    changes = {
        "nvmlDeviceGetComputeRunningProcesses": "10=100,11=?",
        "nvmlDeviceGetGraphicsRunningProcesses": "10=70,12=5",
        "nvmlDeviceGetMPSComputeRunningProcesses": "13=6",
    }
    with made.sampler(changes) as sampler:
        made.wait_for_lines(3)
        found = sampler.finish()
    assert [(one.pid, one.memory_bytes) for one in found.samples[0].processes or ()] == [
        (10, 100),
        (11, None),
        (12, 5),
        (13, 6),
    ]


@contextmanager
def sleeping(*, mark: str = "") -> Iterator[int]:
    """A process that is nobody's child and in nobody's group."""
    child = subprocess.run(
        ["setsid", "sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!"],
        env={**os.environ, "MARKED": mark},
        capture_output=True,
        check=True,
    )
    pid = int(child.stdout)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)


def test_own_and_foreign_processes_of_a_run_without_container(made: Made) -> None:
    """In a PID namespace of its own the sampler tells only of who has a GPU open."""
    ours = Path("/proc/self/ns/pid").readlink() == Path("pid:[4026531836]")
    root = subprocess.Popen(["sh", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE)
    assert root.stdout is not None
    child, gone = int(root.stdout.readline()), 4194303
    with root, sleeping(mark="run-1") as escaped, sleeping(mark="run-2") as stranger:
        pids = (root.pid, child, escaped, stranger, os.getpid(), gone)
        listed = ",".join(f"{pid}=1" for pid in pids)
        with made.sampler({"nvmlDeviceGetComputeRunningProcesses": listed}) as sampler:
            made.wait_for_lines(4)
            sampler.own(OwnTree(root=root.pid, mark="MARKED=run-1"))
            made.wait_for_lines(made.lines() + 10)
            found = sampler.finish()
        os.kill(child, signal.SIGKILL)
    first, last = (
        {one.pid: one.own for one in sample.processes or ()}
        for sample in (found.samples[0], found.samples[-1])
    )
    assert set(first.values()) == {None}
    told = {root.pid: True, child: True, escaped: True, stranger: False, os.getpid(): False}
    assert last == {gone: None, **(told if ours else dict.fromkeys(told))}


def test_hang_of_the_driver_at_the_start(made: Made) -> None:
    with made.sampler({"nvmlInitWithFlags": "hang"}, ready_timeout_s=1.0) as sampler:
        assert sampler.header is None
        assert sampler.pid is None
        sampler.own(OwnContainer(container="a"))
        found = sampler.finish()
    assert "not ready within 1 s" in (found.problem or "")
    assert found.samples == ()


def test_hang_of_a_counter_before_the_first_look(made: Made) -> None:
    with made.sampler({"nvmlDeviceGetTemperature": "hang"}, ready_timeout_s=1.0) as sampler:
        assert "not ready within 1 s" in (sampler.problem or "")


def test_hang_of_a_counter_midway(made: Made) -> None:
    with made.sampler({"nvmlDeviceGetTemperature": "50 51 52 hang"}) as sampler:
        made.wait_for_the_worst()
        pid = sampler.pid
        sampler.own(OwnTree(root=os.getpid(), mark="a=b"))
        found = sampler.finish()
    assert found.problem == "the sampler hung and was ended"
    assert found.end is None
    assert values(found.samples, "temperature_c") == [51, 52]
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize(("how", "name"), [("abort", "SIGABRT"), ("segv", "SIGSEGV")])
def test_crash_of_the_driver(made: Made, how: str, name: str) -> None:
    with made.sampler({"nvmlDeviceGetTemperature": f"50 51 52 {how}"}) as sampler:
        made.wait_for_the_worst()
        found = sampler.finish()
    assert found.problem == f"the sampler was ended by {name}"
    assert values(found.samples, "temperature_c") == [51, 52]
    with made.sampler({"nvmlInitWithFlags": how}) as sampler:
        assert name in (sampler.problem or "")
        assert sampler.finish().header is None


def test_looks_that_a_slow_driver_is_late_for_are_missed(made: Made) -> None:
    """And the next ones are where they would have been: k periods after the first."""
    with made.sampler({"nvmlDeviceGetTemperature": "0.035~50"}) as sampler:
        made.wait_for_lines(25)
        found = sampler.finish()
    assert found.problem is None
    assert found.end is not None
    looks = len(found.samples)
    begun_ns = [one.t_ns - one.took_ns // 2 for one in found.samples]
    due = (begun_ns[-1] - begun_ns[0]) / PERIOD_NS
    assert found.end.missed >= 3 * looks
    # Missed are counted up to the last look's end; its beginning may be late by less than a period.
    assert looks - 1 <= due <= found.end.missed + looks


def test_wrong_uuid(made: Made) -> None:
    with made.sampler(uuids=(UUIDS[0], "GPU-0")) as sampler:
        found = sampler.finish()
    assert found.problem == (
        f"the sampler of GPUs could not start: GPU GPU-0: Not Found; there are: {', '.join(UUIDS)}"
    )


def test_no_driver(tmp_path: Path) -> None:
    (tmp_path / LIBRARY).touch()  # in the place of a real one
    with Made(tmp_path, tmp_path).sampler() as sampler:
        assert "NVML Shared Library Not Found" in (sampler.problem or "")


def test_a_full_disk(made: Made) -> None:
    with made.sampler(file=Path("/dev/full")) as sampler:
        assert "No space left" in (sampler.problem or "")


def test_kill_of_the_sampler(made: Made) -> None:
    with made.sampler() as sampler:
        made.wait_for_lines(4)
        assert sampler.pid is not None
        os.kill(sampler.pid, signal.SIGKILL)
        found = sampler.finish()
    assert found.problem == "the sampler was ended by SIGKILL"
    assert len(found.samples) >= 3
    assert found.end is None


def test_it_outlives_what_ends_the_others(made: Made) -> None:
    with made.sampler() as sampler:
        assert sampler.pid is not None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(sampler.pid, number)
        made.wait_for_lines(made.lines() + 5)
        assert sampler.finish().problem is None


def test_it_is_gone_where_nobody_finishes_it(made: Made) -> None:
    with made.sampler() as sampler:
        pid = sampler.pid
    assert not Path(f"/proc/{pid}").exists()


def test_no_more_samples_than_it_may_take(made: Made) -> None:
    with made.sampler(max_samples=5, uuids=UUIDS[:2]) as sampler:
        made.wait_for_lines(7)
        found = sampler.finish()
    assert len(found.samples) == 5
    assert found.problem == "more than 5 samples; the rest was left out"


def test_a_recording_replayed_is_recorded_again(made: Made, library: Path) -> None:
    """What ``tests.nvml.record`` keeps of a machine makes the library of the tests that machine."""
    pid = f"{os.getpid()}=4096,{os.getppid()}=?"
    changes = {
        "nvmlDeviceGetPowerUsage": "70000 70000 71000 !999 72000 73000",
        "nvmlDeviceGetComputeRunningProcesses": f"none none none {pid}",
        "nvmlDeviceGetTotalEnergyConsumption": "!3",
    }
    with made.sampler(changes) as sampler:
        made.wait_for_lines(9)
        first = sampler.finish()
    assert first.header is not None
    recording = as_replay(first, first.header)
    again = made.sampler()
    (made.folder / "replay").write_text(recording)
    made.file.unlink()
    with again as sampler:
        until(made.file.exists)
        made.wait_for_lines(9)
        second = sampler.finish()
    assert second.header is not None
    assert second.header.gpus[0] == first.header.gpus[0]
    counters = set(COUNTERS) - {"busy"}  # stamped anew
    for before, after in zip(first.samples[:7], second.samples[:7], strict=True):
        assert {name: getattr(before, name) for name in counters} == {
            name: getattr(after, name) for name in counters
        }


def test_what_it_does_not_understand_costs_nothing_else(made: Made) -> None:
    sampler = made.sampler()
    environment = sampler._environment
    done = subprocess.run(
        [sys.executable, "-m", "harness.sampler"],
        input=sampler.spec.to_line() + b'{"own": {"container": 5}}\n',
        env=environment,
        capture_output=True,
        check=True,
    )
    assert done.stdout.startswith(b'{"kind":"header"')
    assert b"does not understand: expected str, found 5" in made.file.read_bytes()


def test_a_spec_of_another_version(made: Made) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "harness.sampler"],
        input=b'{"uuids": []}\n',
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert b"expected file, max_samples, period_ns, uuids; found ['uuids']" in done.stderr


def test_the_program_starts_without_pydantic() -> None:
    code = "import sys; sys.modules['pydantic'] = None; import harness.sampler.__main__"
    subprocess.run([sys.executable, "-c", code], check=True)
