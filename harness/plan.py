"""One run, decided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from harness.challenge.model import Challenge
    from harness.challenge.pairs import Pair, TaskPairs
    from harness.engine.base import Image


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to run on what: nothing of it is looked up again later.

    ``challenge_file`` is None for a built-in challenge.
    """

    challenge: Challenge
    challenge_file: Path | None
    data_dir: Path
    tasks: tuple[TaskPairs, ...]
    image: Image
    submission: str

    @property
    def pairs(self) -> tuple[Pair, ...]:
        return tuple(pair for found in self.tasks for pair in found.pairs)

    @property
    def deadline_s(self) -> float:
        return self.challenge.limits.deadline_s(len(self.pairs))
