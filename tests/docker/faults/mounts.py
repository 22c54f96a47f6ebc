"""Mounts, namespaces and roots of its own."""

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable

MS_REMOUNT, MS_BIND, CLONE_NEWNS, CLONE_NEWUSER = 32, 4096, 0x20000, 0x10000000
libc = ctypes.CDLL(None, use_errno=True)
os.makedirs("/tmp/here", exist_ok=True)
TRIES: dict[str, Callable[[], int]] = {
    "mount a tmpfs": lambda: libc.mount(b"tmpfs", b"/tmp/here", b"tmpfs", 0, None),
    "mount proc": lambda: libc.mount(b"proc", b"/tmp/here", b"proc", 0, None),
    "bind the root": lambda: libc.mount(b"/", b"/tmp/here", None, MS_BIND, None),
    "remount the data": lambda: libc.mount(None, b"/l2r/test", None, MS_REMOUNT | MS_BIND, None),
    "unmount the data": lambda: libc.umount2(b"/l2r/test", 2),
    "unmount its output": lambda: libc.umount2(b"/l2r/submission", 2),
    "new mount namespace": lambda: libc.unshare(CLONE_NEWNS),
    "new user namespace": lambda: libc.unshare(CLONE_NEWUSER | CLONE_NEWNS),
    "change its root": lambda: libc.chroot(b"/tmp"),
}
done = []
for what, action in TRIES.items():
    if action() == 0:
        done.append(what)
    else:
        print(f"refused: {what} ({os.strerror(ctypes.get_errno())})")
if done:
    sys.exit(f"done: {done}")
subprocess.run(["/faults/register", "1", "2", "3", "4"], check=True)
