"""The clock that stamps what the witness sees. Setting the time of day, by hand or by NTP, does not
matter: a trace has one monotonic clock."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from harness.doctor.finding import Finding, ok, warning
from harness.machine.proc import read_text

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCES = Path("/sys/devices/system/clocksource/clocksource0")
# Read from outside the CPU, a microsecond or more each time, or only as fine as a timer's tick.
_SLOW = frozenset({"hpet", "acpi_pm", "jiffies", "refined-jiffies", "pit"})
_GOOD = ("tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page")
_COARSE_S = 1e-6


def clock(folder: Path = SOURCES, resolution_s: float | None = None) -> Iterator[Finding]:
    subject = "clock"
    source = read_text(folder / "current_clocksource")
    available = (read_text(folder / "available_clocksource") or "").split()
    step_s = time.get_clock_info("monotonic").resolution if resolution_s is None else resolution_s
    found = f"{source or 'source not told'}, monotonic to {step_s * 1e9:.0f} ns"
    better = next((name for name in _GOOD if name in available), None)
    if source in _SLOW:
        yield warning(
            subject,
            found,
            "reading this clock is slow: a busy watch falls behind"
            + ("" if better else "; the kernel trusts no better one, see dmesg | grep -i tsc"),
            f"echo {better} | sudo tee {folder}/current_clocksource" if better else "",
        )
    elif step_s > _COARSE_S:
        yield warning(
            subject,
            found,
            "runtimes are no finer than that; the kernel needs high-resolution timers",
            "grep -o highres=off /proc/cmdline  # remove it from the boot options",
        )
    else:
        yield ok(subject, found)
