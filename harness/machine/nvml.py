"""What the NVIDIA driver says, through its library's bindings. Import :mod:`.gpu` instead."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pynvml

from harness.machine.gpu import GpuProcess, GpuRecord, GpuUse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def gpus() -> tuple[GpuRecord, ...]:
    with _handles() as handles:
        return tuple(_gpu(handle) for handle in handles)


def driver_version() -> str | None:
    with _handles() as handles:
        return _text(pynvml.nvmlSystemGetDriverVersion()) if handles else None


def computing_processes() -> tuple[GpuProcess, ...] | None:
    """All processes that compute on a GPU now; None when there is no GPU."""
    with _handles() as handles:
        if not handles:
            return None
        return tuple(
            GpuProcess(pid=found.pid, gpu=index, memory_bytes=found.usedGpuMemory)
            for index, handle in enumerate(handles)
            for found in _try(partial(pynvml.nvmlDeviceGetComputeRunningProcesses, handle)) or ()
        )


def gpu_use(uuid: str) -> GpuUse | None:
    with _handles() as handles:
        for handle in handles:
            if _text(_try(partial(pynvml.nvmlDeviceGetUUID, handle)) or "") == uuid:
                return GpuUse(pids=_pids(handle), used_bytes=_used_bytes(handle))
    return None


def _pids(handle: Any) -> tuple[int, ...]:  # noqa: ANN401 - the library's own opaque handle
    asked = (
        pynvml.nvmlDeviceGetComputeRunningProcesses,
        pynvml.nvmlDeviceGetGraphicsRunningProcesses,
    )
    return tuple(sorted({one.pid for ask in asked for one in _try(partial(ask, handle)) or ()}))


def _used_bytes(handle: Any) -> int | None:  # noqa: ANN401
    """Without what the driver keeps for itself, some hundred MiB, where it tells that apart (since
    version 510)."""
    memory = _try(
        partial(pynvml.nvmlDeviceGetMemoryInfo, handle, version=pynvml.nvmlMemory_v2)
    ) or _try(partial(pynvml.nvmlDeviceGetMemoryInfo, handle))
    return None if memory is None else int(memory.used)


@contextmanager
def _handles() -> Iterator[list[Any]]:
    """The driver's handle of every GPU, while the library is open."""
    handles: list[Any] = []
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield handles
        return
    try:
        with suppress(pynvml.NVMLError):
            for index in range(pynvml.nvmlDeviceGetCount()):
                handles.append(pynvml.nvmlDeviceGetHandleByIndex(index))
        yield handles
    finally:
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _gpu(handle: Any) -> GpuRecord:  # noqa: ANN401 - the library's own opaque handle
    memory = _try(lambda: pynvml.nvmlDeviceGetMemoryInfo(handle))
    return GpuRecord(
        name=_text(_try(lambda: pynvml.nvmlDeviceGetName(handle)) or "unknown"),
        uuid=_text(_try(lambda: pynvml.nvmlDeviceGetUUID(handle)) or "unknown"),
        memory_bytes=None if memory is None else int(memory.total),
        clocks=_clocks(handle),
    )


def _clocks(handle: Any) -> str | None:  # noqa: ANN401
    limit_mw = _try(lambda: pynvml.nvmlDeviceGetPowerManagementLimit(handle))
    application_mhz = _try(
        lambda: pynvml.nvmlDeviceGetApplicationsClock(handle, pynvml.NVML_CLOCK_SM)
    )
    highest_mhz = _try(lambda: pynvml.nvmlDeviceGetMaxClockInfo(handle, pynvml.NVML_CLOCK_SM))
    persistence = _try(lambda: pynvml.nvmlDeviceGetPersistenceMode(handle))
    mode = _try(lambda: pynvml.nvmlDeviceGetComputeMode(handle))
    parts = (
        limit_mw is not None and f"power limit {limit_mw / 1000:.0f} W",
        application_mhz is not None and f"application clock {application_mhz} MHz",
        highest_mhz is not None and f"highest clock {highest_mhz} MHz",
        persistence is not None and f"persistence {'on' if persistence else 'off'}",
        mode is not None and f"compute mode {mode}",
    )
    return ", ".join(part for part in parts if part) or None


def _try(ask: Callable[[], Any]) -> Any:  # noqa: ANN401
    """The driver's answer; None when this GPU or driver does not know it."""
    try:
        return ask()
    except pynvml.NVMLError:
        return None


def _text(value: str | bytes) -> str:  # older versions of the library give bytes
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
