"""From what the sampler saw to what is recorded: figures, evidence and warnings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.gpu_bounds import Span
from harness.gpu_figures import GpuDevice, GpusRecord
from harness.gpu_timing import GpuTiming, time_gpus
from harness.machine.contamination import add_gpu_processes
from harness.machine.gpu import GpuProcess
from harness.probe.trace import Placement

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.gpu_figures import GpuFigures, GpuStretch
    from harness.machine.contamination import Contamination
    from harness.machine.fingerprint import Fingerprint
    from harness.plan import Plan
    from harness.sampler.samples import GpuSamples
    from harness.timing import PairTiming

_NS = 1e-9
_NAMED_PAIRS = 3
_OTHER_CLOCK = (
    "files were witnessed in a container, whose clock may not be this machine's: the GPU's figures "
    "are of no pair"
)


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """``started_ns``: when the submission started, on the trace's clock."""

    samples: GpuSamples
    started_ns: int


def record_gpus(
    plan: Plan,
    sampled: Sampled | None,
    duration_s: float,
    timings: Sequence[PairTiming],
    placement: Placement,
    machine: Fingerprint,
) -> GpuTiming | None:
    """None where nobody chose which GPUs the run is given."""
    if plan.gpus is None:
        return None
    if not plan.gpus:
        return GpuTiming(record=GpusRecord(devices=()), pairs={})
    if sampled is None or sampled.samples.header is None:
        known = {gpu.uuid: (index, gpu) for index, gpu in enumerate(machine.gpus)}
        devices = tuple(
            GpuDevice(
                uuid=uuid,
                index=known[uuid][0],
                name=known[uuid][1].name,
                memory_bytes=known[uuid][1].memory_bytes,
            )
            for uuid in plan.gpus
            if uuid in known
        )
        problem = "they were not sampled" if sampled is None else sampled.samples.problem
        return GpuTiming(record=GpusRecord(devices=devices, problem=problem), pairs={})
    samples, same_clock = sampled.samples, placement is Placement.HOST
    return time_gpus(
        sampled.samples.header,
        samples.samples,
        samples.end,
        timings if same_clock else (),
        Span(sampled.started_ns, sampled.started_ns + round(duration_s / _NS)),
        problem=samples.problem if same_clock else samples.problem or _OTHER_CLOCK,
    )


def with_foreign(contamination: Contamination, timing: GpuTiming | None) -> Contamination:
    """Whoever else was on the run's GPUs while it ran speaks against it."""
    if timing is None:
        return contamination
    devices = timing.record.devices
    return add_gpu_processes(
        contamination,
        [
            GpuProcess(pid=found.pid, gpu=devices[found.gpu].index, memory_bytes=found.memory_bytes)
            for found in timing.record.foreign
        ],
    )


def gpu_warnings(timing: GpuTiming | None) -> Iterator[str]:
    if timing is None:
        return
    record = timing.record
    if record.problem is not None:
        yield f"figures of the GPU are missing, or not of the whole run: {record.problem}"
    for place, device in enumerate(record.devices):
        slowed = _of(record.run, place)
        if slowed is None or not slowed.throttled_s:
            continue
        keys = [
            key
            for key, stretch in timing.pairs.items()
            if (figures := _of(stretch, place)) is not None and figures.throttled_s
        ]
        yield (
            f"GPU {device.index} ({device.name}) was slowed down for {slowed.throttled_s:.2f} s of "
            f"{record.run.duration_s if record.run else 0:.1f} s: for heat {slowed.thermal_s:.2f} s"
            f"{_hottest(slowed)}, for its power supply {slowed.power_brake_s:.2f} s; "
            f"{_during(keys)}; see to its cooling and power before runtimes are compared"
        )


def _hottest(figures: GpuFigures) -> str:
    celsius = figures.highest_temperature_c
    return "" if celsius is None else f" (up to {celsius} °C)"


def _during(keys: Sequence[str]) -> str:
    if not keys:
        return "in no pair, as far as was seen"
    more = len(keys) - _NAMED_PAIRS
    return f"in {', '.join(keys[:_NAMED_PAIRS])}" + (f" and {more} more pairs" if more > 0 else "")


def _of(stretch: GpuStretch | None, place: int) -> GpuFigures | None:
    return None if stretch is None else stretch.gpus[place]
