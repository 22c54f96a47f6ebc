"""Was the machine the submission's alone? A pure function from observations to a verdict.

Suspect is no accusation: it says that runtimes of this run should not be compared, and why.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from harness.challenge.quantity import format_bytes
from harness.machine.gpu import GpuProcess

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Too short a look finds the engine's own work at a container's start.
MIN_OBSERVED_S = 2.0
# CPUs that other programs used on average. An idle desktop or a monitored server uses 0.02 to 0.1,
# a stray job 1 or more; large servers have more daemons.
MAX_FOREIGN_CPUS = 0.25
MAX_FOREIGN_SHARE = 0.01
# The same over the worst stretch of this length: a nightly job hits one pair and hides in a mean.
BURST_S = 5.0
MAX_BURST_CPUS = 0.5
MAX_BURST_SHARE = 0.02
# Of the CPU time that was wanted, what the host of a virtual machine gave to others: it slows all
# pairs by about as much.
MAX_STEAL_RATIO = 0.02
# A container has no swap: any real traffic is others' memory, on the way through our disk.
MAX_SWAPPED_BYTES = 16 << 20
# Waiting for memory when the machine is short of it. (Enough memory and yet waiting: that is the
# submission at its own limit, and its own affair.)
MAX_STALLED_RATIO = 0.01
SCARCE_MEMORY_RATIO = 0.2
# Where the kernel does not count waiting.
EXHAUSTED_MEMORY_RATIO = 0.05
# Clocks below the base frequency while CPUs are busy, in this share of the looks at them.
MAX_SLOW_RATIO = 0.1
BUSY_CPUS = 0.5

_NAMED_PROGRAMS = 3


class MachineVerdict(StrEnum):
    CLEAN = "clean"
    SUSPECT = "suspect"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The machine at one time; times are sums over all CPUs since it started. None: not known.

    ``ours_s`` is what the submission and the harness used.
    """

    t_s: float
    busy_s: float
    steal_s: float
    ours_s: float | None
    available_bytes: int
    swapped_bytes: int | None
    memory_stalled_s: float | None
    frequency_hz: float | None


@dataclass(frozen=True, kw_only=True)
class Observations:
    """All that a verdict rests on. ``base_frequency_hz`` is what the fastest busy CPU should not
    fall below; ``programs`` names other programs and the CPU seconds they used."""

    samples: tuple[Sample, ...]
    cpus: int
    memory_bytes: int
    base_frequency_hz: float | None = None
    throttle_events: int | None = None
    gpu_processes: tuple[GpuProcess, ...] | None = None
    programs: tuple[tuple[str, float], ...] = ()


class Contamination(BaseModel):
    """``verdict`` is None when the CPU's other users could not be told apart from the submission,
    and nothing else was found. None elsewhere: not measured."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    verdict: MachineVerdict | None
    evidence: tuple[str, ...] = ()
    observed_s: float = 0.0
    foreign_cpus: float | None = None
    foreign_cpus_burst: float | None = None
    steal_ratio: float | None = None
    swapped_bytes: int | None = None
    lowest_available_bytes: int | None = None
    memory_stalled_ratio: float | None = None
    throttle_events: int | None = None
    lowest_frequency_hz: float | None = None
    foreign_gpu_processes: tuple[GpuProcess, ...] | None = None


def find_contamination(seen: Observations) -> Contamination:
    samples = seen.samples
    observed_s = samples[-1].t_s - samples[0].t_s if samples else 0.0
    long_enough = observed_s >= MIN_OBSERVED_S
    foreign = _foreign_cpus(samples) if long_enough else None
    found = Contamination(
        verdict=None,
        observed_s=observed_s,
        foreign_cpus=foreign,
        foreign_cpus_burst=_burst(samples) if foreign is not None else None,
        steal_ratio=_steal_ratio(samples) if long_enough else None,
        swapped_bytes=_growth([sample.swapped_bytes for sample in samples]),
        lowest_available_bytes=min((s.available_bytes for s in samples), default=None),
        memory_stalled_ratio=_stalled_ratio(samples) if long_enough else None,
        throttle_events=seen.throttle_events,
        lowest_frequency_hz=min(
            (s.frequency_hz for s in samples if s.frequency_hz is not None), default=None
        ),
        foreign_gpu_processes=seen.gpu_processes,
    )
    evidence = tuple(_evidence(found, seen))
    verdict = MachineVerdict.CLEAN if foreign is not None else None
    if evidence:
        verdict = MachineVerdict.SUSPECT
    return found.model_copy(update={"verdict": verdict, "evidence": evidence})


def _evidence(found: Contamination, seen: Observations) -> Iterator[str]:
    yield from _cpu_evidence(found, seen)
    yield from _memory_evidence(found, seen.memory_bytes)
    yield from _clock_evidence(found, seen)
    yield from map(_gpu_evidence, found.foreign_gpu_processes or ())


def add_gpu_processes(found: Contamination, processes: Sequence[GpuProcess]) -> Contamination:
    """Those that were seen on a run's GPUs while it ran, and are not the submission's."""
    if not processes:
        return found
    return found.model_copy(
        update={
            "verdict": MachineVerdict.SUSPECT,
            "evidence": (*found.evidence, *map(_gpu_evidence, processes)),
            "foreign_gpu_processes": (*(found.foreign_gpu_processes or ()), *processes),
        }
    )


def _gpu_evidence(process: GpuProcess) -> str:
    held = "" if process.memory_bytes is None else f", {format_bytes(process.memory_bytes)}"
    return f"another process computes on GPU {process.gpu} (pid {process.pid}{held})"


def _cpu_evidence(found: Contamination, seen: Observations) -> Iterator[str]:
    limit = max(MAX_FOREIGN_CPUS, MAX_FOREIGN_SHARE * seen.cpus)
    burst_limit = max(MAX_BURST_CPUS, MAX_BURST_SHARE * seen.cpus)
    if found.foreign_cpus is not None and found.foreign_cpus > limit:
        yield (
            f"other programs used {found.foreign_cpus:.2f} of {seen.cpus} CPUs on average "
            f"(more than {limit:.2f}){_names(seen)}"
        )
    elif found.foreign_cpus_burst is not None and found.foreign_cpus_burst > burst_limit:
        yield (
            f"other programs used {found.foreign_cpus_burst:.2f} of {seen.cpus} CPUs for "
            f"{BURST_S:.0f} s (more than {burst_limit:.2f}){_names(seen)}"
        )
    if found.steal_ratio is not None and found.steal_ratio > MAX_STEAL_RATIO:
        yield (
            f"the virtual machine's host withheld {100 * found.steal_ratio:.1f} % of the CPU time "
            f"(more than {100 * MAX_STEAL_RATIO:.0f} %)"
        )


def _names(seen: Observations) -> str:
    named = [f"{name} {cpu_s:.1f} s" for name, cpu_s in seen.programs[:_NAMED_PROGRAMS]]
    return f": {', '.join(named)}" if named else ""


def _memory_evidence(found: Contamination, memory_bytes: int) -> Iterator[str]:
    if found.swapped_bytes is not None and found.swapped_bytes > MAX_SWAPPED_BYTES:
        yield (
            f"{format_bytes(found.swapped_bytes)} went to or came from swap "
            f"(more than {format_bytes(MAX_SWAPPED_BYTES)})"
        )
    lowest = found.lowest_available_bytes
    if lowest is None:
        return
    stalled = found.memory_stalled_ratio
    if stalled is None:
        if lowest < EXHAUSTED_MEMORY_RATIO * memory_bytes:
            yield f"only {format_bytes(lowest)} of {format_bytes(memory_bytes)} memory was left"
    elif stalled > MAX_STALLED_RATIO and lowest < SCARCE_MEMORY_RATIO * memory_bytes:
        yield (
            f"processes waited for memory {100 * stalled:.1f} % of the time (more than "
            f"{100 * MAX_STALLED_RATIO:.0f} %), with {format_bytes(lowest)} of "
            f"{format_bytes(memory_bytes)} left"
        )


def _clock_evidence(found: Contamination, seen: Observations) -> Iterator[str]:
    if found.throttle_events:
        yield f"CPUs were slowed down for heat, {found.throttle_events} times"
    base = seen.base_frequency_hz
    if base is None or found.lowest_frequency_hz is None:
        return
    looks = [s.frequency_hz for s in _busy(seen.samples) if s.frequency_hz is not None]
    slow = sum(frequency_hz < base for frequency_hz in looks)
    if looks and slow / len(looks) > MAX_SLOW_RATIO:
        yield (
            f"busy CPUs ran below {base / 1e9:.2f} GHz, at {min(looks) / 1e9:.2f} GHz at worst, in "
            f"{slow} of {len(looks)} looks"
        )


def _busy(samples: tuple[Sample, ...]) -> Iterator[Sample]:
    """Samples at the end of a stretch in which CPUs were busy: idle ones may be slow."""
    for before, after in itertools.pairwise(samples):
        if after.busy_s - before.busy_s >= BUSY_CPUS * (after.t_s - before.t_s):
            yield after


def _foreign_s(samples: tuple[Sample, ...]) -> list[tuple[float, float]]:
    """Time, and CPU seconds used by others until then."""
    return [(s.t_s, s.busy_s - s.ours_s) for s in samples if s.ours_s is not None]


def _foreign_cpus(samples: tuple[Sample, ...]) -> float | None:
    known = _foreign_s(samples)
    if len(known) < 2 or known[-1][0] - known[0][0] < MIN_OBSERVED_S:
        return None
    return _rate(known[0], known[-1])


def _burst(samples: tuple[Sample, ...]) -> float:
    """The most CPUs that others used over any stretch of BURST_S, or over all if that is less."""
    known = _foreign_s(samples)
    highest = 0.0
    start = 0
    for end, (t_s, _) in enumerate(known):
        while start + 1 < end and t_s - known[start + 1][0] >= BURST_S:
            start += 1
        if t_s - known[start][0] >= BURST_S:
            highest = max(highest, _rate(known[start], known[end]))
    return max(highest, _rate(known[0], known[-1]))


def _rate(first: tuple[float, float], last: tuple[float, float]) -> float:
    """Never below zero: the kernel counts a machine's time in coarse ticks, a group's finely."""
    return max(0.0, (last[1] - first[1]) / (last[0] - first[0]))


def _steal_ratio(samples: tuple[Sample, ...]) -> float:
    steal_s = samples[-1].steal_s - samples[0].steal_s
    wanted_s = samples[-1].busy_s - samples[0].busy_s + steal_s
    return steal_s / wanted_s if wanted_s > 0 else 0.0


def _stalled_ratio(samples: tuple[Sample, ...]) -> float | None:
    first, last = samples[0], samples[-1]
    if first.memory_stalled_s is None or last.memory_stalled_s is None:
        return None
    return (last.memory_stalled_s - first.memory_stalled_s) / (last.t_s - first.t_s)


def _growth(values: list[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return known[-1] - known[0] if known else None
