"""Waiting for a machine that other work disturbs."""

from __future__ import annotations

import time

import psutil

_LOOK_S = 0.5
_IDLE_RATIO = 0.93  # of all CPUs; the engine's daemons use some


def wait_until_idle(patience_s: float) -> bool:
    """Has the machine been idle for half a second? Waits until it has, for ``patience_s`` at most.

    What begins a moment later disturbs all the same: a benchmark takes medians for that.
    """
    deadline_s = time.monotonic() + patience_s
    while time.monotonic() < deadline_s:
        if psutil.cpu_times_percent(_LOOK_S).idle >= 100 * _IDLE_RATIO:
            return True
    return False
