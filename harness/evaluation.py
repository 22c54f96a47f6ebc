"""What `harness evaluate` does: from its options to results, and what is shown of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness import console
from harness.challenge.model import builtin_names, load_challenge
from harness.check.source import find_run
from harness.console_evaluate import Rows, show_cases, show_tables
from harness.errors import ChallengeError, DataError, Interrupted
from harness.live import Counter
from harness.scoring.capacity import workers_that_fit
from harness.scoring.cases import (
    cases_of_challenge,
    cases_of_config,
    check_images,
    rulebook_of_challenge,
)
from harness.scoring.evaluate import ZeroFields, check_truth, evaluate_source, n_steps
from harness.scoring.pool import Pool
from harness.scoring.results import (
    cases_path,
    exit_code_of,
    initial_cases_path,
    worse,
    write_result,
)
from harness.scoring.source import look_at_source

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.challenge.model import Challenge
    from harness.evaluate.rules import TaskCases
    from harness.scoring.evaluate import Rulebook
    from harness.scoring.source import Source

_DATA = Path("test")  # where the challenge's data lies unless something else is said
_ONE_RESULT = "metrics.json"
_MANY_RESULTS = "evaluation"


@dataclass(frozen=True, kw_only=True)
class Request:
    """The command's options; None where it was not given."""

    paths: tuple[Path, ...]
    truth: Path | None
    data: Path | None
    challenge: str | None
    tasks: tuple[str, ...]
    config: Path | None
    output: Path | None
    runs: Path
    workers: int | None
    extras: bool
    initial: bool


@dataclass(frozen=True, kw_only=True)
class _Planned:
    label: str
    source: Source
    result: Path


def evaluate_all(request: Request, *, as_json: bool, verbose: bool) -> int:
    """The exit code."""
    rulebook, tasks = _rules(request)
    is_official = request.config is not None
    planned = list(_plan(request, tasks, all_tasks=is_official))
    attempted = [task for task in tasks if any(task in one.source.attempted for one in planned)]
    check_truth(attempted)
    zero, rows, code = ZeroFields(_initial_path(request, planned)), Rows(), 0
    total = sum(n_steps(one.source, rulebook, ZeroFields()) for one in planned[:1]) + sum(
        len(task.cases) for one in planned[1:] for task in one.source.attempted
    )
    workers = request.workers or workers_that_fit()
    with Pool(workers, _say_compiling) as pool, Counter("evaluating", total) as counter:
        for one in planned:
            journal = cases_path(one.result)
            try:
                found = evaluate_source(
                    one.source, rulebook, journal, pool=pool, zero=zero, on_progress=counter.step
                )
            except KeyboardInterrupt as error:
                raise Interrupted(
                    f"interrupted; what is done is kept in {journal}, and the same command goes on"
                ) from error
            record = found.record
            first = next(iter(record.tasks.values()), None)
            write_result(one.result, first if is_official and first is not None else record)
            code = worse(code, found.exit_code or exit_code_of(record))
            rows.add(one.label, record)
            if not as_json:
                show_cases(one.label, record, verbose=verbose)
            console.tell(
                f"  {one.label}: {found.computed} computed, {found.reused} known; {one.result}",
                to_stderr=True,
            )
    if as_json:
        _print_json(planned)
    else:
        show_tables(rows)
    return code


def _say_compiling() -> None:
    text = "  compiling the metrics for this machine: 10 s or so, once; later commands find it done"
    console.tell(text, to_stderr=True)


def _rules(request: Request) -> tuple[Rulebook, tuple[TaskCases, ...]]:
    extras, initial = request.extras, request.initial
    if request.config is not None:
        truth = _official_truth(request)
        rulebook, task = cases_of_config(request.config, truth, extras=extras, initial=initial)
        return rulebook, (task,)
    challenge = _challenge(request)
    data = request.data
    truth = request.truth or (data or _DATA).resolve().parent / "truth"
    places = [data] if data is not None else [truth, _DATA]
    tasks = cases_of_challenge(challenge, truth, places, request.tasks)
    if data is not None:
        check_images(tasks, truth, data)
    return rulebook_of_challenge(challenge, extras=extras, initial=initial), tasks


def _official_truth(request: Request) -> Path:
    """The official script calls the ground truth ``--data``; its spacing and pairs are there."""
    first, second = request.truth, request.data
    if first is not None and second is not None and first.resolve() != second.resolve():
        raise DataError(
            f"with --config, --data is the ground truth, as in the official script, and so is -d: "
            f"expected one folder, found {first} and {second}"
        )
    return first or second or Path("ground-truth")


def _challenge(request: Request) -> Challenge:
    """The one that was named, else that of the runs among the paths, else the default."""
    if request.challenge is not None:
        return load_challenge(request.challenge)
    runs = [run for path in request.paths if (run := find_run(path, request.runs)) is not None]
    names = sorted({run.read_challenge_name() for run in runs})
    if len(names) > 1:
        raise ChallengeError(
            f"expected runs under one challenge, found {' and '.join(names)}; evaluate them apart"
        )
    if names and names[0] not in builtin_names():
        raise ChallengeError(
            f"{runs[0].path}: this run was under the challenge {names[0]}, which is not built in; "
            "name its file with --challenge"
        )
    return load_challenge(names[0]) if names else load_challenge()


def _plan(request: Request, tasks: Sequence[TaskCases], *, all_tasks: bool) -> Iterator[_Planned]:
    labels: set[str] = set()
    for path in request.paths:
        label = _label(path, request.runs, labels)
        labels.add(label)
        yield _Planned(
            label=label,
            source=look_at_source(path, tasks, request.runs, all_tasks=all_tasks),
            result=_result_path(request, path, label),
        )


def _label(path: Path, runs: Path, taken: set[str]) -> str:
    """A name that tells the source from the others: its own, with a number where that is taken."""
    run = find_run(path, runs)
    name = path.resolve().name.removesuffix(".zip")
    if run is not None:
        name = f"{run.path.resolve().parent.name}-{run.run_id}"
    numbered = (f"{name}-{n}" for n in range(2, len(taken) + 3))
    return next(one for one in (name, *numbered) if one not in taken)


def _result_path(request: Request, path: Path, label: str) -> Path:
    several, output = len(request.paths) > 1, request.output
    if output is None:
        run = find_run(path, request.runs)
        if run is not None:
            return run.evaluation_path
        return Path(_MANY_RESULTS) / f"{label}.json" if several else Path(_ONE_RESULT)
    if several:
        return output / f"{label}.json"
    return output / _ONE_RESULT if output.is_dir() else output


def _initial_path(request: Request, planned: Sequence[_Planned]) -> Path:
    """The zero field's results are the same for all: of runs kept beside them, else beside the
    results."""
    is_run = request.output is None and find_run(request.paths[0], request.runs) is not None
    return initial_cases_path(request.runs if is_run else planned[0].result.parent)


def _print_json(planned: Sequence[_Planned]) -> None:
    """One at a time: a campaign's results are not held all at once."""
    write = console.out.file.write
    texts = (one.result.read_text("utf-8").rstrip() for one in planned)
    if len(planned) == 1:
        write(next(texts) + "\n")
        return
    for n, text in enumerate(texts):
        write(("[\n" if n == 0 else ",\n") + text)
    write("\n]\n")
