"""What people see of a run, for every state that it can end in."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from harness.console import LogLines, fail, show_ending
from harness.probe.realtime import Precision
from harness.store import RunDirectory, RunStatus
from tests.unit.test_store import RECORD

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("status", RunStatus)
def test_every_ending_can_be_shown(
    precision: Precision, status: RunStatus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without real-time scheduling and with a CPU to spare, a finished run ended in a KeyError: the
    precision that such a witness has was missing from the console's words."""
    witness = RECORD.witness.model_copy(update={"precision": precision})
    record = RECORD.model_copy(update={"witness": witness, "status": status})
    show_ending(record, (), RunDirectory(tmp_path), to_stderr=False)
    shown = capsys.readouterr().out
    off = f"{precision.worst_error_s * 1000:.0f} ms off"
    assert off in shown
    assert shown.startswith(status.replace("_", " ") + ": ")


def test_what_a_message_repeats_is_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    fail("a\x1b[2Jb [red]c[/] :skull:\n  - d\x9b31m")
    assert capsys.readouterr().err == "error: a\ufffd[2Jb [red]c[/] :skull:\n  - d\ufffd31m\n"


def test_what_the_library_logs_reads_like_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.Logger("harness.test")
    logger.addHandler(LogLines())
    logger.warning("the log %s is incomplete", "a\x1b[2J")
    logger.info("ending the submission")
    assert capsys.readouterr().err == (
        "warning: the log a\ufffd[2J is incomplete\nending the submission\n"
    )
