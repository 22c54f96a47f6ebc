"""Does an engine run its containers on the kernel that this process runs on?

What they do to files, and the limits of their processes, can be seen from here only if it does:
not with Docker Desktop, whose engine is in a virtual machine, nor with an engine elsewhere.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Mapping

_BOOT_ID = "/proc/sys/kernel/random/boot_id"  # random, another one at every boot of every kernel
_OPEN_FILES = "Max open files"
READ_BOOT_ID = ("python3", "-c", f"print(open('{_BOOT_ID}').read().strip())")


def told_by(info: Mapping[str, Any]) -> bool | None:
    """What the engine says of itself settles it at no cost, or leaves a doubt (None).

    Another kernel version is another kernel. The same version, host name, number of CPUs and size
    of memory to the byte is this machine: a virtual machine on it has less memory.
    """
    if info.get("KernelVersion") != os.uname().release:
        return False
    same = (
        info.get("Name") == platform.node()
        and info.get("MemTotal") == psutil.virtual_memory().total
        and info.get("NCPU") in {os.cpu_count(), len(os.sched_getaffinity(0))}
    )
    return True if same else None


def open_files_limit(pid: int) -> int | None:
    """How many files a process of this machine may have open (proc_pid_limits(5)); None where it
    does not tell, or there is no limit."""
    try:
        text = Path(f"/proc/{pid}/limits").read_text("ascii")
    except OSError:
        return None
    line = next((line for line in text.splitlines() if line.startswith(_OPEN_FILES)), "")
    soft, *_ = line.removeprefix(_OPEN_FILES).split() or [""]
    return int(soft) if soft.isdecimal() else None


def boot_id() -> str:
    """Of this process's kernel; empty where there is none."""
    try:
        return Path(_BOOT_ID).read_text("ascii").strip()
    except OSError:
        return ""
