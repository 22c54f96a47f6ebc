"""``python -m harness.probe``: watches what one JSON line on stdin says, until stdin ends.

Prints the trace's header once it watches. Not meant to be called by hand: see
:mod:`harness.probe.client`.
"""

from __future__ import annotations

import os
import signal
import sys

from harness.probe.spec import WatchSpec
from harness.probe.watch import Watcher

_CHUNK_BYTES = 1 << 16


def main() -> int:
    # Ctrl-C reaches the whole process group; the witness must outlive what it watches.
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    try:
        line = _read_line(sys.stdin.fileno())
        if not line:  # started ahead, and not needed after all
            return 0
        spec = WatchSpec.from_line(line)
        watcher = Watcher(spec)
        with spec.trace.open("wb") as trace:
            watcher.run(trace, sys.stdin.fileno(), sys.stdout.buffer)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _read_line(descriptor: int) -> bytes:
    """The only line there will be; empty when there is none.

    Nothing is buffered, as the watch polls the descriptor itself for its end. An unbuffered file
    object reads byte by byte, which takes 0.2 s for a thousand pairs.
    """
    parts: list[bytes] = []
    while chunk := os.read(descriptor, _CHUNK_BYTES):
        parts.append(chunk)
        if chunk.endswith(b"\n"):
            break
    return b"".join(parts)


if __name__ == "__main__":
    sys.exit(main())
