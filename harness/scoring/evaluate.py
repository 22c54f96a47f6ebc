"""One submission's fields to one record. What is known is kept; the rest goes to workers."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness import __version__
from harness.errors import DataError
from harness.evaluate.aggregate import task_metrics
from harness.evaluate.record import CaseState, EvaluationRecord
from harness.evaluate.truth import truth_problems
from harness.scoring.job import Job
from harness.scoring.journal import SharedJournal, open_journal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from harness.evaluate.record import CaseRecord
    from harness.evaluate.rules import Case, TaskCases
    from harness.scoring.job import Outcome
    from harness.scoring.journal import Journal, Place
    from harness.scoring.pool import Pool
    from harness.scoring.source import Source


@dataclass(frozen=True, kw_only=True)
class Rulebook:
    """What all submissions of a command are scored by, as the record names it."""

    challenge: str
    challenge_digest: str
    extras: bool = False
    initial: bool = True


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """``exit_code``: 0, or that of the first error that kept a case from being evaluated.
    ``reused``: how many of the ``computed + reused`` results were known already."""

    record: EvaluationRecord
    exit_code: int
    computed: int
    reused: int


class ZeroFields:
    """Results of the zero field, which all submissions share: computed once a command, and once for
    all commands that are given the same ``journal`` (:func:`.results.initial_cases_path`)."""

    def __init__(self, journal: Path | None = None) -> None:
        self.records: dict[tuple[str, str], CaseRecord] = {}
        self._journal = SharedJournal(journal)

    def of(self, task: TaskCases) -> dict[str, CaseRecord]:
        name = task.rules.name
        found = ((case.key, self.records.get((name, case.key))) for case in task.cases)
        return {key: record for key, record in found if record is not None}

    def known(self, task: str, key: str) -> CaseRecord | None:
        """What an earlier command found, of this truth or of another."""
        return self._journal.known.get((task, True, key))

    def add(self, task: str, outcome: Outcome) -> None:
        self.records[task, outcome.record.key] = outcome.record
        if _is_new(outcome):
            self._journal.add(task, outcome.record, zero=True)


def check_truth(tasks: Iterable[TaskCases]) -> None:
    """Raises DataError with everything that headers and landmark files say is wrong."""
    problems = [text for task in tasks for text in truth_problems(task.rules, task.cases)]
    if problems:
        n = f"{len(problems)} finding{'s' if len(problems) > 1 else ''}"
        raise DataError(f"the truth cannot be used: {n}", problems)


def evaluate_source(
    source: Source,
    rulebook: Rulebook,
    journal_path: Path,
    *,
    pool: Pool,
    zero: ZeroFields,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Evaluated:
    """The record of one source. Each result is in the journal before the next is looked at.

    ``on_progress`` is told the key of each case that is done, :func:`n_steps` in all. Raises
    OutputError for a journal that cannot be written.
    """
    with open_journal(journal_path) as journal:
        found: dict[Place, CaseRecord] = {}
        for task, case in _cases(source):
            if source.field_of(case) is None:
                found[task.rules.name, False, case.key] = source.without_field(case)
                on_progress(case.key)
        exit_code = computed = reused = 0
        jobs = list(_jobs(source, rulebook, journal, zero))
        for job, outcome in pool.run(jobs):
            if job.field is None:
                zero.add(job.rules.name, outcome)
            else:
                if _is_new(outcome):
                    journal.add(job.rules.name, outcome.record, zero=False)
                found[job.rules.name, False, job.case.key] = outcome.record
            exit_code = exit_code or outcome.exit_code
            computed, reused = computed + (not outcome.reused), reused + outcome.reused
            on_progress(job.case.key)
    return Evaluated(
        record=_record(source, rulebook, found, zero),
        exit_code=exit_code,
        computed=computed,
        reused=reused,
    )


def n_steps(source: Source, rulebook: Rulebook, zero: ZeroFields) -> int:
    cases = list(_cases(source))
    done = sum((task.rules.name, case.key) in zero.records for task, case in cases)
    return len(cases) + (len(cases) - done if rulebook.initial else 0)


def _cases(source: Source) -> Iterator[tuple[TaskCases, Case]]:
    return ((task, case) for task in source.attempted for case in task.cases)


def _jobs(source: Source, rulebook: Rulebook, journal: Journal, zero: ZeroFields) -> Iterator[Job]:
    for task, case in _cases(source):
        name = task.rules.name
        places = [source.field_of(case)] if source.field_of(case) is not None else []
        for place in [*places, None] if _wants_zero(rulebook, zero, name, case) else places:
            yield Job(
                rules=task.rules,
                case=case,
                field=place,
                extras=rulebook.extras and place is not None,
                known=zero.known(name, case.key)
                if place is None
                else journal.known.get((name, False, case.key)),
            )


def _wants_zero(rulebook: Rulebook, zero: ZeroFields, task: str, case: Case) -> bool:
    return rulebook.initial and (task, case.key) not in zero.records


def _is_new(outcome: Outcome) -> bool:
    """Is it to be kept? What failed for want of truth or memory is tried again."""
    return not outcome.reused and outcome.record.state is not CaseState.NOT_EVALUATED


def _record(
    source: Source,
    rulebook: Rulebook,
    found: dict[Place, CaseRecord],
    zero: ZeroFields,
) -> EvaluationRecord:
    return EvaluationRecord(
        harness_version=__version__,
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        source=str(source.spec.path),
        challenge=rulebook.challenge,
        challenge_digest=rulebook.challenge_digest,
        tasks={
            task.rules.name: task_metrics(
                task.rules,
                [found[task.rules.name, False, case.key] for case in task.cases],
                zero.of(task),
            )
            for task in source.attempted
        },
        not_attempted=source.not_attempted,
        problems=source.problems,
    )
