"""What a sampler is told: one line of JSON says what to sample, further ones whose processes are
the submission's."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

PERIOD_NS = 50_000_000  # 20 looks a second: no counter of a GPU but its clocks moves more often


@dataclass(frozen=True, kw_only=True)
class SampleSpec:
    """``uuids``: the GPUs, or MIG instances, to look at. ``file``: where the samples go.

    ``max_samples``: three and a half hours of one GPU at 20 looks a second, some 70 MB.
    """

    uuids: tuple[str, ...]
    file: Path
    period_ns: int = PERIOD_NS
    max_samples: int = 250_000

    def to_line(self) -> bytes:
        return json.dumps({**vars(self), "file": str(self.file)}).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> SampleSpec:
        """Raises ValueError."""
        content = _object(line, {field.name for field in dataclasses.fields(cls)})
        try:
            return cls(
                uuids=tuple(_typed(uuid, str) for uuid in _typed(content["uuids"], list)),
                file=Path(_typed(content["file"], str)),
                period_ns=_positive(content["period_ns"]),
                max_samples=_positive(content["max_samples"]),
            )
        except TypeError as error:
            raise ValueError(str(error)) from error


@dataclass(frozen=True, kw_only=True)
class OwnContainer:
    """The submission is what runs in a container, of this full ID."""

    container: str


@dataclass(frozen=True, kw_only=True)
class OwnTree:
    """The submission is a process and what belongs to it: its descendants, its process group, and
    what has ``mark`` (``NAME=value``) in its environment."""

    root: int
    mark: str


Own = OwnContainer | OwnTree


def own_to_line(own: Own) -> bytes:
    return json.dumps({"own": vars(own)}).encode() + b"\n"


def own_from_line(line: bytes) -> Own:
    """Raises ValueError."""
    content = _object(line, {"own"})["own"]
    try:
        if isinstance(content, dict) and content.keys() == {"container"}:
            return OwnContainer(container=_filled(content["container"]))
        if isinstance(content, dict) and content.keys() == {"root", "mark"}:
            return OwnTree(root=_positive(content["root"]), mark=_filled(content["mark"]))
    except TypeError as error:
        raise ValueError(str(error)) from error
    raise ValueError(f"expected a container, or a root and a mark; found {content!r}")


def _object(line: bytes, expected: set[str]) -> dict[str, Any]:
    content: Any = json.loads(line)
    if not isinstance(content, dict) or content.keys() != expected:
        found = sorted(content) if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"expected {', '.join(sorted(expected))}; found {found}")
    return content


# By hand: the sampler starts without pydantic, as a run waits for its start.
def _typed(value: object, kind: type[T]) -> T:
    if type(value) is not kind:  # exactly: true is an int as well
        raise TypeError(f"expected {kind.__name__}, found {value!r}")
    return value


def _positive(value: object) -> int:
    number = _typed(value, int)
    if number <= 0:
        raise ValueError(f"expected more than 0, found {number}")
    return number


def _filled(value: object) -> str:
    text = _typed(value, str)
    if not text:
        raise ValueError("expected a name, found an empty one")
    return text
