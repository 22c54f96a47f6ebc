"""Keeping a worker's memory flat over many cases."""

from __future__ import annotations

import ctypes


def give_back_memory() -> None:
    """Hand what a case's arrays left free back to the system, before the next one is read.

    glibc keeps it for later, in pieces that the next field's arrays do not fit into: 40 MB of a
    brain's case. Where the C library has no such call, nothing happens.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return
    trim(0)
