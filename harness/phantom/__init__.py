"""Synthetic challenge data with known truth, on the grids and under the names of each edition.

Three anatomies: an abdomen in MR and CT, a chest at exhale and inhale, and a chain of brains, the
three tasks of 2021; chest and brains also as NLST of 2022 and LUMIR of 2024. The anatomy is painted
tissue by tissue, deformed by a field that is known exactly, and seen by simulated scanners. What a
submission may see goes to one folder, the truth to another.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from harness.challenge.model import DEFAULT_CHALLENGE
from harness.phantom.generate import generate
from harness.phantom.recipes import RECIPES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

__all__ = ["CHALLENGES", "write_phantoms"]

CHALLENGES = tuple(RECIPES)


def write_phantoms(
    data_dir: Path,
    truth_dir: Path,
    *,
    challenge: str = DEFAULT_CHALLENGE,
    pairs_per_task: int = 2,
    seed: int = 2021,
    tasks: Sequence[str] | None = None,
    workers: int | None = None,
    on_begin: Callable[[int, float], None] | None = None,
    on_progress: Callable[[str], None] | None = None,
) -> None:
    """Write a challenge's data (images, masks, lists of pairs) below `data_dir`, and below
    `truth_dir` the truth with the true fields.

    Without `tasks` all of the challenge's. A case's files depend on `seed`, task and case id only,
    whatever the number of pairs and of worker processes (None: one for each CPU). What is written
    appears when it is complete, the truth's first; a task whose folder holds anything already, or
    whose files are there, raises `DataError` before any work, a folder that cannot be written to
    `OutputError`. `on_begin` is then told the number of cases and about how many seconds they take.
    `on_progress` is told in this process about every finished case. The workers are spawned, so a
    script that calls this needs the usual `if __name__ == "__main__"` guard or `workers=1`.
    """
    generate(
        data_dir,
        truth_dir,
        challenge=challenge,
        pairs_per_task=pairs_per_task,
        seed=seed,
        tasks=tasks,
        workers=workers or os.cpu_count() or 1,
        on_begin=on_begin,
        on_progress=on_progress,
    )
