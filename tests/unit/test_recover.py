"""A harness that is killed in the middle of a run, and the next one: real processes, real files."""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from harness.challenge.field_file import FieldState
from harness.engine.home import make_home
from harness.engine.owner import Owner
from harness.engine.process import ProcessEngine
from harness.errors import Blame, OutputError
from harness.recover import Outcome, begun_runs, recover
from harness.started import StartRecord, read_start, write_start
from harness.store import RunDirectory, RunRecord, RunStatus
from tests.tiny import ZERO, write_challenge, write_data, write_method

if TYPE_CHECKING:
    from harness.engine.base import Engine, EngineName

# It hangs in the second pair, with a child in a session of its own.
HANGS = f"""
if pair.fixed_id == 2:
    import subprocess
    child = subprocess.Popen(['sleep', '300'], start_new_session=True)
    open(os.environ['HARNESS_OUTPUT_DIR'] + '/child', 'w').write(str(child.pid))
    time.sleep(300)
{ZERO}"""
FIRST = "task_01/0001_0001"


def process_engine(_: EngineName) -> Engine:
    return ProcessEngine()


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "harness", *map(str, arguments)]


def run_command(team: Path) -> list[str]:
    return command("run", "--engine", "process", "--challenge", "tiny.yaml")


def harness(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), cwd=cwd, capture_output=True, text=True, check=False)


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until_gone(pid: int) -> None:
    deadline_s = time.monotonic() + 10
    while not is_gone(pid) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert is_gone(pid)


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a harness that is killed leaves its run's home."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def team(tmp_path: Path) -> Path:
    make_team(tmp_path / "team")
    return tmp_path / "team"


def make_team(folder: Path) -> None:
    write_method(folder, HANGS)
    write_data(folder / "test")
    write_challenge(folder / "tiny.yaml")


def begin(team: Path) -> tuple[subprocess.Popen[str], RunDirectory]:
    """A harness whose run has finished its first pair, and hangs in the second."""
    process = subprocess.Popen(
        run_command(team), cwd=team, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "1/4" in line:
            break
    (run_dir,) = begun_runs(team / "runs")
    deadline_s = time.monotonic() + 20
    while not (run_dir.output_dir / "child").exists() and time.monotonic() < deadline_s:
        time.sleep(0.02)
    return process, run_dir


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate(timeout=30)


def killed(team: Path) -> RunDirectory:
    process, run_dir = begin(team)
    kill(process)
    return run_dir


def assert_first_pair_was_kept(record: RunRecord) -> None:
    assert record.status is RunStatus.INTERRUPTED
    assert record.blame is Blame.MACHINE
    assert "the harness was killed" in record.reason
    assert not record.witness.complete
    assert record.witness.lost[0] == "the harness ended before the run did"
    assert [pair.field_state for pair in record.pairs] == [
        FieldState.VALID,
        *[FieldState.MISSING] * 3,
    ]
    assert record.pairs[0].runtime_s is not None
    assert 0.0 < record.pairs[0].runtime_s < 20.0
    assert [record.ranked_runtime_s(pair) for pair in record.pairs] == [None] * 4


def assert_put_away(run_dir: RunDirectory, temporary: Path) -> None:
    assert {path.name for path in run_dir.path.iterdir()} == {
        *("fields", "log.txt", "run.json", "trace.jsonl.gz")
    }
    assert list(temporary.iterdir()) == []


def test_next_run_finishes_the_one_whose_harness_was_killed(
    team: Path, own_temporary_folder: Path
) -> None:
    process, run_dir = begin(team)
    grandchild = int((run_dir.output_dir / "child").read_text())
    children = psutil.Process(process.pid).children(recursive=True)
    assert {grandchild} < {child.pid for child in children}
    kill(process)
    for child in children:
        if child.pid != grandchild:  # the method's first process and the witness end by themselves
            wait_until_gone(child.pid)
    assert not is_gone(grandchild)

    write_method(team, ZERO)
    done = subprocess.run(run_command(team), cwd=team, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert is_gone(grandchild)
    assert f"recovered runs/local/{run_dir.run_id}: 1 of 4 fields kept, 1 with a" in done.stderr
    record = run_dir.read_record()
    assert_first_pair_was_kept(record)
    assert 0.0 < record.duration_s < 60.0
    assert record.pairs[0].flags == ()
    assert_put_away(run_dir, own_temporary_folder)
    assert "the method" not in done.stdout
    # and only once
    done = harness("recover", cwd=team)
    assert done.returncode == 0
    assert done.stderr == "runs: no unfinished run\n"


def test_recover_on_demand_and_again(team: Path, own_temporary_folder: Path) -> None:
    run_dir = killed(team)
    done = harness("recover", run_dir.run_id, cwd=team)
    assert done.returncode == 0, done.stderr
    assert "recovered" in done.stderr
    assert_first_pair_was_kept(run_dir.read_record())
    assert_put_away(run_dir, own_temporary_folder)
    before = run_dir.record_path.read_bytes()
    assert harness("recover", run_dir.run_id, cwd=team).returncode == 0
    assert run_dir.record_path.read_bytes() == before


def test_run_whose_harness_lives_is_not_touched(team: Path, own_temporary_folder: Path) -> None:
    process, run_dir = begin(team)
    try:
        done = harness("recover", cwd=team)
        assert done.returncode == 0
        assert f"still running; its harness lives (process {process.pid})" in done.stderr
        assert run_dir.started_path.exists()
        assert not run_dir.record_path.exists()
        assert not is_gone(int((run_dir.output_dir / "child").read_text()))
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert run_dir.read_record().reason.startswith("ended because the harness was asked")
    assert_put_away(run_dir, own_temporary_folder)


@pytest.fixture(scope="module")
def remains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a team whose harness was killed, when everything of it has ended."""
    folder = tmp_path_factory.mktemp("killed")
    make_team(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.setattr(tempfile, "tempdir", str(folder))
        killed(folder)
        ProcessEngine().sweep()
    return folder


@pytest.fixture
def begun(team: Path, remains: Path) -> RunDirectory:
    """A copy of the run, in a folder of its own."""
    shutil.copytree(remains / "runs", team / "runs")
    (run_dir,) = begun_runs(team / "runs")
    return run_dir


def test_start_holds_all_of_the_plan(team: Path, begun: RunDirectory) -> None:
    """The challenge's file and the data may be gone when the run is recovered."""
    start = read_start(begun)
    (team / "tiny.yaml").unlink()
    shutil.rmtree(team / "test")
    assert start.challenge.digest == start.challenge_digest
    plan = start.plan()
    assert [pair.key for pair in plan.pairs] == [pair.key for pair in start.pairs]
    record = recover(begun, process_engine).record
    assert record is not None
    assert_first_pair_was_kept(record)
    assert record.challenge_digest == start.challenge_digest
    assert record.limits == start.challenge.limits


def test_start_of_a_folder_whose_name_is_no_text(begun: RunDirectory) -> None:
    data_dir = Path(os.fsdecode(b"/data/caf\xe9"))
    start = read_start(begun).model_copy(update={"data_dir": data_dir})
    write_start(begun, start)
    assert read_start(begun).data_dir == data_dir


def disowned(run_dir: RunDirectory, **changes: str) -> StartRecord:
    start = read_start(run_dir)
    start = start.model_copy(update={"owner": replace(start.owner, **changes)})
    write_start(run_dir, start)
    return start


@pytest.mark.parametrize("change", [{"machine": "elsewhere"}, {"namespace": "pid:[1]"}])
def test_owner_that_cannot_be_judged_counts_as_alive(
    team: Path, begun: RunDirectory, change: dict[str, str]
) -> None:
    disowned(begun, **change)
    assert recover(begun, process_engine).outcome is Outcome.UNJUDGED
    assert begun.output_dir.exists()
    done = harness("recover", cwd=team)
    assert done.returncode == 0
    assert "left alone" in done.stderr


def test_another_recovery_at_the_same_time(begun: RunDirectory) -> None:
    folder = os.open(begun.path, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        assert recover(begun, process_engine).outcome is Outcome.RUNNING
    finally:
        os.close(folder)
    assert recover(begun, process_engine).outcome is Outcome.RECOVERED


def test_after_a_restart_file_times_are_still_told_on_the_trace_s_clock(
    begun: RunDirectory,
) -> None:
    """The monotonic clock began anew: with the offset of now, all fields seem to have changed."""
    hour_ns = 3600 * 10**9
    lines = [json.loads(line) for line in begun.growing_trace.read_bytes().splitlines()]
    earlier = [json.dumps({**line, "t_ns": line["t_ns"] - hour_ns}) + "\n" for line in lines]
    begun.growing_trace.write_text("".join(earlier))
    start = disowned(begun, boot="an earlier boot")
    change = {
        "monotonic_ns": start.monotonic_ns - hour_ns,
        "wall_offset_ns": start.wall_offset_ns + hour_ns,
    }
    write_start(begun, start.model_copy(update=change))
    record = recover(begun, process_engine).record
    assert record is not None
    assert_first_pair_was_kept(record)
    assert record.pairs[0].flags == ()
    assert 0.0 < record.duration_s < 60.0


def test_field_changed_while_nobody_watched_is_flagged(begun: RunDirectory) -> None:
    os.utime(begun.output_dir / "task_01/disp_0001_0001.npz")
    record = recover(begun, process_engine).record
    assert record is not None
    assert record.pairs[0].flags == ("changed_after_close",)


def test_trace_that_is_cut_in_the_middle_of_a_line(begun: RunDirectory) -> None:
    lines = begun.growing_trace.read_bytes().splitlines(keepends=True)
    last = max(n for n, line in enumerate(lines) if b"disp_0001_0001" in line)
    begun.growing_trace.write_bytes(b"".join(lines[: last + 1]) + lines[last][:20])
    os.utime(begun.growing_trace, (0, 0))
    record = recover(begun, process_engine).record
    assert record is not None
    assert_first_pair_was_kept(record)
    assert "the trace's last line is cut" in record.witness.lost


@pytest.mark.parametrize("content", [None, b"", b"\0" * 4096, b"\0" * 4096 + b"\n{}\n"])
def test_trace_that_is_lost(begun: RunDirectory, content: bytes | None) -> None:
    begun.growing_trace.unlink()
    if content is not None:
        begun.growing_trace.write_bytes(content)
    record = recover(begun, process_engine).record
    assert record is not None
    assert record.pairs[0].field_state is FieldState.VALID
    assert record.pairs[0].runtime_s is None
    assert not record.witness.complete


def test_packed_trace_that_is_damaged(begun: RunDirectory) -> None:
    packed = gzip.compress(begun.growing_trace.read_bytes())
    begun.growing_trace.unlink()
    begun.trace_path.write_bytes(packed[:-6])
    record = recover(begun, process_engine).record
    assert record is not None
    assert_first_pair_was_kept(record)
    assert "the packed trace is damaged" in record.witness.lost


def test_recovery_that_was_killed_is_done_again(
    begun: RunDirectory, own_temporary_folder: Path
) -> None:
    """Half a field was copied, the trace packed, the record half written."""
    field = begun.fields_dir / "task_01/disp_0001_0001.npz"
    field.parent.mkdir(parents=True)
    field.write_bytes(b"PK")
    field.with_name(f".{field.name}.part").write_bytes(b"P")
    begun.trace_path.with_suffix(".part").write_bytes(b"half")
    begun.record_path.with_suffix(".part").write_text('{"schema')
    record = recover(begun, process_engine).record
    assert record is not None
    assert_first_pair_was_kept(record)
    assert_put_away(begun, own_temporary_folder)
    assert [path.name for path in (begun.fields_dir / "task_01").iterdir()] == [field.name]


def test_output_that_is_gone_gives_way_to_what_was_collected(begun: RunDirectory) -> None:
    begun.output_dir.rename(begun.fields_dir)
    record = recover(begun, process_engine).record
    assert record is not None
    assert_first_pair_was_kept(record)
    assert record.pairs[0].flags == ()
    assert (begun.fields_dir / "task_01/disp_0001_0001.npz").is_file()


def test_output_that_is_gone_altogether(begun: RunDirectory) -> None:
    shutil.rmtree(begun.output_dir)
    record = recover(begun, process_engine).record
    assert record is not None
    assert record.status is RunStatus.INTERRUPTED
    assert [pair.field_state for pair in record.pairs] == [FieldState.MISSING] * 4


def test_record_that_was_there_is_kept_and_the_rest_removed(
    begun: RunDirectory, own_temporary_folder: Path
) -> None:
    """Killed between the record and the removal of the output."""
    kept = begun.path.with_name("kept")
    shutil.copytree(begun.path, kept)
    recover(begun, process_engine)
    before = begun.record_path.read_bytes()
    shutil.copytree(kept / "output", begun.output_dir)
    shutil.copy(kept / "started.json", begun.started_path)
    recovery = recover(begun, process_engine)
    assert recovery.outcome is Outcome.TIDIED
    assert begun.record_path.read_bytes() == before
    assert_put_away(begun, own_temporary_folder)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "damaged"),
        (b'{"schema_version": 1, "owner"', "damaged"),
        (b"\0" * 512, "damaged"),
        (b'{"schema_version": 2}', "another content"),
    ],
)
def test_start_that_cannot_be_read_loses_nothing(
    team: Path, begun: RunDirectory, content: bytes, found: str
) -> None:
    begun.started_path.write_bytes(content)
    with pytest.raises(OutputError, match=found):
        recover(begun, process_engine)
    assert (begun.output_dir / "task_01/disp_0001_0001.npz").is_file()
    done = harness("recover", cwd=team)
    assert done.returncode == OutputError.exit_code
    assert "is not finished yet" in done.stderr


def test_run_without_a_start_has_nothing_to_collect(team: Path) -> None:
    run_dir = RunDirectory.create(team / "runs", "local")
    run_dir.started_path.with_suffix(".part").write_text('{"schema')
    assert recover(run_dir, process_engine).outcome is Outcome.UNSTARTED
    done = harness("recover", run_dir.run_id, cwd=team)
    assert done.returncode == 0
    assert "never started" in done.stderr
    assert harness("recover", cwd=team).stderr == "runs: no unfinished run\n"


def test_record_that_cannot_be_written_leaves_all_as_it_was(
    begun: RunDirectory,
) -> None:
    begun.record_path.with_suffix(".part").mkdir()  # nobody can write a file of this name
    with pytest.raises(OutputError, match="nothing is lost"):
        recover(begun, process_engine)
    assert (begun.fields_dir / "task_01/disp_0001_0001.npz").is_file()
    assert begun.started_path.exists()
    begun.record_path.with_suffix(".part").rmdir()
    record = recover(begun, process_engine).record
    assert record is not None
    assert_first_pair_was_kept(record)


def test_home_of_a_living_harness_stays(own_temporary_folder: Path) -> None:
    home = make_home()
    ours = Owner.current()
    dead = own_temporary_folder / home.name.replace(f"-{ours.pid}-", "-999999999-")
    elsewhere = own_temporary_folder / "harness-run-000000000000-1-1-abc"
    for folder in (dead, elsewhere):
        folder.mkdir()
    ProcessEngine().sweep()
    assert home.is_dir()
    assert elsewhere.is_dir()
    assert not dead.exists()
