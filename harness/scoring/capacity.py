"""How many workers this process may have: by its cores, and by the memory it is allowed."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_WORKER_BYTES = 600 << 20  # of the largest grid in a public configuration, with room
_MICROSECONDS = 1e6  # what a quota without a period of its own is told in


def workers_that_fit(cgroup: Path = _CGROUP) -> int:
    """One a core, fewer where a container's limits are tighter, never less than one."""
    limits = [len(os.sched_getaffinity(0))]
    if (cores := _cores_allowed(cgroup)) is not None:
        limits.append(int(cores))
    if (memory_bytes := _memory_allowed(cgroup)) is not None:
        limits.append(memory_bytes // _WORKER_BYTES)
    return max(1, min(limits))


def _memory_allowed(cgroup: Path) -> int | None:
    """Of cgroups in version 2 or 1; None without a limit, which version 1 writes as a number
    beyond any machine's memory."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        text = _read(cgroup / name)
        if text and text.isdigit():
            return int(text)
    return None


def _cores_allowed(cgroup: Path) -> float | None:
    if text := _read(cgroup / "cpu.max"):
        quota, _, period = text.partition(" ")
        return int(quota) / int(period or _MICROSECONDS) if quota.isdigit() else None
    quota = _read(cgroup / "cpu/cpu.cfs_quota_us") or ""
    period = _read(cgroup / "cpu/cpu.cfs_period_us") or ""
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text("ascii").strip()
    except OSError:
        return None
