"""What is read from a container's control group, of both versions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.engine.cgroup import ControlGroup

if TYPE_CHECKING:
    from pathlib import Path

CONTAINER = "0123abcd"
CPU_NS, PEAK_BYTES = 1_500_000_000, 4096


def group_of(mount: Path, text: str, files: dict[str, str]) -> ControlGroup:
    """A group whose files are in folders below ``mount``, as /sys/fs/cgroup has them."""
    for name, content in files.items():
        file = mount / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    group = ControlGroup.of(text, CONTAINER, mount=mount)
    assert group is not None
    return group


def first(mount: Path, **memory: str) -> ControlGroup:
    """Of version 1."""
    files = {
        f"cpuacct/docker/{CONTAINER}/cpuacct.usage": f"{CPU_NS}\n",
        f"memory/docker/{CONTAINER}/memory.max_usage_in_bytes": f"{PEAK_BYTES}\n",
        f"memory/docker/{CONTAINER}/memory.oom_control": "oom_kill_disable 0\noom_kill 2\n",
        f"memory/docker/{CONTAINER}/memory.failcnt": "0\n",
        f"pids/docker/{CONTAINER}/pids.events": "max 7\n",
    }
    files |= {
        f"memory/docker/{CONTAINER}/{name.replace('__', '.')}": text
        for name, text in memory.items()
    }
    controllers = ("cpuacct", "memory", "pids")
    text = "".join(f"{n}:{name}:/docker/{CONTAINER}\n" for n, name in enumerate(controllers, 1))
    return group_of(mount, text, files)


def second(mount: Path, events: str) -> ControlGroup:
    """Of version 2."""
    folder = f"system.slice/docker-{CONTAINER}.scope"
    files = {
        f"{folder}/cpu.stat": f"usage_usec {CPU_NS // 1000}\nuser_usec 1\n",
        f"{folder}/memory.peak": f"{PEAK_BYTES}\n",
        f"{folder}/memory.events": events,
        f"{folder}/pids.events": "max 7\n",
    }
    return group_of(mount, f"0::/{folder}\n", files)


EVENTS = "low 0\nhigh 0\nmax {}\noom {}\noom_kill 2\noom_group_kill 0\n"


@pytest.mark.parametrize("version", [1, 2])
def test_what_it_used(tmp_path: Path, version: int) -> None:
    group = first(tmp_path) if version == 1 else second(tmp_path, EVENTS.format(0, 0))
    used = group.usage()
    assert used.cpu_s == pytest.approx(1.5)
    assert used.memory_peak_bytes == PEAK_BYTES
    assert (used.memory_kills, used.memory_limit_hits) == (2, 0)
    assert used.refused_processes == 7


@pytest.mark.parametrize(
    "hits", [{"memory__failcnt": "3\n"}, {"memory__memsw__failcnt": "3\n"}], ids=str
)
def test_limit_hits_of_version_1(tmp_path: Path, hits: dict[str, str]) -> None:
    """Where swap is counted, and both limits are the same, that of both together is hit first."""
    assert first(tmp_path, **hits).usage().memory_limit_hits == 3


def test_limit_hits_of_version_2(tmp_path: Path) -> None:
    assert second(tmp_path, EVENTS.format(3, 1)).usage().memory_limit_hits == 3


def test_kills_are_told_where_the_kernel_does_not_count_hits(tmp_path: Path) -> None:
    used = second(tmp_path, "oom_kill 2\n").usage()
    assert (used.memory_kills, used.memory_limit_hits) == (2, None)


def test_group_that_is_gone(tmp_path: Path) -> None:
    group = second(tmp_path, EVENTS.format(0, 0))
    (tmp_path / "system.slice" / f"docker-{CONTAINER}.scope").rename(tmp_path / "elsewhere")
    assert set(vars(group.usage()).values()) == {None}


def test_group_of_another_machine(tmp_path: Path) -> None:
    """That a process with that number is there says nothing."""
    assert ControlGroup.of("0::/user.slice\n", CONTAINER, mount=tmp_path) is None
