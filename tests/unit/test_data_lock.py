"""While a run goes on nobody else of the harness opens its data."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import subprocess
import sys
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from harness.challenge.pairs import read_pairs
from harness.data_lock import exclusive, shared
from harness.engine.process import ProcessEngine
from harness.errors import DataError
from harness.execute import execute
from harness.plan import Plan
from harness.store import RunDirectory
from tests.tiny import ZERO, tiny_challenge, write_challenge, write_data, write_method

if TYPE_CHECKING:
    from pathlib import Path

CHECK = ("check", "--challenge", "tiny.yaml")
VALIDATE = ("challenge", "validate", "tiny.yaml", "--data", "test")


def test_those_who_only_look_do_so_together(tmp_path: Path) -> None:
    with shared(tmp_path), shared(tmp_path):
        pass


def test_nobody_looks_while_a_run_reads(tmp_path: Path) -> None:
    """At once, and from the same process as from another."""
    code = (
        "import sys; from pathlib import Path; from harness.data_lock import shared\n"
        "with shared(Path(sys.argv[1])): pass"
    )
    with exclusive(tmp_path):
        started_s = time.monotonic()
        with pytest.raises(DataError, match="a run is reading it"), shared(tmp_path):
            pytest.fail("it was let in")
        assert time.monotonic() - started_s < 1.0
        done = subprocess.run(
            [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False
        )
        assert "DataError" in done.stderr
    with shared(tmp_path):
        pass


def test_a_run_waits_for_those_who_are_about_to_leave(tmp_path: Path) -> None:
    inside, leave = threading.Event(), threading.Event()

    def look() -> None:
        with shared(tmp_path):
            inside.set()
            leave.wait(5.0)

    reader = threading.Thread(target=look)
    reader.start()
    inside.wait(5.0)
    threading.Timer(0.3, leave.set).start()
    with exclusive(tmp_path):
        assert leave.is_set()
    reader.join()


def test_and_not_for_those_who_stay(tmp_path: Path) -> None:
    with (
        shared(tmp_path),
        pytest.raises(DataError, match="another run, or `harness check`, is reading it"),
        exclusive(tmp_path, patience_s=0.2),
    ):
        pytest.fail("it was let in")


def test_a_folder_that_is_not_there_is_for_others_to_complain_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with shared(tmp_path / "nowhere"):
        pass
    assert not caplog.records


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.ENOSYS, errno.EROFS, errno.EBADF])
def test_a_file_system_without_locks_stops_no_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    number: int,
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with caplog.at_level(logging.WARNING), exclusive(tmp_path):
        pass
    assert "it cannot be locked" in caplog.text
    assert str(tmp_path) in caplog.text


@pytest.mark.parametrize("command", ["check", "pack", "evaluate", "phantom"])
def test_commands_that_read_data_do_not_during_a_run(tmp_path: Path, command: str) -> None:
    (tmp_path / "test").mkdir()
    with exclusive(tmp_path / "test"):
        done = subprocess.run(
            [sys.executable, "-m", "harness.cli", command, "--data", "test"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == DataError.exit_code
    assert "a run is reading it" in done.stderr
    assert list(tmp_path.rglob("*")) == [tmp_path / "test"]


def test_a_run_that_is_refused_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run waits five seconds for others; one is enough to see it give up."""
    monkeypatch.setattr("harness.execute.exclusive", partial(exclusive, patience_s=1.0))
    challenge, engine = tiny_challenge(), ProcessEngine()
    data_dir = write_data(tmp_path / "test")
    plan = Plan(
        challenge=challenge,
        challenge_file=write_challenge(tmp_path / "tiny.yaml"),
        data_dir=data_dir,
        tasks=read_pairs(challenge, data_dir),
        image=engine.build(write_method(tmp_path / "team", ZERO), tag="tiny"),
        submission="team",
    )
    run_dir = RunDirectory.create(tmp_path / "runs", "team")
    with exclusive(data_dir), pytest.raises(DataError, match="another run"):
        execute(plan, engine, run_dir)
    assert list((tmp_path / "runs/team").iterdir()) == []


def test_nobody_else_reads_the_data_of_a_run(tmp_path: Path) -> None:
    """Whoever opens a file counts, so the second run's readings would be charged to the first."""
    write_method(tmp_path, "time.sleep(2)\n" + ZERO)
    write_data(tmp_path / "test")
    write_challenge(tmp_path / "tiny.yaml")
    arguments = ("run", "--challenge", "tiny.yaml")
    first = subprocess.Popen(
        [sys.executable, "-m", "harness.cli", *arguments],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "DOCKER_HOST": "unix:///nonexistent"},
    )
    assert first.stderr is not None
    for line in first.stderr:
        if line.strip() == "started":
            break
    for others in (arguments, CHECK, VALIDATE):
        second = subprocess.run(
            [sys.executable, "-m", "harness.cli", *others],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert second.returncode == DataError.exit_code, second.stderr
        assert "a run is reading it" in second.stderr
    first.communicate()
    assert first.returncode == 0
    assert len(list((tmp_path / "runs/local").iterdir())) == 1
    (record,) = (RunDirectory(path).read_record() for path in (tmp_path / "runs/local").iterdir())
    for pair in record.pairs:
        assert pair.runtime_s is not None
        assert pair.runtime_s < 1.0, "nobody opened its images before it did"
