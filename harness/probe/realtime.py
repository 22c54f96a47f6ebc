"""Making a small process punctual: real-time scheduling, locked memory, no garbage collection."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import struct
import sys
from enum import StrEnum

_WATCHER_PRIORITY = 50  # above every ordinary process, not above the kernel's own threads
_WRITER_PRIORITY = 49
_SWITCH_INTERVAL_S = 1e-4  # how long the writer may keep the interpreter from the watcher
_SHORTEST_SLICE_NS = 100_000  # the least the kernel grants
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}  # the system call's number
_SCHED_ATTR = struct.Struct("=IIQiIQQQ")  # size, policy, flags, nice, priority, runtime, ...
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4


class Precision(StrEnum):
    """How punctual the witness was. FIFO: real-time scheduling. RESERVED_CPU: an ordinary process
    on a CPU that the submission was kept off. PLAIN: an ordinary process, which a busy machine may
    delay by milliseconds."""

    FIFO = "fifo"
    RESERVED_CPU = "reserved_cpu"
    PLAIN = "plain"

    @property
    def worst_error_s(self) -> float:
        """By how much one runtime may be off: docs/timing.md, measured in docs/benchmarks.md."""
        return _WORST_ERROR_S[self]


_WORST_ERROR_S = {
    Precision.FIFO: 0.002,
    Precision.RESERVED_CPU: 0.005,
    Precision.PLAIN: 0.025,
}


def become_punctual(*, realtime: bool = True, spare_cpu: int | None = None) -> Precision:
    """Ask for everything. Where real-time scheduling is refused (or, without ``realtime``, not even
    asked for), move to ``spare_cpu``, which whoever gave it keeps free."""
    gc.collect()
    gc.freeze()
    gc.disable()
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    libc = ctypes.CDLL(None, use_errno=True)
    # A refusal costs page faults, not correctness, and shows in no other way than the precision.
    libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT)
    if realtime and _schedule(_WATCHER_PRIORITY):
        return Precision.FIFO
    _ask_for_short_slices(libc)
    if spare_cpu is not None and _move_to(spare_cpu):
        return Precision.RESERVED_CPU
    return Precision.PLAIN


def follow_watcher() -> None:
    """Give the calling thread, the writer, the watcher's kind of scheduling.

    An ordinary thread that is put off its processor while it holds the interpreter would hold up
    the watcher.
    """
    _schedule(_WRITER_PRIORITY)


def _ask_for_short_slices(libc: ctypes.CDLL) -> None:
    """Since Linux 6.12 an ordinary process may ask for short turns, and then gets them sooner: it
    takes the processor from one with longer turns when it wakes (sched_setattr(2)). Fewer of its
    stamps are then late, though the latest are no earlier. Older kernels take no notice."""
    number = _SCHED_SETATTR.get(platform.machine())
    if number is not None:
        nice = os.getpriority(os.PRIO_PROCESS, 0)
        attributes = _SCHED_ATTR.pack(
            _SCHED_ATTR.size, os.SCHED_OTHER, 0, nice, 0, _SHORTEST_SLICE_NS, 0, 0
        )
        libc.syscall(number, 0, attributes, 0)


def _move_to(cpu: int) -> bool:
    try:
        os.sched_setaffinity(0, {cpu})
        return os.sched_getaffinity(0) == {cpu}
    except OSError:
        return False


def _schedule(priority: int) -> bool:
    try:
        # Children must not inherit it: a real-time busy loop starves the machine.
        policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
        os.sched_setscheduler(0, policy, os.sched_param(priority))
    except OSError:
        return False
    return True
