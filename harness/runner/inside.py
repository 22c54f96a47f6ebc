"""What the runner's own probe saw: a table for people, a JSON file for the harness outside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.probe.realtime import Precision

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from harness.probe.trace import Trace
    from harness.timing import PairTiming


_LONGEST_S = 1e6  # eleven days: longer than any run


class InsideTiming(BaseModel):
    """One pair. ``runtime_s`` is None when the probe inside saw no opening or no finished field,
    ``problem`` None unless the method failed on it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pair: str
    runtime_s: Annotated[float, Field(ge=0, le=_LONGEST_S, allow_inf_nan=False)] | None
    problem: str | None = None


class InsideReport(BaseModel):
    """Runtimes as the runner witnessed them: a submission's word, so compared, never used."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    precision: Precision
    complete: bool
    pairs: tuple[InsideTiming, ...]


def make_report(
    trace: Trace, timings: Sequence[PairTiming], failed: Mapping[str, str]
) -> InsideReport:
    return InsideReport(
        precision=trace.precision,
        complete=trace.complete,
        pairs=tuple(
            InsideTiming(pair=t.key, runtime_s=t.runtime_s, problem=failed.get(t.key))
            for t in timings
        ),
    )


def write_report(report: InsideReport, path: Path) -> None:
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(report.model_dump_json(indent=1))
    temporary.replace(path)


def parse_report(raw: bytes) -> InsideReport | None:
    """A report as a submission left it; None when it is not one."""
    try:
        return InsideReport.model_validate_json(raw)
    except ValidationError:
        return None


def table(report: InsideReport) -> str:
    """One line a pair: its runtime, first access to field written, or why it has none."""
    width = max(len(timing.pair) for timing in report.pairs)
    lines = [f"{'pair':<{width}}  {'runtime':>10}"]
    for timing in report.pairs:
        if timing.problem is not None:
            lines.append(f"{timing.pair:<{width}}      failed  {timing.problem.splitlines()[0]}")
            continue
        runtime = "no field" if timing.runtime_s is None else f"{timing.runtime_s:.3f} s"
        lines.append(f"{timing.pair:<{width}}  {runtime:>10}")
    if not report.complete:
        lines.append("The witness missed events: these times are not complete.")
    return "\n".join(lines)
