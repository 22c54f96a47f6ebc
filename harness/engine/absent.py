"""The container engine that is not on this machine, where others run the images.

Whatever takes an engine raises why there is none; so it is missed by what needs it, and only then.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NoReturn

from harness.engine.base import UNLIMITED, BuildLimits, EngineInfo, EngineName

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.engine.base import Execution, Helper, HelperSpec, Image, Isolation, RunSpec
    from harness.engine.image_facts import ImageFacts
    from harness.engine.owner import Owner
    from harness.errors import EngineMissing, EngineUnreachable


class AbsentEngine:
    """See :class:`harness.engine.base.Engine`. ``why`` is raised, with what it was wanted for."""

    def __init__(self, why: EngineMissing | EngineUnreachable) -> None:
        self._why = why

    @property
    def info(self) -> EngineInfo:
        return EngineInfo(name=EngineName.DOCKER, version="none here", isolation="the workers'")

    @property
    def storage(self) -> Path | None:
        return None

    def cpus(self) -> tuple[int, ...]:
        return tuple(sorted(os.sched_getaffinity(0)))

    def build(
        self,
        folder: Path,
        *,
        tag: str,
        base_image: str | None = None,
        limits: BuildLimits = UNLIMITED,
        on_output: Callable[[str], None] | None = None,
    ) -> Image:
        del tag, base_image, limits, on_output
        self._miss(f"{folder}: to be built")

    def find(self, reference: str) -> Image:
        self._miss(f"image {reference!r}: to be looked up")

    def image_facts(self, image: Image) -> ImageFacts | None:
        self._miss(f"image {image.reference!r}: to be looked at")

    def prepare(self, spec: RunSpec) -> Execution:
        self._miss(f"image {spec.image.reference!r}: to be run")

    def why_no_gpus(self) -> str | None:
        return "there is no container engine here"

    def check_isolation(self, isolation: Isolation) -> None:
        """Whoever runs it does that."""

    def own_image(self) -> Image:
        self._miss("the harness's own image: to be made")

    def shares_our_kernel(self, find_image: Callable[[], Image]) -> bool:
        del find_image
        self._miss("containers: to be seen from here")

    def helper(self, spec: HelperSpec) -> Helper:
        del spec
        self._miss("a container of the harness's own: to be run")

    def hand_over(self, folder: Path, find_image: Callable[[], Image]) -> None:
        del find_image
        self._miss(f"{folder}: to be made this user's own")

    def sweep(self) -> tuple[str, ...]:
        return ()

    def left_of(self, owner: Owner) -> tuple[str, ...]:
        del owner
        return ()

    def _miss(self, wanted_for: str) -> NoReturn:
        raise type(self._why)(
            f"{wanted_for} this takes a container engine on this machine, whatever the workers "
            f"have; hand in what `docker save` or `harness export` wrote, or start one: {self._why}"
        ) from self._why
