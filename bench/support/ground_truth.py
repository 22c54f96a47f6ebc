"""The witnessed program: does what a submission does to its files, and stamps it itself.

Runs inside a container with Python and nothing else: ``ground_truth.py PAIRS SPINNERS``. For each
pair it opens the input, waits a few milliseconds and writes the field, in turn by closing the file
and by renaming it. ``truth.json`` gets CLOCK_MONOTONIC, in ns, before and after each of the calls.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from pathlib import Path

DATA, OUTPUT = Path("/l2r/test"), Path("/l2r/submission")
PAUSE_S = (0.002, 0.012)
SETTLE_S = 0.5  # the spinners have used up what a new process is favoured with


def main() -> None:
    pairs, spinners = int(sys.argv[1]), int(sys.argv[2])
    for _ in range(spinners):
        if os.fork() == 0:
            while True:  # until the container ends
                pass
    time.sleep(SETTLE_S)
    random_pause = random.Random(2021)
    stamps = []
    for index in range(1, pairs + 1):
        opening = open_input(DATA / f"task/img{index:04d}")
        time.sleep(random_pause.uniform(*PAUSE_S))
        final = OUTPUT / f"task/disp{index:04d}"
        writing = write_and_close(final) if index % 2 else write_and_rename(final)
        stamps.append((*opening, *writing))
        time.sleep(random_pause.uniform(*PAUSE_S))
    (OUTPUT / "truth.json").write_text(json.dumps(stamps))


def open_input(path: Path) -> tuple[int, int]:
    before_ns = time.monotonic_ns()
    descriptor = os.open(path, os.O_RDONLY)
    after_ns = time.monotonic_ns()
    os.read(descriptor, 4096)
    os.close(descriptor)
    return before_ns, after_ns


def write_and_close(path: Path) -> tuple[int, int]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, bytes(4096))
    before_ns = time.monotonic_ns()
    os.close(descriptor)
    return before_ns, time.monotonic_ns()


def write_and_rename(path: Path) -> tuple[int, int]:
    part = path.with_suffix(".part")
    part.write_bytes(bytes(4096))
    before_ns = time.monotonic_ns()
    os.rename(part, path)  # noqa: PTH104 - nothing between the stamps but the call
    return before_ns, time.monotonic_ns()


if __name__ == "__main__":
    main()
