"""What a machine is: read here, stored, compared."""

from __future__ import annotations

import os

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.machine.fingerprint import Fingerprint, differences, take_fingerprint
from harness.machine.gpu import GpuRecord, computing_processes, driver_version, gpus

BASE = Fingerprint(
    cpu_model="A CPU",
    architecture="x86_64",
    logical_cpus=16,
    usable_cpus=16,
    physical_cores=8,
    memory_bytes=64 << 30,
    operating_system="Debian GNU/Linux 12",
    kernel="6.1.0",
    virtual=False,
    cgroup_version=2,
    clock_source="tsc",
    cpu_clocks="governor performance",
    engine="docker 20.10",
    gpu_driver="550.1",
    gpus=(GpuRecord(name="H100", uuid="GPU-1", memory_bytes=1, clocks="power limit 700 W"),),
)


def test_this_machine() -> None:
    found = take_fingerprint("process Python 3.11")
    assert found.logical_cpus == psutil.cpu_count()
    assert 1 <= found.usable_cpus <= found.logical_cpus
    assert found.memory_bytes > 1 << 28
    assert found.kernel == os.uname().release
    assert found.engine == "process Python 3.11"
    assert take_fingerprint("process Python 3.11").digest == found.digest
    assert Fingerprint.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"cpu_model": "Another"}, "CPU: A CPU | Another"),
        ({"kernel": "6.2.0"}, "kernel: 6.1.0 | 6.2.0"),
        ({"usable_cpus": 2}, "usable CPUs: 16 | 2"),
        ({"physical_cores": None}, "physical cores: 8 | unknown"),
        ({"virtual": True}, "virtual machine: no | yes"),
        ({"memory_bytes": 32 << 30}, "memory: 64.0 GiB | 32.0 GiB"),
        ({"cpu_clocks": "governor powersave"}, "CPU clocks: governor performance | governor powe"),
        ({"engine": "process"}, "engine: docker 20.10 | process"),
        ({"gpu_driver": "535.2"}, "GPU driver: 550.1 | 535.2"),
        ({"gpus": ()}, "GPUs: H100 (power limit 700 W) | unknown"),
    ],
)
def test_every_part_that_matters_is_named(change: dict[str, object], line: str) -> None:
    other = BASE.model_copy(update=change)
    assert other.digest != BASE.digest
    (found,) = differences(BASE, other)
    assert found.startswith(line)


def test_what_does_not_matter() -> None:
    """Another GPU of the same kind, and the MiB that a new kernel keeps for itself."""
    twin = BASE.gpus[0].model_copy(update={"uuid": "GPU-2"})
    for change in ({"gpus": (twin,)}, {"memory_bytes": (64 << 30) - (20 << 20)}):
        other = BASE.model_copy(update=change)
        assert other.digest == BASE.digest
        assert differences(BASE, other) == ()


@given(
    st.builds(
        dict,
        kernel=st.text(max_size=3),
        logical_cpus=st.integers(1, 3),
        virtual=st.none() | st.booleans(),
        memory_bytes=st.integers(0, 1 << 40),
    )
)
def test_digests_are_equal_exactly_when_nothing_differs(change: dict[str, object]) -> None:
    other = BASE.model_copy(update=change)
    assert (other.digest == BASE.digest) == (differences(BASE, other) == ())


def test_no_gpu_is_no_error() -> None:
    if driver_version() is not None:
        pytest.skip("this machine has a GPU; tests/gpu looks at it")
    assert gpus() == ()
    assert computing_processes() is None
