"""What machine a run had: all that makes two runtimes comparable, and a digest of it."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict

from harness.challenge.quantity import format_bytes
from harness.machine.gpu import GpuRecord, driver_version, gpus
from harness.machine.proc import CPUS, common, read_int, read_text

_MEMORY_STEP_BYTES = 1 << 28  # a new kernel keeps some MiB more or less for itself

_LABELS = {
    "cpu_model": "CPU",
    "architecture": "architecture",
    "logical_cpus": "logical CPUs",
    "usable_cpus": "usable CPUs",
    "physical_cores": "physical cores",
    "memory": "memory",
    "operating_system": "operating system",
    "kernel": "kernel",
    "virtual": "virtual machine",
    "cgroup_version": "cgroup version",
    "clock_source": "clock source",
    "cpu_clocks": "CPU clocks",
    "engine": "engine",
    "gpu_driver": "GPU driver",
    "gpus": "GPUs",
}


class Fingerprint(BaseModel):
    """None: the machine does not tell. ``cpu_clocks`` is the policy (governor, boost, limits);
    ``usable_cpus`` those the harness may run on. ``gpus[].uuid`` is not part of the digest: two
    GPUs of one kind are the same machine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cpu_model: str
    architecture: str
    logical_cpus: int
    usable_cpus: int
    physical_cores: int | None
    memory_bytes: int
    operating_system: str
    kernel: str
    virtual: bool | None
    cgroup_version: int | None
    clock_source: str | None
    cpu_clocks: str | None
    engine: str
    gpu_driver: str | None = None
    gpus: tuple[GpuRecord, ...] = ()

    @property
    def digest(self) -> str:
        text = json.dumps(self.comparable(), sort_keys=True)
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"

    def comparable(self) -> dict[str, str]:
        """What must be equal for two runtimes to be comparable, as texts for people."""
        values = self.model_dump(include=_LABELS.keys() - {"memory", "gpus"})
        steps = round(self.memory_bytes / _MEMORY_STEP_BYTES)
        values["memory"] = format_bytes(steps * _MEMORY_STEP_BYTES)
        kinds = (f"{gpu.name} ({gpu.clocks or 'clocks unknown'})" for gpu in self.gpus)
        values["gpus"] = "; ".join(kinds) or None
        return {name: _words(values[name]) for name in _LABELS}


def _words(value: object) -> str:
    known = {None: "unknown", True: "yes", False: "no"}
    return known[value] if value is None or isinstance(value, bool) else str(value)


def differences(first: Fingerprint, second: Fingerprint) -> tuple[str, ...]:
    """What makes two machines different, one line each; empty when the digests are equal."""
    ours, theirs = first.comparable(), second.comparable()
    return tuple(
        f"{label}: {ours[name]} | {theirs[name]}"
        for name, label in _LABELS.items()
        if ours[name] != theirs[name]
    )


def take_fingerprint(engine: str) -> Fingerprint:
    """Of the machine this process runs on. ``engine``: its name and version."""
    cpu = _cpu_info(read_text("/proc/cpuinfo") or "")
    return Fingerprint(
        cpu_model=cpu.get("model name") or platform.processor() or platform.machine(),
        architecture=platform.machine(),
        logical_cpus=psutil.cpu_count() or 1,
        usable_cpus=len(os.sched_getaffinity(0)),
        physical_cores=psutil.cpu_count(logical=False),
        memory_bytes=psutil.virtual_memory().total,
        operating_system=_operating_system(),
        kernel=platform.release(),
        virtual="hypervisor" in cpu["flags"].split() if "flags" in cpu else None,
        cgroup_version=_cgroup_version(),
        clock_source=read_text("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        cpu_clocks=_cpu_clocks(),
        engine=engine,
        gpu_driver=driver_version(),
        gpus=gpus(),
    )


def _cpu_info(text: str) -> dict[str, str]:
    """The entries of the first CPU."""
    lines = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}


def _operating_system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()


def _cgroup_version() -> int | None:
    """Version 2 mounted beside version 1 (hybrid) counts as 1: its controllers are there."""
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        return 2
    return 1 if Path("/sys/fs/cgroup/cpuacct").exists() else None


def _cpu_clocks() -> str | None:
    """None where clocks are not this system's to set, as in most virtual machines."""
    driver = common(map(read_text, CPUS.glob("cpu[0-9]*/cpufreq/scaling_driver")))
    governor = common(map(read_text, CPUS.glob("cpu[0-9]*/cpufreq/scaling_governor")))
    limits = common(map(read_text, CPUS.glob("cpu[0-9]*/cpufreq/scaling_max_freq")))
    boost = read_int(CPUS / "cpufreq/boost")
    no_turbo = read_int(CPUS / "intel_pstate/no_turbo")
    if no_turbo is not None:
        boost = int(not no_turbo)
    parts = (
        driver and f"driver {driver}",
        governor and f"governor {governor}",
        limits and f"at most {limits} kHz",
        boost is not None and f"boost {'on' if boost else 'off'}",
    )
    return ", ".join(part for part in parts if part) or None
