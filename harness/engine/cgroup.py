"""What a container has used and which processes it has, read from its control group: microseconds a
look, where the engine's own statistics take a second."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Self

from harness.engine.base import Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

_MOUNT = Path("/sys/fs/cgroup")


class ControlGroup:
    """The group of one container, of version 1 or 2. What is not there reads as None."""

    def __init__(self, folders: Mapping[str, Path]) -> None:
        """``folders`` by controller, of version 2 the one folder under the name ""."""
        self._folders = folders

    @classmethod
    def of(cls, cgroup_text: str, container_id: str, *, mount: Path = _MOUNT) -> Self | None:
        """From the ``/proc/<pid>/cgroup`` of the container's process.

        None where it is not to be seen from here. That the group bears the container's name shows
        that the process ID is one of this machine's, not of an engine's in a virtual machine.
        """
        folders: dict[str, Path] = {}
        for line in cgroup_text.splitlines():
            _, _, rest = line.partition(":")
            controllers, _, group = rest.partition(":")
            if container_id not in group:
                continue
            for controller in controllers.split(","):
                folder = mount / controller / group.lstrip("/")
                if folder.is_dir():
                    folders[controller] = folder
        return cls(folders) if folders else None

    def usage(self) -> Usage:
        """Of all that is or was in the group. The peak of memory counts the page cache of the files
        it read or wrote, too, as its limit does."""
        return dataclasses.replace(
            self._memory(),
            cpu_s=self._cpu_s(),
            refused_processes=_first(
                _entry(self._file("pids", "pids.events"), "max"),
                _entry(self._file("", "pids.events"), "max"),
            ),
        )

    def processes(self) -> tuple[int, ...]:
        """Process IDs as this process sees them, none once the group is gone."""
        return self._members("cgroup.procs")

    def threads(self) -> tuple[int, ...]:
        return self._members("tasks") or self._members("cgroup.threads")

    def _memory(self) -> Usage:
        """Kills first: one for the limit follows on reaching it, which the other two then show.
        None of a group that went in between."""
        kills = self._memory_kills()
        hits, peak_bytes = self._memory_limit_hits(), self._memory_peak_bytes()
        if (hits is None or peak_bytes is None) and self._memory_kills() is None:
            return Usage()
        return Usage(memory_kills=kills, memory_limit_hits=hits, memory_peak_bytes=peak_bytes)

    def _memory_kills(self) -> int | None:
        return _first(
            _entry(self._file("memory", "memory.oom_control"), "oom_kill"),
            _entry(self._file("", "memory.events"), "oom_kill"),
        )

    def _memory_peak_bytes(self) -> int | None:
        return _first(
            _number(self._file("memory", "memory.max_usage_in_bytes")),
            _number(self._file("", "memory.peak")),
        )

    def _memory_limit_hits(self) -> int | None:
        """Of memory, or, where the kernel counts swap, of both together, which it looks at first.
        A machine that has none left adds nothing to these (Linux, Documentation/admin-guide:
        cgroup-v1/memory.rst, failcnt; cgroup-v2.rst, memory.events). That they are zero is no
        proof: Linux 6.18 leaves those of version 1 at zero."""
        of_memory = _number(self._file("memory", "memory.failcnt"))
        if of_memory is not None:
            return of_memory + (_number(self._file("memory", "memory.memsw.failcnt")) or 0)
        return _entry(self._file("", "memory.events"), "max")

    def _cpu_s(self) -> float | None:
        nanoseconds = _number(self._file("cpuacct", "cpuacct.usage"))
        if nanoseconds is not None:
            return nanoseconds * 1e-9
        microseconds = _entry(self._file("", "cpu.stat"), "usage_usec")
        return None if microseconds is None else microseconds * 1e-6

    def _file(self, controller: str, name: str) -> Path | None:
        folder = self._folders.get(controller)
        return None if folder is None else folder / name

    def _members(self, name: str) -> tuple[int, ...]:
        for folder in self._folders.values():
            text = _text(folder / name)
            if text is not None and (found := tuple(map(int, text.split()))):
                return tuple(pid for pid in found if pid)  # 0: of another process namespace
        return ()


def _text(file: Path | None) -> str | None:
    try:
        return None if file is None else file.read_text("ascii")
    except OSError:  # the group is gone, or this kernel lacks the file
        return None


def _number(file: Path | None) -> int | None:
    text = (_text(file) or "").strip()
    return int(text) if text.isdecimal() else None


def _entry(file: Path | None, name: str) -> int | None:
    """The number in the line that begins with ``name``."""
    for line in (_text(file) or "").splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.isdecimal():
            return int(value)
    return None


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)
