"""From what a command was given (a challenge, or an official configuration) to the cases."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from harness.challenge.pairs import list_pairs_alone
from harness.errors import DataError
from harness.evaluate.challenge_cases import challenge_cases
from harness.evaluate.official import load_official_config, official_cases
from harness.evaluate.provenance import check_images_match
from harness.scoring.evaluate import Rulebook

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from harness.challenge.model import Challenge
    from harness.evaluate.rules import TaskCases


def cases_of_challenge(
    challenge: Challenge, truth: Path, places: Sequence[Path], names: Sequence[str] = ()
) -> tuple[TaskCases, ...]:
    """The cases of every task, or of those that are named, whose list of pairs is at hand.

    The lists are looked for in each of ``places``; the images are where they are, but for the truth
    folder, which has none. Raises DataError where there is none, and for a truth folder that is
    none.
    """
    if not truth.is_dir():
        raise DataError(f"truth folder {truth}: expected a folder, found none")
    known = [task.name for task in challenge.tasks]
    if unknown := [name for name in names if name not in known]:
        raise DataError(f"task {unknown[0]}: expected one of {', '.join(known)}")
    for place in places:
        if found := list_pairs_alone(challenge, place):
            wanted = [one for one in found if not names or one.task.name in names]
            if not wanted:
                raise DataError(f"{place}: expected the pairs of {names[0]}, found no list of them")
            images = None if place == truth else place
            return tuple(challenge_cases(one, truth, images) for one in wanted)
    lists = ", ".join(str(task.pairs.path) for task in challenge.tasks)
    raise DataError(
        f"{' and '.join(map(str, places))}: expected a list of pairs ({lists}), found none; put "
        "the lists there, or name the challenge's data with --data"
    )


def check_images(tasks: Iterable[TaskCases], truth: Path, data: Path) -> None:
    """Raises DataError where the truth says that it belongs to other images than these."""
    for task in tasks:
        paths = {data / path for pair in task.pairs.pairs for path in (pair.fixed, pair.moving)}
        there = sorted(path for path in paths if path.is_file())
        check_images_match(truth / task.pairs.task.folder, there)


def rulebook_of_challenge(challenge: Challenge, *, extras: bool, initial: bool) -> Rulebook:
    return Rulebook(
        challenge=challenge.name,
        challenge_digest=challenge.digest,
        extras=extras,
        initial=initial,
    )


def cases_of_config(
    config: Path, truth: Path, *, extras: bool, initial: bool
) -> tuple[Rulebook, TaskCases]:
    """What a public ``*_evaluation_config.json`` asks for."""
    rules = load_official_config(config)
    if not truth.is_dir():
        raise DataError(f"ground truth {truth}: expected a folder, found none")
    digest = hashlib.sha256(rules.model_dump_json().encode()).hexdigest()
    rulebook = Rulebook(
        challenge=rules.task_name,
        challenge_digest=f"sha256:{digest}",
        extras=extras,
        initial=initial,
    )
    return rulebook, official_cases(rules, truth)
