"""``harness show`` as a person meets it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli_run import where_fields_are
from harness.errors import OutputError
from harness.store import FieldsRecord, RefusedRecord, RunDirectory, RunStatus, TaskRecord
from tests.tiny import ZERO, write_challenge, write_data, write_method
from tests.unit.test_store import RECORD


def harness(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "harness", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )


def test_failed_run_points_at_its_explanation(tmp_path: Path) -> None:
    body = "print('\\x1b[31mnearly\\x07')\nif pair.fixed_id == 2:\n    os.kill(os.getpid(), 11)\n"
    write_method(tmp_path, body + ZERO)
    write_data(tmp_path / "test")
    write_challenge(tmp_path / "tiny.yaml")
    run = harness("run", "--engine", "process", "--challenge", "tiny.yaml", cwd=tmp_path)
    assert run.returncode == RunStatus.CRASHED.exit_code
    (path,) = (tmp_path / "runs/local").iterdir()
    assert f"`harness show runs/local/{path.name}` says why, and what to try" in run.stdout
    for name in ((), (path.name,), (path,)):
        done = harness("show", *name, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("crashed: exit code 139")
        assert "it is the team's turn" in done.stdout
        assert re.search(r", ended \d{4}-", done.stdout)
        assert "first image opened: task_01/img0001.nii.gz" in done.stdout
        assert "pair 1 of 4 finished: task_01/0001_0001" in done.stdout
        assert "faulthandler" in done.stdout
        assert "nearly" in done.stdout
        assert "\x1b" not in done.stdout
        assert "\x07" not in done.stdout
    shown = json.loads(harness("show", "--json", cwd=tmp_path).stdout)
    assert shown == json.loads((path / "run.json").read_text())
    quiet = harness("show", "--log-lines", "0", cwd=tmp_path)
    assert "nearly" not in quiet.stdout


def test_latest_run_of_any_submission(tmp_path: Path) -> None:
    for submission, run_id in (("local", "20250101-000000"), ("team", "20250102-000000")):
        directory = RunDirectory(tmp_path / "runs" / submission / run_id)
        directory.path.mkdir(parents=True)
        directory.write_record(RECORD.model_copy(update={"reason": f"of {submission}"}))
    (tmp_path / "runs/team/20260101-000000-notes").mkdir()
    assert harness("show", cwd=tmp_path).stdout.startswith("rejected: of team")


def test_upload_that_was_refused_says_why(tmp_path: Path) -> None:
    """It said that there was nothing to explain, beside the record that explains it."""
    directory = RunDirectory(tmp_path / "runs/team/20250102-000000")
    directory.path.mkdir(parents=True)
    directory.write_refusal(
        RefusedRecord(
            harness_version="1",
            submission="team",
            run_id=directory.run_id,
            created="2025-01-02",
            entry="team.tar",
            source_sha256="sha256:0",
            error="ImportRejected",
            exit_code=22,
            reason="it is cut off",
            findings=("layer 3 is missing",),
            log_tail=("COPY failed",),
        )
    )
    for name in ("team", "runs/team", "runs/team/20250102-000000"):
        done = harness("show", name, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("refused, and never run: it is cut off")
        for text in ("team.tar", "the team's turn", "layer 3 is missing", "COPY failed"):
            assert text in done.stdout
    told = json.loads(harness("show", "team", "--json", cwd=tmp_path).stdout)
    assert told["error"] == "ImportRejected"


def test_fields_that_were_handed_in_are_told_as_that(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "runs/team/20250102-000000")
    directory.path.mkdir(parents=True)
    bad = RECORD.pairs[0].model_copy(update={"field_problem": "wrong shape"})
    directory.write_fields_record(
        FieldsRecord(
            harness_version="1",
            submission="team",
            run_id=directory.run_id,
            created="2025-01-02",
            challenge="tiny",
            challenge_digest="sha256:0",
            data_digest="sha256:0",
            entry="team.zip",
            source_sha256="sha256:0",
            source_bytes=3,
            tasks=(TaskRecord(name="task_01", attempted=True, pairs=2, valid_fields=1),),
            pairs=(bad,),
        )
    )
    done = harness("show", cwd=tmp_path)
    assert done.stdout.startswith("fields handed in, and never run: 1 of 2 valid")
    assert f"{bad.key}: wrong shape" in done.stdout
    assert json.loads(harness("show", "--json", cwd=tmp_path).stdout)["entry"] == "team.zip"


def test_without_any_run(tmp_path: Path) -> None:
    done = harness("show", cwd=tmp_path)
    assert done.returncode == OutputError.exit_code
    assert "no run in it" in done.stderr


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"schema_version": 99}', "\0" * 100, '{"status": "\x1b[31m"}']
)
def test_broken_record_is_a_clear_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "runs/local/20250101-000000"
    path.mkdir(parents=True)
    (path / "run.json").write_text(content)
    for arguments in (("show",), ("show", "--json")):
        done = harness(*arguments, cwd=tmp_path)
        assert done.returncode == OutputError.exit_code
        assert "run.json: not a run record" in done.stderr
        assert len(done.stderr.splitlines()) < 4
        assert "\x1b" not in done.stderr
        assert done.stdout == ""


def test_run_that_never_started(tmp_path: Path) -> None:
    (tmp_path / "runs/local/20250101-000000/output").mkdir(parents=True)
    done = harness("show", cwd=tmp_path)
    assert done.returncode == 0
    assert "never started its submission" in done.stdout
    assert harness("show", "--json", cwd=tmp_path).returncode == OutputError.exit_code


@pytest.mark.parametrize(
    ("status", "following"),
    [
        (RunStatus.SUCCEEDED, "`harness check --data x` says whether"),
        (RunStatus.INTERRUPTED, "run it again"),
        (RunStatus.REJECTED, "`harness show runs/local/1` says why"),
    ],
)
def test_what_comes_next_follows_from_the_end(status: RunStatus, following: str) -> None:
    """An interrupted run with a third of its fields led to the upload."""
    record = RECORD.model_copy(update={"status": status})
    text = where_fields_are(record, Path("submission"), " --data x", "runs/local/1")
    assert f"  next    {following}" in text
    assert ("harness pack" in text) is (status is RunStatus.SUCCEEDED)
