"""Checking and scoring the fields of one attempt, as `harness check` and `harness evaluate` do."""

from __future__ import annotations

import math
from contextlib import ExitStack
from statistics import fmean
from typing import TYPE_CHECKING

from harness import __version__, data_lock
from harness.campaign.events import Scored
from harness.challenge.model import Metric
from harness.challenge.pairs import check_data
from harness.check.check import check_fields
from harness.check.source import open_source
from harness.evaluate.record import CaseState
from harness.scoring.capacity import workers_that_fit
from harness.scoring.cases import cases_of_challenge, check_images, rulebook_of_challenge
from harness.scoring.evaluate import ZeroFields, check_truth, evaluate_source
from harness.scoring.pool import Pool
from harness.scoring.results import (
    cases_path,
    exit_code_of,
    initial_cases_path,
    worse,
    write_result,
)
from harness.scoring.source import look_at_source
from harness.store import sync_folder
from harness.text import harmless_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from harness.campaign.machine_lock import MachineLock
    from harness.challenge.model import Challenge
    from harness.check.report import CheckReport
    from harness.evaluate.record import Aggregate, EvaluationRecord, Score, TaskMetrics
    from harness.scoring.evaluate import Evaluated
    from harness.store import RunDirectory

    # Of the zero field's mean, the submission's, and the metric that they are of.
    Gain = Callable[[float | None, float | None, Metric], float | None]

_MAX_PROBLEM = 500
_GAINED = frozenset({Metric.DICE, Metric.TRE})  # what a registration is for, and each once


def score_attempt(
    run_dir: RunDirectory,
    challenge: Challenge,
    truth_dir: Path,
    data_dir: Path,
    *,
    lock: MachineLock,
    truth_digest: str | None,
    gain: Gain,
    patience_s: float | None = None,
    pool: Pool | None = None,
    zero: ZeroFields | None = None,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Scored:
    """The same files beside the run as the two commands write, and what the journal keeps of them.

    Heavy work: has the machine for itself, which is waited for ``patience_s`` (None: as long as it
    takes). ``gain``: see :func:`task_gain`. ``pool``: None for one of its own, which is gone when
    this returns: idle workers would hold some hundred MiB each while others are timed. ``zero``:
    shared by all attempts of a command; None for one that reads what earlier ones left beside the
    runs.

    Raises MachineBusy when others still have the machine then, DataError for truth or data that
    cannot be used, OutputError where nothing can be written. What is wrong with the fields is a
    result.
    """
    doing = f"scoring {run_dir.submission}"
    with lock.heavy(doing, patience_s=patience_s), data_lock.shared(data_dir):
        report = _checked(run_dir, challenge, data_dir)
        write_result(run_dir.check_path, report)
        found = _evaluated(run_dir, challenge, truth_dir, data_dir, pool, zero, on_progress)
    record = found.record
    write_result(run_dir.evaluation_path, record)
    sync_folder(run_dir.path)
    return Scored(
        team=run_dir.submission,
        run_id=run_dir.run_id,
        exit_code=worse(found.exit_code, exit_code_of(record)),
        findings=len(report.errors),
        truth_digest=truth_digest,
        harness_version=__version__,
        gains={name: task_gain(task, gain) for name, task in record.tasks.items()},
        metrics={name: _means(task) for name, task in record.tasks.items()},
        lacking={
            name: task.detail.expected - task.detail.scored
            for name, task in record.tasks.items()
            if task.detail.scored < task.detail.expected
        },
        problem=_problem(found),
    )


def _checked(run_dir: RunDirectory, challenge: Challenge, data_dir: Path) -> CheckReport:
    tasks = check_data(challenge, data_dir)
    with open_source(run_dir.path, run_dir.path.parent.parent, tasks) as source:
        return check_fields(challenge, tasks, source, data_dir=data_dir)


def _evaluated(
    run_dir: RunDirectory,
    challenge: Challenge,
    truth_dir: Path,
    data_dir: Path,
    pool: Pool | None,
    zero: ZeroFields | None,
    on_progress: Callable[[str], None],
) -> Evaluated:
    runs_dir = run_dir.path.parent.parent
    tasks = cases_of_challenge(challenge, truth_dir, [data_dir])
    check_images(tasks, truth_dir, data_dir)
    source = look_at_source(run_dir.path, tasks, runs_dir, all_tasks=False)
    check_truth(source.attempted)
    with ExitStack() as held:
        return evaluate_source(
            source,
            rulebook_of_challenge(challenge, extras=False, initial=True),
            cases_path(run_dir.evaluation_path),
            pool=pool or held.enter_context(Pool(workers_that_fit())),
            zero=zero or ZeroFields(initial_cases_path(runs_dir)),
            on_progress=on_progress,
        )


def task_gain(task: TaskMetrics, gain: Gain) -> float | None:
    """The mean over its metrics of what ``gain`` says of the means over all its cases. A case
    without a field is as good as the zero field there: leaving the hard ones out gains nothing."""
    gains = [
        gain(initial, value, Metric(metric))
        for name, metric in task.detail.metrics.items()
        if metric in _GAINED and (both := _both_means(task, name)) is not None
        for initial, value in [both]
    ]
    known = [one for one in gains if one is not None]
    return fmean(known) if known else None


def _both_means(task: TaskMetrics, name: str) -> tuple[float, float] | None:
    """Of the zero field and of the submission; None where the zero field was not scored."""
    initials, values = [], []
    for key, case in task.detail.cases.items():
        initial = _finite(case.initial.get(name))
        if initial is None:
            continue
        value = _finite(task.cases.get(key, {}).get(name))
        initials.append(initial)
        values.append(initial if value is None else value)
    return (fmean(initials), fmean(values)) if initials else None


def _finite(score: Score | Aggregate | None) -> float | None:
    mean = None if score is None else score.mean
    return mean if mean is not None and math.isfinite(mean) else None


def _means(task: TaskMetrics) -> dict[str, float | None]:
    return {name: _finite(aggregate) for name, aggregate in task.aggregates.items()}


def _problem(found: Evaluated) -> str | None:
    """What kept us from scoring some case, which is not the team's; the first of them."""
    if not found.exit_code:
        return None
    return next(_unscored(found.record), "some cases could not be scored")


def _unscored(record: EvaluationRecord) -> Iterator[str]:
    for task in record.tasks.values():
        for key, case in task.detail.cases.items():
            if case.state is CaseState.NOT_EVALUATED:
                yield harmless_line(f"{task.name} {key}: {case.reason}", _MAX_PROBLEM)
