"""The engine's socket, the host's devices and kernel settings, other processes, the truth."""

import os
import stat
import subprocess
import sys
from pathlib import Path

READ = [
    "/var/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/proc/kcore",
    "/dev/mem",
    "/dev/kmsg",
    "/l2r/test/../truth",
    "/sys/firmware/dmi/tables/DMI",
]
WRITE = [
    "/proc/sysrq-trigger",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/vm/drop_caches",
    "/sys/kernel/uevent_helper",
    "/sys/fs/cgroup/cgroup.procs",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    "/sys/fs/cgroup/memory.max",
]
reached = []


def try_to(what: str, path: str, flags: int) -> None:
    try:
        descriptor = os.open(path, flags)
        content = os.read(descriptor, 1) if flags == os.O_RDONLY else b"?"
        os.close(descriptor)
    except OSError as error:
        print(f"refused: {what} {path} ({error.strerror})")
    else:
        if content:  # what the engine covers with /dev/null is empty
            reached.append(f"{what} {path}")


for path in READ:
    try_to("read", path, os.O_RDONLY)
for path in WRITE:
    try_to("write", path, os.O_WRONLY)
for device in Path("/dev").iterdir():
    if stat.S_ISBLK(device.lstat().st_mode):
        reached.append(f"block device {device}")
try:
    os.mknod("/tmp/disk", 0o600 | stat.S_IFBLK, os.makedev(254, 0))
    try_to("read", "/tmp/disk", os.O_RDONLY)
except OSError as error:
    print(f"refused: mknod ({error.strerror})")
processes = [Path(f"/proc/{name}/cmdline") for name in os.listdir("/proc") if name.isdigit()]
strangers = [path.read_bytes() for path in processes if b"dockerd" in path.read_bytes()]
reached += [f"process {command!r}" for command in strangers]
subprocess.run(["/faults/register", "1", "2", "3", "4"], check=True)
sys.exit(f"reached: {reached}" if reached else 0)
