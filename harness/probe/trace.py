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
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from harness.errors import ProbeError
from harness.probe.realtime import Precision

if TYPE_CHECKING:
    from pathlib import Path


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


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Header(_Record):
    kind: Literal["header"] = "header"
    schema_version: Literal[1] = 1
    clock: Literal["CLOCK_MONOTONIC"] = "CLOCK_MONOTONIC"
    placement: Placement
    precision: Precision
    t_ns: int


class FileEvent(_Record):
    """``t_ns`` is CLOCK_MONOTONIC when the event was read from the kernel."""

    kind: Literal["file"] = "file"
    t_ns: int
    event: Event
    root: Root
    path: str


class End(_Record):
    """``lost``: reasons why events may be missing. ``events``: how many were written."""

    kind: Literal["end"] = "end"
    t_ns: int
    events: int
    lost: tuple[str, ...] = ()


_RECORD: TypeAdapter[Header | FileEvent | End] = TypeAdapter(
    Header | FileEvent | End  # told apart by their ``kind``
)


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
        return [_parse(line) for line in lines]

    def close(self) -> None:
        self._file.close()


def to_line(record: Header | FileEvent | End) -> bytes:
    # ASCII with escapes: a submission's file names may be any bytes
    return json.dumps(record.model_dump(mode="json"), separators=(",", ":")).encode() + b"\n"


def read_trace(path: Path) -> Trace:
    """A trace file, ``.jsonl`` or ``.jsonl.gz``; a torn last line makes it incomplete.

    Raises ProbeError when it holds something else than a trace.
    """
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    *lines, torn = content.split(b"\n")
    records = [_parse(line) for line in lines]
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


def _parse(line: bytes) -> Header | FileEvent | End:
    try:
        content: Any = json.loads(line)
        return _RECORD.validate_python(content)
    except (json.JSONDecodeError, UnicodeDecodeError, ValidationError) as error:
        raise ProbeError(f"not a line of a trace: {line[:80]!r}") from error
