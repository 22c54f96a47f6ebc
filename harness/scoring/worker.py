"""A worker process: jobs in, outcomes out, until the other end is closed.

Nothing is imported here that reads how many threads it may have: that is set first.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

# One worker a core: threads of its own would only be in the others' way.
_ONE_THREAD = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def work(connection: Connection) -> None:
    for name in _ONE_THREAD:
        os.environ[name] = "1"
    # After the number of threads is set.
    from harness.evaluate.memory import give_back_memory  # noqa: PLC0415
    from harness.scoring.job import Compiling  # noqa: PLC0415
    from harness.scoring.score import Scorer  # noqa: PLC0415

    with connection, Scorer(on_compilation=lambda: connection.send(Compiling())) as scorer:
        while True:
            try:
                job = connection.recv()
                connection.send(scorer.score(job))
                give_back_memory()
            except (EOFError, BrokenPipeError, ConnectionResetError):
                return  # nobody asks or listens any more
