"""From what a run directory holds to what came of the attempt."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from harness.campaign.order import JobEnd, Outcome
from harness.challenge.field_file import FieldState
from harness.errors import Blame, FieldError, OutputError
from harness.text import harmless_line

if TYPE_CHECKING:
    from pathlib import Path

    from harness.errors import HarnessError
    from harness.store import FieldsRecord, PairRecord, RunDirectory, RunRecord

MAX_REASON_CHARACTERS = 500


def end_of_run(run_dir: RunDirectory, *, recovered: bool = False) -> JobEnd:
    """Raises OutputError when its record cannot be read."""
    record = run_dir.read_record()
    valid, expected = _counts(record.pairs, ended_well=record.exit_code == 0)
    return JobEnd(
        outcome=Outcome.RAN,
        reason=record.reason,
        blame=record.blame,
        exit_code=record.status.exit_code,
        image_id=record.image_id,
        status=record.status,
        valid_fields=valid,
        expected_fields=expected,
        runtimes_s=_runtimes_s(record),
        is_timed=record.witness.complete,
        machine_digest=record.machine_digest,
        machine_verdict=record.contamination.verdict,
        gpu=record.gpu,
        recovered=recovered,
        record_sha256=_sha256(run_dir.record_path),
    )


def end_of_fields(run_dir: RunDirectory) -> JobEnd:
    """Raises OutputError when its record cannot be read."""
    record = run_dir.read_fields_record()
    valid, expected = _counts(record.pairs, ended_well=True)
    is_good = _is_good(record, valid, expected)
    return JobEnd(
        outcome=Outcome.FIELDS,
        reason=f"{valid} of {expected} fields are valid; a zip of fields is not run",
        blame=None if is_good else Blame.SUBMISSION,
        exit_code=0 if is_good else FieldError.exit_code,
        valid_fields=valid,
        expected_fields=expected,
        record_sha256=_sha256(run_dir.fields_record_path),
    )


def end_of_refusal(run_dir: RunDirectory) -> JobEnd:
    """Raises OutputError when its record cannot be read."""
    record = run_dir.read_refusal()
    told = "; ".join((record.reason, *record.findings))
    return JobEnd(
        outcome=Outcome.REFUSED,
        reason=harmless_line(told, MAX_REASON_CHARACTERS),
        blame=Blame.SUBMISSION,
        exit_code=record.exit_code,
        record_sha256=_sha256(run_dir.refused_path),
    )


def end_of_failure(error: HarnessError) -> JobEnd:
    """Nothing began."""
    return JobEnd(
        outcome=Outcome.FAILED,
        reason=shortened(error),
        blame=error.blame,
        exit_code=error.exit_code,
    )


def shortened(error: Exception) -> str:
    """Its message on one line, and its list of findings as well, as far as there is room."""
    parts = [part.strip() for part in str(error).splitlines()]
    return harmless_line(" ".join(parts), MAX_REASON_CHARACTERS)


def _runtimes_s(record: RunRecord) -> dict[str, float]:
    ranked = ((pair.key, record.ranked_runtime_s(pair)) for pair in record.pairs)
    return {key: runtime_s for key, runtime_s in ranked if runtime_s is not None}


def _counts(pairs: tuple[PairRecord, ...], *, ended_well: bool) -> tuple[int, int]:
    """Valid fields, and those that were asked for: of a submission that ended well none of a task
    that it did not attempt."""
    skipped = {FieldState.NOT_ATTEMPTED} if ended_well else set()
    asked = [pair for pair in pairs if pair.field_state not in skipped]
    return sum(pair.field_state is FieldState.VALID for pair in asked), len(asked)


def _is_good(record: FieldsRecord, valid: int, expected: int) -> bool:
    return 0 < valid == expected and not any(one.severity == "error" for one in record.findings)


def _sha256(path: Path) -> str:
    try:
        return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror}") from error
