"""The samples of a run: append-only JSON lines, on the clock of the witness's trace.

The first line is the header, the last one the end; between them one line a GPU and look::

    {"kind": "header", "schema_version": 1, "clock": "CLOCK_MONOTONIC", "t_ns": ..., "gpus": [...]}
    {"kind": "sample", "t_ns": 81723645123, "took_ns": 310000, "gpu": 0, "power_mw": 71250, ...}
    {"kind": "end", "t_ns": 81783645123, "samples": 1200, "missed": 0}

Samples without the end belong to a sampler that died or hung. A counter that a GPU or its driver
does not have is None in all samples, and ``absent`` in the header, or the end, says why.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from harness.errors import ProbeError

if TYPE_CHECKING:
    from pydantic import TypeAdapter


@dataclass(frozen=True, kw_only=True)
class _Record:
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - pydantic's own name for it


@dataclass(frozen=True, kw_only=True)
class Gpu(_Record):
    """One that is looked at. ``absent``: names of counters, which are those of :class:`Sample`, to
    the reason for which they stay None."""

    uuid: str
    index: int  # the driver's, not a place in a list
    name: str
    memory_bytes: int | None = None
    power_limit_mw: int | None = None
    absent: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Header(_Record):
    """``period_ns``: between two looks, as it was asked for."""

    kind: Literal["header"] = "header"
    schema_version: Literal[1] = 1
    clock: Literal["CLOCK_MONOTONIC"] = "CLOCK_MONOTONIC"
    t_ns: int
    driver: str | None
    period_ns: int
    gpus: tuple[Gpu, ...]


@dataclass(frozen=True, kw_only=True)
class Busy(_Record):
    """What the driver says of the time up to ``t_ns``: in ``ratio`` of it some kernel ran. The time
    begins where that of the entry before ended. Of a GPU's first entry, and of the first after a
    look without ``busy``, it is not known where it begins."""

    t_ns: int
    ratio: float


@dataclass(frozen=True, kw_only=True)
class Process(_Record):
    """On a GPU. ``own``: of the submission; None where that cannot be told. ``memory_bytes`` is
    None where the driver hides it."""

    pid: int
    own: bool | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Sample(_Record):
    """One look at one GPU: ``gpu`` is its place in the header's list. None: not told this time.

    ``t_ns`` is the middle of the look, which took ``took_ns``. ``energy_mj`` counts from some time
    in the past. ``events``: why clocks are not at their highest, NVML's bits. ``busy``: what the
    driver has measured since the look before. ``processes`` is None where they were not looked at.
    """

    kind: Literal["sample"] = "sample"
    t_ns: int
    took_ns: int
    gpu: int
    busy: tuple[Busy, ...] | None = None
    memory_used_bytes: int | None = None
    processes: tuple[Process, ...] | None = None
    power_mw: int | None = None
    energy_mj: int | None = None
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    temperature_c: int | None = None
    events: int | None = None


@dataclass(frozen=True, kw_only=True)
class End(_Record):
    """``samples``: how many lines there are. ``missed``: looks whose time passed while another one
    was under way. ``cpu_s``: CPU time of the sampler. ``absent``: counters that were there at first
    and then no more, by the GPU's place in the header's list. ``problem``: why it ended unasked."""

    kind: Literal["end"] = "end"
    t_ns: int
    samples: int
    missed: int
    cpu_s: float
    absent: dict[int, dict[str, str]]
    problem: str | None = None


def to_line(record: Header | Sample | End) -> bytes:
    """Without what is None."""
    content = asdict(record, dict_factory=_told)
    return json.dumps(content, separators=(",", ":")).encode() + b"\n"


def parse_line(line: bytes) -> Header | Sample | End:
    """Raises ProbeError for what is no line of samples."""
    try:
        content: Any = json.loads(line)
        return _reader().validate_python(content)
    except ValueError as error:  # JSON's, Unicode's and pydantic's are of this kind
        raise ProbeError(f"not a line of samples: {line[:80]!r}") from error


def _told(entries: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in entries if value is not None}


@cache
def _reader() -> TypeAdapter[Header | Sample | End]:
    """Here, as the sampler itself only writes: it starts in half the time without pydantic."""
    from pydantic import TypeAdapter  # noqa: PLC0415

    return TypeAdapter(Header | Sample | End)  # told apart by their ``kind``
