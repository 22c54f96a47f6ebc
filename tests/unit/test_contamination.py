"""Was the machine the submission's alone? Hand-made samples, then real foreign load."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.engine.base import Usage
from harness.engine.cgroup import ControlGroup
from harness.machine.contamination import (
    BURST_S,
    MachineVerdict,
    Observations,
    Sample,
    find_contamination,
)
from harness.machine.gpu import GpuProcess
from harness.machine.samples import MachineWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

GIB = 1 << 30
CPUS = 4


def sample(t_s: float, **changes: float | None) -> Sample:
    """One of a submission that keeps two CPUs busy, alone on the machine."""
    values = {
        "t_s": 100.0 + t_s,
        "busy_s": 5000.0 + 2.0 * t_s,
        "steal_s": 7.0,
        "ours_s": 1.0 + 2.0 * t_s,
        "available_bytes": 10 * GIB,
        "swapped_bytes": 1 * GIB,
        "memory_stalled_s": 3.0,
        "frequency_hz": None,
        **changes,
    }
    return Sample(**values)  # type: ignore[arg-type]


def samples(seconds: int, change: Callable[[float], dict[str, float | None]]) -> Observations:
    """One sample a second; ``change``: by time, what is different from a clean machine."""
    return Observations(
        samples=tuple(sample(t, **change(t)) for t in range(seconds + 1)),
        cpus=CPUS,
        memory_bytes=16 * GIB,
        base_frequency_hz=2e9,
    )


CLEAN = samples(20, lambda _: {})


def test_clean_machine() -> None:
    found = find_contamination(CLEAN)
    assert found.verdict is MachineVerdict.CLEAN
    assert found.evidence == ()
    assert found.observed_s == 20.0
    assert found.foreign_cpus == pytest.approx(0.0)
    assert found.swapped_bytes == 0
    assert found.throttle_events is None  # not measured is not zero


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: {"busy_s": 5000 + 2.3 * t}, "used 0.30 of 4 CPUs on average (more than 0.25)"),
        (lambda t: {"busy_s": 5000 + 2 * t + 3 * (t > 10)}, "used 0.60 of 4 CPUs for 5 s"),
        (lambda t: {"steal_s": 7 + 0.06 * t}, "host withheld 2.9 % of the CPU time"),
        (lambda t: {"swapped_bytes": GIB * (1 + (t > 5))}, "1.0 GiB went to or came from swap"),
        (
            lambda t: {"memory_stalled_s": 0.1 * t, "available_bytes": GIB},
            "waited for memory 10.0 % of the time (more than 1 %), with 1.0 GiB of 16.0 GiB left",
        ),
        (
            lambda _: {"memory_stalled_s": None, "available_bytes": GIB // 2},
            "only 512.0 MiB of 16.0 GiB memory was left",
        ),
        (lambda t: {"frequency_hz": 1.5e9 if t > 10 else 3e9}, "below 2.00 GHz, at 1.50 GHz"),
    ],
)
def test_each_reason_for_doubt(
    change: Callable[[float], dict[str, float | None]], words: str
) -> None:
    found = find_contamination(samples(20, change))
    assert found.verdict is MachineVerdict.SUSPECT
    (line,) = found.evidence
    assert words in line


@pytest.mark.parametrize(
    "change",
    [
        lambda t: {"busy_s": 5000 + 2.2 * t},
        lambda t: {"busy_s": 5000 + 2 * t + 2 * (t > 10)},  # 0.4 CPUs over 5 s
        lambda t: {"steal_s": 7 + 0.03 * t},
        lambda t: {"swapped_bytes": GIB + (8 << 20) * (t > 5)},
        lambda t: {"memory_stalled_s": 0.1 * t},  # at its own limit: the machine has enough
        lambda _: {"available_bytes": GIB},  # little is left, and nobody waits
        lambda t: {"frequency_hz": 1e9, "busy_s": 5000 + 0.1 * t, "ours_s": 0.1 * t},  # idle
        lambda t: {"frequency_hz": 1e9 if t == 7 else 3e9},  # one look of twenty
        lambda t: {"busy_s": 5000 + 1.9 * t},  # coarse ticks: less than ours alone
    ],
)
def test_what_is_no_reason(change: Callable[[float], dict[str, float | None]]) -> None:
    found = find_contamination(samples(20, change))
    assert found.evidence == ()
    assert found.verdict is MachineVerdict.CLEAN


def test_throttling_and_foreign_gpu_processes() -> None:
    seen = Observations(
        samples=CLEAN.samples,
        cpus=CPUS,
        memory_bytes=16 * GIB,
        throttle_events=3,
        gpu_processes=(GpuProcess(pid=42, gpu=1, memory_bytes=GIB), GpuProcess(pid=43, gpu=1)),
    )
    assert find_contamination(seen).evidence == (
        "CPUs were slowed down for heat, 3 times",
        "another process computes on GPU 1 (pid 42, 1.0 GiB)",
        "another process computes on GPU 1 (pid 43)",
    )


def test_programs_are_named() -> None:
    seen = Observations(
        samples=samples(20, lambda t: {"busy_s": 5000 + 3 * t}).samples,
        cpus=CPUS,
        memory_bytes=16 * GIB,
        programs=(("stress", 18.0), ("backup", 1.0), ("c", 0.5), ("d", 0.1)),
    )
    (line,) = find_contamination(seen).evidence
    assert line.endswith(": stress 18.0 s, backup 1.0 s, c 0.5 s")


@pytest.mark.parametrize(
    "seen",
    [
        samples(0, lambda _: {}),
        samples(1, lambda t: {"busy_s": 5000 + 4 * t}),  # too short to blame anybody
        samples(20, lambda _: {"ours_s": None}),  # an engine on another machine
        Observations(samples=(), cpus=CPUS, memory_bytes=GIB),
    ],
)
def test_no_verdict_without_a_look_at_the_cpus(seen: Observations) -> None:
    found = find_contamination(seen)
    assert found.verdict is None
    assert found.foreign_cpus is None


def test_large_machines_have_more_daemons() -> None:
    load = samples(20, lambda t: {"busy_s": 5000 + 2.6 * t}).samples
    for cpus, verdict in ((16, MachineVerdict.SUSPECT), (128, MachineVerdict.CLEAN)):
        seen = Observations(samples=load, cpus=cpus, memory_bytes=16 * GIB)
        assert find_contamination(seen).verdict is verdict


@given(
    st.lists(st.floats(0, 1), min_size=3, max_size=60),
    st.floats(0.1, 2.0),
)
def test_burst_is_never_below_the_mean_nor_above_the_peak(
    foreign: list[float], step_s: float
) -> None:
    """``foreign``: CPU seconds that others used between each two samples."""
    sums = [sum(foreign[:n]) for n in range(len(foreign) + 1)]
    seen = Observations(
        samples=tuple(
            sample(n * step_s, busy_s=10 + used, ours_s=10.0) for n, used in enumerate(sums)
        ),
        cpus=CPUS,
        memory_bytes=16 * GIB,
    )
    found = find_contamination(seen)
    if found.foreign_cpus is None or found.foreign_cpus_burst is None:
        assert len(foreign) * step_s < 2.0 + 1e-9
        return
    assert found.foreign_cpus <= found.foreign_cpus_burst + 1e-9
    assert found.foreign_cpus_burst <= max(foreign) / step_s + 1e-9
    if len(foreign) * step_s < BURST_S:
        assert found.foreign_cpus_burst == pytest.approx(found.foreign_cpus)


@contextmanager
def spinner() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-c", "while True: pass"],
        start_new_session=True,  # Linux may share the CPUs by session (autogroup)
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_real_load_is_seen_and_named() -> None:
    watch = MachineWatch()
    with ExitStack() as stack:
        for _ in range(2 * (psutil.cpu_count() or 1)):
            stack.enter_context(spinner())
        for _ in range(4):
            watch.sample(0.0)
            time.sleep(0.8)
        found = watch.finish()
    assert found.verdict is MachineVerdict.SUSPECT
    assert (found.foreign_cpus or 0.0) > 0.5
    assert any("other programs used" in line and "python" in line for line in found.evidence)


def test_load_of_the_submission_is_not_foreign() -> None:
    """Others may well use this machine while the test runs, so the same seconds are looked at by
    two: one knows what the submission used."""
    knowing, ignorant = MachineWatch(), MachineWatch()
    with spinner() as process:
        submission = psutil.Process(process.pid)
        used_s = []
        for _ in range(4):
            times = submission.cpu_times()
            used_s.append(times.user + times.system)
            knowing.sample(used_s[-1])
            ignorant.sample(0.0)
            time.sleep(0.8)
        attributed, foreign = knowing.finish(), ignorant.finish()
    assert attributed.foreign_cpus is not None
    assert foreign.foreign_cpus is not None
    used = (used_s[-1] - used_s[0]) / foreign.observed_s
    assert foreign.foreign_cpus - attributed.foreign_cpus == pytest.approx(used, abs=0.1)


def test_a_sample_is_cheap() -> None:
    watch = MachineWatch()
    before_s = time.process_time()
    for _ in range(100):
        watch.sample(0.0)
    assert (time.process_time() - before_s) / 100 < 0.005  # measured: 0.0002


@pytest.mark.parametrize(
    ("groups", "file", "text", "expected_s"),
    [
        ("9:name=systemd:/docker/abc\n2:cpuacct:/docker/abc\n0::/docker/abc\n",
         "cpuacct/docker/abc/cpuacct.usage", "1500000000\n", 1.5),
        ("4:cpu,cpuacct:/docker/abc\n", "cpuacct/docker/abc/cpuacct.usage", "250000000", 0.25),
        ("0::/system.slice/docker-abc.scope\n", "system.slice/docker-abc.scope/cpu.stat",
         "usage_usec 2500000\nuser_usec 1\nsystem_usec 2\n", 2.5),
    ],
)  # fmt: skip
def test_cpu_time_of_a_group(
    tmp_path: Path, groups: str, file: str, text: str, expected_s: float
) -> None:
    path = tmp_path / file
    assert ControlGroup.of(groups, "abc", mount=tmp_path) is None
    path.parent.mkdir(parents=True)
    path.write_text(text)
    group = ControlGroup.of(groups, "abc", mount=tmp_path)
    assert group is not None
    assert group.usage().cpu_s == pytest.approx(expected_s)
    assert ControlGroup.of(groups, "another", mount=tmp_path) is None
    path.unlink()
    assert group.usage() == Usage()


def test_process_of_another_machine_is_not_taken_for_the_container() -> None:
    """An engine in a virtual machine names a process ID that is something else here."""
    assert ControlGroup.of("0::/user.slice/session-1.scope\n", "abc") is None
