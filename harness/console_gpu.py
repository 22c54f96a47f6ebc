"""How the figures of a run's GPUs are shown: columns of the pairs' table, and a section."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.challenge.quantity import format_bytes
from harness.gpu_figures import EnergySource

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.gpu_figures import GpuDevice, GpuFigures, GpusRecord, GpuStretch
    from harness.store import PairRecord, RunRecord

COLUMNS = ("GPU busy", "GPU memory", "energy")
_NAMED_PAIRS = 3
_NAMES = {"busy_s": "busy time", "energy_j": "energy", "peak_memory_bytes": "its memory"}
_PARTS = {
    "run": "whole run",
    "before": "before pairs",
    "pairs": "pairs",
    "between": "between",
    "after": "after pairs",
}


def has_figures(record: RunRecord) -> bool:
    return any(pair.gpu is not None for pair in record.pairs)


def pair_cells(pair: PairRecord) -> tuple[str, str, str]:
    """Of :data:`COLUMNS`."""
    if pair.gpu is None:
        return ("-", "-", "-")
    return (_busy(pair.gpu), _bytes(pair.gpu.peak_memory_bytes), _energy(pair.gpu))


def why_missing(record: RunRecord) -> Iterator[str]:
    """One line for each reason that figures of pairs are missing."""
    keys: dict[tuple[str, str], dict[str, None]] = {}
    for pair in record.pairs:
        for figures in () if pair.gpu is None else pair.gpu.gpus:
            for name, reason in figures.absent.items():
                what = _NAMES.get(name, "memory, clocks, power and temperature")
                keys.setdefault((what, reason), {})[pair.key] = None
    for (what, reason), pairs in keys.items():
        yield f"no {what} of {_some(list(pairs))}: {reason}"


def gpu_lines(record: RunRecord) -> Iterator[str]:
    """All that there is to say of a run's GPUs; nothing where nobody chose any."""
    gpus = record.gpus
    if gpus is None:
        return
    if not gpus.devices:
        yield "none were given"
        return
    for place, device in enumerate(gpus.devices):
        yield f"{device.index}: {device.name} ({device.uuid}){_size(device)}"
        for name, reason in device.absent.items():
            yield f"   no {name}: {reason}"
        for field, title in _PARTS.items():
            stretch = getattr(gpus, field)
            if stretch is not None:
                yield f"   {title:<13} {_figures(stretch, stretch.gpus[place])}"
    yield from why_missing(record)
    yield _sampler(gpus)
    for found in gpus.foreign:
        held = "" if found.memory_bytes is None else f", {format_bytes(found.memory_bytes)}"
        index = gpus.devices[found.gpu].index
        yield f"another process on GPU {index} for {found.seen_s:.1f} s: pid {found.pid}{held}"


def _figures(stretch: GpuStretch, one: GpuFigures) -> str:
    parts = [f"{stretch.duration_s:.2f} s"]
    if one.busy_s is not None and one.busy_uncertainty_s is not None:
        parts.append(f"busy {one.busy_s:.2f} ± {one.busy_uncertainty_s:.2f} s")
    if one.energy_j is not None and one.energy_uncertainty_j is not None:
        of_power = " (from power)" if one.energy_source is EnergySource.POWER else ""
        parts.append(f"{one.energy_j:.1f} ± {one.energy_uncertainty_j:.1f} J{of_power}")
    if one.mean_power_w is not None:
        parts.append(f"{one.mean_power_w:.0f} W")
    if one.mean_sm_clock_mhz is not None:
        parts.append(f"{one.mean_sm_clock_mhz:.0f} MHz")
    if one.highest_temperature_c is not None:
        parts.append(f"up to {one.highest_temperature_c} °C")
    if one.device_peak_bytes is not None:
        parts.append(f"peak {format_bytes(one.device_peak_bytes)}")
    if one.throttled_s:
        parts.append(f"slowed down for {one.throttled_s:.2f} s")
    if one.power_cap_s:
        parts.append(f"at its power limit for {one.power_cap_s:.2f} s")
    return ", ".join(parts)


def _sampler(gpus: GpusRecord) -> str:
    rate = "" if gpus.period_s is None else f", one in {1000 * gpus.period_s:.0f} ms asked for"
    missed = "" if gpus.missed is None else f", {gpus.missed} missed"
    cost = "" if gpus.cpu_s is None else f", {gpus.cpu_s:.2f} s of CPU time"
    problem = "" if gpus.problem is None else f"; {gpus.problem}"
    return f"sampled by {gpus.looks} looks{rate}{missed}{cost}{problem}"


def _size(device: GpuDevice) -> str:
    memory = "" if device.memory_bytes is None else f", {format_bytes(device.memory_bytes)}"
    limit = "" if device.power_limit_w is None else f", limit {device.power_limit_w:.0f} W"
    return memory + limit


def _busy(stretch: GpuStretch) -> str:
    if stretch.busy_ratio is None or stretch.busy_uncertainty_s is None:
        return "-"
    together_s = stretch.duration_s * len(stretch.gpus)
    off = 100 * stretch.busy_uncertainty_s / together_s
    return f"{100 * stretch.busy_ratio:.0f} ± {off:.0f} %"


def _energy(stretch: GpuStretch) -> str:
    if stretch.energy_j is None or stretch.energy_uncertainty_j is None:
        return "-"
    return f"{stretch.energy_j:.0f} ± {stretch.energy_uncertainty_j:.0f} J"


def _bytes(value: int | None) -> str:
    return "-" if value is None else format_bytes(value)


def _some(keys: Sequence[str]) -> str:
    more = len(keys) - _NAMED_PAIRS
    return ", ".join(keys[:_NAMED_PAIRS]) + (f" and {more} more" if more > 0 else "")
