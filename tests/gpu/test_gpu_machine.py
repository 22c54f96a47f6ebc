"""What the driver of a real GPU says."""

from __future__ import annotations

import pytest

from harness.machine.gpu import computing_processes, driver_version, gpus

pytestmark = pytest.mark.gpu


def test_gpu_names_itself() -> None:
    if driver_version() is None:
        pytest.skip("no NVIDIA GPU and driver here")
    for gpu in gpus():
        assert gpu.name != "unknown"
        assert gpu.uuid.startswith("GPU-")
        assert (gpu.memory_bytes or 0) > 1 << 28
        assert gpu.clocks
    assert computing_processes() is not None
