"""The driver's entries of utilisation, stamped with the wall clock: put on the trace's clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.sampler.records import Busy

if TYPE_CHECKING:
    from collections.abc import Sequence

_LONGEST_US = 1_500_000  # of an entry's time: NVIDIA documents at most 1 s
_STEP_US = 2_000  # between two looks: a clock that is being slewed gains 0.5 ms a second at most


class StampedUse:
    """Each entry once. Of the time before the first look the last entry only: it says where that of
    the next one begins.

    Entries are left out where the wall clock was set between two looks, which leaves their stamps
    in doubt, and where so much time lies before them that the driver must have dropped others: it
    keeps some hundred, of 16 s or more.
    """

    def __init__(self) -> None:
        self.seen_us = 0  # the last stamp, on the wall clock: what the driver is asked from
        self._offset_us: int | None = None
        self._told_ns = 0

    def take(
        self, entries: Sequence[tuple[int, float]], *, wall_us: int, monotonic_ns: int
    ) -> tuple[Busy, ...] | None:
        """``entries``: stamps of the wall clock in us, and percent. None: some were left out."""
        offset_us = monotonic_ns // 1000 - wall_us
        before_us, self._offset_us = self._offset_us, offset_us
        if before_us is not None and abs(offset_us - before_us) > _STEP_US:
            self.seen_us = wall_us
            return None
        # What is stamped later than now was stamped before the clock was set back.
        new = sorted(entry for entry in entries if self.seen_us < entry[0] <= wall_us)
        if not self.seen_us:
            new = new[-1:]
        elif new and new[0][0] - self.seen_us > _LONGEST_US:
            self.seen_us = new[-1][0]
            return None
        found = []
        for stamp_us, percent in new:
            self.seen_us = stamp_us
            t_ns = (stamp_us + offset_us) * 1000
            if t_ns > self._told_ns:
                found.append(Busy(t_ns=t_ns, ratio=min(max(percent / 100, 0.0), 1.0)))
                self._told_ns = t_ns
        return tuple(found)
