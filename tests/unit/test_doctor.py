"""What the doctor makes of what it finds: recorded words of engines, kernels and containers."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.doctor.clock import clock
from harness.doctor.disk import disk, judge_disk
from harness.doctor.engine import absent, judge_engine
from harness.doctor.evidence import (
    LOOK,
    MEMORY_ASKED_BYTES,
    judge_look,
    judge_memory_trial,
    judge_processes_trial,
    sections,
)
from harness.doctor.finding import Finding, Level, look, ok
from harness.doctor.gpu import judge_gpu
from harness.doctor.processors import governor, judge_load, judge_memory, load
from harness.doctor.trials import no_image
from harness.doctor.watching import inotify, open_files, realtime
from harness.errors import EngineMissing, EngineUnreachable
from harness.machine.gpu import GpuRecord
from tests.tiny import tiny_challenge

if TYPE_CHECKING:
    from collections.abc import Iterator

GIB = 1 << 30
LIMITS = tiny_challenge().limits.model_copy(
    update={"shared_memory_bytes": 48 << 20, "temporary_bytes": 32 << 20}
)

# What LOOK printed in containers of Docker 20.10.24, Linux 6.18, control groups of version 1: one
# made as the doctor's trials are, on CPU 0; one of `docker run -v FOLDER:/l2r/test --security-opt
# seccomp=unconfined` and nothing else.
RECORDED = Path(__file__).parent / "recorded"
SHUT_IN = (RECORDED / "look_shut_in.txt").read_text("utf-8")
OPEN = (RECORDED / "look_open.txt").read_text("utf-8")


def judged(text: str, cpuset: tuple[int, ...] | None = (0,)) -> dict[str, Finding]:
    return {finding.subject: finding for finding in judge_look(text, LIMITS, cpuset)}


class TestLook:
    def test_shut_in_as_asked(self) -> None:
        found = judged(SHUT_IN)
        assert {finding.level for finding in found.values()} == {Level.OK}
        assert len(found) == 8

    def test_an_error_cannot_slip_into_a_file_whatever_the_engine_does_to_two_streams(self) -> None:
        done = subprocess.run(["sh", "-c", LOOK], capture_output=True, text=True, check=False)
        seen = sections(done.stdout)
        assert done.stderr == ""
        assert "/l2r/test/new" in "".join(seen["write"])
        assert "/l2r/test/new" not in "".join(seen["net/route"] + seen["mounts"])

    def test_each_limit_that_does_not_hold_is_a_failure(self) -> None:
        found = judged(OPEN)
        assert {finding.level for finding in found.values()} == {Level.FAILURE}
        assert "eth0" in found["network"].found
        assert "CapEff 00000000a80425fb" in found["capabilities"].found
        assert found["shared memory"].found == "64.0 MiB in place of 48.0 MiB"
        assert found["/tmp"].found == "no limit of its own"
        assert all(finding.remedy for finding in found.values())

    @pytest.mark.parametrize(
        ("line", "other", "subject"),
        [
            ("Seccomp:\t2", "Seccomp:\t0", "seccomp filter"),
            ("NoNewPrivs:\t1", "NoNewPrivs:\t0", "no new privileges"),
            ("CapBnd:\t0000000000000000", "CapBnd:\t0000000000200000", "capabilities"),
            ("Cpus_allowed_list:\t0", "Cpus_allowed_list:\t0-1", "CPU set"),
            ("size=49152k", "size=49152m", "shared memory"),
            ("relatime,size=32768k", "relatime", "/tmp"),
            ("/l2r/test ext4 ro,", "/l2r/test ext4 rw,", "read-only data"),
            ("/l2r/test ext4", "/elsewhere ext4", "read-only data"),
            ("    lo:", "  eth0:", "network"),
        ],
    )
    def test_one_by_one(self, line: str, other: str, subject: str) -> None:
        assert line in SHUT_IN
        found = judged(SHUT_IN.replace(line, other))
        assert [f.subject for f in found.values() if f.level is Level.FAILURE] == [subject]

    @pytest.mark.parametrize(
        "line",
        [
            "sh: 6: cannot create /l2r/test/new: Read-only file system",
            "lo\t0000007F\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0",
        ],
    )
    def test_what_leads_nowhere_is_no_route(self, line: str) -> None:
        """A busy engine mixed up the shell's output and errors, and the error of the trial to write
        data stood among the routes: the doctor said that the network was open."""
        found = judged(SHUT_IN.replace("== mounts", f"{line}\n== mounts"))
        assert {finding.level for finding in found.values()} == {Level.OK}

    def test_a_route_out_is_told_with_its_interface(self) -> None:
        route = "tunl0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0"
        found = judged(SHUT_IN.replace("== mounts", f"{route}\n== mounts"))["network"]
        assert (found.level, found.found) == (Level.FAILURE, "a container has tunl0, with 1 route")

    def test_one_cpu_only(self) -> None:
        assert "CPU set" not in judged(SHUT_IN, None)

    @pytest.mark.parametrize("text", ["", "exec: sh: not found", SHUT_IN.replace("== end\n", "")])
    def test_a_container_that_says_nothing_proves_nothing(self, text: str) -> None:
        (finding,) = judge_look(text, LIMITS, (0,))
        assert finding.level is Level.WARNING
        assert "--image" in finding.command


class TestTaking:
    def test_memory(self) -> None:
        killed = judge_memory_trial("Killed\n0\nend\n", 64 << 20)
        assert killed.level is Level.OK
        survived = judge_memory_trial(f"{MEMORY_ASKED_BYTES}\nend\n", 64 << 20)
        assert survived.level is Level.FAILURE
        assert judge_memory_trial("", 64 << 20).level is Level.WARNING

    def test_a_shell_that_was_killed_with_its_program(self) -> None:
        assert judge_memory_trial("0\n", 64 << 20).level is Level.OK

    @pytest.mark.parametrize(
        ("text", "level"),
        [
            ("sh: 2: Cannot fork\n", Level.OK),
            ("sh: fork: retry: Resource temporarily unavailable\n", Level.OK),
            ("all of them\n", Level.FAILURE),
            ("", Level.WARNING),
        ],
    )
    def test_processes(self, text: str, level: Level) -> None:
        assert judge_processes_trial(text, 48).level is level


FACTS: dict[str, Any] = {
    "ServerVersion": "20.10.24",
    "Driver": "overlay2",
    "CgroupDriver": "cgroupfs",
    "CgroupVersion": "1",
    "MemoryLimit": True,
    "SwapLimit": True,
    "PidsLimit": True,
    "CPUSet": True,
    "SecurityOptions": ["name=seccomp,profile=default"],
    "Runtimes": {"runc": {"path": "runc"}},
}


class TestEngine:
    def test_all_there(self) -> None:
        (found,) = judge_engine(FACTS, "1.41")
        assert found.level is Level.OK
        for word in ("20.10.24", "API 1.41", "run by root", "cgroupfs", "overlay2", "seccomp"):
            assert word in found.found

    @pytest.mark.parametrize(
        ("changes", "level", "word"),
        [
            ({"SecurityOptions": []}, Level.FAILURE, "no seccomp"),
            (
                {"SecurityOptions": ["name=seccomp,profile=default", "name=rootless"]},
                Level.FAILURE,
                "rootless",
            ),
            ({"Rootless": True}, Level.FAILURE, "rootless"),
            ({"CgroupDriver": "none", "CgroupVersion": "2"}, Level.FAILURE, "none"),
            ({"MemoryLimit": False}, Level.FAILURE, "memory"),
            ({"PidsLimit": False, "CPUSet": False}, Level.FAILURE, "processes, CPU sets"),
            ({"SwapLimit": False}, Level.WARNING, "swap"),
            ({"Driver": "vfs"}, Level.WARNING, "vfs"),
        ],
    )
    def test_what_it_lacks(self, changes: dict[str, Any], level: Level, word: str) -> None:
        worst = max(judge_engine(FACTS | changes, "1.41"), key=lambda finding: finding.level)
        assert worst.level is level
        assert word in worst.found
        assert worst.command

    def test_rootless_with_the_new_control_groups(self) -> None:
        changes = {
            "CgroupVersion": "2",
            "SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless"],
        }
        (found,) = judge_engine(FACTS | changes, "1.43")
        assert found.level is Level.OK


def inotify_folder(folder: Path, watches: int, instances: int, queue: int) -> Path:
    (folder / "max_user_watches").write_text(f"{watches}\n")
    (folder / "max_user_instances").write_text(f"{instances}\n")
    (folder / "max_queued_events").write_text(f"{queue}\n")
    return folder


class TestWatching:
    def test_enough(self, tmp_path: Path) -> None:
        (found,) = inotify(inotify_folder(tmp_path, 65_536, 128, 16_384))
        assert found.level is Level.OK

    def test_too_little_names_each_setting(self, tmp_path: Path) -> None:
        (found,) = inotify(inotify_folder(tmp_path, 512, 128, 1000))
        assert found.level is Level.WARNING
        assert found.command == (
            "sudo sysctl -w fs.inotify.max_user_watches=65536 fs.inotify.max_queued_events=16384"
        )

    def test_none(self, tmp_path: Path) -> None:
        (found,) = inotify(tmp_path)
        assert found.level is Level.FAILURE

    def test_real_time_is_tried_elsewhere(self) -> None:
        (found,) = realtime()
        assert found.level in {Level.OK, Level.WARNING}
        assert os.sched_getscheduler(0) == os.SCHED_OTHER

    def test_open_files(self) -> None:
        levels = [next(iter(open_files(n))).level for n in (256, 4096, -1)]
        assert levels == [Level.WARNING, Level.OK, Level.OK]


class TestClock:
    def sources(self, folder: Path, current: str, available: str) -> Path:
        (folder / "current_clocksource").write_text(current + "\n")
        (folder / "available_clocksource").write_text(available + "\n")
        return folder

    @pytest.mark.parametrize("name", ["tsc", "kvm-clock", "arch_sys_counter"])
    def test_good(self, tmp_path: Path, name: str) -> None:
        (found,) = clock(self.sources(tmp_path, name, f"{name} acpi_pm"), 1e-9)
        assert found.level is Level.OK
        assert found.found == f"{name}, monotonic to 1 ns"

    def test_slow_with_a_better_one(self, tmp_path: Path) -> None:
        (found,) = clock(self.sources(tmp_path, "hpet", "hpet tsc acpi_pm"), 1e-9)
        assert found.level is Level.WARNING
        assert found.command == f"echo tsc | sudo tee {tmp_path}/current_clocksource"

    def test_slow_without(self, tmp_path: Path) -> None:
        (found,) = clock(self.sources(tmp_path, "acpi_pm", "acpi_pm"), 1e-9)
        assert (found.level, found.command) == (Level.WARNING, "")

    def test_coarse(self, tmp_path: Path) -> None:
        (found,) = clock(self.sources(tmp_path, "tsc", "tsc"), 4e-3)
        assert found.level is Level.WARNING

    def test_a_kernel_that_does_not_tell(self, tmp_path: Path) -> None:
        (found,) = clock(tmp_path, 1e-9)
        assert found.level is Level.OK


class TestProcessors:
    def cpus(self, folder: Path, *governors: str) -> Path:
        for index, name in enumerate(governors):
            place = folder / f"cpu{index}/cpufreq"
            place.mkdir(parents=True)
            (place / "scaling_governor").write_text(name + "\n")
        return folder

    def test_governor(self, tmp_path: Path) -> None:
        (found,) = governor(self.cpus(tmp_path, "performance", "performance"))
        assert found.level is Level.OK

    def test_a_single_cpu_that_saves(self, tmp_path: Path) -> None:
        (found,) = governor(self.cpus(tmp_path, "performance", "powersave"))
        assert found.level is Level.WARNING
        assert "performance, powersave" in found.found
        assert "cpupower" in found.command

    def test_turbo(self, tmp_path: Path) -> None:
        (tmp_path / "intel_pstate").mkdir()
        (tmp_path / "intel_pstate/no_turbo").write_text("1\n")
        (found,) = governor(self.cpus(tmp_path, "performance"))
        assert found.found.endswith("boost off")

    def test_a_virtual_machine_has_none(self, tmp_path: Path) -> None:
        (found,) = governor(tmp_path)
        assert found.level is Level.OK

    @pytest.mark.parametrize(
        ("busy", "steal", "level", "word"),
        [
            (3.0, 0.0, Level.OK, "3 % busy"),
            (50.0, 0.0, Level.WARNING, "50 % busy"),
            (3.0, 9.0, Level.WARNING, "9 % withheld"),
        ],
    )
    def test_load(self, busy: float, steal: float, level: Level, word: str) -> None:
        found = judge_load(4, busy, steal)
        assert found.level is level
        assert word in found.found

    def test_load_of_this_machine(self) -> None:
        (found,) = load(0.1)
        assert "CPUs" in found.found

    @pytest.mark.parametrize(
        ("total", "available", "level", "command"),
        [
            (64 * GIB, 60 * GIB, Level.OK, False),
            (64 * GIB, 8 * GIB, Level.WARNING, True),
            (8 * GIB, 7 * GIB, Level.WARNING, False),
        ],
    )
    def test_memory(self, total: int, available: int, level: Level, *, command: bool) -> None:
        found = judge_memory(16 * GIB, total, available, 0)
        assert found.level is level
        assert bool(found.command) is command
        assert "no swap" in found.found


class TestGpu:
    GPU = GpuRecord(name="NVIDIA H100", uuid="GPU-1")

    def test_none_is_no_fault(self) -> None:
        assert judge_gpu((), None, FACTS) == ok("GPU", "none: CPU only")

    def test_with_its_runtime(self) -> None:
        found = judge_gpu((self.GPU,), "550.1", {"Runtimes": {"nvidia": {}}})
        assert found.level is Level.OK
        assert "driver 550.1" in found.found

    def test_without_its_runtime(self) -> None:
        found = judge_gpu((self.GPU,), "550.1", FACTS)
        assert found.level is Level.WARNING
        assert "nvidia-ctk" in found.command

    def test_a_runtime_without_a_gpu(self) -> None:
        assert judge_gpu((), None, {"Runtimes": {"nvidia": {}}}).level is Level.WARNING

    def test_without_an_engine_no_runtime_is_missed(self) -> None:
        assert judge_gpu((self.GPU,), "550.1", None).level is Level.OK


class TestDisk:
    @pytest.mark.parametrize(
        ("free_bytes", "free_files", "level"),
        [
            (100 * GIB, 10**7, Level.OK),
            (100 * GIB, None, Level.OK),
            (2 * GIB, 10**7, Level.WARNING),
            (100 * GIB, 5000, Level.WARNING),
        ],
    )
    def test_judged(self, free_bytes: int, free_files: int | None, level: Level) -> None:
        found = judge_disk(
            "disk", "/x", free_bytes=free_bytes, free_files=free_files, command="make clean"
        )
        assert found.level is level
        assert found.command == ("make clean" if level is Level.WARNING else "")

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        (found,) = disk("disk", tmp_path / "none", "")
        assert "cannot be seen" in found.found


class TestLooking:
    def test_what_was_found_before_it_broke_stays(self) -> None:
        def breaks() -> Iterator[Finding]:
            yield ok("thing", "first")
            raise ZeroDivisionError("of all things")

        first, second = look("thing", breaks, 5.0)
        assert first.found == "first"
        assert second.level is Level.WARNING
        assert "ZeroDivisionError: of all things" in second.found

    def test_a_probe_that_hangs(self) -> None:
        start_s = time.monotonic()

        def hangs() -> Iterator[Finding]:
            time.sleep(3)
            yield ok("thing", "too late")

        (found,) = look("thing", hangs, 0.2)
        assert time.monotonic() - start_s < 2
        assert "no answer" in found.found


@pytest.mark.parametrize(("is_installed", "command"), [(True, "systemctl"), (False, "apt-get")])
def test_engine_that_does_not_answer_is_started_or_installed(
    is_installed: bool, command: str
) -> None:
    """apt-get was told to install the engine that was there and did not run."""
    found = absent(EngineMissing("none"), is_installed=is_installed)
    assert found.level is Level.WARNING
    assert command in found.command
    assert absent(EngineUnreachable("a group"), is_installed=is_installed).found == "a group"


def test_image_that_was_named_and_is_not_here_is_a_failure() -> None:
    assert no_image("nobody/nothing:1", ("usual",)).level is Level.FAILURE
    assert no_image(None, ("usual",)).level is Level.WARNING
