"""Work that may be left out now and then, so that it takes a share of the time at most."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Pace:
    """Due again when ``pauses`` times as long as it took last has passed since, but after
    ``most_s`` at the latest: what took long for once does not keep it away."""

    def __init__(
        self,
        *,
        pauses: float,
        most_s: float = math.inf,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pauses = pauses
        self._most_s = most_s
        self._now_s = now_s
        self._due_s = -math.inf

    @property
    def is_due(self) -> bool:
        return self._now_s() >= self._due_s

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Around the work; also when it fails."""
        begun_s = self._now_s()
        try:
            yield
        finally:
            ended_s = self._now_s()
            self._due_s = ended_s + min(self._pauses * (ended_s - begun_s), self._most_s)
