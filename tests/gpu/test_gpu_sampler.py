"""What the sampler sees of real GPUs. ``python -m tests.nvml.record`` keeps such a recording."""

from __future__ import annotations

import subprocess
import sys
import time
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from harness.machine.gpu import driver_version, gpus
from harness.sampler.client import Sampler
from harness.sampler.driver import COUNTERS
from harness.sampler.spec import OwnTree, SampleSpec

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.gpu

HELD_BYTES = 1 << 29
_LOOKED_FOR_S = 3.0

# Holds memory of the first GPU until its stdin ends; with the driver's own library, as torch and
# the like need not be here.
_HOLD = f"""
import ctypes, sys
cuda = ctypes.CDLL("libcuda.so.1")
def must(code):
    if code:
        sys.exit(f"CUDA error {{code}}")
must(cuda.cuInit(0))
device, context, memory = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
must(cuda.cuDeviceGet(ctypes.byref(device), 0))
must(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device))
must(cuda.cuCtxSetCurrent(context))
must(cuda.cuMemAlloc_v2(ctypes.byref(memory), ctypes.c_size_t({HELD_BYTES})))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def uuids() -> tuple[str, ...]:
    if driver_version() is None:
        pytest.skip("no NVIDIA GPU and driver here")
    return tuple(gpu.uuid for gpu in gpus())


def test_all_gpus_are_sampled(uuids: tuple[str, ...], tmp_path: Path) -> None:
    """Each counter is told, or absent with a reason."""
    with Sampler(SampleSpec(uuids=uuids, file=tmp_path / "gpu.jsonl")) as sampler:
        time.sleep(_LOOKED_FOR_S)
        found = sampler.finish()
    assert found.problem is None
    assert found.header is not None
    assert found.end is not None
    assert [gpu.uuid for gpu in found.header.gpus] == list(uuids)
    for place, gpu in enumerate(found.header.gpus):
        samples = [sample for sample in found.samples if sample.gpu == place]
        absent = {**gpu.absent, **found.end.absent.get(place, {})}
        assert len(samples) > _LOOKED_FOR_S * 10
        for counter in set(COUNTERS) - set(absent):
            told = [value for one in samples if (value := getattr(one, counter)) is not None]
            assert told, counter
        energy_mj = [one.energy_mj for one in samples if one.energy_mj is not None]
        assert energy_mj == sorted(energy_mj)
        busy = [entry for sample in samples for entry in sample.busy or ()]
        assert all(before.t_ns < after.t_ns for before, after in pairwise(busy))
        for sample in samples:  # the driver's stamps are those of this machine's wall clock
            for entry in sample.busy or ():
                assert 0 <= sample.t_ns - entry.t_ns < 5_000_000_000


def test_a_process_and_its_memory_are_seen(uuids: tuple[str, ...], tmp_path: Path) -> None:
    """In a PID namespace of its own the driver may hide the process; then it is not in the list."""
    with (
        Sampler(SampleSpec(uuids=uuids, file=tmp_path / "gpu.jsonl")) as sampler,
        subprocess.Popen(
            [sys.executable, "-c", _HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as child,
    ):
        assert child.stdin is not None
        assert child.stdout is not None
        sampler.own(OwnTree(root=child.pid, mark="HARNESS_RUN=none"))
        assert child.stdout.readline() == b"held\n"
        time.sleep(_LOOKED_FOR_S)
        child.stdin.close()
        child.wait()
        found = sampler.finish()
    assert found.problem is None
    used = [one.memory_used_bytes for one in found.samples if one.memory_used_bytes is not None]
    assert max(used) - min(used) > HELD_BYTES * 0.9
    seen = [
        one for sample in found.samples for one in sample.processes or () if one.pid == child.pid
    ]
    if not seen:
        pytest.skip("the driver does not list the processes of this PID namespace")
    assert {one.own for one in seen} <= {True, None}
    assert any(one.own for one in seen), "never told for the submission's"
    told = [one.memory_bytes for one in seen if one.memory_bytes is not None]
    assert not told or max(told) > HELD_BYTES
