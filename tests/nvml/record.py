"""``python -m tests.nvml.record NAME [--seconds S] [-- COMMAND ...]``: record this machine's GPUs.

Samples them as a run would, while the command runs or for some seconds, and leaves two files beside
this one: ``NAME.jsonl``, the samples, and ``NAME.replay``, which makes the library of the tests
give the same values again, look by look. UUIDs are replaced; nothing else of them is secret.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from typing import TYPE_CHECKING

from harness.machine.gpu import gpus
from harness.sampler.client import Sampler
from harness.sampler.spec import OwnTree, SampleSpec
from tests.nvml.library import HERE, UUIDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.sampler.records import Header, Sample
    from harness.sampler.samples import GpuSamples

LOOKS = 400  # in a replay: the rest repeats the last one
_UNKNOWN = "!999"
_PERIOD_US = 166_667  # where too few entries tell


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("command", nargs="*")
    asked = parser.parse_args()
    uuids = tuple(gpu.uuid for gpu in gpus())[: len(UUIDS)]
    if not uuids:
        sys.stderr.write("no NVIDIA GPU and driver here\n")
        return 1
    file = HERE / f"{asked.name}.jsonl"
    with Sampler(SampleSpec(uuids=uuids, file=file)) as sampler:
        if asked.command:
            with subprocess.Popen(asked.command) as process:
                sampler.own(OwnTree(root=process.pid, mark=f"HARNESS_RUN={os.getpid()}"))
        else:
            time.sleep(asked.seconds)
        found = sampler.finish()
    content = file.read_text()
    for uuid, other in zip(uuids, UUIDS, strict=False):
        content = content.replace(uuid, other)
    file.write_text(content)
    if found.header is None or found.problem is not None:
        sys.stderr.write(f"{found.problem}\n")
        return 1
    (HERE / f"{asked.name}.replay").write_text(as_replay(found, found.header))
    return 0


def as_replay(found: GpuSamples, header: Header) -> str:
    """What the library is to answer so that a sampler sees the same."""
    lines = [f"# Recorded with driver {header.driver}, one look every {header.period_ns} ns."]
    lines += [f"gpu {UUIDS[place]} {gpu.name}" for place, gpu in enumerate(header.gpus)]
    lines.append(f"nvmlSystemGetDriverVersion * {header.driver}")
    for place, gpu in enumerate(header.gpus):
        samples = [sample for sample in found.samples if sample.gpu == place][:LOOKS]
        total = gpu.memory_bytes or 0
        limit = _UNKNOWN if gpu.power_limit_mw is None else str(gpu.power_limit_mw)
        lines.append(f"nvmlDeviceGetPowerManagementLimit {place} {limit}")
        lines.append(f"nvmlDeviceGetMemoryInfo {place} {total},0")
        for symbol, (counter, word) in _answers(total, _period_us(samples)).items():
            if counter in gpu.absent:
                lines.append(f"{symbol} {place} !3")
                continue
            values = [getattr(sample, counter) for sample in samples]
            words = [_UNKNOWN if value is None else word(value) for value in values]
            # The sampler looks once before its first sample.
            lines.append(" ".join((symbol, str(place), *words[:1], *words)))
    return "\n".join(lines) + "\n"


def _answers(total: int, period_us: int) -> dict[str, tuple[str, Callable[..., str]]]:
    return {
        "nvmlDeviceGetMemoryInfo_v2": ("memory_used_bytes", lambda used: f"{total},{used}"),
        "nvmlDeviceGetPowerUsage": ("power_mw", str),
        "nvmlDeviceGetTotalEnergyConsumption": ("energy_mj", str),
        "nvmlDeviceGetClockInfo/1": ("sm_clock_mhz", str),
        "nvmlDeviceGetClockInfo/2": ("memory_clock_mhz", str),
        "nvmlDeviceGetTemperature": ("temperature_c", str),
        "nvmlDeviceGetCurrentClocksEventReasons": ("events", str),
        "nvmlDeviceGetSamples": (
            "busy",
            lambda busy: f"@{period_us},{round(busy[-1].ratio * 100) if busy else 0}",
        ),
        "nvmlDeviceGetComputeRunningProcesses": (
            "processes",
            lambda there: (
                ",".join(
                    f"{one.pid}={'?' if one.memory_bytes is None else one.memory_bytes}"
                    for one in there
                )
                or "none"
            ),
        ),
    }


def _period_us(samples: Sequence[Sample]) -> int:
    entries = [entry.t_ns for sample in samples for entry in sample.busy or ()]
    steps_ns = [after - before for before, after in pairwise(entries)]
    return round(statistics.median(steps_ns) / 1000) if steps_ns else _PERIOD_US


if __name__ == "__main__":
    sys.exit(main())
