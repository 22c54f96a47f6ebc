"""Run a command that ends when the harness does:
``python leash.py <harness pid> <CPUs, or all> <command> ...``

A stand-alone program of the process engine, standard library only; it asks the kernel to kill it
when its parent dies, then becomes the command. The request outlives the exec (prctl(2)). A
``preexec_fn`` would do the same, but runs Python between fork and exec, which is not safe in a
process with threads. Its children are not covered: those a sweep finds.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

ALL_CPUS = "all"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    parent, cpus, command = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the request was made
        sys.exit(128 + signal.SIGKILL)
    if cpus != ALL_CPUS:
        os.sched_setaffinity(0, [int(cpu) for cpu in cpus.split(",")])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"{command[0]}: {error}")


if __name__ == "__main__":
    main()
