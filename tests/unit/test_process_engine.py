"""The process engine with real child processes: how they end, and that none is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from harness.engine.base import BindMount, ExitState, RunSpec
from harness.engine.process import ProcessEngine, method_digest
from harness.errors import BuildError, EngineError, ImageMissing
from tests.tiny import ZERO, tiny_challenge, write_challenge, write_data, write_method

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.challenge.model import Limits
    from harness.engine.child import ChildExecution

MIB = 2**20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("method", "data", "out"):
        (tmp_path / name).mkdir()
    return tmp_path


def limits(**changes: int) -> Limits:
    return tiny_challenge().limits.model_copy(update=changes)


def spec(folder: Path, *, given: Limits | None = None, **environment: str) -> RunSpec:
    return RunSpec(
        image=ProcessEngine().build(folder, tag=""),
        name="test",
        mounts=(
            BindMount(source=folder / "data", target="/l2r/test", read_only=True),
            BindMount(source=folder / "out", target="/l2r/submission", read_only=False),
        ),
        limits=given or limits(),
        log_path=folder / "log.txt",
        environment=environment,
    )


def shell(folder: Path, script: str, *, given: Limits | None = None) -> ChildExecution:
    return ProcessEngine(("sh", "-c", script)).prepare(spec(folder, given=given))


def python(folder: Path, code: str, *, given: Limits | None = None) -> ChildExecution:
    command = (sys.executable, "-c", textwrap.dedent(code))
    return ProcessEngine(command).prepare(spec(folder, given=given))


def execute(execution: ChildExecution, timeout_s: float = 20.0) -> ExitState:
    with execution:
        execution.start()
        state = execution.wait(timeout_s)
    assert state is not None, "it still ran"
    return state


def pids_in(path: Path, count: int) -> list[int]:
    """The process ids a script wrote, one a line, once there are ``count`` of them."""
    deadline_s = time.monotonic() + 10
    while time.monotonic() < deadline_s:
        lines = path.read_text().split() if path.exists() else []
        if len(lines) >= count:
            return [int(line) for line in lines]
        time.sleep(0.02)
    pytest.fail(f"{path} never held {count} process ids")


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class TestImages:
    def test_the_id_follows_the_content(self, folder: Path) -> None:
        method = folder / "method"
        (method / "method.py").write_text("a = 1")
        first = method_digest(method)
        (method / "__pycache__").mkdir()
        (method / "__pycache__" / "method.pyc").write_text("compiled")
        assert method_digest(method) == first
        (method / "method.py").write_text("a = 2")
        assert method_digest(method) != first

    def test_the_id_tells_names_from_content(self, tmp_path: Path) -> None:
        for name, files in (("one", {"ab": "c"}), ("two", {"a": "bc"})):
            (tmp_path / name).mkdir()
            for file, content in files.items():
                (tmp_path / name / file).write_text(content)
        assert method_digest(tmp_path / "one") != method_digest(tmp_path / "two")

    def test_a_folder_without_a_method(self, tmp_path: Path) -> None:
        with pytest.raises(
            BuildError, match=r"expected method/method\.py in it, or method\.py, found"
        ):
            ProcessEngine().build(tmp_path, tag="")

    def test_an_image_cannot_be_run(self) -> None:
        with pytest.raises(
            ImageMissing, match="the process engine runs folders with a method and no images"
        ):
            ProcessEngine().find("l2r_submission")

    def test_a_method_that_changed_is_not_run_under_the_old_id(self, folder: Path) -> None:
        given = spec(folder)
        (folder / "method" / "new.py").write_text("")
        with pytest.raises(EngineError, match="has changed"):
            ProcessEngine().prepare(given)


class TestEnding:
    def test_exit_code_and_log(self, folder: Path) -> None:
        state = execute(shell(folder, "echo out; echo err >&2; exit 3"))
        assert state == ExitState(exit_code=3, out_of_memory=False)
        assert (folder / "log.txt").read_text().split() == ["out", "err"]

    def test_a_signal(self, folder: Path) -> None:
        assert execute(shell(folder, "kill -SEGV $$")).exit_code == 128 + signal.SIGSEGV

    def test_a_command_that_does_not_exist(self, folder: Path) -> None:
        execution = ProcessEngine(("/nonexistent/program",)).prepare(spec(folder))
        assert execute(execution).exit_code == 1
        assert "/nonexistent/program" in (folder / "log.txt").read_text()

    def test_still_running(self, folder: Path) -> None:
        with shell(folder, "sleep 60") as execution:
            execution.start()
            assert execution.wait(0.1) is None

    def test_stop_asks_first(self, folder: Path) -> None:
        with shell(folder, "trap 'echo bye; exit 9' TERM; echo up; sleep 60 & wait") as execution:
            execution.start()
            wait_for_log(folder, "up")
            assert execution.stop(grace_s=5.0).exit_code == 9
        assert "bye" in (folder / "log.txt").read_text()

    def test_stop_kills_what_does_not_listen(self, folder: Path) -> None:
        with shell(folder, "trap '' TERM; echo up; while :; do sleep 0.1; done") as execution:
            execution.start()
            wait_for_log(folder, "up")
            start_s = time.monotonic()
            assert execution.stop(grace_s=0.3).exit_code == 128 + signal.SIGKILL
        assert time.monotonic() - start_s < 5

    def test_stop_before_start(self, folder: Path) -> None:
        with shell(folder, "true") as execution:
            assert execution.stop() == ExitState(exit_code=None, out_of_memory=False)

    def test_wait_before_start(self, folder: Path) -> None:
        with shell(folder, "true") as execution, pytest.raises(EngineError, match="before start"):
            execution.wait(0.1)

    def test_much_output_neither_blocks_nor_fills_the_disk(self, folder: Path) -> None:
        assert execute(shell(folder, "yes | head -c 200000000")).exit_code == 0
        log = (folder / "log.txt").read_bytes()
        assert len(log) <= limits().log_bytes
        assert b"bytes of output left out" in log


def wait_for_log(folder: Path, text: str) -> None:
    deadline_s = time.monotonic() + 10
    while text not in (folder / "log.txt").read_text():
        assert time.monotonic() < deadline_s, f"{text} never appeared in the log"
        time.sleep(0.02)


FLEEING = """
    import os, sys, time
    def note(): print(os.getpid(), file=open("{pids}", "a"), flush=True)
    note()
    if os.fork() == 0:                # an ordinary child
        note(); time.sleep(60)
    if os.fork() == 0:                # one in a session of its own, its parent gone
        os.setsid()
        if os.fork() == 0:
            note(); time.sleep(60)
        os._exit(0)
"""


class TestNothingIsLeft:
    """A container's end ends all its processes; so must this."""

    @pytest.mark.parametrize("ending", ["time.sleep(60)", "sys.exit(0)", "os.abort()"])
    def test_the_tree_is_ended(self, folder: Path, ending: str) -> None:
        pids = folder / "pids"
        code = textwrap.dedent(FLEEING.format(pids=pids)) + (
            f"while len(open({str(pids)!r}).readlines()) < 3: time.sleep(0.01)\n{ending}"
        )
        with python(folder, code) as execution:
            execution.start()
            found = pids_in(pids, 3)
            execution.wait(0.5)
        assert [pid for pid in found if is_running(pid)] == []

    @pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
    def test_an_error_in_the_with_body(self, folder: Path, error: type[BaseException]) -> None:
        with pytest.raises(error):
            self._fail_in_the_body(folder, error)
        assert not is_running(pids_in(folder / "pids", 1)[0])

    def _fail_in_the_body(self, folder: Path, error: type[BaseException]) -> None:
        with shell(folder, f"echo $$ > {folder}/pids; sleep 60") as execution:
            execution.start()
            pids_in(folder / "pids", 1)
            raise error

    def test_its_home_is_removed(self, folder: Path) -> None:
        execute(shell(folder, f"pwd > {folder}/home; touch $HOME/cache"))
        assert not Path((folder / "home").read_text().strip()).exists()


class TestLimits:
    def test_memory(self, folder: Path) -> None:
        code = "x = bytearray(300 << 20); import time; time.sleep(60)"
        state = execute(python(folder, code, given=limits(memory_bytes=100 * MIB)))
        assert state == ExitState(exit_code=128 + signal.SIGKILL, out_of_memory=True)
        assert "limit is 100.0 MiB" in (folder / "log.txt").read_text()

    def test_memory_of_a_child(self, folder: Path) -> None:
        code = """
            import os, time
            if os.fork() == 0:
                x = bytearray(300 << 20)
            time.sleep(60)
        """
        assert execute(python(folder, code, given=limits(memory_bytes=100 * MIB))).out_of_memory

    def test_processes(self, folder: Path) -> None:
        script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 60 & done; wait"
        state = execute(shell(folder, script, given=limits(processes=5)))
        assert state == ExitState(exit_code=128 + signal.SIGKILL, out_of_memory=False)
        assert "the limit is 5" in (folder / "log.txt").read_text()


class TestEnvironment:
    def test_the_layout_and_nothing_private(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SECRET_TOKEN", "hush")
        execute(ProcessEngine(("env",)).prepare(spec(folder, GIVEN="yes")))
        found = dict(line.split("=", 1) for line in (folder / "log.txt").read_text().splitlines())
        assert found["HARNESS_DATA_DIR"] == str(folder / "data")
        assert found["HARNESS_OUTPUT_DIR"] == str(folder / "out")
        assert found["HARNESS_METHOD_DIR"] == str(folder / "method")
        assert found["GIVEN"] == "yes"
        assert "SECRET_TOKEN" not in found
        assert found["HOME"] != os.environ.get("HOME")

    def test_a_run_needs_data_and_output(self, folder: Path) -> None:
        (folder / "data").rmdir()
        with shell(folder, "true") as execution, pytest.raises(EngineError, match="data folder"):
            execution.start()


HARNESS = """
import sys, time
from pathlib import Path
sys.path.insert(0, {repository!r})
from tests.unit.test_process_engine import shell
folder = Path({folder!r})
with shell(folder, "echo $$ >> {folder}/pids; sleep 60 & echo $! >> {folder}/pids; wait") as run:
    run.start()
    time.sleep(60)
"""


class TestDeathOfTheHarness:
    @pytest.fixture
    def orphans(self, folder: Path) -> Iterator[list[int]]:
        """The first process of a run and its child, after their harness was killed."""
        code = HARNESS.format(repository=str(Path(__file__).parents[2]), folder=str(folder))
        with subprocess.Popen([sys.executable, "-c", code]) as harness:
            pids = pids_in(folder / "pids", 2)
            harness.kill()
            harness.wait()
            yield pids
        for pid in filter(is_running, pids):
            os.kill(pid, signal.SIGKILL)

    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
    def test_the_first_process_ends_with_it_and_a_sweep_ends_the_rest(
        self, orphans: list[int]
    ) -> None:
        main, child = orphans
        deadline_s = time.monotonic() + 5
        while is_running(main) and time.monotonic() < deadline_s:
            time.sleep(0.02)
        assert not is_running(main)
        assert is_running(child)
        assert any(name.startswith("test-") for name in ProcessEngine().sweep())
        assert not is_running(child)

    def test_a_sweep_leaves_the_living_alone(self, folder: Path) -> None:
        with shell(folder, "sleep 60") as execution:
            execution.start()
            ProcessEngine().sweep()
            assert execution.wait(0.1) is None


def test_the_reference_runner(folder: Path) -> None:
    """End to end: a plugin, two tasks, fields on disk."""
    write_data(folder / "tiny")
    write_method(folder, ZERO)
    given = spec(folder, HARNESS_CHALLENGE=str(write_challenge(folder / "tiny.yaml")))
    mounts = (
        BindMount(source=folder / "tiny", target="/l2r/test", read_only=True),
        *given.mounts[1:],
    )
    given = RunSpec(**{**vars(given), "mounts": mounts})
    state = execute(ProcessEngine().prepare(given), timeout_s=60)
    assert state.exit_code == 0, (folder / "log.txt").read_text()
    assert len(list((folder / "out").rglob("disp_*.npz"))) == 4
