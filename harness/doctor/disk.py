"""Room for fields, traces and images: here, and where the engine keeps its own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from harness.challenge.quantity import format_bytes
from harness.doctor.finding import Finding, ok, warning

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIN_FREE_BYTES = 5 << 30  # a run's fields, its trace and an image
MIN_FREE_FILES = 100_000  # as many as a run may make


def disk(subject: str, folder: Path, command: str) -> Iterator[Finding]:
    try:
        state = os.statvfs(folder)
    except OSError as error:
        yield ok(subject, f"{folder} cannot be seen from here ({error.strerror})")
        return
    # A file system that makes its inodes as it needs them says 0 of 0.
    files = state.f_favail if state.f_files else None
    yield judge_disk(
        subject,
        str(folder),
        free_bytes=state.f_bavail * state.f_frsize,
        free_files=files,
        command=command,
    )


def judge_disk(
    subject: str, folder: str, *, free_bytes: int, free_files: int | None, command: str
) -> Finding:
    """``free_files``: None where the file system has no limit of its own."""
    found = f"{format_bytes(free_bytes)} free at {folder}"
    if free_bytes < MIN_FREE_BYTES:
        return warning(
            subject, found, "a run needs some GiB for images and fields: make room", command
        )
    if free_files is not None and free_files < MIN_FREE_FILES:
        found += f", and room for {free_files} more files"
        return warning(subject, found, "a run may make 100000 files: remove small ones", command)
    return ok(subject, found)
