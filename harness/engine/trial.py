"""A run in everything but its program: what a container is really held to, tried out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.engine.container import ContainerExecution

if TYPE_CHECKING:
    from docker import DockerClient

    from harness.engine.base import RunSpec


class TrialExecution(ContainerExecution):
    """``program`` replaces the image's entry point; all else is what a run of ``spec`` gets."""

    def __init__(self, client: DockerClient, spec: RunSpec, program: tuple[str, ...]) -> None:
        super().__init__(client, spec)
        self._arguments = {**self._arguments, "entrypoint": list(program)}
