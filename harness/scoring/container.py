"""The evaluation as a container that a challenge's site runs: who may be told what.

A team gets sentences about its own files, and the official numbers. Whatever else there is (where
the truth lies, which labels it has, why it cannot be used) is the organiser's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.challenge.model import FieldFormat, load_challenge
from harness.errors import DataError, FieldError
from harness.evaluate.record import CaseState
from harness.scoring.cases import cases_of_challenge, cases_of_config, rulebook_of_challenge
from harness.text import harmless

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from harness.evaluate.record import EvaluationRecord, TaskMetrics
    from harness.evaluate.rules import TaskCases
    from harness.scoring.evaluate import Rulebook

_MAX_SHOWN = 20  # cases that a message names
_MAX_TEXT = 400  # characters of one case's reason
_FIELD_SUFFIXES = tuple(suffix for kind in FieldFormat for suffix in kind.suffixes)


@dataclass(frozen=True, kw_only=True)
class Places:
    """``challenge``: a built-in name or a YAML file, where the truth folder has no official
    configuration."""

    submission: Path = Path("/input")
    truth: Path = Path("/opt/evaluation/ground-truth")
    output: Path = Path("/output/metrics.json")
    challenge: str | None = None

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Places:
        """``HARNESS_INPUT``, ``..._GROUND_TRUTH``, ``..._OUTPUT`` and ``..._CHALLENGE`` move
        what is elsewhere."""
        names = (("submission", "INPUT"), ("truth", "GROUND_TRUTH"), ("output", "OUTPUT"))
        paths = {
            field: Path(environment[f"HARNESS_{name}"])
            for field, name in names
            if f"HARNESS_{name}" in environment
        }
        return cls(**paths, challenge=environment.get("HARNESS_CHALLENGE"))


def find_rules(places: Places) -> tuple[Rulebook, tuple[TaskCases, ...], bool]:
    """What to score by, the cases, and whether the official configuration says so.

    Raises ChallengeError and DataError, whose messages are for the organiser.
    """
    found = sorted(places.truth.glob("*evaluation_config.json"))
    if len(found) == 1:
        rulebook, cases = cases_of_config(found[0], places.truth, extras=False, initial=False)
        return rulebook, (cases,), True
    if found or places.challenge is None:
        raise DataError(
            f"{places.truth}: expected one file *evaluation_config.json, or HARNESS_CHALLENGE, "
            f"found {len(found)} and no such variable"
        )
    challenge = load_challenge(places.challenge)
    tasks = cases_of_challenge(challenge, places.truth, [places.truth])
    return rulebook_of_challenge(challenge, extras=False, initial=False), tasks, False


def find_submission(folder: Path) -> Path:
    """The folder, or the one zip in it if there are no fields. Raises FieldError."""
    try:
        names = sorted(path.name for path in folder.iterdir())
        fields = [path for path in folder.rglob("*") if path.name.endswith(_FIELD_SUFFIXES)]
    except OSError as error:
        raise FieldError(f"the submission cannot be read ({error.strerror})") from error
    zips = [name for name in names if name.lower().endswith(".zip")]
    if fields or not zips:
        return folder
    if len(zips) > 1:
        raise FieldError(
            f"expected one zip, found {len(zips)}: {', '.join(map(harmless, zips[:4]))}; upload "
            "one with all fields in it"
        )
    return folder / zips[0]


def reject_if_incomplete(record: EvaluationRecord) -> None:
    """Raises FieldError for a submission of which a field is missing or cannot be used.

    The mean over what is there would be better than that of a complete one.
    """
    lines = list(_lines(record))
    if not lines:
        return
    more = f"\n  and {len(lines) - _MAX_SHOWN} more" if len(lines) > _MAX_SHOWN else ""
    shown = "".join(f"\n  - {line}" for line in lines[:_MAX_SHOWN])
    raise FieldError(f"the submission was not scored, for want of some fields:{shown}{more}")


def _lines(record: EvaluationRecord) -> Iterable[str]:
    yield from record.problems
    if record.problems and not any(task.detail.scored for task in record.tasks.values()):
        return  # of what cannot be opened, nothing else is known
    for name in record.not_attempted if not record.tasks else ():
        yield f"{name}: no field at all"
    for task in record.tasks.values():
        for key, case in task.detail.cases.items():
            if case.state in {CaseState.MISSING, CaseState.INVALID}:
                reason = harmless(case.reason or "")
                reason = reason if len(reason) <= _MAX_TEXT else reason[:_MAX_TEXT] + "..."
                yield f"{case.field or key}: {reason}"


def for_the_team(task: TaskMetrics) -> TaskMetrics:
    """The result without what its detail says about the truth: labels, and warnings with paths."""
    cases = {
        key: case.model_copy(update={"labels": {}, "warnings": ()})
        for key, case in task.detail.cases.items()
    }
    return task.model_copy(update={"detail": task.detail.model_copy(update={"cases": cases})})
