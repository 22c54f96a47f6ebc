"""Limits tried out: throwaway containers, made as a run's are, that say what they are held to."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.doctor.evidence import (
    DATA,
    LOOK,
    TAKE_MEMORY,
    TAKE_PROCESSES,
    judge_look,
    judge_memory_trial,
    judge_processes_trial,
)
from harness.doctor.finding import Finding, failure, warning
from harness.engine.base import BindMount, RunSpec
from harness.errors import EngineError, ImageMissing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.challenge.model import Limits
    from harness.engine.base import Image
    from harness.engine.docker import DockerEngine

SHELL = ("sh", "-c")
TRIAL_DEADLINE_S = 15.0
_MIB = 1 << 20
_TRIAL_MEMORY_BYTES = 64 * _MIB
_TRIAL_PROCESSES = 48


@dataclass(frozen=True, kw_only=True)
class Trial:
    subject: str
    run: Callable[[], Iterator[Finding]]


def trial_image(engine: DockerEngine, named: str | None, usual: tuple[str, ...]) -> Image | None:
    """The image named, else the first of the usual that is here; None when there is none."""
    for reference in (named,) if named else usual:
        try:
            return engine.find(reference)
        except ImageMissing:
            continue
    return None


def no_image(named: str | None, usual: tuple[str, ...]) -> Finding:
    if named:
        return failure(
            "container limits",
            f"not tried: there is no image {named}",
            "name one that is here (it needs a shell)",
            "docker image ls",
        )
    return warning(
        "container limits",
        f"not tried: there is no image {' nor '.join(usual)}",
        "make one, or name any that is here with --image (it needs a shell)",
        "make base-image",
    )


def trials(engine: DockerEngine, image: Image, limits: Limits) -> tuple[Trial, ...]:
    """``limits``: the challenge's. The trials' own are smaller, so that reaching them is quick."""
    small = limits.model_copy(
        update={
            "memory_bytes": _TRIAL_MEMORY_BYTES,
            "shared_memory_bytes": 48 * _MIB,
            "temporary_bytes": 32 * _MIB,
            "processes": _TRIAL_PROCESSES,
            "log_bytes": _MIB // 4,
        }
    )
    cpus = engine.cpus()
    cpuset = cpus[:1] if len(cpus) > 1 else None

    def look() -> Iterator[Finding]:
        text = printed_by(engine, image, small, LOOK, cpuset)
        yield from judge_look(text, small, cpuset)

    def take_memory() -> Iterator[Finding]:
        text = printed_by(engine, image, small, TAKE_MEMORY)
        yield judge_memory_trial(text, small.memory_bytes)

    def take_processes() -> Iterator[Finding]:
        text = printed_by(engine, image, small, TAKE_PROCESSES)
        yield judge_processes_trial(text, small.processes)

    return (
        Trial(subject="container limits", run=look),
        Trial(subject="memory limit", run=take_memory),
        Trial(subject="process limit", run=take_processes),
    )


def printed_by(
    engine: DockerEngine,
    image: Image,
    limits: Limits,
    script: str,
    cpuset: tuple[int, ...] | None = None,
) -> str:
    """What a shell script prints in a run's container. Raises EngineError when it does not end."""
    with tempfile.TemporaryDirectory(prefix="harness-doctor-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        data = folder / "data"
        data.mkdir()
        data.chmod(0o777)  # so that nothing but the mount keeps it from being written
        spec = RunSpec(
            image=image,
            name="doctor",
            mounts=(BindMount(source=data, target=DATA, read_only=True),),
            limits=limits,
            log_path=folder / "log.txt",
            arguments=(script,),
            cpuset=cpuset,
        )
        with engine.trial(spec, SHELL) as execution:
            execution.start()
            if execution.wait(TRIAL_DEADLINE_S) is None:
                raise EngineError(f"the trial container still ran after {TRIAL_DEADLINE_S:.0f} s")
        return spec.log_path.read_text("utf-8", "replace")
