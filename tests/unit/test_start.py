"""The command's first steps: the witness's program starts ahead of all imports, and never stays."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil
import pytest

from harness.probe.client import ChildProgram
from harness.store import RunDirectory
from tests.tiny import ZERO, write_challenge, write_data, write_method

if TYPE_CHECKING:
    from pathlib import Path

RUN = ("run", "--engine", "process", "--challenge", "tiny.yaml")


def witnesses_of(process: psutil.Process) -> list[psutil.Process]:
    found = []
    for child in process.children():
        with suppress(psutil.Error):  # it has just ended
            if "harness.probe" in child.cmdline():
                found.append(child)
    return found


def has_ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE  # nobody's child in this container any more
    except psutil.Error:
        return True


def start(*arguments: str, cwd: Path) -> psutil.Popen:
    return psutil.Popen(
        [sys.executable, "-m", "harness", *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.fixture
def team(tmp_path: Path) -> Path:
    write_method(tmp_path, ZERO)
    write_data(tmp_path / "test")
    write_challenge(tmp_path / "tiny.yaml")
    return tmp_path


@pytest.mark.parametrize("times", [1, 2])
def test_runs_are_witnessed_by_one_program_each(team: Path, times: int) -> None:
    """The first run's is the one that was started ahead; each later one's is new."""
    seen: set[int] = set()
    with start(*RUN, "--repeat", str(times), cwd=team) as process:
        while process.poll() is None:
            found = witnesses_of(process)
            assert len(found) <= 1
            seen |= {witness.pid for witness in found}
            time.sleep(0.001)
        assert process.returncode == 0, process.stderr.read().decode()
    assert len(seen) == times
    for path in (team / "runs/local").glob("*/run.json"):
        assert RunDirectory(path.parent).read_record().witness.complete


def test_command_that_cannot_run_leaves_no_witness(team: Path) -> None:
    (team / "test/task_01/pairs_val.csv").unlink()
    with start(*RUN, cwd=team) as process:
        witnesses: list[psutil.Process] = []
        while process.poll() is None and not witnesses:
            witnesses = witnesses_of(process)
        process.wait()
        assert process.returncode == 11
        assert b"expected the list of pairs" in process.stderr.read()
    assert witnesses
    assert has_ended(witnesses[0])


def test_witness_does_not_outlive_a_command_that_is_killed(team: Path) -> None:
    with start(*RUN, cwd=team) as process:
        while not (witnesses := witnesses_of(process)):
            time.sleep(0.001)
        process.kill()
    deadline_s = time.monotonic() + 10
    while not has_ended(witnesses[0]) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert has_ended(witnesses[0])


@pytest.mark.parametrize("arguments", [("--version",), ("run", "--help")])
def test_other_uses_print_what_they_should_and_no_more(
    arguments: tuple[str, ...], team: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "harness", *arguments],
        cwd=team,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout
    assert done.stderr == ""


def test_program_that_runs_already_is_not_started_again() -> None:
    program = ChildProgram()
    program.start()
    pid = program.pid
    program.start()
    assert program.pid == pid
    assert program.end(30) == 0


def test_a_run_imports_nothing_for_which_it_has_no_use() -> None:
    """Each of these takes longer to import than everything a run itself does before its start."""
    code = (
        "import sys, harness.__main__, harness.cli\n"
        "print(*{'numpy', 'nibabel', 'scipy', 'numba', 'matplotlib'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
