"""Which harness process something belongs to, and whether that process is still alive.

A process id alone does not name a process: ids are given again, and another machine or another
process namespace (a harness inside a container) has its own. So the owner is the process id, its
start time, the process namespace, the boot and the machine; and only when all of them say so is it
called dead.
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Self

import psutil

LABEL_PREFIX = "org.learn2reg.harness."
OWNER_LABEL = LABEL_PREFIX + "owner"
_DEAD_STATES = "ZX"  # zombie, dead: proc(5)


@dataclass(frozen=True, kw_only=True)
class Owner:
    """``start`` is the process's start time since boot as the system counts it. All are texts."""

    pid: str
    start: str
    namespace: str
    boot: str
    machine: str

    @classmethod
    def current(cls) -> Self:
        pid = str(os.getpid())
        return cls(
            pid=pid,
            start=_start(pid) or "",
            namespace=_namespace(),
            boot=_boot(),
            machine=platform.node(),
        )

    @property
    def text(self) -> str:
        """The owner as a label of a container or a variable; :meth:`from_text` reads it back."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_text(cls, text: str) -> Self | None:
        """None for what is not an owner: labels are anybody's to set."""
        try:
            fields = json.loads(text)
            return cls(**{name: str(value) for name, value in fields.items()})
        except (ValueError, AttributeError, TypeError):
            return None

    @property
    def can_be_judged(self) -> bool:
        """Would this process know its process, if that still ran?"""
        if self.machine != platform.node():
            return False
        return self.boot != _boot() or self.namespace == _namespace()

    @property
    def was_before_restart(self) -> bool:
        """Did its machine, this one, start anew since?"""
        return self.machine == platform.node() and self.boot != _boot()

    def is_dead(self) -> bool:
        """Certainly gone. An owner that cannot be judged from here counts as alive."""
        if self.machine != platform.node():
            return False
        if self.boot != _boot():
            return True
        if self.namespace != _namespace():
            return False
        return _start(self.pid) != self.start


@cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return str(round(psutil.boot_time()))


@cache
def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _start(pid: str) -> str | None:
    """Start time of a live process in clock ticks since boot, None when there is none.

    psutil's ``create_time`` is a wall-clock time, which moves when the clock is set.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except FileNotFoundError:
        return None if Path("/proc/self/stat").exists() else _start_without_proc(pid)
    except OSError:  # it went away while we looked
        return None
    fields = stat.rpartition(")")[2].split()  # the name in brackets may hold anything
    return None if fields[0] in _DEAD_STATES else fields[19]


def _start_without_proc(pid: str) -> str | None:
    try:
        return str(round(psutil.Process(int(pid)).create_time()))
    except psutil.Error:
        return None
