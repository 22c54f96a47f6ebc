"""An upload that cannot be run, which is its team's to mend: kept as a record of its own."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from harness import __version__
from harness.campaign.ends import end_of_refusal, shortened
from harness.errors import ImportRejected, OutputError, SubmissionError
from harness.store import RefusedRecord, RunDirectory
from harness.text import harmless_line

if TYPE_CHECKING:
    from pathlib import Path

    from harness.campaign.order import JobEnd, JobOrder

_MAX_TEXT = 500


def refuse(
    order: JobOrder, error: SubmissionError, runs_dir: Path, log_tail: tuple[str, ...] = ()
) -> JobEnd:
    """Write refused.json in a new run directory; on the disk when this returns. ``log_tail``: of
    the upload's build, made harmless. Raises OutputError."""
    run_dir = RunDirectory.make(runs_dir, order.team, order.run_id)
    findings = error.findings if isinstance(error, ImportRejected) else ()
    message = str(error).partition("\n  - ")[0] if findings else str(error)
    record = RefusedRecord(
        harness_version=__version__,
        submission=order.team,
        run_id=order.run_id,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        entry=harmless_line(order.source.entry, _MAX_TEXT),
        source_sha256=order.source.sha256,
        error=type(error).__name__,
        exit_code=error.exit_code,
        reason=shortened(SubmissionError(message)),
        findings=tuple(harmless_line(one, _MAX_TEXT) for one in findings),
        log_tail=log_tail,
    )
    try:
        run_dir.write_refusal(record)
        run_dir.sync()
    except OSError as failure:
        raise OutputError(f"{run_dir.path}: {failure.strerror}") from failure
    return end_of_refusal(run_dir)
