"""What one machine knows that an order does not say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.campaign.machine_lock import MachineLock
from harness.engine.base import UNLIMITED, BuildLimits
from harness.errors import EngineError
from harness.imports.limits import ImportLimits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from harness.campaign.obtain import FolderDigest
    from harness.campaign.order import Place
    from harness.challenge.pairs import TaskPairs
    from harness.engine.base import Engine
    from harness.engine.owner import Owner

    DataDigest = Callable[[Path, Sequence[TaskPairs]], str]

GPU_PATIENCE_S = 120.0  # for the driver to take back what a run before had


@dataclass(frozen=True, kw_only=True)
class Site:
    """One place of a machine, and what is there.

    ``data_dir``: whatever else opens it while a run is timed counts as the run's, so two places of
    one machine need a copy each. ``data_digest``: of the lists of pairs and every input, as
    :class:`.conditions.Conditions` has it. ``lock_dir``: see :class:`.machine_lock.MachineLock`.
    ``scratch_dir``: for challenge files that come with an order, not below the data; None for
    ``_campaign/`` beside the runs. ``base_image``: that Dockerfiles are built on, None for their
    own. ``folder_digest``: as uploads that are folders have it, to see that one is still what was
    taken up; None to leave that out. ``lock_patience_s``: how long a machine that somebody else
    uses is waited for, None for as long as it takes.
    """

    place: Place
    runs_dir: Path
    data_dir: Path
    engine: Engine
    data_digest: DataDigest
    lock_dir: Path | None = None
    image_limits: ImportLimits = field(default_factory=ImportLimits)
    scratch_dir: Path | None = None
    base_image: str | None = None
    build_limits: BuildLimits = UNLIMITED
    folder_digest: FolderDigest | None = None
    lock_patience_s: float | None = None
    gpu_patience_s: float = GPU_PATIENCE_S

    @property
    def scratch(self) -> Path:
        return self.scratch_dir or self.runs_dir / "_campaign"

    @property
    def lock(self) -> MachineLock:
        return MachineLock(self.lock_dir, clean_after=lambda owner: clean_after(self.engine, owner))


def clean_after(engine: Engine, owner: Owner | None) -> None:
    """Remove what a harness that died left running. Raises EngineError when some of it stays."""
    engine.sweep()
    if owner is not None and (left := engine.left_of(owner)):
        raise EngineError(
            f"{', '.join(left)}: left behind by a harness that died (process {owner.pid}), and "
            "cannot be removed; nothing is timed beside it"
        )
