"""What the NVIDIA driver says: which GPUs there are, how they are set, and who computes on them.

No driver, no GPU and no library are all the same here: there is nothing to say.
"""

from __future__ import annotations

import ctypes
import importlib
from functools import cache
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from types import ModuleType

_LIBRARY = "libnvidia-ml.so.1"  # comes with the driver; what the bindings load


class GpuRecord(BaseModel):
    """One GPU. ``clocks`` is its policy, as far as the driver tells: limits and fixed clocks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    uuid: str
    memory_bytes: int | None = None
    clocks: str | None = None


class GpuProcess(BaseModel):
    """A process that computes on a GPU; ``memory_bytes`` is None where the driver hides it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pid: int
    gpu: int
    memory_bytes: int | None = None


class GpuUse(BaseModel):
    """Who is on one GPU now: processes that compute or draw, and how much of its memory is taken,
    None where the driver does not say. What the driver keeps for itself is not counted where it
    tells the two apart."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pids: tuple[int, ...] = ()
    used_bytes: int | None = None


def gpus() -> tuple[GpuRecord, ...]:
    nvml = _nvml()
    return () if nvml is None else nvml.gpus()


def why_no_gpus() -> str:
    """Where there are none."""
    if _nvml() is None:
        return f"NVIDIA's driver is not installed ({_LIBRARY})"
    return "NVIDIA's driver is installed and knows of none, or does not answer"


def driver_version() -> str | None:
    nvml = _nvml()
    return None if nvml is None else nvml.driver_version()


def computing_processes() -> tuple[GpuProcess, ...] | None:
    """All processes that compute on a GPU now; None when there is no GPU."""
    nvml = _nvml()
    return None if nvml is None else nvml.computing_processes()


def gpu_use(uuid: str) -> GpuUse | None:
    """None when there is no such GPU here."""
    nvml = _nvml()
    return None if nvml is None else nvml.gpu_use(uuid)


@cache
def _nvml() -> ModuleType | None:
    """The bindings, where there is something to bind to: importing them takes 10 ms, for which a
    run's start waits."""
    try:
        ctypes.CDLL(_LIBRARY)
    except OSError:
        return None
    return importlib.import_module("harness.machine.nvml")
