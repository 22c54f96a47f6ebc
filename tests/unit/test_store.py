"""The run directory: what is written comes back, and what is no record is refused."""

from __future__ import annotations

import gzip
import json
import os
import stat
import time
from pathlib import Path, PurePosixPath

import pytest

from harness import errors
from harness.cache import CacheMode, CacheRecord, CacheState
from harness.challenge.field_file import FieldState
from harness.ending import Cut, CutRecord, EndingRecord
from harness.engine.base import EngineName, Isolation
from harness.errors import Blame, HarnessError, OutputError
from harness.image_record import ImageRecord
from harness.machine.contamination import Contamination, MachineVerdict
from harness.machine.fingerprint import take_fingerprint
from harness.probe.realtime import Precision
from harness.store import (
    PairRecord,
    RunDirectory,
    RunRecord,
    RunStatus,
    TaskRecord,
    WitnessRecord,
)
from harness.timing import Flag
from tests.tiny import dig, tiny_challenge

MACHINE = take_fingerprint("process none")
RECORD = RunRecord(
    harness_version="1.2.3",
    run_id="20240101-000000",
    submission="local",
    created="2024-01-01T00:00:00Z",
    challenge="tiny",
    challenge_digest=tiny_challenge().digest,
    engine=EngineName.PROCESS,
    engine_version="none",
    image_id="sha256:0",
    image_reference="a folder called é",
    image=ImageRecord(
        platform="linux/amd64",
        size_bytes=1 << 30,
        created=None,
        user="team",
        root=None,
        entrypoint=("/run.sh", "a b"),
        cmd=(),
        working_dir="/work",
        volumes=("/cache",),
        ports=("80/tcp",),
    ),
    limits=tiny_challenge().limits,
    status=RunStatus.REJECTED,
    reason="1 of 2 fields invalid",
    blame=Blame.SUBMISSION,
    exit_code=0,
    ending=EndingRecord(
        exit_code=137,
        exit_signal="SIGKILL",
        out_of_memory=False,
        refused_processes=0,
        cut=CutRecord(
            reason=Cut.PAIR_TIMED_OUT,
            after_s=12.25,
            limit_name="longest_pair_s",
            limit=10.0,
            observed=10.5,
            subject="task_01/0002_0002",
        ),
        isolation=Isolation(read_only_root=True, runtime="runsc"),
    ),
    duration_s=0.1 + 0.2,
    witness=WitnessRecord(precision=next(iter(Precision)), complete=False, lost=("overflow",)),
    cache=CacheRecord(asked=CacheMode.COLD, applied=CacheState.PARTIAL, cached_ratio=1 / 3),
    machine=MACHINE,
    machine_digest=MACHINE.digest,
    contamination=Contamination(verdict=MachineVerdict.SUSPECT, evidence=("a reason",)),
    tasks=(TaskRecord(name="task_01", attempted=True, pairs=2, valid_fields=1),),
    pairs=(
        PairRecord(
            key="task_01/0001_0001",
            task="task_01",
            fixed_id=1,
            moving_id=1,
            field_state=FieldState.VALID,
            field_sha256="0" * 64,
            runtime_s=1 / 3,
            exclusive_s=0.0,
            flags=(Flag.OVERLAPPED,),
        ),
        PairRecord(
            key="task_01/0002_0002",
            task="task_01",
            fixed_id=2,
            moving_id=2,
            field_state=FieldState.INVALID,
            field_problem="found 'x\x1b[2J'\n\u2028",
        ),
    ),
    warnings=("odd",),
)


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "runs", "local")


def all_errors(base: type[HarnessError] = HarnessError) -> list[type[HarnessError]]:
    """The tree of harness.errors; a special case elsewhere may share its parent's exit code."""
    below = [error for child in base.__subclasses__() for error in all_errors(child)]
    return [error for error in (base, *below) if error.__module__ == errors.__name__]


# --- The record ---------------------------------------------------------------------------------


def test_record_comes_back(run_dir: RunDirectory) -> None:
    run_dir.write_record(RECORD)
    found = run_dir.read_record()
    assert found == RECORD
    assert found.pairs[0].runtime_s == 1 / 3
    assert found.pairs[0].exclusive_s == 0.0
    assert found.pairs[1].runtime_s is None
    assert found.limits.deadline_s(1) == 70
    assert [path.name for path in run_dir.path.iterdir()] == ["run.json"]


def test_record_is_json_that_names_its_version(run_dir: RunDirectory) -> None:
    run_dir.write_record(RECORD)
    content = json.loads(run_dir.record_path.read_text("utf-8"))
    assert content["schema_version"] == 2
    assert content["status"] == "rejected"
    assert content["limits"]["memory"] == 2 * 2**30


def test_record_of_the_first_version_is_still_read(run_dir: RunDirectory) -> None:
    """It had no evidence, and fewer limits."""
    content = json.loads(RECORD.model_dump_json(by_alias=True)) | {"schema_version": 1}
    del content["ending"], content["changed_limits"], content["limits"]["idle_time"]
    run_dir.record_path.write_text(json.dumps(content))
    found = run_dir.read_record()
    assert found.ending is None
    assert found.pairs == RECORD.pairs


def test_writing_again_replaces(run_dir: RunDirectory) -> None:
    run_dir.write_record(RECORD)
    run_dir.write_record(RECORD.model_copy(update={"reason": "another"}))
    assert run_dir.read_record().reason == "another"


def test_task_by_name() -> None:
    assert RECORD.task("task_01") is RECORD.tasks[0]


def test_run_that_did_not_end(run_dir: RunDirectory) -> None:
    with pytest.raises(OutputError, match=r"no run\.json, so this run did not end") as caught:
        run_dir.read_record()
    assert str(run_dir.path) in str(caught.value)


@pytest.mark.parametrize(
    "place", [(), ("limits",), ("witness",), ("tasks", 0), ("pairs", 1)], ids=str
)
def test_unknown_key_is_refused(run_dir: RunDirectory, place: tuple[str | int, ...]) -> None:
    content = json.loads(RECORD.model_dump_json(by_alias=True))
    target = content
    for key in place:
        target = target[key]
    target["surprise"] = 1
    run_dir.record_path.write_text(json.dumps(content))
    with pytest.raises(OutputError, match="surprise"):
        run_dir.read_record()


@pytest.mark.parametrize(
    "change", [{"schema_version": 3}, {"status": "fine"}, {"blame": "weather"}, {"pairs": None}]
)
def test_odd_value_is_refused(run_dir: RunDirectory, change: dict[str, object]) -> None:
    content = json.loads(RECORD.model_dump_json(by_alias=True)) | change
    run_dir.record_path.write_text(json.dumps(content))
    with pytest.raises(
        OutputError, match=f"(?s)not a run record: .*{next(iter(change))}"
    ) as caught:
        run_dir.read_record()
    assert str(run_dir.record_path) in str(caught.value)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff\xfe", b"null"])
def test_what_is_no_record(run_dir: RunDirectory, raw: bytes) -> None:
    run_dir.record_path.write_bytes(raw)
    with pytest.raises(OutputError, match="not a run record"):
        run_dir.read_record()


# --- Exit codes ---------------------------------------------------------------------------------


def test_exit_codes_of_statuses_are_distinct() -> None:
    codes = [status.exit_code for status in RunStatus]
    assert len(set(codes)) == len(RunStatus)
    assert RunStatus.SUCCEEDED.exit_code == 0
    assert all(0 <= code < 256 for code in codes)


def test_exit_codes_of_errors_are_distinct() -> None:
    codes = {error: error.exit_code for error in all_errors()}
    assert len(set(codes.values())) == len(codes)
    assert all(0 < code < 256 for code in codes.values())
    assert 2 not in codes.values()  # a command line that was misspelt


def test_statuses_and_errors_share_the_code_of_an_interruption_only() -> None:
    shared = {s.exit_code for s in RunStatus} & {e.exit_code for e in all_errors()}
    assert shared == {130}
    assert RunStatus.INTERRUPTED.exit_code == errors.Interrupted.exit_code == 130


def test_the_tree_of_errors_is_the_one_drawn() -> None:
    drawn = errors.__doc__ or ""
    for error in all_errors():
        line = next(line for line in drawn.splitlines() if error.__name__ in line.split())
        if not error.__subclasses__():
            assert str(error.exit_code) in line.split()


# --- The directory ------------------------------------------------------------------------------


def test_two_runs_in_one_second(tmp_path: Path) -> None:
    created = [RunDirectory.create(tmp_path, "local") for _ in range(5)]
    assert len({run.run_id for run in created}) == 5
    for run in created:
        assert run.path.is_dir()
        assert run.path.parent == tmp_path / "local"
        assert run.submission == "local"
        assert time.strptime(run.run_id[:15], "%Y%m%d-%H%M%S")


def test_run_directory_is_its_owners_alone(run_dir: RunDirectory) -> None:
    assert stat.S_IMODE(run_dir.path.stat().st_mode) == 0o700


def test_run_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    with pytest.raises(OutputError, match=r"run directory .*: Not a directory"):
        RunDirectory.create(tmp_path / "runs", "local")


def test_all_paths_lie_in_the_directory(run_dir: RunDirectory) -> None:
    paths = [
        run_dir.record_path,
        run_dir.log_path,
        run_dir.growing_trace,
        run_dir.trace_path,
        run_dir.output_dir,
        run_dir.field_path(PurePosixPath("task_01/disp_0001_0001.npz")),
    ]
    assert len(set(paths)) == len(paths)
    assert all(path.is_relative_to(run_dir.path) for path in paths)
    assert paths[-1].is_relative_to(run_dir.fields_dir)


def test_trace_is_packed(run_dir: RunDirectory) -> None:
    lines = b'{"event": 1}\n' * 1000
    run_dir.growing_trace.write_bytes(lines)
    run_dir.compress_trace()
    assert gzip.decompress(run_dir.trace_path.read_bytes()) == lines
    assert list(run_dir.path.iterdir()) == [run_dir.trace_path]


def test_output_is_discarded_with_what_it_links_to_left_alone(
    run_dir: RunDirectory, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    folder = run_dir.output_dir / "task_01"
    folder.mkdir(parents=True)
    (folder / "link").symlink_to(precious)
    os.mkfifo(folder / "pipe")
    run_dir.discard_output()
    assert not run_dir.output_dir.exists()
    assert (precious / "file").exists()


def test_output_of_any_depth_is_discarded(run_dir: RunDirectory) -> None:
    """``shutil.rmtree`` recursed into each folder: a thousand of them ended the harness with a
    RecursionError and left the disk full."""
    run_dir.output_dir.mkdir()
    dig(run_dir.output_dir, 3000)
    run_dir.discard_output()
    assert not run_dir.output_dir.exists()


def test_discarding_what_is_not_there(
    run_dir: RunDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    run_dir.discard_output()
    assert caplog.text == ""


def test_all_but_what_a_submission_left_is_put_on_the_disk(tmp_path: Path) -> None:
    """A pipe in there would be waited for."""
    run_dir = RunDirectory.make(tmp_path, "team", "20240101-000000")
    run_dir.output_dir.mkdir()
    os.mkfifo(run_dir.output_dir / "pipe")
    (run_dir.output_dir / "link").symlink_to("/nonexistent")
    (run_dir.fields_dir / "task_01").mkdir(parents=True)
    (run_dir.fields_dir / "task_01/field.npz").write_bytes(b"x")
    run_dir.write_record(RECORD)
    run_dir.sync()
    assert run_dir.read_record() == RECORD
    (run_dir.fields_dir / "link").symlink_to("/nonexistent")
    with pytest.raises(OutputError, match="link"):
        run_dir.sync()
    with pytest.raises(OutputError, match="File exists"):
        RunDirectory.make(tmp_path, "team", "20240101-000000")
