"""`harness campaign` and its like as a process of their own: signals, folders, what is said."""

from __future__ import annotations

import json
import signal
import time
from typing import TYPE_CHECKING

import pytest

from harness.campaign.order import Outcome
from harness.campaign.status import RowState, StatusRecord
from harness.store import RunStatus
from tests.campaign_parts import CampaignFiles
from tests.tiny import ZERO

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

SLOW = "time.sleep(1)\n" + ZERO
CRASHES = "os._exit(3)"


@pytest.fixture
def files(tmp_path: Path) -> CampaignFiles:
    return CampaignFiles(tmp_path)


def wait_until(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until_s
        time.sleep(0.02)


def is_running(files: CampaignFiles) -> bool:
    return any(files.path.glob("runs/*/*/started.json"))


def test_ctrl_c_ends_the_run_and_the_same_command_goes_on(files: CampaignFiles) -> None:
    files.add("alpha", SLOW)
    files.add("bravo", CRASHES)
    files.settle()
    process = files.start(*files.arguments())
    wait_until(process, lambda: is_running(files))
    time.sleep(1.5)  # within its second pair
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    (attempt,) = files.state().attempts.values()
    assert attempt.end is not None
    assert attempt.end.status is RunStatus.INTERRUPTED
    closed = files.state().closed
    assert closed is not None
    assert (closed.exit_code, closed.outstanding) == (130, 2)
    assert "  alpha: queued; alpha: interrupted" in out.partition("still to be run\n")[2]
    again = files.run(*files.arguments())
    assert again.returncode == 0, again.stderr
    assert "campaign       goes on: 2 teams and 1 attempt are known" in again.stderr
    assert "alpha          is run again: interrupted" in again.stderr
    ends = [
        (one.started.team, one.end.status) for one in files.state().attempts.values() if one.end
    ]
    assert ends == [
        ("alpha", RunStatus.INTERRUPTED),
        ("bravo", RunStatus.CRASHED),  # before what was interrupted
        ("alpha", RunStatus.SUCCEEDED),
    ]


def test_killed_with_its_run_the_next_command_finishes_it(files: CampaignFiles) -> None:
    files.add("alpha", SLOW)
    files.settle()
    process = files.start(*files.arguments())
    wait_until(process, lambda: is_running(files))
    process.kill()
    process.communicate()
    again = files.run(*files.arguments())
    assert again.returncode == 0, again.stderr
    first, second = files.state().attempts.values()
    assert first.end is not None
    assert first.end.recovered or first.end.outcome is Outcome.NEVER_STARTED
    assert second.end is not None
    assert second.end.status is RunStatus.SUCCEEDED


def test_watching_takes_up_what_appears_and_what_is_asked_for(files: CampaignFiles) -> None:
    files.write_policy("settle_time: 0.3\npoll_time: 0.1\n")
    process = files.start(*files.arguments("--watch"))
    wait_until(process, files.folder.journal_path.exists)
    files.add("alpha")
    wait_until(process, lambda: _attempts(files) == 1)
    wait_until(process, lambda: files.state().under_way() == [])
    asked = files.run("retry", "alpha")
    assert asked.returncode == 0
    assert "as soon as the run under way has ended" in asked.stderr
    wait_until(process, lambda: _attempts(files) == 2 and files.state().under_way() == [])
    (files.submissions / "notes.txt").write_text("no upload")
    wait_until(process, lambda: len(files.state().rejected) == 1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.count("nothing to do; waiting for uploads and requests") <= 4
    assert "notes.txt not taken: no upload" in err


def _attempts(files: CampaignFiles) -> int:
    return len(files.state().attempts) if files.folder.journal_path.exists() else 0


def test_status_says_where_it_stands(files: CampaignFiles) -> None:
    files.add("alpha", "raise RuntimeError('[bold]\\x1b[31mno')")
    (files.submissions / "alpha/team.yaml").write_text('name: "[red]The \\e[1mAs"\n')
    files.settle()
    files.run(*files.arguments())
    shown = files.run("status", "--all-attempts")
    assert shown.returncode == 0, shown.stderr
    assert "1 team: 1 done" in shown.stdout
    assert "the teams' own\n  alpha: incomplete, 0/4 fields: " in shown.stdout
    assert "harness show runs/alpha/" in shown.stdout
    assert "(attempt 1" in shown.stdout
    assert "\x1b" not in shown.stdout
    status = StatusRecord.model_validate_json(files.run("status", "--json").stdout)
    kept = StatusRecord.model_validate_json(files.folder.status_path.read_bytes())
    assert status == kept
    assert {row.state for row in status.rows} == {RowState.DONE}


def test_requests_between_commands(files: CampaignFiles) -> None:
    files.add("alpha")
    files.settle()
    files.run(*files.arguments())
    dropped = files.run("drop", "alpha", "--reason", "withdrew")
    assert "when `harness campaign` is started again" in dropped.stderr
    assert "asked for, and not yet taken up\n  drop alpha" in files.run("status").stdout
    unknown = files.run("retry", "alhpa")
    assert unknown.returncode == 15
    assert "did you mean 'alpha'" in unknown.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("campaign", "nowhere"), 15, "expected a folder of uploads, found none"),
        (("campaign", "submissions", "--data", "nowhere"), 11, "nowhere"),
        (("campaign", "submissions", "--truth", "nowhere"), 11, "truth folder"),
        (("campaign", "submissions", "--out", "test/runs"), 11, "lies in the data folder"),
        (
            ("campaign", "submissions", "--campaign", "bad.yaml"),
            15,
            "did you mean 'uploads_per_day'",
        ),
        (("campaign", "submissions", "--engine", "docker"), 32, "/nonexistent/docker.sock"),
        (("campaign", "submissions"), 32, "/nonexistent/docker.sock"),  # no other engine by itself
        (("status",), 12, "is it the folder that `harness campaign --out` named?"),
    ],
)
def test_what_is_wrong_is_told_before_anything_begins(
    files: CampaignFiles, arguments: tuple[str, ...], code: int, told: str
) -> None:
    (files.path / "bad.yaml").write_text("upload_per_day: 3\n")
    given = ("--challenge", "tiny.yaml") if arguments[0] == "campaign" else ()
    done = files.run(*arguments, *given)
    assert done.returncode == code, done.stderr
    assert told in done.stderr
    assert not files.folder.journal_path.exists()


def test_two_campaigns_in_one_folder(files: CampaignFiles) -> None:
    files.add("alpha", SLOW)
    files.settle()
    process = files.start(*files.arguments())
    wait_until(process, lambda: is_running(files))
    # The data are locked by the run, too: what is said first does not matter.
    second = files.run(*files.arguments())
    assert second.returncode in {11, 12}, second.stderr
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert json.loads(files.folder.status_path.read_text())["exit_code"] == 0
