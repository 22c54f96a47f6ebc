"""What this machine has for timed runs, and what it lacks, each with the way to get it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from harness.challenge.quantity import format_bytes
from harness.engine.docker import DockerEngine
from harness.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterator

_MIN_FREE_BYTES = 5 << 30  # a run's fields, its trace and an image
_MIN_WATCHES = 1024
_BUSY_PERCENT = 20.0


class Level(IntEnum):
    OK = 0
    WARNING = 1
    FAILURE = 2


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line: what was looked at, what was found, and what to do unless the level is OK."""

    level: Level
    subject: str
    found: str
    remedy: str = ""


def examine() -> Iterator[Finding]:
    yield _engine()
    yield _inotify()
    yield _realtime()
    yield _processors()
    yield _disk()


def _engine() -> Finding:
    try:
        info = DockerEngine.connect().info
    except EngineError as error:
        return Finding(
            level=Level.WARNING,
            subject="container engine",
            found=str(error),
            remedy="without one, runs have no isolation: `harness run` uses the process engine",
        )
    return Finding(level=Level.OK, subject="container engine", found=f"{info.name} {info.version}")


def _inotify() -> Finding:
    limits = Path("/proc/sys/fs/inotify")
    try:
        watches = int((limits / "max_user_watches").read_text())
        queue = int((limits / "max_queued_events").read_text())
    except (OSError, ValueError) as error:
        return Finding(
            level=Level.FAILURE,
            subject="file watching",
            found=f"no inotify ({error})",
            remedy="runtimes are witnessed with inotify: use Linux",
        )
    found = f"{watches} watches, queue of {queue} events"
    if watches < _MIN_WATCHES:
        return Finding(
            level=Level.WARNING,
            subject="file watching",
            found=found,
            remedy="sysctl fs.inotify.max_user_watches=65536",
        )
    return Finding(level=Level.OK, subject="file watching", found=found)


def _realtime() -> Finding:
    """Tried in a process of its own, so that this one keeps its scheduling."""
    attempt = subprocess.run(
        [
            sys.executable,
            "-I",
            "-c",
            "import os; os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))",
        ],
        capture_output=True,
        check=False,
    )
    if attempt.returncode == 0:
        found = "the witness gets SCHED_FIFO: precise to a fraction of a millisecond"
        return Finding(level=Level.OK, subject="real-time scheduling", found=found)
    return Finding(
        level=Level.WARNING,
        subject="real-time scheduling",
        found="refused: runtimes are precise to milliseconds, 25 ms at worst on a busy machine",
        remedy="run as root, or grant it: ulimit -r 50 (limits.conf: rtprio)",
    )


def _processors() -> Finding:
    busy_percent = psutil.cpu_percent(interval=1.0)
    found = f"{os.cpu_count()} CPUs, {busy_percent:.0f} % busy"
    if busy_percent > _BUSY_PERCENT:
        return Finding(
            level=Level.WARNING,
            subject="processors",
            found=found,
            remedy="end what else runs here before runtimes that matter",
        )
    return Finding(level=Level.OK, subject="processors", found=found)


def _disk() -> Finding:
    free_bytes = shutil.disk_usage(".").free
    found = f"{format_bytes(free_bytes)} free here"
    if free_bytes < _MIN_FREE_BYTES:
        return Finding(
            level=Level.WARNING,
            subject="disk",
            found=found,
            remedy="make room: a run needs some GiB for images and fields (make clean)",
        )
    return Finding(level=Level.OK, subject="disk", found=found)
