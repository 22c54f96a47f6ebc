"""What the NVIDIA driver says: which GPUs there are, how they are set, and who computes on them.

No driver, no GPU and no library are all the same here: there is nothing to say. Nor of a driver
that does not answer: it is asked from a thread that is left to it then, and never again.
"""

from __future__ import annotations

import ctypes
import importlib
import logging
import queue
import threading
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

T = TypeVar("T")

_log = logging.getLogger(__name__)
# Without persistence mode the driver sets up each GPU when its library is opened, in 1 to 3 s.
ANSWER_S = 30.0
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
    return _driver.ask(lambda nvml: nvml.gpus(), ())


def why_no_gpus() -> str:
    """Where there are none."""
    if _driver.hangs:
        return "NVIDIA's driver does not answer; try `nvidia-smi`"
    if _nvml() is None:
        return f"NVIDIA's driver is not installed ({_LIBRARY})"
    return "NVIDIA's driver is installed, and knows of none"


def driver_version() -> str | None:
    answer: str | None = _driver.ask(lambda nvml: nvml.driver_version(), None)
    return answer


def computing_processes() -> tuple[GpuProcess, ...] | None:
    """All processes that compute on a GPU now; None when there is no GPU."""
    answer: tuple[GpuProcess, ...] | None = _driver.ask(
        lambda nvml: nvml.computing_processes(), None
    )
    return answer


def gpu_use(uuid: str) -> GpuUse | None:
    """None when there is no such GPU here."""
    answer: GpuUse | None = _driver.ask(lambda nvml: nvml.gpu_use(uuid), None)
    return answer


class Driver:
    """Asked with a deadline."""

    def __init__(self, answer_s: float = ANSWER_S) -> None:
        self._answer_s = answer_s
        self.hangs = False

    def ask(self, question: Callable[[ModuleType], T], otherwise: T) -> T:
        """``otherwise`` where there is nobody to ask, or no answer. What the question raises is
        raised here."""
        nvml = _nvml()
        if nvml is None or self.hangs:
            return otherwise
        answers: queue.Queue[T | Exception] = queue.Queue()

        def ask() -> None:
            try:
                answers.put(question(nvml))
            except Exception as error:  # for who asked
                answers.put(error)

        threading.Thread(target=ask, name="ask the GPU driver", daemon=True).start()
        try:
            answer = answers.get(timeout=self._answer_s)
        except queue.Empty:
            self.hangs = True
            _log.warning(
                "NVIDIA's driver did not answer within %g s, so there are no GPUs as far as this "
                "run is concerned; does `nvidia-smi` answer?",
                self._answer_s,
            )
            return otherwise
        if isinstance(answer, Exception):
            raise answer
        return answer


_driver = Driver()


@cache
def _nvml() -> ModuleType | None:
    """The bindings, where there is something to bind to: importing them takes 10 ms, for which a
    run's start waits."""
    try:
        ctypes.CDLL(_LIBRARY)
    except OSError:
        return None
    return importlib.import_module("harness.machine.nvml")
