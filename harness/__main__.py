"""The ``harness`` command's first steps: what can go on while Python imports all the rest.

Half of what `harness run` costs beyond the run itself is importing (bench/overhead.py).
"""

from __future__ import annotations

import gc
import sys

from harness.probe.client import ChildProgram

_END_TIMEOUT_S = 5.0


def main() -> None:
    # What is imported stays: looking in between for what could be freed is a tenth of the time.
    gc.disable()
    ahead = _start_witness() if sys.argv[1:2] == ["run"] else None
    try:
        from harness.cli import main as command  # noqa: PLC0415 - after the witness's start

        gc.freeze()
        gc.enable()
        command(ahead)
    finally:
        if ahead is not None:
            ahead.end(_END_TIMEOUT_S)


def _start_witness() -> ChildProgram | None:
    """The program of the run's witness, which is told later what to watch, or that it is not
    needed. It takes as long to start as importing a third of the rest."""
    program = ChildProgram()
    try:
        program.start()
    except OSError:  # the run starts its own then, and says what is wrong
        return None
    return program


if __name__ == "__main__":
    main()
