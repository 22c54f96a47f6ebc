"""Whether an upload is complete: nothing of it changes any more, or it was renamed into place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# Without watching, there is one look at an upload: one that has changed just now is being written.
JUST_NOW_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Thing:
    """A file or a folder. ``stamp``: equal as long as it has not changed. ``renamed``: its inode
    and what a renaming leaves alone; ``changed_s``: when it changed, seconds since 1970."""

    name: str
    stamp: str
    renamed: str
    changed_s: float


class Settling:
    """What was seen at every scan, to be compared with the next. Times in seconds since 1970."""

    def __init__(self, settle_time_s: float) -> None:
        self._settle_time_s = settle_time_s
        self._since: dict[str, tuple[str, float]] = {}  # name -> stamp, and first seen with it
        self._in_progress: frozenset[str] = frozenset()

    def see(self, things: Iterable[Thing], in_progress: Iterable[Thing], now_s: float) -> None:
        """All that is there at this scan; what is not is forgotten."""
        since: dict[str, tuple[str, float]] = {}
        for one in things:
            stamp, before_s = self._since.get(one.name, ("", now_s))
            if stamp == one.stamp:
                since[one.name] = stamp, min(before_s, now_s)  # the clock may be set back
            elif one.renamed in self._in_progress:
                since[one.name] = one.stamp, -math.inf
            else:
                since[one.name] = one.stamp, now_s
        self._since = since
        self._in_progress = frozenset(one.renamed for one in in_progress)

    def is_settled(self, thing: Thing, now_s: float, *, watching: bool) -> bool:
        if not watching:
            return abs(now_s - thing.changed_s) >= JUST_NOW_S
        stamp, since_s = self._since.get(thing.name, ("", now_s))
        return stamp == thing.stamp and now_s - since_s >= self._settle_time_s

    def is_still(self, thing: Thing, now_s: float, *, watching: bool) -> bool:
        """As :meth:`is_settled`, or by its own time alone: enough for a few lines of text."""
        if watching and now_s - thing.changed_s >= self._settle_time_s:
            return True
        return self.is_settled(thing, now_s, watching=watching)
