"""More files, core dumps, priority, real time; less likely to be killed; other users' rights."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
unlimited = resource.RLIM_INFINITY
TRIES: dict[str, Callable[[], object]] = {
    "open files": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files + 1, files + 1)),
    "core dumps": lambda: resource.setrlimit(resource.RLIMIT_CORE, (unlimited, unlimited)),
    "priority": lambda: os.setpriority(os.PRIO_PROCESS, 0, -20),
    "real time": lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(99)),
    "never killed": lambda: Path("/proc/self/oom_score_adj").write_text("-1000"),
    "host name": lambda: Path("/proc/sys/kernel/hostname").write_text("mine"),
    "join group 0": lambda: Path("/sys/fs/cgroup/pids/cgroup.procs").write_text("1"),
    "clock": lambda: os.system("date -s 2001-01-01 >&2 && exit 0 || exit 1") and int("refused"),
}
done = []
for what, action in TRIES.items():
    try:
        action()
    except (OSError, ValueError) as error:
        print(f"refused: {what} ({error})")
    else:
        done.append(what)
if done:
    sys.exit(f"done: {done}")
subprocess.run(["/faults/register", "1", "2", "3", "4"], check=True)
