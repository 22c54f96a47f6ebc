"""The CPUs and the memory: their clocks' policy, who else uses them, how much is left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil

from harness.challenge.quantity import format_bytes
from harness.doctor.finding import Finding, ok, warning
from harness.machine.proc import CPUS, read_int, read_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_BUSY_PERCENT = 20.0
MAX_STEAL_PERCENT = 2.0  # above it a run's machine is called suspect
_LOOK_S = 1.0


def governor(folder: Path = CPUS) -> Iterator[Finding]:
    """``folder``: the kernel's, of all CPUs."""
    subject = "CPU clocks"
    paths = folder.glob("cpu[0-9]*/cpufreq/scaling_governor")
    governors = sorted({text for text in map(read_text, paths) if text})
    if not governors:
        yield ok(subject, "not this system's to set, as in most virtual machines")
        return
    found = f"governor {', '.join(governors)}{_boost(folder)}"
    if governors == ["performance"]:
        yield ok(subject, found)
    else:
        yield warning(
            subject,
            found,
            "clocks follow the load, so the first pairs and short ones run slower",
            "sudo cpupower frequency-set -g performance",
        )


def _boost(folder: Path) -> str:
    boost = read_int(folder / "cpufreq/boost")
    no_turbo = read_int(folder / "intel_pstate/no_turbo")
    if no_turbo is not None:
        boost = int(not no_turbo)
    if boost is None:
        return ""
    return ", boost on (runtimes vary a few percent with heat)" if boost else ", boost off"


def load(look_s: float = _LOOK_S) -> Iterator[Finding]:
    """What the machine does while nobody asked it anything, over ``look_s``."""
    shares = psutil.cpu_times_percent(interval=look_s)
    steal = float(getattr(shares, "steal", 0.0))
    idle = float(shares.idle) + float(getattr(shares, "iowait", 0.0))
    yield judge_load(psutil.cpu_count() or 1, max(0.0, 100.0 - idle - steal), steal)


def judge_load(cpus: int, busy_percent: float, steal_percent: float) -> Finding:
    subject = "processors"
    found = f"{cpus} CPUs, {busy_percent:.0f} % busy"
    if steal_percent > MAX_STEAL_PERCENT:
        return warning(
            subject,
            f"{found}, {steal_percent:.0f} % withheld by the virtual machine's host",
            "runtimes depend on the neighbours: ask for a machine or CPUs of your own",
            "vmstat 1 5  # the column st",
        )
    if busy_percent > MAX_BUSY_PERCENT:
        return warning(
            subject, found, "end what else runs here before runtimes that matter", "top -o %CPU"
        )
    return ok(subject, found)


def memory(limit_bytes: int) -> Iterator[Finding]:
    state, swap = psutil.virtual_memory(), psutil.swap_memory()
    yield judge_memory(limit_bytes, state.total, state.available, swap.total)


def judge_memory(
    limit_bytes: int, total_bytes: int, available_bytes: int, swap_bytes: int
) -> Finding:
    """``limit_bytes``: what the challenge allows a submission."""
    swap = f"{format_bytes(swap_bytes)} swap" if swap_bytes else "no swap"
    found = f"{format_bytes(available_bytes)} of {format_bytes(total_bytes)} free, {swap}"
    allowed = format_bytes(limit_bytes)
    if total_bytes < limit_bytes:
        return warning(
            "memory",
            found,
            f"the challenge allows {allowed}: a submission may be killed here that is within it; "
            "use a larger machine",
        )
    if available_bytes < limit_bytes:
        return warning(
            "memory",
            found,
            f"the challenge allows {allowed}: end what else uses memory",
            "ps aux --sort=-rss | head",
        )
    return ok("memory", f"{found}; the challenge allows {allowed}")
