"""What a probe is to watch, and the one line of JSON that tells it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from harness.probe.trace import Placement

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class WatchSpec:
    """What to watch. ``inputs`` and ``fields`` are paths relative to ``data_dir`` and
    ``output_dir``; events of other files are left out, however many a submission makes.

    All paths are as the probe sees them. ``spare_cpu`` is a CPU that the submission can be kept
    off: where real-time scheduling is refused the probe moves there. Without ``realtime`` it is as
    if it were refused (for tests and benchmarks).

    ``max_events``: some hundred for each of a thousand pairs. A submission can make millions, and
    each takes memory and time where the trace is read.
    """

    placement: Placement
    trace: Path
    data_dir: Path
    output_dir: Path
    inputs: tuple[PurePosixPath, ...]
    fields: tuple[PurePosixPath, ...]
    max_events: int = 100_000
    realtime: bool = True
    spare_cpu: int | None = None

    def to_line(self) -> bytes:
        # ASCII with escapes: a path may be any bytes
        return json.dumps(vars(self), default=_plain).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> WatchSpec:
        """Raises ValueError for what another version of the harness may have sent: the probe's may
        be that of an older image."""
        content: Any = json.loads(line)
        expected = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(content, dict) or content.keys() != expected:
            found = sorted(content) if isinstance(content, dict) else type(content).__name__
            raise ValueError(
                f"expected what to watch ({', '.join(sorted(expected))}), found {found}; is the "
                "witness of another version of the harness?"
            )
        try:
            return cls(
                placement=Placement(_typed(content["placement"], str)),
                trace=Path(_typed(content["trace"], str)),
                data_dir=Path(_typed(content["data_dir"], str)),
                output_dir=Path(_typed(content["output_dir"], str)),
                inputs=_paths(content["inputs"]),
                fields=_paths(content["fields"]),
                max_events=_typed(content["max_events"], int),
                realtime=_typed(content["realtime"], bool),
                spare_cpu=None
                if content["spare_cpu"] is None
                else _typed(content["spare_cpu"], int),
            )
        except TypeError as error:
            raise ValueError(str(error)) from error


def _plain(value: object) -> str:
    if isinstance(value, PurePosixPath):
        return str(value)
    raise TypeError(f"expected a path, found {type(value).__name__}")


# By hand: the probe starts without pydantic, as a run waits for its start.
def _typed(value: object, kind: type[T]) -> T:
    if type(value) is not kind:  # exactly: true is an int as well
        raise TypeError(f"expected {kind.__name__}, found {value!r}")
    return value


def _paths(value: object) -> tuple[PurePosixPath, ...]:
    return tuple(PurePosixPath(_typed(path, str)) for path in _typed(value, list))
