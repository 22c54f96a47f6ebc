"""What an image says of itself, of all that a run depends on. A pure function of an inspection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# What the kernel calls a machine -> what images call it.
_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "i686": "386",
    "i386": "386",
}


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """All texts are the image's own: escape them where they are shown.

    ``user``: empty where the image names none, which is root. ``root``: does it start as root; None
    when ``user`` is a name, whose number only the image's own files tell. ``size_bytes``: of the
    layers, uncompressed. ``created``: None where it does not say. ``platform``: such as
    ``linux/amd64``. ``labels``: their names.
    """

    id: str
    platform: str
    size_bytes: int
    layers: tuple[str, ...]
    created: str | None
    user: str
    root: bool | None
    entrypoint: tuple[str, ...]
    cmd: tuple[str, ...]
    volumes: tuple[str, ...]
    ports: tuple[str, ...]
    environment: tuple[str, ...]
    working_dir: str
    labels: tuple[str, ...]
    on_build: tuple[str, ...]
    stop_signal: str | None
    has_healthcheck: bool


def facts_of_inspected(inspected: Mapping[str, Any]) -> ImageFacts:
    """From what the engine's ``GET /images/ID/json`` answers."""
    config = inspected.get("Config") or {}
    user = str(config.get("User") or "")
    test = (config.get("Healthcheck") or {}).get("Test") or []
    return ImageFacts(
        id=str(inspected["Id"]),
        platform=platform_name(
            str(inspected.get("Os") or ""), str(inspected.get("Architecture") or "")
        ),
        size_bytes=int(inspected.get("Size") or 0),
        layers=_texts((inspected.get("RootFS") or {}).get("Layers")),
        created=str(inspected["Created"]) if inspected.get("Created") else None,
        user=user,
        root=is_root(user),
        entrypoint=_texts(config.get("Entrypoint")),
        cmd=_texts(config.get("Cmd")),
        volumes=tuple(sorted(_texts(config.get("Volumes")))),
        ports=tuple(sorted(_texts(config.get("ExposedPorts")))),
        environment=_texts(config.get("Env")),
        working_dir=str(config.get("WorkingDir") or ""),
        labels=tuple(sorted(_texts(config.get("Labels")))),
        on_build=_texts(config.get("OnBuild")),
        stop_signal=config.get("StopSignal"),
        has_healthcheck=bool(test) and test != ["NONE"],
    )


def platform_name(system: str, architecture: str) -> str:
    """``linux/amd64`` from what images or engines call the two."""
    return f"{system.lower()}/{_ARCHITECTURES.get(architecture.lower(), architecture.lower())}"


def is_root(user: str) -> bool | None:
    """``user`` as in ``USER`` of a Dockerfile: name or number, perhaps with a group."""
    name = user.partition(":")[0]
    if name in ("", "root"):
        return True
    number = name.removeprefix("+").removeprefix("-")
    return int(number) == 0 if number.isascii() and number.isdigit() and len(number) < 20 else None


def _texts(found: Iterable[object] | None) -> tuple[str, ...]:
    """Of a list, or the keys of an object; nothing for null."""
    return tuple(str(one) for one in found or ())
