"""Which engine a command uses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, assert_never

from harness.engine.docker import DockerEngine
from harness.engine.process import ProcessEngine
from harness.errors import EngineMissing, EngineUnreachable

if TYPE_CHECKING:
    from harness.engine.base import Engine

EngineChoice = Literal["auto", "docker", "process"]


def choose_engine(wanted: EngineChoice) -> tuple[Engine, str | None]:
    """The engine, and a line for people when it is not the one they would expect.

    ``auto`` takes docker where a daemon answers, else the process engine. ``docker`` raises
    EngineMissing or EngineUnreachable where none does.
    """
    match wanted:
        case "process":
            return ProcessEngine(), None
        case "docker":
            return DockerEngine.connect(), None
        case "auto":
            try:
                return DockerEngine.connect(), None
            except EngineMissing:
                notice = (
                    "no container engine answers: the method runs as a plain process, without "
                    "isolation and not in the image the organisers run; to change that, install "
                    "Docker or Podman, or start it"
                )
            except EngineUnreachable as error:
                notice = f"the method runs as a plain process, without isolation: {error}"
            return ProcessEngine(), notice
        case _:
            assert_never(wanted)
