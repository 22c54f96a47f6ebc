"""From a run directory to the picture of its course."""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING

from harness.errors import OptionError, OutputError
from harness.explain import start_ns
from harness.probe.salvage import salvage_trace
from harness.sampler.samples import read_samples
from harness.timeline.layout import Timeline, lay_out

if TYPE_CHECKING:
    from pathlib import Path

    from harness.store import RunDirectory

_KINDS = (".svg", ".png")


def draw_timeline(directory: RunDirectory, path: Path | None) -> Path:
    """The picture's file: ``path``, else ``timeline.svg`` in the run directory.

    Raises OptionError for a name with another ending, or where matplotlib is missing, OutputError
    for a run without a record or a trace, and where nothing can be written.
    """
    target = directory.timeline_path if path is None else path
    if target.suffix.lower() not in _KINDS:
        raise OptionError(f"{target}: expected a name that ends in {' or '.join(_KINDS)}")
    if importlib.util.find_spec("matplotlib") is None:
        raise OptionError(
            "pictures need matplotlib, which is not installed here; "
            f"`{sys.executable} -m pip install matplotlib`, or the extra l2r-harness[report]"
        )
    from harness.timeline.draw import draw  # noqa: PLC0415 - takes a second, and is an extra

    draw(timeline_of(directory), target)
    return target


def timeline_of(directory: RunDirectory) -> Timeline:
    """Raises OutputError."""
    record = directory.read_record()
    traces = (directory.trace_path, directory.growing_trace)
    trace_path = next((one for one in traces if one.exists()), None)
    if trace_path is None:
        raise OutputError(
            f"{directory.path}: no trace of the run (trace.jsonl.gz), so nothing tells when what "
            "happened"
        )
    seen = salvage_trace(trace_path)
    files = (directory.samples_path, directory.growing_samples)
    gpu_path = next((one for one in files if one.exists()), None)
    samples = None if gpu_path is None else read_samples(gpu_path)
    notes = [*seen.trace.lost]
    if samples is not None and samples.problem is not None:
        notes.append(f"GPU samples: {samples.problem}")
    return lay_out(
        record,
        seen.trace.events,
        start_ns(record, seen),
        header=None if samples is None else samples.header,
        samples=() if samples is None else samples.samples,
        notes=tuple(notes),
    )
