"""What NVIDIA's driver is asked in a look, through its library's bindings.

What a GPU or its driver does not know is asked once. What fails for another reason is None this
time; a GPU that is lost is asked nothing more, as the driver may wait for it long.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pynvml

from harness.sampler.belonging import Belonging
from harness.sampler.records import Busy, Gpu, Process, Sample
from harness.sampler.stamped import StampedUse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.sampler.spec import Own

Handle = Any  # the library's own, opaque

# It will not answer this on any later look either.
_PERMANENT = frozenset(
    {
        pynvml.NVML_ERROR_NOT_SUPPORTED,
        pynvml.NVML_ERROR_NO_PERMISSION,
        pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        pynvml.NVML_ERROR_INVALID_ARGUMENT,
        25,  # NVML_ERROR_ARGUMENT_VERSION_MISMATCH; older bindings have no names for these
        26,  # NVML_ERROR_DEPRECATED
    }
)
_VGPU = 2  # NVML_GPU_VIRTUALIZATION_MODE_VGPU
_BUSY = "busy"
_PROCESSES = "processes"


class DriverError(Exception):
    """There is nothing to sample; ``str(error)`` says why."""


def _way(name: str, *arguments: object, entry: str | None = None) -> Callable[[Handle], Any]:
    """Asks the bindings' function of that name, of whose answer ``entry`` is wanted. Bindings that
    have no such function are as a library that has none."""
    function = getattr(pynvml, name, None)

    def ask(gpu: Handle) -> Any:  # noqa: ANN401
        if function is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
        answer = function(gpu, *arguments)
        return answer if entry is None else getattr(answer, entry)

    return ask


# Each counter's ways to ask for it, the best first; the next where the one before is not there.
_COUNTERS: dict[str, tuple[Callable[[Handle], Any], ...]] = {
    "memory_used_bytes": (
        # The second version does not count what the driver keeps for itself.
        _way("nvmlDeviceGetMemoryInfo", pynvml.nvmlMemory_v2, entry="used"),
        _way("nvmlDeviceGetMemoryInfo", entry="used"),
    ),
    "power_mw": (_way("nvmlDeviceGetPowerUsage"),),
    "energy_mj": (_way("nvmlDeviceGetTotalEnergyConsumption"),),
    "sm_clock_mhz": (_way("nvmlDeviceGetClockInfo", pynvml.NVML_CLOCK_SM),),
    "memory_clock_mhz": (_way("nvmlDeviceGetClockInfo", pynvml.NVML_CLOCK_MEM),),
    "temperature_c": (
        _way("nvmlDeviceGetTemperature", pynvml.NVML_TEMPERATURE_GPU),
        _way("nvmlDeviceGetTemperatureV", pynvml.NVML_TEMPERATURE_GPU),
    ),
    "events": (
        _way("nvmlDeviceGetCurrentClocksEventReasons"),
        _way("nvmlDeviceGetCurrentClocksThrottleReasons"),
    ),
}
# With symbols' versions: the bindings' functions without one know only their own.
_COMPUTING, _DRAWING, _SHARING = (
    tuple(_way(f"nvmlDeviceGet{kind}RunningProcesses_{version}") for version in ("v3", "v2"))
    for kind in ("Compute", "Graphics", "MPSCompute")
)
COUNTERS = (*_COUNTERS, _BUSY, _PROCESSES)


@contextmanager
def open_driver(uuids: tuple[str, ...]) -> Iterator[tuple[Device, ...]]:
    """Raises DriverError where there is no driver, or none of these GPUs."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise DriverError(f"the NVIDIA driver's library: {error}") from error
    try:
        yield tuple(Device(_handle(uuid), uuid, place=place) for place, uuid in enumerate(uuids))
    finally:
        _try(lambda _: pynvml.nvmlShutdown(), None)


def driver_version() -> str | None:
    found = _try(lambda _: pynvml.nvmlSystemGetDriverVersion(), None)
    return None if found is None else _text(found)


def _handle(uuid: str) -> Handle:
    try:
        return pynvml.nvmlDeviceGetHandleByUUID(uuid)
    except pynvml.NVMLError as error:
        there = ", ".join(_uuids()) or "none"
        raise DriverError(f"GPU {uuid}: {error}; there are: {there}") from error


def _uuids() -> Iterator[str]:
    for index in range(_try(lambda _: pynvml.nvmlDeviceGetCount(), None) or 0):
        gpu = _try(pynvml.nvmlDeviceGetHandleByIndex, index)
        uuid = None if gpu is None else _try(pynvml.nvmlDeviceGetUUID, gpu)
        if uuid is not None:
            yield _text(uuid)


@dataclass
class _Counter:
    """``ways`` to ask; none are left of one that is absent, and ``reason`` says why."""

    ways: tuple[Callable[[Handle], Any], ...]
    reason: str | None = None
    told: bool = False  # ever


class Device:
    """One GPU. Made, it has been looked at once: what is absent is known."""

    def __init__(self, handle: Handle, uuid: str, *, place: int) -> None:
        self._gpu = handle
        self._place = place
        self._belonging = Belonging()
        self._use = StampedUse()
        self._lost = False
        self._is_mig = uuid.startswith("MIG-")
        self._hint = _hint(handle, is_mig=self._is_mig)
        self._counters = {
            **{name: _Counter(ways) for name, ways in _COUNTERS.items()},
            _BUSY: _Counter((self._read_busy,)),
            _PROCESSES: _Counter(_COMPUTING),
        }
        self._more_processes = [_Counter(_DRAWING), _Counter(_SHARING)]
        self.look()
        self._use = StampedUse()  # the first look that counts has its first entry again
        self.gpu = self._describe(uuid)

    def set_own(self, own: Own) -> None:
        self._belonging.set_own(own)

    @property
    def is_lost(self) -> bool:
        return self._lost

    def look(self) -> Sample:
        started_ns = time.monotonic_ns()
        values = {name: self._ask(self._counters[name]) for name in _COUNTERS}
        busy: tuple[Busy, ...] | None = self._ask(self._counters[_BUSY])
        processes = self._processes()
        ended_ns = time.monotonic_ns()
        return Sample(
            t_ns=(started_ns + ended_ns) // 2,
            took_ns=ended_ns - started_ns,
            gpu=self._place,
            busy=busy,
            processes=processes,
            **values,
        )

    def gone(self) -> dict[str, str]:
        """Counters that the header has and that went, or never told a thing."""
        return {
            name: reason
            for name, reason in self._reasons(also_silent=True).items()
            if name not in self.gpu.absent
        }

    def _ask(self, counter: _Counter) -> Any:  # noqa: ANN401 - what the counter counts
        while counter.ways and not self._lost:
            try:
                answer = counter.ways[0](self._gpu)
            except pynvml.NVMLError as error:
                if not self._goes_on(counter, error):
                    return None
            else:
                counter.told, counter.reason = True, None
                return answer
        return None

    def _goes_on(self, counter: _Counter, error: pynvml.NVMLError) -> bool:
        """Whether another way is worth a try now."""
        code = error.value
        if code == pynvml.NVML_ERROR_GPU_IS_LOST:
            self._lost = True
            return False
        if code not in _PERMANENT:
            counter.reason = str(error)
            return False
        # The first way that the library knows says best why.
        is_unknown = code == pynvml.NVML_ERROR_FUNCTION_NOT_FOUND
        if counter.reason is None or not is_unknown:
            counter.reason = f"{error}{self._hint}"
        counter.ways = counter.ways[1:]
        return True

    def _read_busy(self, gpu: Handle) -> tuple[Busy, ...] | None:
        try:
            kind, entries = pynvml.nvmlDeviceGetSamples(
                gpu, pynvml.NVML_GPU_UTILIZATION_SAMPLES, self._use.seen_us
            )
        except pynvml.NVMLError as error:
            if error.value == pynvml.NVML_ERROR_NOT_FOUND:  # nothing since the look before
                return ()
            raise
        stamped = [(int(entry.timeStamp), _value(kind, entry.sampleValue)) for entry in entries]
        return self._use.take(
            stamped, wall_us=time.time_ns() // 1000, monotonic_ns=time.monotonic_ns()
        )

    def _processes(self) -> tuple[Process, ...] | None:
        computing = self._ask(self._counters[_PROCESSES])
        if computing is None:
            return None
        found: dict[int, int | None] = {}
        others = (one for more in self._more_processes for one in self._ask(more) or ())
        for process in (*computing, *others):
            held = process.usedGpuMemory
            before = found.get(process.pid)
            found[process.pid] = before if held is None else max(held, before or 0)
        self._belonging.keep(set(found))
        return tuple(
            Process(pid=pid, own=self._belonging.is_own(pid), memory_bytes=held)
            for pid, held in sorted(found.items())
        )

    def _reasons(self, *, also_silent: bool) -> dict[str, str]:
        if self._lost:
            return dict.fromkeys(COUNTERS, "the GPU is lost")
        return {
            name: counter.reason
            for name, counter in self._counters.items()
            if counter.reason is not None
            and (not counter.ways or (also_silent and not counter.told))
        }

    def _describe(self, uuid: str) -> Gpu:
        if self._lost:
            raise DriverError(f"GPU {uuid}: it is lost")
        memory = _try(pynvml.nvmlDeviceGetMemoryInfo, self._gpu)
        whole = self._gpu
        if self._is_mig:
            whole = _try(pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle, self._gpu) or whole
        index = _try(pynvml.nvmlDeviceGetIndex, whole)
        return Gpu(
            uuid=uuid,
            index=self._place if index is None else index,
            name=_text(_try(pynvml.nvmlDeviceGetName, self._gpu) or "unknown"),
            memory_bytes=None if memory is None else int(memory.total),
            power_limit_mw=_try(pynvml.nvmlDeviceGetPowerManagementLimit, self._gpu),
            absent=self._reasons(also_silent=False),
        )


def _hint(gpu: Handle, *, is_mig: bool) -> str:
    """Why much may be absent."""
    if is_mig:
        return " (a MIG instance: most counters are of the whole GPU only)"
    mode = _try(pynvml.nvmlDeviceGetMigMode, gpu)
    if mode is not None and mode[0]:
        return " (MIG is on)"
    if _try(pynvml.nvmlDeviceGetVirtualizationMode, gpu) == _VGPU:
        return " (a vGPU)"
    return ""


def _value(kind: int, value: Any) -> float:  # noqa: ANN401 - the library's union
    match kind:
        case pynvml.NVML_VALUE_TYPE_DOUBLE:
            return float(value.dVal)
        case pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG:
            return float(value.ullVal)
        case pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG:
            return float(value.ulVal)
        case pynvml.NVML_VALUE_TYPE_SIGNED_LONG_LONG:
            return float(value.sllVal)
        case _:
            return float(value.uiVal)


def _try(ask: Callable[[Any], Any], of: Any) -> Any:  # noqa: ANN401
    """The driver's answer; None when this GPU or driver does not know it."""
    try:
        return ask(of)
    except pynvml.NVMLError:
        return None


def _text(value: str | bytes) -> str:  # older versions of the library give bytes
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
