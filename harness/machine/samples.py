"""Samples of the machine beside a run: a few small reads once a second, in the harness's own loop.

A sample takes about 0.2 ms of CPU time; the list of all programs, made once before and once after,
a few milliseconds.
"""

from __future__ import annotations

import time
from collections import defaultdict
from mmap import PAGESIZE
from operator import itemgetter

import psutil

from harness.machine.contamination import Contamination, Observations, Sample, find_contamination
from harness.machine.gpu import GpuProcess, computing_processes
from harness.machine.proc import CPUS, read_int, read_text, values_of_all_cpus

_KHZ = 1000
_FREQUENCY_EVERY = 5  # samples: reading a clock may interrupt the CPU it belongs to
_THROTTLE_COUNTERS = ("core_throttle_count", "package_throttle_count")
_MIN_PROGRAM_CPU_S = 0.05
_NAME_LENGTH = 40


class MachineWatch:
    """Made before the submission starts, when the harness's own helpers run already."""

    def __init__(self, *, asks_driver: bool = True) -> None:
        """``asks_driver``: for who computes on a GPU, before and after. Who has the run's GPUs
        sampled leaves that to the sampler, whose driver may hang."""
        this = psutil.Process()
        self._ours = dict.fromkeys((this, *this.children(recursive=True)), 0.0)
        self._submission_s = 0.0
        self._samples: list[Sample] = []
        self._clocks = tuple(sorted(CPUS.glob("cpu[0-9]*/cpufreq/scaling_cur_freq")))
        self._gpu_processes = computing_processes() if asks_driver else None
        self._throttles = _throttle_events()
        self._programs = self._foreign_programs()

    def sample(self, submission_cpu_s: float | None) -> None:
        """``submission_cpu_s``: what it has used so far; None when that is not known."""
        cpu = psutil.cpu_times()
        # Processes that ended take their time with them; what was used stays used.
        self._submission_s = max(self._submission_s, submission_cpu_s or 0.0)
        for process in self._ours:
            self._ours[process] = max(self._ours[process], _cpu_s(process))
        known = submission_cpu_s is not None
        self._samples.append(
            Sample(
                t_s=time.monotonic(),
                busy_s=cpu.user + cpu.nice + cpu.system + cpu.irq + cpu.softirq,
                steal_s=cpu.steal,
                ours_s=self._submission_s + sum(self._ours.values()) if known else None,
                available_bytes=psutil.virtual_memory().available,
                swapped_bytes=_swapped_bytes(),
                memory_stalled_s=_memory_stalled_s(),
                frequency_hz=self._frequency_hz(),
            )
        )

    def finish(self) -> Contamination:
        """Once the submission is gone: who still computes on a GPU then, or used the CPU, is not
        the submission."""
        before, after = self._throttles, _throttle_events()
        return find_contamination(
            Observations(
                samples=tuple(self._samples),
                cpus=psutil.cpu_count() or 1,
                memory_bytes=psutil.virtual_memory().total,
                base_frequency_hz=_base_frequency_hz(),
                throttle_events=None if before is None or after is None else after - before,
                gpu_processes=self._foreign_gpu_processes(),
                programs=self._used_since(),
            )
        )

    def _frequency_hz(self) -> float | None:
        """Of the fastest CPU: those that idle may be slow."""
        if len(self._samples) % _FREQUENCY_EVERY:
            return None
        found = [value for value in map(read_int, self._clocks) if value is not None]
        return max(found) * _KHZ if found else None

    def _foreign_gpu_processes(self) -> tuple[GpuProcess, ...] | None:
        if self._gpu_processes is None:
            return None
        found = (*self._gpu_processes, *(computing_processes() or ()))
        return tuple({(process.gpu, process.pid): process for process in found}.values())

    def _foreign_programs(self) -> dict[psutil.Process, tuple[str, float]]:
        """Name and CPU time of each. Not of its ended children: the submission's own would count
        for what started it, and long runs for the moment they end."""
        return {
            process: (_printable(process.info["name"]), times.user + times.system)
            for process in psutil.process_iter(["name", "cpu_times"])
            if process not in self._ours and (times := process.info["cpu_times"]) is not None
        }

    def _used_since(self) -> tuple[tuple[str, float], ...]:
        """Names of the programs that used the CPU, and how much, the most first."""
        used: defaultdict[str, float] = defaultdict(float)
        for process, (name, cpu_s) in self._foreign_programs().items():
            used[name] += cpu_s - self._programs.get(process, (name, 0.0))[1]
        named = ((name, cpu_s) for name, cpu_s in used.items() if cpu_s > _MIN_PROGRAM_CPU_S)
        return tuple(sorted(named, key=itemgetter(1), reverse=True))


def _printable(name: str | None) -> str:
    """A program chooses its own name, and may put anything into it."""
    return "".join(c if c.isprintable() else "?" for c in name or "?")[:_NAME_LENGTH]


def _cpu_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return times.user + times.system


def _swapped_bytes() -> int | None:
    """Moved to and from swap since the machine started."""
    text = read_text("/proc/vmstat")
    if text is None:
        return None
    counts = dict(line.split() for line in text.splitlines())
    return (int(counts.get("pswpin", 0)) + int(counts.get("pswpout", 0))) * PAGESIZE


def _memory_stalled_s() -> float | None:
    """Time in which some process waited for memory; None where the kernel does not count it."""
    text = read_text("/proc/pressure/memory")
    if not text or "total=" not in text:
        return None
    first = text.splitlines()[0]  # some avg10=0.00 avg60=0.00 avg300=0.00 total=81727
    return int(first.rpartition("total=")[2]) * 1e-6


def _throttle_events() -> int | None:
    """How often CPUs were slowed down for heat since the machine started."""
    counts = [
        value
        for name in _THROTTLE_COUNTERS
        for value in values_of_all_cpus(f"thermal_throttle/{name}")
    ]
    return sum(counts) if counts else None


def _base_frequency_hz() -> float | None:
    """What the fastest busy CPU should never fall below."""
    base = values_of_all_cpus("cpufreq/base_frequency")
    if base:
        return 0.9 * max(base) * _KHZ
    highest = values_of_all_cpus("cpufreq/cpuinfo_max_freq")
    return 0.6 * max(highest) * _KHZ if highest else None
