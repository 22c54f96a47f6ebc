"""Traces its init, which is of its own container, and every process outside that it can name."""

import ctypes
import os
import subprocess
import sys

PTRACE_ATTACH, PTRACE_DETACH = 16, 17
libc = ctypes.CDLL(None, use_errno=True)
inside = {int(name) for name in os.listdir("/proc") if name.isdigit()}
traced = []
for pid in range(1, 40000):
    if pid != os.getpid() and libc.ptrace(PTRACE_ATTACH, pid, None, None) == 0:
        os.waitpid(pid, 0x40000000)  # __WALL
        libc.ptrace(PTRACE_DETACH, pid, None, None)
        if pid not in inside:
            traced.append(pid)
print(f"refused: {40000 - len(inside)} processes outside")
if traced:
    sys.exit(f"traced: {traced}")
subprocess.run(["/faults/register", "1", "2", "3", "4"], check=True)
