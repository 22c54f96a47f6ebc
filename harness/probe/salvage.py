"""Reading a trace as far as it goes: of a run whose harness died, or whose machine went down."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.errors import ProbeError
from harness.probe.realtime import Precision
from harness.probe.trace import End, FileEvent, Header, Placement, Trace, parse_line

if TYPE_CHECKING:
    from pathlib import Path

_STEP_BYTES = 256  # what is lost, packed, before the first damaged byte at most
_GZIP = 31  # zlib's window bits for a stream with gzip's header


@dataclass(frozen=True, kw_only=True)
class Salvaged:
    """``first_ns`` and ``last_ns``: the first and the last sign of the witness, on the trace's
    clock; None when there is none."""

    trace: Trace
    first_ns: int | None
    last_ns: int | None


def salvage_trace(path: Path) -> Salvaged:
    """Everything up to what cannot be read. A file that is gone, empty or damaged is no error: it
    makes the trace incomplete, and ``lost`` says so."""
    lost: list[str] = []
    records: list[Header | FileEvent | End] = []
    *lines, torn = _content(path, lost).split(b"\n")
    for number, line in enumerate(lines, 1):
        try:
            records.append(parse_line(line))
        except ProbeError:
            lost.append(f"the trace is damaged from its line {number} on")
            break
    if torn:
        lost.append("the trace's last line is cut")
    if not records or not isinstance(records[0], Header):
        return Salvaged(trace=_nothing(lost), first_ns=None, last_ns=None)
    header, last = records[0], records[-1]
    if isinstance(last, End):
        lost += last.lost
    else:
        lost.append("the witness ended early")
    trace = Trace(
        placement=header.placement,
        precision=header.precision,
        events=tuple(record for record in records if isinstance(record, FileEvent)),
        lost=tuple(lost),
    )
    return Salvaged(trace=trace, first_ns=header.t_ns, last_ns=last.t_ns)


def _nothing(lost: list[str]) -> Trace:
    return Trace(
        placement=Placement.HOST,
        precision=Precision.PLAIN,  # the least that any witness has
        events=(),
        lost=(*lost, "the trace does not begin with its header"),
    )


def _content(path: Path, lost: list[str]) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        lost.append(f"the trace cannot be read ({error.strerror})")
        return b""
    if path.suffix != ".gz":
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error):
        lost.append("the packed trace is damaged")
    unpacked = bytearray()
    unpacking = zlib.decompressobj(_GZIP)
    for start in range(0, len(content), _STEP_BYTES):
        try:
            unpacked += unpacking.decompress(content[start : start + _STEP_BYTES])
        except zlib.error:
            break
    return bytes(unpacked)
