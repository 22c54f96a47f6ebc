"""How a run ended: all that was observed of it, which is all that its verdict rests on.

Nothing in it is a submission's word: exit codes, counters of the kernel, the engine's answers,
sizes on the disk, times of the harness's own clock. None means not measured; zero is a measurement.
"""

from __future__ import annotations

import signal
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from harness.engine.base import Isolation

_FAR_FROM_LIMIT = 0.8  # of the memory: the kernel kills at the limit, or when the machine has none


class Cut(StrEnum):
    """Why the harness ended a submission before it ended by itself.

    OUTPUT_UNSEEN  something in its output cannot be looked at, so that no limit could hold.
    DISK_FULL      the machine's disk has no room left, although every limit was kept.
    HARNESS_DIED   the harness ended before the run did, and another one finished its record.
    """

    TIMED_OUT = "timed_out"
    PAIR_TIMED_OUT = "pair_timed_out"
    IDLE = "idle"
    OUTPUT_LIMIT = "output_limit"
    OUTPUT_UNSEEN = "output_unseen"
    SCRATCH_LIMIT = "scratch_limit"
    DISK_FULL = "disk_full"
    INTERRUPTED = "interrupted"
    HARNESS_DIED = "harness_died"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CutRecord(_Part):
    """The first recorded reason to end a submission: whatever follows from it came later.

    ``after_s``: how long the submission had been running. ``limit`` and ``observed`` are in the
    unit that ``limit_name`` ends with: a limit of the challenge (``longest_pair_s``,
    ``output_bytes``, ``output_files``), ``deadline_s`` or ``free_bytes``. ``subject``: the pair
    that took too long, or what cannot be looked at, fit to be shown.
    """

    reason: Cut
    after_s: float
    limit_name: str | None = None
    limit: float | None = None
    observed: float | None = None
    subject: str | None = None


class EndingRecord(_Part):
    """All that a verdict rests on, beside the fields themselves.

    ``exit_code``: None when it vanished or never started; ``exit_signal`` is the name of the signal
    that an exit code of 128 + n stands for (a submission may also choose such a code).
    ``out_of_memory``: the engine's word, also for a child of the main process. ``memory_kills``,
    ``memory_limit_hits``, ``refused_processes``: the kernel's counters, see
    :class:`harness.engine.base.Usage`. ``engine_failure``: what the engine could not do.

    ``output_bytes``, ``output_entries``, ``scratch_bytes``, and of that ``deleted_bytes`` in files
    without a name (None: not to be seen by this user, and not counted): as last seen, of scratch
    the most that was seen. ``printed_bytes``: all of it, kept in the log or not. ``open_files``:
    how many a process of it could have open: an engine that may not raise limits gives its own.
    ``lowest_free_bytes``: of the run directory's disk, which counts as full below
    ``free_floor_bytes``; with ``engine_`` of the container engine's own, where that is another one.
    ``reclaimed_bytes``: measured where a full disk ended the run and no other submission ran: what
    was free again once its container was gone, its output still there; never more than was lost
    while it ran. ``last_file_event_s``, ``last_cpu_use_s``: the last signs of life, after the
    start.
    """

    exit_code: int | None = None
    exit_signal: str | None = None
    out_of_memory: bool | None = None
    memory_peak_bytes: int | None = None
    memory_kills: int | None = None
    memory_limit_hits: int | None = None
    refused_processes: int | None = None
    cpu_s: float | None = None
    cut: CutRecord | None = None
    engine_failure: str | None = None
    output_bytes: int | None = None
    output_entries: int | None = None
    scratch_bytes: int | None = None
    deleted_bytes: int | None = None
    printed_bytes: int | None = None
    open_files: int | None = None
    lowest_free_bytes: int | None = None
    free_floor_bytes: int | None = None
    engine_lowest_free_bytes: int | None = None
    engine_free_floor_bytes: int | None = None
    reclaimed_bytes: int | None = None
    last_file_event_s: float | None = None
    last_cpu_use_s: float | None = None
    isolation: Isolation | None = None

    def machine_lacked_memory(self, limit_bytes: int) -> bool:
        """Were processes of it killed because the machine had no memory left? True only where the
        kernel's counters leave no doubt: kills, no hit of the limit, and a peak far below it that
        was read after the kills."""
        return bool(
            self.memory_kills and self.memory_limit_hits == 0 and self.is_far_from(limit_bytes)
        )

    def is_far_from(self, limit_bytes: int) -> bool:
        """Was the most memory seen of it well below its limit? False where none was seen."""
        peak_bytes = self.memory_peak_bytes
        return peak_bytes is not None and peak_bytes < _FAR_FROM_LIMIT * limit_bytes

    @property
    def disk_was_full(self) -> bool:
        return self.run_disk_was_full or self.engine_disk_was_full

    @property
    def run_disk_was_full(self) -> bool:
        return _is_below(self.lowest_free_bytes, self.free_floor_bytes)

    @property
    def engine_disk_was_full(self) -> bool:
        return _is_below(self.engine_lowest_free_bytes, self.engine_free_floor_bytes)

    def filled_the_disk(self, limit_bytes: int) -> bool:
        """Did a full disk end it, and had it kept more than its limit of scratch there, seen when
        it was gone, or hidden and free again with its container? In doubt, no."""
        if self.cut is None or self.cut.reason is not Cut.DISK_FULL:
            return False
        return max(self.scratch_bytes or 0, self.hidden_bytes) > limit_bytes

    @property
    def hidden_bytes(self) -> int:
        """What came back with its container, and had never been seen of it."""
        return max(0, (self.reclaimed_bytes or 0) - (self.scratch_bytes or 0))


def _is_below(lowest_bytes: int | None, floor_bytes: int | None) -> bool:
    return lowest_bytes is not None and floor_bytes is not None and lowest_bytes < floor_bytes


def exit_signal(exit_code: int | None) -> str | None:
    """The signal that an exit code stands for by custom (128 + n), None where there is none."""
    if exit_code is None or exit_code <= 128:
        return None
    try:
        return signal.Signals(exit_code - 128).name
    except ValueError:
        return None
