"""Every way to change or keep the images."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

IMAGE = Path("/l2r/test/task_01/img0001.nii.gz")
TRIES: dict[str, Callable[[], object]] = {
    "write": lambda: IMAGE.write_bytes(b"forged"),
    "append": lambda: os.open(IMAGE, os.O_WRONLY | os.O_APPEND),
    "truncate": lambda: os.truncate(IMAGE, 0),
    "delete": IMAGE.unlink,
    "rename": lambda: IMAGE.rename(IMAGE.with_name("other.nii.gz")),
    "new file": lambda: IMAGE.with_name("mine").touch(),
    "mode": lambda: IMAGE.chmod(0o777),
    "times": lambda: os.utime(IMAGE, (0, 0)),
    "hard link": lambda: os.link(IMAGE, "/l2r/submission/mine"),
    "attribute": lambda: os.setxattr(IMAGE, "user.mine", b"1"),
}
done = []
for what, action in TRIES.items():
    try:
        action()
    except OSError as error:
        print(f"refused: {what} ({error.strerror})")
    else:
        done.append(what)
if done:
    sys.exit(f"done: {done}")
subprocess.run(["/faults/register", "1", "2", "3", "4"], check=True)
