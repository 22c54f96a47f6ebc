"""The cases of each task, spread over processes and put in place only when complete."""

from __future__ import annotations

import math
import multiprocessing
import os
import shutil
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.challenge.model import TRUTH_DIGESTS_FILE
from harness.errors import DataError, OutputError
from harness.phantom.files import write_digests
from harness.phantom.recipes import RECIPES, Job, Recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

_CASE_S = 5.0  # that a process takes for a case: measured 4 (2021) to 7 (NLST)


@dataclass(frozen=True, kw_only=True)
class Target:
    """A task's folder, or the folder that its files join, filled only when they are all written.

    ``names``: the files and folders that join others there; empty for a folder of the task's own.
    """

    final: Path
    unfinished: Path
    names: tuple[str, ...]

    @classmethod
    def of(cls, recipe: Recipe, parent: Path, names: tuple[str, ...]) -> Target:
        """Raises DataError when something is there already."""
        final = parent / recipe.task if recipe.has_own_folder else parent
        _refuse_what_is_there([final / name for name in names] or [final])
        unfinished = parent / f".{recipe.task}.unfinished-{os.getpid()}"
        return cls(final=final, unfinished=unfinished, names=names)

    def begin(self) -> None:
        shutil.rmtree(self.unfinished, ignore_errors=True)
        self.unfinished.mkdir(parents=True)
        for name in self.names:
            if "." not in name:
                (self.unfinished / name).mkdir()

    def publish(self) -> None:
        """Move what is finished to its place, a list of pairs last; empty folders give way."""
        if not self.names:
            self.unfinished.replace(self.final)
            return
        for path in sorted(self.unfinished.iterdir(), key=lambda path: path.is_file()):
            path.replace(self.final / path.name)


def _refuse_what_is_there(paths: Sequence[Path]) -> None:
    for path in paths:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise DataError(
                f"{path} is there already and not empty; move it away or delete it first"
            )


def generate(
    data_dir: Path,
    truth_dir: Path,
    *,
    challenge: str,
    pairs_per_task: int,
    seed: int,
    tasks: Sequence[str] | None,
    workers: int,
    on_begin: Callable[[int, float], None] | None,
    on_progress: Callable[[str], None] | None,
) -> None:
    """See `harness.phantom.write_phantoms`."""
    recipes = _chosen(challenge, tasks)
    if truth_dir.resolve().is_relative_to(data_dir.resolve()):
        raise DataError(
            f"truth folder {truth_dir} lies in the data folder {data_dir}, which submissions see;"
            " put it beside the data"
        )
    if pairs_per_task < 1:
        raise DataError(f"phantom data: {pairs_per_task} pairs a task asked for; ask for 1 or more")
    with _output_errors(data_dir):
        _generate(
            data_dir,
            truth_dir,
            recipes,
            challenge=challenge,
            pairs_per_task=pairs_per_task,
            seed=seed,
            workers=workers,
            on_begin=on_begin,
            on_progress=on_progress,
        )


@contextmanager
def _output_errors(data_dir: Path) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:  # of whoever is told about the progress
        raise
    except OSError as error:
        raise OutputError(
            f"{error.filename or data_dir}: cannot be written ({error.strerror}); name folders "
            "that can, with --data and --truth"
        ) from error


def _generate(
    data_dir: Path,
    truth_dir: Path,
    recipes: Sequence[Recipe],
    *,
    challenge: str,
    pairs_per_task: int,
    seed: int,
    workers: int,
    on_begin: Callable[[int, float], None] | None,
    on_progress: Callable[[str], None] | None,
) -> None:
    targets = [
        (
            Target.of(recipe, data_dir, recipe.data_names),
            Target.of(recipe, truth_dir, recipe.truth_names),
        )
        for recipe in recipes
    ]
    try:
        for target in (target for both in targets for target in both):
            target.begin()
        jobs = [
            job
            for recipe, (data, truth) in zip(recipes, targets, strict=True)
            for job in _jobs(challenge, recipe, pairs_per_task, seed, data, truth)
        ]
        if on_begin is not None:
            on_begin(len(jobs), _CASE_S * math.ceil(len(jobs) / workers))
        for job in _execute(jobs, workers):
            if on_progress is not None:
                on_progress(f"{job.task} case {job.case}")
        for recipe, (data, truth) in zip(recipes, targets, strict=True):
            recipe.write_list(data.unfinished, recipe.pairs(pairs_per_task))
            _write_digests(data, truth)
            truth.publish()
            data.publish()
    finally:
        for target in (target for both in targets for target in both):
            shutil.rmtree(target.unfinished, ignore_errors=True)


def _chosen(challenge: str, tasks: Sequence[str] | None) -> list[Recipe]:
    if challenge not in RECIPES:
        raise DataError(
            f"phantom data: none can be made for challenge {challenge}, only for "
            f"{', '.join(RECIPES)}; put data of your own there"
        )
    by_name = {recipe.task: recipe for recipe in RECIPES[challenge]}
    names = list(by_name if tasks is None else dict.fromkeys(tasks))
    for task in names:
        if task not in by_name:
            raise DataError(f"phantom data: no task {task!r}; there are {', '.join(by_name)}")
    return [by_name[name] for name in names]


def _write_digests(data: Target, truth: Target) -> None:
    """Of all images of a task's own folder; elsewhere of those in its folders of images only, for
    masks have the same names."""
    name = TRUTH_DIGESTS_FILE
    images = data.unfinished.glob("images*/*.nii.gz" if data.names else "*.nii.gz")
    there = truth.final / name
    known = there.read_text("utf-8") if truth.names and there.is_file() else ""
    write_digests(truth.unfinished / name, images, known)


def _jobs(
    challenge: str, recipe: Recipe, count: int, seed: int, data: Target, truth: Target
) -> list[Job]:
    cases = recipe.cases(count)
    return [
        Job(
            challenge=challenge,
            task=recipe.task,
            case=case,
            seed=seed,
            has_next=case != cases[-1],
            data=data.unfinished,
            truth=truth.unfinished,
        )
        for case in cases
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
    (recipe,) = _chosen(job.challenge, [job.task])
    recipe.write_case(job)
    return job
