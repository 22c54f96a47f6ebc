"""Making a small process punctual: real-time scheduling, locked memory, no garbage collection."""

from __future__ import annotations

import ctypes
import ctypes.util
import gc
import os
import sys
from enum import StrEnum

_WATCHER_PRIORITY = 50  # above every ordinary process, not above the kernel's own threads
_WRITER_PRIORITY = 49
_SWITCH_INTERVAL_S = 1e-4  # how long the writer may keep the interpreter from the watcher
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4


class Precision(StrEnum):
    """How punctual the witness was. FIFO: real-time scheduling. PLAIN: an ordinary process, which a
    busy machine may delay by milliseconds."""

    FIFO = "fifo"
    PLAIN = "plain"


def become_punctual() -> Precision:
    """Ask for everything; what is refused (in a container, say) makes the process PLAIN."""
    gc.collect()
    gc.freeze()
    gc.disable()
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    libc = ctypes.CDLL(ctypes.util.find_library("c") or None, use_errno=True)
    # A refusal costs page faults, not correctness, and shows in no other way than the precision.
    libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT)
    return Precision.FIFO if _schedule(_WATCHER_PRIORITY) else Precision.PLAIN


def follow_watcher() -> None:
    """Give the calling thread, the writer, the watcher's kind of scheduling.

    An ordinary thread that is put off its processor while it holds the interpreter would hold up
    the watcher.
    """
    _schedule(_WRITER_PRIORITY)


def _schedule(priority: int) -> bool:
    try:
        # Children must not inherit it: a real-time busy loop starves the machine.
        policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
        os.sched_setscheduler(0, policy, os.sched_param(priority))
    except OSError:
        return False
    return True
