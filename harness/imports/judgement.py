"""What speaks against running an image, from its facts: the same for a file and for a name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.engine.owner import LABEL_PREFIX
from harness.imports.tar import shown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.engine.image_facts import ImageFacts

_MAX_LISTED = 8
_CONTRACT_FOLDER = "/l2r"


def problems_of(facts: ImageFacts, platform: str) -> list[str]:
    """Why it cannot be run at all here. ``platform``: the engine's own."""
    problems = []
    if facts.platform != platform:
        problems.append(
            f"platform: expected {platform}, found {shown(facts.platform)}; build it with "
            f"`docker build --platform {platform}`"
        )
    if not (any(facts.entrypoint) or any(facts.cmd)):
        problems.append(
            "program: expected ENTRYPOINT or CMD, found neither; add ENTRYPOINT to its Dockerfile"
        )
    if ours := [name for name in facts.labels if name.strip().startswith(LABEL_PREFIX)]:
        problems.append(
            f"labels: expected none that begin with {LABEL_PREFIX}, by which the harness knows its "
            f"own containers, found {listed(ours)}; remove LABEL from its Dockerfile"
        )
    return problems


def notes_on(facts: ImageFacts) -> list[str]:
    """What is unusual about it and does not keep it from being run."""
    notes = []
    if facts.root is None:
        notes.append(
            f"user {shown(facts.user)}: whether that is root only its own files tell; it gets no "
            "capabilities in any case"
        )
    if facts.volumes:
        notes.append(
            f"VOLUME {listed(facts.volumes)}: what is written there is gone after the run"
            + (
                f"; fields written to a volume below {_CONTRACT_FOLDER} are not seen"
                if any(_in_contract(path) for path in facts.volumes)
                else ""
            )
        )
    if facts.ports:
        notes.append(f"EXPOSE {listed(facts.ports)}: there is no network, so nobody connects")
    if facts.has_healthcheck:
        notes.append("HEALTHCHECK: is not run, as it would run beside what is timed")
    if facts.on_build:
        notes.append("ONBUILD: applies only to images built on this one")
    if facts.stop_signal is not None:
        notes.append(f"STOPSIGNAL {shown(facts.stop_signal)}: is ignored, SIGTERM is sent")
    return notes


def listed(names: Iterable[str]) -> str:
    texts = [shown(name) for name in names]
    more = f" and {len(texts) - _MAX_LISTED} more" if len(texts) > _MAX_LISTED else ""
    return ", ".join(texts[:_MAX_LISTED]) + more


def _in_contract(path: str) -> bool:
    return f"{path.rstrip('/')}/".startswith(f"{_CONTRACT_FOLDER}/")
