"""Fields that a team handed in as a zip: never run, kept as those of a run are."""

from __future__ import annotations

import logging
import shutil
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from harness import __version__
from harness.campaign.obtain import check_untouched, path_of
from harness.challenge.field_file import FieldState
from harness.check.archive import open_archive_source
from harness.check.check import check_fields
from harness.check.findings import Severity
from harness.check.names import match_names
from harness.collect import CollectedField, collect_field
from harness.errors import FieldError, OutputError
from harness.store import FieldsRecord, FindingRecord, PairRecord, TaskRecord
from harness.text import harmless, harmless_line

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import PurePosixPath

    from harness.campaign.order import JobOrder
    from harness.campaign.tree import Stamp
    from harness.challenge.pairs import Pair, TaskPairs
    from harness.check.findings import Finding
    from harness.check.names import Matched
    from harness.check.source import FieldSource
    from harness.store import RunDirectory

_log = logging.getLogger(__name__)

_MAX_TEXT = 500


def store_fields(
    order: JobOrder, tasks: Sequence[TaskPairs], run_dir: RunDirectory, stamp: Stamp
) -> FieldsRecord:
    """Copy, validate and record them. Heavy work. ``stamp``: of the zip that was taken up.

    Raises FieldError for a zip that cannot be read at all, DataError where there is no such file,
    OutputError where there is no room, CampaignError for one that changed meanwhile.
    """
    path = path_of(order.source)
    try:
        with open_archive_source(path, tasks, label=order.source.entry) as source:
            problems = [one for one in source.findings if one.severity is Severity.ERROR]
            if problems and not source.names:
                raise FieldError(f"{order.source.entry}: {_sentence(problems[0])}")
            report = check_fields(order.challenge, tasks, source, data_dir=None)
            matched = match_names(tasks, source.names, source.refused)
            pairs = tuple(
                _pair_record(pair, _collect(pair, found, matched, source, run_dir), matched)
                for found in tasks
                for pair in found.pairs
            )
            run_dir.fields_dir.mkdir(exist_ok=True)
            n_bytes = path.stat().st_size
    except OSError as error:
        raise OutputError(f"{error.filename or run_dir.path}: {error.strerror}") from error
    check_untouched(order.source, stamp)
    record = FieldsRecord(
        harness_version=__version__,
        submission=order.team,
        run_id=order.run_id,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        challenge=order.challenge.name,
        challenge_digest=order.challenge.digest,
        data_digest=order.conditions.data_digest,
        entry=harmless_line(order.source.entry, _MAX_TEXT),
        source_sha256=order.source.sha256,
        source_bytes=n_bytes,
        tasks=tuple(_task_record(found, pairs, matched) for found in tasks),
        pairs=pairs,
        findings=tuple(map(_finding_record, report.findings)),
    )
    run_dir.discard_output()
    try:
        run_dir.write_fields_record(record)
    except OSError as error:
        raise OutputError(f"{run_dir.fields_record_path}: {error.strerror}") from error
    return record


def _collect(
    pair: Pair, found: TaskPairs, matched: Matched, source: FieldSource, run_dir: RunDirectory
) -> CollectedField:
    """By way of an output folder, so that the same is done to them as to what a run wrote."""
    name = matched.fields.get(pair.key)
    if name is None:
        return CollectedField(state=FieldState.MISSING)
    try:
        _extract(source, name, run_dir)
    except FieldError as error:
        return CollectedField(state=FieldState.INVALID, path=name, problem=str(error))
    collected = collect_field(run_dir.output_dir, (name,), run_dir.fields_dir, found.task.field)
    if collected.state is FieldState.UNCOLLECTED:
        raise OutputError(f"{run_dir.fields_dir}: {collected.problem}")
    return replace(collected, modified_ns=None)


def _extract(source: FieldSource, name: PurePosixPath, run_dir: RunDirectory) -> None:
    target = run_dir.output_dir / name
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.file(name) as copy:
        shutil.copyfile(copy, target)


def _pair_record(pair: Pair, collected: CollectedField, matched: Matched) -> PairRecord:
    state, problem = collected.state, collected.problem
    if pair.key in matched.refused:
        state, problem = FieldState.INVALID, "its file in the zip cannot be used: see the findings"
    elif state is FieldState.MISSING and pair.task not in matched.attempted:
        state = FieldState.NOT_ATTEMPTED
    elif state is FieldState.MISSING:
        problem = "no such file in the zip"
    return PairRecord(
        key=pair.key,
        task=pair.task,
        fixed_id=pair.fixed_id,
        moving_id=pair.moving_id,
        field_state=state,
        field_problem=None if problem is None else harmless(problem),
        field_path=None if collected.sha256 is None else str(collected.path),
        expected_path=str(pair.field),
        field_sha256=collected.sha256,
    )


def _task_record(found: TaskPairs, pairs: tuple[PairRecord, ...], matched: Matched) -> TaskRecord:
    name = found.task.name
    return TaskRecord(
        name=name,
        attempted=name in matched.attempted,
        pairs=len(found.pairs),
        valid_fields=sum(
            pair.task == name and pair.field_state is FieldState.VALID for pair in pairs
        ),
    )


def _finding_record(finding: Finding) -> FindingRecord:
    texts = {key: None if text is None else _line(text) for key, text in asdict(finding).items()}
    return FindingRecord.model_validate(texts)


def _line(text: str) -> str:
    return harmless_line(" ".join(text.splitlines()), _MAX_TEXT)


def _sentence(finding: Finding) -> str:
    return f"expected {finding.expected}, found {finding.found}; {finding.fix}"
