"""The trace: what the probe saw, as append-only JSON lines, and how it is read back.

The first line is the header, the last one the end; between them one line an event::

    {"kind": "header", "schema_version": 1, "clock": "CLOCK_MONOTONIC", "placement": "host", ...}
    {"kind": "file", "t_ns": 81723645123, "event": "open", "root": "data", "path": "task_01/..."}
    {"kind": "end", "t_ns": 81783645123, "events": 42, "lost": []}

A trace without its last line belongs to a probe that died, and is incomplete.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from harness.errors import ProbeError
from harness.probe.realtime import Precision  # noqa: TC001 - pydantic reads the annotations

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import TypeAdapter


class Root(StrEnum):
    """Which folder an event's path is relative to."""

    DATA = "data"
    OUTPUT = "output"


class Event(StrEnum):
    """What happened to a file. CLOSED: after writing, under its name; WRITTEN: the same under
    another name of the file, or none (a hard link, a descriptor from before it had its name)."""

    OPEN = "open"
    CREATED = "created"
    CLOSED = "closed"
    WRITTEN = "written"
    MOVED_IN = "moved_in"
    MOVED_OUT = "moved_out"
    DELETED = "deleted"


class Placement(StrEnum):
    """Where a probe runs: beside the harness, in a container beside the submission's, or inside the
    submission's own container (whose word is only compared)."""

    HOST = "host"
    SIDECAR = "sidecar"
    CONTAINER = "container"


@dataclass(frozen=True, kw_only=True)
class _Record:
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - pydantic's own name for it


@dataclass(frozen=True, kw_only=True)
class Header(_Record):
    kind: Literal["header"] = "header"
    schema_version: Literal[1] = 1
    clock: Literal["CLOCK_MONOTONIC"] = "CLOCK_MONOTONIC"
    placement: Placement
    precision: Precision
    t_ns: int


@dataclass(frozen=True, kw_only=True)
class FileEvent(_Record):
    """``t_ns`` is CLOCK_MONOTONIC when the event was read from the kernel."""

    kind: Literal["file"] = "file"
    t_ns: int
    event: Event
    root: Root
    path: str


@dataclass(frozen=True, kw_only=True)
class End(_Record):
    """``lost``: reasons why events may be missing. ``events``: how many were written."""

    kind: Literal["end"] = "end"
    t_ns: int
    events: int
    lost: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Trace:
    """A whole trace. ``lost`` is empty when every event was seen."""

    placement: Placement
    precision: Precision
    events: tuple[FileEvent, ...]
    lost: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        return not self.lost


class TraceTail:
    """Reads a trace while it grows, a complete line at a time."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._rest = b""

    def new_records(self) -> list[Header | FileEvent | End]:
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        return [parse_line(line) for line in lines]

    def close(self) -> None:
        self._file.close()


def to_line(record: Header | FileEvent | End) -> bytes:
    # ASCII with escapes: a submission's file names may be any bytes
    return json.dumps(vars(record), separators=(",", ":")).encode() + b"\n"


def parse_line(line: bytes) -> Header | FileEvent | End:
    """Raises ProbeError for what is no line of a trace."""
    try:
        content: Any = json.loads(line)
        return _reader().validate_python(content)
    except ValueError as error:  # JSON's, Unicode's and pydantic's are of this kind
        raise ProbeError(f"not a line of a trace: {line[:80]!r}") from error


@cache
def _reader() -> TypeAdapter[Header | FileEvent | End]:
    """Checks what is read. Here, as the probe itself only writes: without pydantic it starts in
    half the time, and a run waits for it."""
    from pydantic import TypeAdapter  # noqa: PLC0415

    return TypeAdapter(Header | FileEvent | End)  # told apart by their ``kind``


def read_trace(path: Path) -> Trace:
    """A trace file, ``.jsonl`` or ``.jsonl.gz``; a torn last line makes it incomplete.

    Raises ProbeError when it holds something else than a trace.
    """
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    *lines, torn = content.split(b"\n")
    records = [parse_line(line) for line in lines]
    if not records or not isinstance(records[0], Header):
        raise ProbeError(f"{path}: expected a trace that begins with its header, found none")
    header = records[0]
    events = tuple(record for record in records if isinstance(record, FileEvent))
    lost: list[str] = []
    if not isinstance(records[-1], End):
        lost.append("the witness ended early")
    else:
        lost += records[-1].lost
        if records[-1].events != len(events):
            lost.append(f"expected {records[-1].events} events in the trace, found {len(events)}")
    if torn:
        lost.append("the trace's last line is cut")
    return Trace(
        placement=header.placement,
        precision=header.precision,
        events=events,
        lost=tuple(lost),
    )
