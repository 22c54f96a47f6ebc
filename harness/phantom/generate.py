"""The cases of each task, spread over processes and put in place only when complete."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.challenge.model import TRUTH_DIGESTS_FILE
from harness.errors import DataError
from harness.phantom.abdomen.pair import write_abdomen_pair
from harness.phantom.brain.chain import write_subject
from harness.phantom.chest.pair import write_lung_pair
from harness.phantom.files import write_digests, write_pairs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

TASKS = ("task_01", "task_02", "task_03")
FIRST_BRAIN = 438


@dataclass(frozen=True, kw_only=True)
class Job:
    """One case of one task and the unfinished folders its files go to."""

    task: str
    case: int
    seed: int
    has_next: bool  # task_03: another subject follows in the chain
    data: Path
    truth: Path


@dataclass(frozen=True, kw_only=True)
class Target:
    """A folder that appears under its own name only when everything in it is written."""

    final: Path
    unfinished: Path

    def publish(self) -> None:
        """Move the finished folder to its place; an empty folder there gives way."""
        self.unfinished.replace(self.final)


def pairs_of(task: str, count: int) -> list[tuple[int, int]]:
    """The (fixed, moving) case ids of a task's first `count` pairs."""
    if task == "task_01":
        return [(case, case) for case in range(12, 12 + 2 * count, 2)]
    if task == "task_02":
        return [(case, case) for case in range(1, 1 + count)]
    return [(case, case + 1) for case in range(FIRST_BRAIN, FIRST_BRAIN + count)]


def generate(
    data_dir: Path,
    truth_dir: Path,
    *,
    pairs_per_task: int,
    seed: int,
    tasks: Sequence[str],
    workers: int,
    on_progress: Callable[[str], None] | None,
) -> None:
    """See `harness.phantom.write_phantoms`."""
    tasks = list(dict.fromkeys(tasks))
    _check_tasks(tasks)
    if truth_dir.resolve().is_relative_to(data_dir.resolve()):
        raise DataError(
            f"truth folder {truth_dir} lies in the data folder {data_dir}, which submissions see;"
            " put it beside the data"
        )
    if pairs_per_task < 1:
        raise DataError(f"phantom data: {pairs_per_task} pairs a task asked for; ask for 1 or more")
    targets = {(t, d): _target(d, t) for t in tasks for d in (data_dir, truth_dir)}
    try:
        for target in targets.values():
            shutil.rmtree(target.unfinished, ignore_errors=True)
            target.unfinished.mkdir(parents=True)
        jobs = [
            job
            for task in tasks
            for job in _jobs(
                task,
                pairs_per_task,
                seed,
                targets[task, data_dir].unfinished,
                targets[task, truth_dir].unfinished,
            )
        ]
        for job in _execute(jobs, workers):
            if on_progress is not None:
                on_progress(f"{job.task} case {job.case}")
        for task in tasks:
            write_pairs(
                targets[task, data_dir].unfinished / "pairs_val.csv", pairs_of(task, pairs_per_task)
            )
            write_digests(
                targets[task, truth_dir].unfinished / TRUTH_DIGESTS_FILE,
                targets[task, data_dir].unfinished.glob("*.nii.gz"),
            )
            targets[task, truth_dir].publish()
            targets[task, data_dir].publish()
    finally:
        for target in targets.values():
            shutil.rmtree(target.unfinished, ignore_errors=True)


def _check_tasks(tasks: Sequence[str]) -> None:
    for task in tasks:
        if task not in TASKS:
            raise DataError(f"phantom data: no task {task!r}; there are {', '.join(TASKS)}")


def _target(parent: Path, task: str) -> Target:
    final = parent / task
    if final.exists() and (not final.is_dir() or any(final.iterdir())):
        raise DataError(f"{final} is there already and not empty; move it away or delete it first")
    return Target(final=final, unfinished=parent / f".{task}.unfinished-{os.getpid()}")


def _jobs(task: str, count: int, seed: int, data: Path, truth: Path) -> list[Job]:
    fixed = [pair[0] for pair in pairs_of(task, count)]
    cases = [*fixed, fixed[-1] + 1] if task == "task_03" else fixed
    return [
        Job(task=task, case=c, seed=seed, has_next=c != cases[-1], data=data, truth=truth)
        for c in cases
    ]


def _execute(jobs: Sequence[Job], workers: int) -> Iterator[Job]:
    """Do all jobs; gives each back when it is done."""
    if workers == 1 or len(jobs) == 1:
        yield from map(write_case, jobs)
        return
    context = multiprocessing.get_context("spawn")  # forking a threaded parent can deadlock
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context) as pool:
        try:
            for future in as_completed([pool.submit(write_case, job) for job in jobs]):
                yield future.result()
        finally:  # after a failure the cases not yet begun are of no use
            pool.shutdown(cancel_futures=True)


def write_case(job: Job) -> Job:
    """Write one case's files. What they hold depends on the seed, the task and the case only."""
    rng = np.random.default_rng([job.seed, TASKS.index(job.task) + 1, job.case])
    if job.task == "task_01":
        write_abdomen_pair(job.case, rng, job.data, job.truth)
    elif job.task == "task_02":
        write_lung_pair(job.case, rng, job.data, job.truth)
    else:
        write_subject(job.case, job.seed, has_next=job.has_next, data=job.data, truth=job.truth)
    return job
