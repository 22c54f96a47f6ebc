"""One run, decided."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from harness.cache import CacheMode
from harness.engine.base import Isolation
from harness.errors import ChallengeError

if TYPE_CHECKING:
    from pathlib import Path

    from harness.challenge.model import Challenge
    from harness.challenge.pairs import Pair, TaskPairs
    from harness.engine.base import Image
    from harness.image_record import ImageRecord


REFERENCE_IMAGE = "l2r_submission"  # what the challenge's own build line makes of its folder


class WitnessChoice(StrEnum):
    """Where the witness runs. AUTO: beside the harness where the engine's containers share its
    kernel, else in a container beside the submission's."""

    AUTO = "auto"
    HOST = "host"
    SIDECAR = "sidecar"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to run on what: nothing of it is looked up again later.

    ``challenge_file`` is None for a built-in challenge. ``witness_image``: what
    helps a run and is not the submission (a witness in a container) runs from it, by its name; None
    for the harness's own. ``realtime`` is False only where a witness
    without real-time scheduling is wanted, for tests and benchmarks. ``changed_limits``: the names
    of the limits that are not the challenge's own, as its file calls them. ``image_facts``: None
    for an engine without images. ``gpus``: UUIDs of those that the run is given, () for none; None
    where nobody chooses. Raises ChallengeError when its fields are more files than allowed.
    """

    challenge: Challenge
    challenge_file: Path | None
    data_dir: Path
    tasks: tuple[TaskPairs, ...]
    image: Image
    submission: str
    witness: WitnessChoice = WitnessChoice.AUTO
    witness_image: str | None = None
    realtime: bool = True
    cache: CacheMode = CacheMode.WARM
    isolation: Isolation = field(default_factory=Isolation)
    changed_limits: tuple[str, ...] = ()
    image_facts: ImageRecord | None = None
    gpus: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        names = {name for pair in self.pairs for name in pair.field_names}
        # The folders that the harness makes, a field a pair in them, and the runner's report.
        needed = len({folder for name in names for folder in name.parents[:-1]})
        needed += len(self.pairs) + 1
        allowed = self.challenge.limits.output_files
        if self.pairs and allowed < needed:
            raise ChallengeError(
                f"limits: output_files: expected at least {needed}, for the fields of "
                f"{len(self.pairs)} pairs, their folders and one more, found {allowed}"
            )

    @property
    def pairs(self) -> tuple[Pair, ...]:
        return tuple(pair for found in self.tasks for pair in found.pairs)

    @property
    def deadline_s(self) -> float:
        return self.challenge.limits.deadline_s(len(self.pairs))
