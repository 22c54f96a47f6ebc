"""``python -m harness.sampler``: looks at the GPUs that one JSON line on stdin names, until stdin
ends; further lines say whose processes are the submission's.

Prints the samples' header once it looks. Not meant to be called by hand: see
:mod:`harness.sampler.client`.
"""

from __future__ import annotations

import os
import signal
import sys

from harness.sampler.driver import DriverError
from harness.sampler.loop import Sampling
from harness.sampler.spec import SampleSpec

_CHUNK_BYTES = 1 << 12


def main() -> int:
    # Ctrl-C reaches the whole process group; the sampler must outlive what it looks at.
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    control = sys.stdin.fileno()
    try:
        line, more = _first_line(control)
        if not line:  # started ahead, and not needed after all
            return 0
        Sampling(SampleSpec.from_line(line), heard=more).run(control, sys.stdout.buffer)
    except (DriverError, OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _first_line(descriptor: int) -> tuple[bytes, bytes]:
    """And what came behind it. Nothing is buffered, as the loop itself waits for the descriptor."""
    heard = b""
    while b"\n" not in heard and (chunk := os.read(descriptor, _CHUNK_BYTES)):
        heard += chunk
    line, _, more = heard.partition(b"\n")
    return line, more


if __name__ == "__main__":
    sys.exit(main())
