"""Whether a run ended as the table of faults says."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from harness.challenge.field_file import FieldState
from harness.store import RunStatus

if TYPE_CHECKING:
    from harness.store import RunDirectory, RunRecord
    from tests.docker.fault import Fault

AFTER_LIMIT_S = 10.0  # by then a run has ended, whatever it does


def check(fault: Fault, record: RunRecord, run_dir: RunDirectory) -> None:
    """That the run ended as the table says, with what it says kept, and in time."""
    log = run_dir.log_path.read_text("utf-8", "replace")
    told = (record.status, record.reason, record.exit_code, log[-2000:])
    assert record.status is fault.status, told
    assert record.blame is fault.expected_blame, told
    assert fault.reason in record.reason, told
    if fault.exit_code is not None:
        assert record.exit_code == fault.exit_code, told
    states = Counter(pair.field_state for pair in record.pairs)
    assert states[FieldState.VALID] == fault.valid, record.pairs
    assert (states[FieldState.INVALID] > 0) == (fault.invalid is not None), record.pairs
    _check_invalid(fault, record)
    assert all(text in log for text in fault.log), log
    assert run_dir.log_path.stat().st_size <= record.limits.log_bytes
    _check_warnings(fault, record)
    flags = {pair.key: pair.flags for pair in record.pairs}
    assert all(flag in flags[key] for key, flag in fault.flags.items()), flags
    assert 0.0 < record.duration_s < fault.limit_s + AFTER_LIMIT_S
    _check_kept(fault, record, run_dir)


def _check_invalid(fault: Fault, record: RunRecord) -> None:
    if fault.invalid is None:
        return
    key, problem = fault.invalid
    (pair,) = [pair for pair in record.pairs if pair.key == key]
    assert problem in (pair.field_problem or ""), pair


def _check_warnings(fault: Fault, record: RunRecord) -> None:
    if fault.warning is not None:
        assert any(fault.warning in text for text in record.warnings), record.warnings
    elif fault.status is RunStatus.SUCCEEDED:
        assert not any("no pair expects" in text for text in record.warnings), record.warnings


def _check_kept(fault: Fault, record: RunRecord, run_dir: RunDirectory) -> None:
    """Valid fields are there, with their times, and nothing else is of what it wrote."""
    assert not run_dir.output_dir.exists()
    timed = [pair for pair in record.pairs if record.ranked_runtime_s(pair) is not None]
    assert len(timed) == (fault.valid if fault.timed else 0), record.witness
    for pair in timed:
        assert pair.field_path is not None
        with np.load(run_dir.fields_dir / pair.field_path) as archive:
            assert archive["arr_0"].shape == (3, 8, 6, 10)
    expected = {pair.field_path for pair in record.pairs} - {None}
    kept = [path for path in run_dir.fields_dir.rglob("*") if not path.is_dir()]
    assert {str(path.relative_to(run_dir.fields_dir)) for path in kept} <= expected
    assert all(path.is_file() and not path.is_symlink() for path in kept)
