"""A GPU looked at before a run: as the driver's library would tell, and what is made of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from harness.campaign.idle_gpu import require_idle
from harness.errors import MachineBusy, MachineError
from harness.machine.gpu import GpuUse, gpu_use

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20


def test_empty_at_once() -> None:
    asked: list[str] = []

    def look(uuid: str) -> GpuUse:
        asked.append(uuid)
        return GpuUse(used_bytes=4 * MIB)

    require_idle("GPU-1", patience_s=0.0, look=look)
    assert asked == ["GPU-1"]


def test_memory_that_is_taken_back_late_is_waited_for() -> None:
    uses = [GpuUse(pids=(os.getpid(),)), GpuUse(used_bytes=900 * MIB), GpuUse(used_bytes=0)]
    started_s = time.monotonic()
    require_idle("GPU-1", patience_s=30.0, look=lambda _: uses.pop(0))
    assert uses == []
    assert 0.9 < time.monotonic() - started_s < 10


@pytest.mark.parametrize(
    ("use", "told"),
    [
        (GpuUse(pids=(os.getpid(),)), rf"found process {os.getpid()} \(\w+"),
        (GpuUse(pids=(4194305, 4194306, 4194307, 4194308)), "process 4194307 and 1 more"),
        (GpuUse(used_bytes=900 * MIB), "900.0 MiB of its memory"),
    ],
    ids=["one process", "many processes", "memory alone"],  # none with a number of this process
)
def test_who_is_on_it_is_named(use: GpuUse, told: str) -> None:
    with pytest.raises(MachineBusy, match=told):
        require_idle("GPU-1", patience_s=0.0, look=lambda _: use)


def test_gpu_that_is_not_here() -> None:
    with pytest.raises(MachineError, match="no such GPU"):
        require_idle("GPU-1", patience_s=0.0, look=lambda _: None)


# What of the driver's library (nvml.h) is asked: one GPU, a process that computes and one that
# draws, memory in use with (version 1) and without (version 2) what the driver keeps for itself.
LIBRARY = r"""
#include <string.h>
typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory2_t;
typedef struct { unsigned pid; unsigned long long used; unsigned gi, ci; } process_t;
int nvmlInitWithFlags(unsigned flags) { return 0; }
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *n) { *n = 1; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **handle) { *handle = (void *)8; return 0; }
int nvmlDeviceGetUUID(void *handle, char *text, unsigned n) { strcpy(text, "GPU-fake"); return 0; }
int nvmlDeviceGetMemoryInfo(void *handle, memory_t *memory) {
  memory->used = 700ull << 20; return 0;
}
#ifndef OLD
int nvmlDeviceGetMemoryInfo_v2(void *handle, memory2_t *memory) {
  memory->used = 3ull << 20; memory->reserved = 697ull << 20; return 0;
}
#endif
static int one(unsigned pid, unsigned *n, process_t *found) {
  if (*n < 1) { *n = 1; return 7; }
  found->pid = pid; found->used = 1; *n = 1; return 0;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *n, process_t *found) {
  return one(41, n, found);
}
int nvmlDeviceGetGraphicsRunningProcesses_v3(void *handle, unsigned *n, process_t *found) {
  return one(40, n, found);
}
"""


@pytest.mark.parametrize(("flags", "used_mib"), [((), 3), (("-DOLD",), 700)])
def test_what_the_driver_says(tmp_path: Path, flags: tuple[str, ...], used_mib: int) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler here to make a library that speaks as the driver's does")
    source = tmp_path / "nvml.c"
    source.write_text(LIBRARY)
    library = tmp_path / "libnvidia-ml.so.1"
    line = [compiler, "-shared", "-fPIC", *flags, "-o", str(library), str(source)]
    subprocess.run(line, check=True, capture_output=True)
    code = (
        "from harness.machine.gpu import gpu_use\n"
        "print(gpu_use('GPU-fake').model_dump_json(), gpu_use('GPU-other'))"
    )
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f'{{"pids":[40,41],"used_bytes":{used_mib * MIB}}} None\n'


def test_without_a_driver() -> None:
    if gpu_use("GPU-none") is not None:
        pytest.fail("a GPU of that name")
