"""What each challenge's phantom data consists of: tasks, their pairs, who writes a case's files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.challenge.model import DEFAULT_CHALLENGE
from harness.phantom.abdomen.pair import write_abdomen_pair
from harness.phantom.brain import lumir
from harness.phantom.brain.chain import write_subject
from harness.phantom.chest import nlst
from harness.phantom.chest.pair import write_lung_pair
from harness.phantom.files import write_pairs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    Pairs = Sequence[tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One case of one task and the unfinished folders its files go to."""

    challenge: str
    task: str
    case: int
    seed: int
    has_next: bool  # of a chain: another subject follows
    data: Path
    truth: Path

    def rng(self, number: int) -> np.random.Generator:
        """Random numbers that depend on the seed, the anatomy's number and the case only."""
        return np.random.default_rng([self.seed, number, self.case])


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One task of a challenge.

    ``is_chain``: the moving case of a pair is the fixed one of the next. ``data_names`` and
    ``truth_names``: what it puts into the data folder and the truth folder itself; empty where it
    has a folder of its name in both.
    """

    task: str
    first_case: int
    write_case: Callable[[Job], None]
    write_list: Callable[[Path, Pairs], None]
    case_step: int = 1
    is_chain: bool = False
    data_names: tuple[str, ...] = ()
    truth_names: tuple[str, ...] = ()

    @property
    def has_own_folder(self) -> bool:
        return not self.data_names

    def pairs(self, count: int) -> list[tuple[int, int]]:
        """The (fixed, moving) case ids of the first `count` pairs."""
        last = self.first_case + count * self.case_step
        fixed = range(self.first_case, last, self.case_step)
        return [(case, case + self.is_chain) for case in fixed]

    def cases(self, count: int) -> list[int]:
        return sorted({case for pair in self.pairs(count) for case in pair})


def _write_abdomen(job: Job) -> None:
    write_abdomen_pair(job.case, job.rng(1), job.data, job.truth)


def _write_lung(job: Job) -> None:
    write_lung_pair(job.case, job.rng(2), job.data, job.truth)


def _write_brain(job: Job) -> None:
    write_subject(job.case, job.seed, has_next=job.has_next, data=job.data, truth=job.truth)


def _write_nlst(job: Job) -> None:
    nlst.write_nlst_pair(job.case, job.rng(2), job.data, job.truth)


def _write_lumir(job: Job) -> None:
    lumir.write_lumir_subject(
        job.case, job.seed, has_next=job.has_next, data=job.data, truth=job.truth
    )


def _write_csv(data: Path, pairs: Pairs) -> None:
    write_pairs(data / "pairs_val.csv", pairs)


RECIPES: dict[str, tuple[Recipe, ...]] = {
    DEFAULT_CHALLENGE: (
        Recipe(
            task="task_01",
            first_case=12,
            case_step=2,
            write_case=_write_abdomen,
            write_list=_write_csv,
        ),
        Recipe(task="task_02", first_case=1, write_case=_write_lung, write_list=_write_csv),
        Recipe(
            task="task_03",
            first_case=438,
            is_chain=True,
            write_case=_write_brain,
            write_list=_write_csv,
        ),
    ),
    "learn2reg2022": (
        Recipe(
            task="NLST",
            first_case=nlst.FIRST_CASE,
            write_case=_write_nlst,
            write_list=nlst.write_nlst_list,
            data_names=nlst.DATA_NAMES,
            truth_names=nlst.TRUTH_NAMES,
        ),
    ),
    "lumir2024": (
        Recipe(
            task="LUMIR",
            first_case=lumir.FIRST_CASE,
            is_chain=True,
            write_case=_write_lumir,
            write_list=lumir.write_lumir_list,
            data_names=lumir.DATA_NAMES,
            truth_names=lumir.TRUTH_NAMES,
        ),
    ),
}
