"""A GPU is a run's own only when nobody else is on it: looked at before each run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psutil

from harness.challenge.quantity import format_bytes
from harness.errors import MachineBusy, MachineError
from harness.machine.gpu import GpuUse, gpu_use
from harness.text import harmless_line

if TYPE_CHECKING:
    from collections.abc import Callable

# What a process without a context may leave, and the driver itself may keep: less than the smallest
# CUDA context, which is some 150 MiB and more.
MAX_USED_BYTES = 128 << 20
_POLL_S = 0.5
_MAX_NAMED = 3


def require_idle(
    uuid: str, *, patience_s: float, look: Callable[[str], GpuUse | None] = gpu_use
) -> None:
    """Returns once nothing runs on the GPU and its memory is free. Raises MachineError when there
    is no such GPU, MachineBusy when somebody is on it still after ``patience_s``."""
    until_s = time.monotonic() + patience_s
    while True:
        use = look(uuid)
        if use is None:
            raise MachineError(
                f"GPU {uuid}: expected it on this machine, found no such GPU; `nvidia-smi -L` "
                "lists those that are here"
            )
        busy = _why_busy(use)
        if busy is None:
            return
        if time.monotonic() >= until_s:
            raise MachineBusy(
                f"GPU {uuid}: expected nobody on it within {patience_s:.0f} s, found {busy}; end "
                "that, and try again"
            )
        time.sleep(_POLL_S)


def _why_busy(use: GpuUse) -> str | None:
    if use.pids:
        named = ", ".join(map(_program, use.pids[:_MAX_NAMED]))
        more = len(use.pids) - _MAX_NAMED
        return named + (f" and {more} more" if more > 0 else "")
    if use.used_bytes is not None and use.used_bytes > MAX_USED_BYTES:
        return f"{format_bytes(use.used_bytes)} of its memory in use by a process not seen here"
    return None


def _program(pid: int) -> str:
    try:
        return f"process {pid} ({harmless_line(psutil.Process(pid).name(), 60)})"
    except psutil.Error:  # another user's, or of another container
        return f"process {pid}"
