"""`harness run --repeat`: real runs, one after the other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from harness.store import RunDirectory, RunStatus
from tests.tiny import ZERO, write_challenge, write_data, write_method

if TYPE_CHECKING:
    from pathlib import Path

ARGUMENTS = ("run", "--engine", "process", "--challenge", "tiny.yaml")


@pytest.fixture
def team(tmp_path: Path) -> Path:
    write_method(tmp_path, ZERO)
    write_data(tmp_path / "test", first=((1, 1),), second=((7, 8),))
    write_challenge(tmp_path / "tiny.yaml")
    return tmp_path


def start(team: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "harness.cli", *ARGUMENTS, *arguments],
        cwd=team,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "NO_COLOR": "1"},
    )


def finish(command: subprocess.Popen[str]) -> tuple[int, str, str]:
    stdout, stderr = command.communicate(timeout=60)
    return command.returncode, stdout, stderr


def directories(team: Path) -> list[RunDirectory]:
    records = (team / "runs/local").glob("*/run.json")
    found = [RunDirectory(path.parent) for path in records]
    return sorted(found, key=lambda one: one.read_record().repeat.index)  # type: ignore[union-attr]


def test_each_run_has_its_record_and_the_first_the_summary(team: Path) -> None:
    code, stdout, stderr = finish(start(team, "--repeat", "3"))
    assert code == 0, stderr
    runs = directories(team)
    group = runs[0].run_id
    repeats = [run.read_record().repeat for run in runs]
    assert [(one.group, one.index, one.of) for one in repeats if one] == [
        (group, 1, 3),
        (group, 2, 3),
        (group, 3, 3),
    ]
    summary = runs[0].read_repeat()
    assert summary.runs == tuple(run.run_id for run in runs)
    assert summary.statuses == (RunStatus.SUCCEEDED,) * 3
    for number, pair in enumerate(summary.pairs):
        expected = [run.read_record().pairs[number].runtime_s for run in runs]
        assert list(pair.runtimes_s) == expected
        assert pair.median_s == sorted(expected)[1]  # type: ignore[type-var]
    assert "run 2 of 3" in stderr
    rows = [line.split() for line in stdout.splitlines() if line.startswith("task_0")]
    assert [row[0] for row in rows if row[-1] == "(mean)"] == [
        "task_01/0001_0001",
        "task_02/0007_0008",
    ]
    assert f"3 of 3 runs succeeded; the fields are those of run {group}" in stdout


def test_for_machines(team: Path) -> None:
    code, stdout, _ = finish(start(team, "--repeat", "2", "--json"))
    assert code == 0
    summary = json.loads(stdout)
    assert summary["asked"] == 2
    assert summary == json.loads(directories(team)[0].repeat_path.read_text())


def test_fields_are_those_of_the_first_success_and_the_worst_run_counts(team: Path) -> None:
    """A method that crashes the first time, and gives other fields every time."""
    count = team / "count"
    body = (
        f"n = len(open({str(count)!r}, 'a+').read()) if pair.fixed_id == 1 else 0\n"
        f"n = os.path.getsize({str(count)!r})\n"
        f"if pair.fixed_id == 7: open({str(count)!r}, 'a').write('x')\n"
        "if n == 0 and pair.fixed_id == 7: os._exit(3)\n"
        "return DisplacementField(array=np.full((3, 8, 6, 10), n, np.float32))"
    )
    write_method(team, body)
    code, stdout, stderr = finish(start(team, "--repeat", "3"))
    assert code == RunStatus.CRASHED.exit_code
    runs = directories(team)
    assert runs[0].read_repeat().statuses == ("crashed", "succeeded", "succeeded")
    assert f"2 of 3 runs succeeded; the fields are those of run {runs[1].run_id}" in stdout
    published = team / "submission/task_02/disp_0007_0008.npz"
    assert (
        published.read_bytes() == (runs[1].fields_dir / "task_02/disp_0007_0008.npz").read_bytes()
    )
    assert "run 1 of 3: crashed" in stderr
    assert "the method is not deterministic" in stderr


def test_interrupted_in_the_second_run(team: Path) -> None:
    flag = team / "flag"
    body = f"if os.path.exists({str(flag)!r}):\n    time.sleep(600)\n{ZERO}"
    write_method(team, body)
    command = start(team, "--repeat", "5")
    assert command.stderr is not None
    for line in command.stderr:
        if "2/2" in line:
            flag.touch()
        if "run 2 of 5" in line:
            break
    for line in command.stderr:
        if "started" in line:
            break
    command.send_signal(signal.SIGINT)
    code, stdout, stderr = finish(command)
    assert code == 130
    first = directories(team)[0]
    summary = first.read_repeat()
    assert summary.statuses == (RunStatus.SUCCEEDED, RunStatus.INTERRUPTED)
    assert all(pair.median_s is not None for pair in summary.pairs)
    assert "2 of 5 runs ended" in stderr
    assert f"the fields are those of run {first.run_id}" in stdout
