"""What a run's image says of itself, fit to be kept in its record and shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, ConfigDict

from harness.text import harmless_line

if TYPE_CHECKING:
    from harness.engine.image_facts import ImageFacts

_MAX_CHARACTERS = 200
_MAX_LISTED = 32  # of an image that declares a thousand volumes the first ones do


class ImageRecord(BaseModel):
    """All texts are the image's own: shortened, one line each, without control characters, the
    first 32 of each list.

    ``user``: empty where it names none, which is root; ``root``: does it start as root, None when
    ``user`` is a name. ``size_bytes``: of the layers, uncompressed. ``platform``: such as
    ``linux/amd64``; ``created``: None where it does not say. ``ports`` and ``volumes`` are as it
    declares them: no port is ever opened.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    platform: str
    size_bytes: int
    created: str | None
    user: str
    root: bool | None
    entrypoint: tuple[str, ...]
    cmd: tuple[str, ...]
    working_dir: str
    volumes: tuple[str, ...]
    ports: tuple[str, ...]

    @classmethod
    def of(cls, facts: ImageFacts) -> Self:
        return cls(
            platform=_line(facts.platform),
            size_bytes=facts.size_bytes,
            created=None if facts.created is None else _line(facts.created),
            user=_line(facts.user),
            root=facts.root,
            entrypoint=_lines(facts.entrypoint),
            cmd=_lines(facts.cmd),
            working_dir=_line(facts.working_dir),
            volumes=_lines(facts.volumes),
            ports=_lines(facts.ports),
        )


def _line(text: str) -> str:
    return harmless_line(text, _MAX_CHARACTERS)


def _lines(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(_line, texts[:_MAX_LISTED]))
