"""What is recorded of a run's GPUs. docs/gpu.md says what each figure means.

None means not measured: ``absent`` says why, of a stretch of time with the stretch, of a counter
that a GPU does not have with the device.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EnergySource(StrEnum):
    """COUNTER: the difference of the GPU's own counter. POWER: the integral of power readings, for
    a GPU without one."""

    COUNTER = "counter"
    POWER = "power"


class GpuFigures(_Record):
    """One GPU over a stretch of time. ``gpu``: its place in :attr:`GpusRecord.devices`.

    The true value lies within the ``uncertainty`` of the value beside it, as far as time is
    concerned: what a GPU's sensors are worth is NVIDIA's word. ``looks``: how many there were in
    the stretch. ``peak_memory_bytes`` is of the submission's processes, ``device_peak_bytes`` of
    all. ``throttled_s``: slowed down for heat (``thermal_s``) or by the hardware for its power
    supply (``power_brake_s``), which may be at the same time; ``power_cap_s``, held at its power
    limit, is no fault and not in it. ``absent``: names of figures to why they are None here.
    """

    gpu: int
    looks: int
    busy_s: float | None = None
    busy_uncertainty_s: float | None = None
    busy_ratio: float | None = None
    energy_j: float | None = None
    energy_uncertainty_j: float | None = None
    energy_source: EnergySource | None = None
    peak_memory_bytes: int | None = None
    device_peak_bytes: int | None = None
    mean_power_w: float | None = None
    mean_sm_clock_mhz: float | None = None
    mean_memory_clock_mhz: float | None = None
    highest_temperature_c: int | None = None
    throttled_s: float | None = None
    thermal_s: float | None = None
    power_brake_s: float | None = None
    power_cap_s: float | None = None
    absent: dict[str, str] = {}


class GpuStretch(_Record):
    """All of a run's GPUs over a stretch of time, or several: a pair's window, say. Sums over the
    GPUs, None where one of them lacks the figure; ``busy_ratio`` of the time of all together.

    ``overlaps``: another pair's window covers some of it, so its figures hold that one's work, too.
    """

    duration_s: float
    overlaps: bool = False
    busy_s: float | None = None
    busy_uncertainty_s: float | None = None
    busy_ratio: float | None = None
    energy_j: float | None = None
    energy_uncertainty_j: float | None = None
    peak_memory_bytes: int | None = None
    gpus: tuple[GpuFigures, ...]


class GpuDevice(_Record):
    """A GPU that the run was given. ``absent``: names of the sampler's counters that it does not
    have, or lost, to the reason. ``energy_step_s``, ``busy_step_s``: how often these counters move,
    seen in the run."""

    uuid: str
    index: int
    name: str
    memory_bytes: int | None = None
    power_limit_w: float | None = None
    busy_step_s: float | None = None
    energy_step_s: float | None = None
    absent: dict[str, str] = {}


class ForeignGpuProcess(_Record):
    """Not of the submission, and on one of its GPUs while it ran. ``memory_bytes``: at most."""

    pid: int
    gpu: int
    seen_s: float
    memory_bytes: int | None = None


class GpusRecord(_Record):
    """The GPUs of a run. ``period_s``: between two looks, as asked for; ``looks``: how many there
    were; ``missed``: those that could not be made in time, and ``cpu_s``: the sampler's CPU time,
    None when it died. ``problem``: why samples are missing, None when none are.

    ``run`` is the time from the submission's start to its end, and the sum of ``before``, until the
    first pair's window begins, ``pairs``, which some pair's window covers, ``between`` them, and
    ``after`` the last. Those of no length are None.
    """

    driver: str | None = None
    devices: tuple[GpuDevice, ...]
    period_s: float | None = None
    looks: int = 0
    missed: int | None = None
    cpu_s: float | None = None
    problem: str | None = None
    run: GpuStretch | None = None
    before: GpuStretch | None = None
    pairs: GpuStretch | None = None
    between: GpuStretch | None = None
    after: GpuStretch | None = None
    foreign: tuple[ForeignGpuProcess, ...] = ()
