"""Synthetic challenge data with known truth, on the grids of the 2021 edition.

Three tasks: an abdomen in MR and CT, a chest at exhale and inhale, and a chain of brains. The
anatomy is painted tissue by tissue, deformed by a field that is known exactly, and seen by
simulated scanners. What a submission may see goes to one folder, the truth to another.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from harness.phantom.generate import TASKS, generate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

__all__ = ["write_phantoms"]


def write_phantoms(
    data_dir: Path,
    truth_dir: Path,
    *,
    pairs_per_task: int = 2,
    seed: int = 2021,
    tasks: Sequence[str] = TASKS,
    workers: int | None = None,
    on_progress: Callable[[str], None] | None = None,
) -> None:
    """Write `data_dir/task_0X` (images, masks, pair list) and `truth_dir/task_0X`.

    A case's files depend on `seed`, task and case id only, whatever the number of pairs and of
    worker processes (None: one for each CPU). Task folders appear when they are complete, the
    truth's first; a task folder that holds anything already raises `DataError` before any work.
    `on_progress` is told in this process about every finished case. The workers are spawned, so a
    script that calls this needs the usual `if __name__ == "__main__"` guard or `workers=1`.
    """
    generate(
        data_dir,
        truth_dir,
        pairs_per_task=pairs_per_task,
        seed=seed,
        tasks=tasks,
        workers=workers or os.cpu_count() or 1,
        on_progress=on_progress,
    )
