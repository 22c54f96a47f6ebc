"""The samples of a run, read back as far as they go."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, cast

from harness.errors import ProbeError
from harness.sampler.records import End, Header, Sample, parse_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_SAMPLES = 1_000_000  # some 500 MB in memory
_LINE_BYTES = 1 << 20  # a GPU with thousands of processes, and more than it takes


@dataclass(frozen=True, kw_only=True)
class GpuSamples:
    """``header`` is None where there was no sampler; then ``problem`` says why. Without ``end``
    the sampler died or hung, and the samples go as far as it came.

    ``problem``: what was wrong, for a person; None when nothing was.
    """

    header: Header | None = None
    samples: tuple[Sample, ...] = ()
    end: End | None = None
    problem: str | None = None


def read_samples(path: Path, *, max_samples: int = MAX_SAMPLES) -> GpuSamples:
    """A file of samples, ``.jsonl`` or ``.jsonl.gz``. It is read up to a line that is none, or is
    torn, and ``problem`` says so; it never raises for what is in the file, or is not there."""
    reading = _Reading(max_samples)
    problem: str | None = None
    try:
        for record in _records(path):
            reading.take(record)
    except (OSError, EOFError, zlib.error) as error:
        problem = f"the samples cannot be read: {error}"
    except ProbeError as error:
        problem = str(error)
    return GpuSamples(
        header=reading.header,
        samples=tuple(reading.samples),
        end=reading.end,
        problem=problem or reading.what_is_wrong(),
    )


class _Reading:
    def __init__(self, max_samples: int) -> None:
        self._max_samples = max_samples
        self.header: Header | None = None
        self.samples: list[Sample] = []
        self.end: End | None = None

    def take(self, record: Header | Sample | End) -> None:
        if self.end is not None:
            raise ProbeError("there are lines behind the end of the samples")
        if self.header is None:
            if not isinstance(record, Header):
                raise ProbeError("the samples do not begin with their header")
            self.header = record
        elif isinstance(record, End):
            self.end = record
        elif isinstance(record, Header) or not 0 <= record.gpu < len(self.header.gpus):
            raise ProbeError("there is a sample of a GPU that is not in the header")
        elif len(self.samples) == self._max_samples:
            raise ProbeError(f"more than {self._max_samples} samples; the rest was left out")
        else:
            self.samples.append(record)

    def what_is_wrong(self) -> str | None:
        if self.header is None:
            return "the file of samples is empty"
        if self.end is None:
            return "the sampler ended early"
        if self.end.samples != len(self.samples):
            return f"expected {self.end.samples} samples, found {len(self.samples)}"
        return self.end.problem


def _records(path: Path) -> Iterator[Header | Sample | End]:
    with _open(path) as file:
        while line := file.readline(_LINE_BYTES):
            if not line.endswith(b"\n"):
                raise ProbeError("the last line of the samples is cut")
            yield parse_line(line)


def _open(path: Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path)) if path.suffix == ".gz" else path.open("rb")
