"""The evaluation container's entry point: ``python -m harness.scoring``.

Fields from ``/input``, truth from ``/opt/evaluation/ground-truth``, results to
``/output/metrics.json``. Exit codes: 0 scored; 21 the submission was not, standard error says why
in the team's terms; otherwise the evaluation itself failed, which standard error says without a
word about the truth, unless ``HARNESS_ORGANISER=1`` asks for the reason.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from harness.errors import DataError, FieldError, HarnessError, MachineError
from harness.evaluate.record import CaseState, EvaluationRecord
from harness.scoring.capacity import workers_that_fit
from harness.scoring.container import (
    Places,
    find_rules,
    find_submission,
    for_the_team,
    reject_if_incomplete,
)
from harness.scoring.evaluate import ZeroFields, check_truth, evaluate_source
from harness.scoring.pool import Pool
from harness.scoring.results import write_result
from harness.scoring.source import look_at_source
from harness.text import harmless

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_ORGANISER = "HARNESS_ORGANISER"
_COMPILED = "NUMBA_CACHE_DIR"
_OURS = (
    "error: the evaluation itself failed, not your submission; please tell the organisers "
    "(exit code {code})"
)


def main() -> int:
    # As a container's first process Python would ignore the request to stop.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    places = Places.of(os.environ)
    with _only_voice() as say:
        try:
            places.output.unlink(missing_ok=True)
            with _scratch(places.output.parent) as folder:
                _use_compiled_code(Path(folder))
                _evaluate(places, Path(folder))
        except FieldError as error:
            say(f"error: {error}")
            return error.exit_code
        except Exception as error:  # of the last resort: its text may be about the truth
            code = error.exit_code if isinstance(error, HarnessError) else HarnessError.exit_code
            if _is_for_the_organiser():
                say(f"error: {error}")
            say(_OURS.format(code=code))
            return code
    return 0


def _is_for_the_organiser() -> bool:
    return os.environ.get(_ORGANISER) == "1"


@contextmanager
def _only_voice() -> Iterator[Callable[[str], None]]:
    """A way to standard error that nothing else has, workers included: what libraries print there,
    warnings and tracebacks, may name truth files. The organiser gets it all."""
    if _is_for_the_organiser():
        yield lambda text: _write(sys.stderr, text)
        return
    with os.fdopen(os.dup(2), "w") as voice, Path(os.devnull).open("w") as nowhere:
        for descriptor in (1, 2):
            os.dup2(nowhere.fileno(), descriptor)
        yield lambda text: _write(voice, text)


def _evaluate(places: Places, scratch: Path) -> None:
    rulebook, tasks, is_official = find_rules(places)
    submission = find_submission(places.submission)
    try:
        source = look_at_source(submission, tasks, scratch, all_tasks=is_official)
    except DataError as error:  # of a command's own folder; here it is the team's
        raise FieldError(harmless(str(error))) from error
    check_truth(source.attempted)
    with Pool(workers_that_fit()) as pool:
        found = evaluate_source(
            source, rulebook, scratch / "cases.jsonl", pool=pool, zero=ZeroFields()
        )
    record = found.record
    _raise_if_ours(record, found.exit_code)
    reject_if_incomplete(record)
    public = {name: for_the_team(task) for name, task in record.tasks.items()}
    if is_official:
        write_result(places.output, next(iter(public.values())))
    else:
        write_result(places.output, record.model_copy(update={"tasks": public}))


def _raise_if_ours(record: EvaluationRecord, exit_code: int) -> None:
    """A case that could not be evaluated is no result, and not the team's fault."""
    for task in record.tasks.values():
        for key, case in task.detail.cases.items():
            if case.state is CaseState.NOT_EVALUATED:
                text = f"{task.name} {key}: {case.reason}"
                is_truth = 0 < exit_code < FieldError.exit_code
                raise DataError(text) if is_truth else MachineError(text)


def _scratch(output: Path) -> tempfile.TemporaryDirectory[str]:
    """For one unpacked field at a time: ``/tmp``, or the output folder where all else is
    read-only."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="harness-")
    except OSError:
        folder = tempfile.TemporaryDirectory(prefix=".harness-", dir=output)
    os.environ["TMPDIR"] = folder.name
    tempfile.tempdir = None  # what was found before is forgotten
    return folder


def _use_compiled_code(scratch: Path) -> None:
    """Numba takes nothing from a cache that it cannot write to: a copy of the image's is used."""
    built = os.environ.get(_COMPILED)
    if built and Path(built).is_dir() and not os.access(built, os.W_OK):
        os.environ[_COMPILED] = shutil.copytree(built, str(scratch / "compiled"))


def _write(stream: TextIO, text: str) -> None:
    stream.write(text + "\n")
    stream.flush()


if __name__ == "__main__":
    sys.exit(main())
