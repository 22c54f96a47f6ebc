"""Whether the witness can watch: inotify's limits, real-time scheduling, open files."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from harness.doctor.finding import Finding, failure, ok, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

INOTIFY = Path("/proc/sys/fs/inotify")
# The witness watches a folder with one watch; a data folder has tens, other programs thousands.
MIN_WATCHES = 1024
MIN_INSTANCES = 16  # one a run, and whatever the desktop has open
# The kernel's own default. Fewer are lost in a burst, and with them the ranking.
MIN_QUEUE = 16_384
MIN_OPEN_FILES = 1024
_ASK_REALTIME = "import os; os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))"
_ASK_TIMEOUT_S = 5.0


def inotify(folder: Path = INOTIFY) -> Iterator[Finding]:
    subject = "file watching"
    try:
        limits = {
            name: int((folder / name).read_text())
            for name in ("max_user_watches", "max_user_instances", "max_queued_events")
        }
    except (OSError, ValueError) as error:
        yield failure(
            subject,
            f"no inotify ({error})",
            "runtimes are witnessed with inotify: use Linux, with /proc mounted",
        )
        return
    found = "{} watches, {} instances, queue of {} events".format(*limits.values())
    wanted = {
        "max_user_watches": (MIN_WATCHES, 65_536),
        "max_user_instances": (MIN_INSTANCES, 128),
        "max_queued_events": (MIN_QUEUE, MIN_QUEUE),
    }
    low = [name for name, (least, _) in wanted.items() if limits[name] < least]
    if low:
        settings = " ".join(f"fs.inotify.{name}={wanted[name][1]}" for name in low)
        yield warning(
            subject,
            found,
            "the witness may miss events, and then runtimes are not ranked",
            f"sudo sysctl -w {settings}",
        )
    else:
        yield ok(subject, found)


def realtime() -> Iterator[Finding]:
    """Tried in a process of its own, so that this one keeps its scheduling."""
    attempt = subprocess.run(
        [sys.executable, "-I", "-c", _ASK_REALTIME],
        capture_output=True,
        check=False,
        timeout=_ASK_TIMEOUT_S,
    )
    subject = "real-time scheduling"
    if attempt.returncode == 0:
        yield ok(subject, "the witness gets SCHED_FIFO: precise to a fraction of a millisecond")
    else:
        yield warning(
            subject,
            "refused: runtimes are precise to milliseconds, 25 ms at worst on a busy machine",
            "run as root, or grant it to yourself and log in again",
            'echo "$USER - rtprio 50" | sudo tee /etc/security/limits.d/harness.conf',
        )


def open_files(soft: int | None = None) -> Iterator[Finding]:
    """``soft``: the limit of this process, if not looked up."""
    count = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if soft is None else soft
    if count != resource.RLIM_INFINITY and count < MIN_OPEN_FILES:
        yield warning(
            "open files",
            f"{count} a process",
            "a watched folder and a run's files need some hundred",
            f"ulimit -n {MIN_OPEN_FILES}",
        )
    else:
        words = "unlimited" if count == resource.RLIM_INFINITY else str(count)
        yield ok("open files", f"{words} a process")
