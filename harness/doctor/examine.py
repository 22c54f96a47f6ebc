"""All lines of the doctor's, in their order, as they are found."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.doctor import clock, disk, gpu, processors, watching
from harness.doctor import engine as engines
from harness.doctor.finding import Finding, look, warning
from harness.doctor.trials import TRIAL_DEADLINE_S, no_image, trial_image, trials
from harness.engine import kernel
from harness.engine.docker import DockerEngine
from harness.engine.image_build import OFFLINE_BASE
from harness.errors import EngineError
from harness.machine.gpu import driver_version, gpus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.challenge.model import Limits

_DEADLINE_S = 5.0
_CONNECT_DEADLINE_S = 12.0  # the API's own is 10 s
_REMOVAL_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Examination:
    """``limits``: what a challenge allows. ``images``: where to look for one to try limits with,
    ``image`` one that the user named instead. ``quick``: no containers."""

    limits: Limits
    images: tuple[str, ...]
    image: str | None = None
    quick: bool = False


def examine(asked: Examination) -> Iterator[Finding]:
    connected: list[DockerEngine] = []

    def connect() -> Iterator[Finding]:
        try:
            engine = DockerEngine.connect()
        except EngineError as error:
            is_installed = any(map(shutil.which, ("dockerd", "docker", "podman")))
            yield engines.absent(error, is_installed=is_installed)
            return
        connected.append(engine)
        yield from engines.judge_engine(engine.facts, engine.api_version)

    yield from look(engines.SUBJECT, connect, _CONNECT_DEADLINE_S)
    engine = connected[0] if connected else None
    try:
        if engine is not None and not asked.quick:
            yield from _trials(engine, asked)
        yield from _machine(engine, asked.limits)
    finally:
        if engine is not None:
            engine.close()


def _trials(engine: DockerEngine, asked: Examination) -> Iterator[Finding]:
    usual = (*asked.images, OFFLINE_BASE)
    try:
        image = trial_image(engine, asked.image, usual)
    except EngineError as error:
        yield warning("container limits", f"not tried: {error}", "see to the engine first")
        return
    if image is None:
        yield no_image(asked.image, usual)
        return
    for trial in trials(engine, image, asked.limits):
        yield from look(trial.subject, trial.run, TRIAL_DEADLINE_S + _REMOVAL_S)


def _machine(engine: DockerEngine | None, limits: Limits) -> Iterator[Finding]:
    facts = None if engine is None else engine.facts
    probes = [
        ("file watching", watching.inotify),
        ("real-time scheduling", watching.realtime),
        ("open files", watching.open_files),
        ("clock", clock.clock),
        ("CPU clocks", processors.governor),
        ("processors", processors.load),
        ("memory", lambda: processors.memory(limits.memory_bytes)),
        ("GPU", lambda: [gpu.judge_gpu(gpus(), driver_version(), facts)]),
        ("disk", lambda: disk.disk("disk", Path.cwd(), "make clean")),
    ]
    if facts is not None and kernel.told_by(facts) and facts.get("DockerRootDir"):
        root = Path(facts["DockerRootDir"])
        prune = "docker image prune"
        probes.append(("engine's disk", lambda: disk.disk("engine's disk", root, prune)))
    for subject, probe in probes:
        yield from look(subject, probe, _DEADLINE_S)
