"""Whole runs with the process engine: real child processes, real files, real probes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from harness.cache import CacheMode, CacheState, cached_ratio, drop
from harness.challenge.field_file import FieldState
from harness.challenge.pairs import read_pairs
from harness.ending import Cut
from harness.engine.base import Isolation
from harness.engine.process import ProcessEngine
from harness.errors import Blame, ChallengeError, OutputError
from harness.execute import Progress, Step, execute
from harness.machine.contamination import MachineVerdict
from harness.plan import Plan
from harness.probe.realtime import Precision
from harness.runner.inside import parse_report
from harness.store import RunDirectory, RunRecord, RunStatus
from harness.timing import Flag
from tests.tiny import ZERO, tiny_challenge, write_challenge, write_data, write_method

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return write_data(tmp_path / "test")


def run(
    tmp_path: Path,
    body: str,
    *,
    members: str = "",
    yaml_changes: tuple[tuple[str, str], ...] = (),
    cache: CacheMode = CacheMode.WARM,
    progress: list[Progress] | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
    realtime: bool = True,
) -> tuple[RunRecord, RunDirectory]:
    """One run of a method with this ``register`` body."""
    folder = write_method(tmp_path / "team", body, members=members)
    challenge_file = write_challenge(tmp_path / "tiny.yaml")
    challenge = tiny_challenge(*yaml_changes)
    engine = ProcessEngine()
    data_dir = tmp_path / "test"
    plan = Plan(
        challenge=challenge,
        challenge_file=challenge_file,
        data_dir=data_dir,
        tasks=read_pairs(challenge, data_dir),
        image=engine.build(folder, tag="tiny"),
        submission="team",
        realtime=realtime,
        cache=cache,
    )
    run_dir = RunDirectory.create(tmp_path / "runs", "team")
    on_progress = on_progress if progress is None else progress.append
    return execute(plan, engine, run_dir, on_progress), run_dir


def states(record: RunRecord) -> list[FieldState]:
    return [pair.field_state for pair in record.pairs]


def test_all_pairs_of_both_tasks(tmp_path: Path, data_dir: Path) -> None:
    progress: list[Progress] = []
    record, run_dir = run(tmp_path, "time.sleep(0.1)\n" + ZERO, progress=progress)
    assert record.status is RunStatus.SUCCEEDED
    assert record.blame is None
    assert record.exit_code == 0
    assert states(record) == [FieldState.VALID] * 4
    assert record.witness.complete
    assert run_dir.read_record() == record
    assert sorted(path.name for path in run_dir.path.iterdir()) == [
        "fields",
        "log.txt",
        "run.json",
        "trace.jsonl.gz",
    ]
    for pair in record.pairs:
        assert pair.runtime_s is not None
        assert 0.0 < pair.runtime_s < 5.0
        assert pair.flags == ()
    assert [task.valid_fields for task in record.tasks] == [2, 2]
    written = [p.pair for p in progress if p.step is Step.FIELD_WRITTEN]
    assert written == [pair.key for pair in record.pairs]


def test_field_that_is_written_slowly_is_announced_when_it_is_complete(
    tmp_path: Path, data_dir: Path
) -> None:
    """A submission of 2022 was said to take 0.013 s: its field had been created, not written."""
    body = """
data, output = os.environ['HARNESS_DATA_DIR'], os.environ['HARNESS_OUTPUT_DIR']
for task, fixed, moving in (('task_01', 1, 1), ('task_01', 2, 2), ('task_02', 7, 8)):
    for case in (fixed, moving):
        open(f'{data}/{task}/img{case:04d}.nii.gz', 'rb').close()
    with open(f'{output}/{task}/disp_{fixed:04d}_{moving:04d}.npz', 'wb') as file:
        time.sleep(0.4)
        np.savez_compressed(file, np.zeros((3, 8, 6, 10), np.float16))
np.savez_compressed(output + '/part.npz', np.zeros((3, 8, 6, 10), np.float16))
os.link(output + '/part.npz', output + '/task_02/disp_0008_0009.npz')
os._exit(0)
"""
    progress: list[Progress] = []
    record, _ = run(tmp_path, body, progress=progress)
    assert states(record) == [FieldState.VALID] * 4
    announced = [step for step in progress if step.step is Step.FIELD_WRITTEN]
    assert [step.pair for step in announced] == [pair.key for pair in record.pairs]
    for step in announced[:3]:
        assert step.runtime_s is not None
        assert step.runtime_s >= 0.4


def test_cold_run_finds_no_input_in_memory(tmp_path: Path, data_dir: Path) -> None:
    """Looked at from inside, when the method is loaded: after it was dropped, before any pair."""
    images = sorted(data_dir.rglob("*.nii.gz"))
    drop(images)
    if cached_ratio(images) != 0.0:
        pytest.skip("this file system keeps the pages of its files in memory")
    seen = tmp_path / "seen"
    look = (
        "def prepare(self, task):\n"
        "    from pathlib import Path\n"
        "    from harness.cache import cached_ratio\n"
        f"    if task.name == 'task_01':\n"
        f"        images = sorted(Path({str(data_dir)!r}).rglob('*.nii.gz'))\n"
        f"        Path({str(seen)!r}).write_text(str(cached_ratio(images)))"
    )
    for mode, ratio in ((CacheMode.COLD, "0.0"), (CacheMode.WARM, "1.0")):
        record, _ = run(tmp_path, ZERO, members=look, cache=mode)
        assert record.status is RunStatus.SUCCEEDED
        assert record.cache.applied is CacheState(mode.value)
        assert seen.read_text() == ratio


BUSY = """
end = time.monotonic() + 1.0
while time.monotonic() < end: pass
"""


def test_busy_machine_makes_a_run_suspect(tmp_path: Path, data_dir: Path) -> None:
    spin = f"{sys.executable} -c 'while True: pass'"
    # Orphans: what descends from the harness counts as its own. In sessions of their own: Linux may
    # share the CPUs by session (autogroup).
    orphans = [
        int(subprocess.check_output(["sh", "-c", f"setsid {spin} > /dev/null & echo $!"]))
        for _ in range(2 * (os.cpu_count() or 1))
    ]
    try:
        record, _ = run(tmp_path, BUSY + ZERO)
    finally:
        for pid in orphans:
            os.kill(pid, signal.SIGKILL)
    found = record.contamination
    assert found.verdict is MachineVerdict.SUSPECT
    assert any("other programs used" in line for line in found.evidence)
    assert record.status is RunStatus.SUCCEEDED  # a doubt, not a failure


def test_work_of_the_submission_is_not_foreign(tmp_path: Path, data_dir: Path) -> None:
    """One of its processes is busy all the time; that is told from what others do meanwhile by
    counting everything once more."""
    before = psutil.cpu_times()
    started = time.monotonic()
    record, _ = run(tmp_path, BUSY + ZERO)
    rate = (sum(psutil.cpu_times()[:3]) - sum(before[:3])) / (time.monotonic() - started)
    assert record.contamination.foreign_cpus is not None
    assert record.contamination.foreign_cpus < rate - 0.3


def test_sleep_inside_a_pair_is_in_its_runtime(tmp_path: Path, data_dir: Path) -> None:
    body = "pair.fixed.array\ntime.sleep(0.4 if pair.fixed_id == 2 else 0.0)\n" + ZERO
    record, _ = run(tmp_path, body)
    by_key = {pair.key: pair.runtime_s or 0.0 for pair in record.pairs}
    assert by_key["task_01/0002_0002"] > 0.4
    assert by_key["task_01/0001_0001"] < 0.4
    task = record.task("task_01")
    assert task.first_runtime_s == by_key["task_01/0001_0001"]
    assert task.median_rest_s == by_key["task_01/0002_0002"]


def test_preparation_is_not_timed(tmp_path: Path, data_dir: Path) -> None:
    members = "def prepare(self, task):\n    time.sleep(0.5)"
    record, _ = run(tmp_path, ZERO, members=members)
    assert record.status is RunStatus.SUCCEEDED
    assert record.duration_s > 1.0  # two tasks were prepared
    assert all(pair.runtime_s is not None and pair.runtime_s < 0.4 for pair in record.pairs)


def test_single_pair_has_no_rest(tmp_path: Path) -> None:
    write_data(tmp_path / "test", first=((1, 1),))
    record, _ = run(tmp_path, ZERO)
    task = record.task("task_01")
    assert task.first_runtime_s == record.pairs[0].runtime_s
    assert task.median_rest_s is None


def test_two_witnesses_agree(tmp_path: Path, data_dir: Path) -> None:
    """Outside and inside, on every pair; a warning says when they are further apart than their
    scheduling explains, which a machine under load can bring about."""
    record, _ = run(tmp_path, "pair.fixed.array\ntime.sleep(0.05)\n" + ZERO)
    for pair in record.pairs:
        assert pair.runtime_s is not None
        assert pair.inside_runtime_s == pytest.approx(pair.runtime_s, abs=0.05)
    assert all("disagree" in warning for warning in record.warnings)


def test_failing_pair_costs_that_pair_only(tmp_path: Path, data_dir: Path) -> None:
    body = "if pair.fixed_id == 1:\n    raise ValueError('no \x1b[31midea')\n" + ZERO
    record, run_dir = run(tmp_path, body)
    assert record.status is RunStatus.INCOMPLETE
    assert record.reason == "1 of 4 fields missing"
    assert record.exit_code == 23
    assert record.blame is Blame.SUBMISSION
    assert states(record) == [FieldState.MISSING, *[FieldState.VALID] * 3]
    assert record.pairs[0].field_problem is not None
    assert "the method failed: ValueError: no" in record.pairs[0].field_problem
    assert "(method.py:8)" in record.pairs[0].field_problem
    assert "\x1b" not in record.pairs[0].field_problem
    assert "ValueError: no" in run_dir.log_path.read_text()


def test_task_that_fails_without_reading_was_attempted(tmp_path: Path, data_dir: Path) -> None:
    record, _ = run(tmp_path, "raise ValueError('before any image')")
    assert states(record) == [FieldState.MISSING] * 4
    assert [task.attempted for task in record.tasks] == [True, True]


def test_task_that_is_not_attempted_is_no_failure(tmp_path: Path, data_dir: Path) -> None:
    record, _ = run(tmp_path, ZERO, members="tasks = frozenset({'task_02'})")
    assert record.status is RunStatus.SUCCEEDED
    assert [task.attempted for task in record.tasks] == [False, True]
    assert states(record)[:2] == [FieldState.NOT_ATTEMPTED] * 2


@pytest.mark.parametrize(
    ("body", "status", "exit_code"),
    [
        ("os._exit(7)", RunStatus.CRASHED, 7),
        ("os.kill(os.getpid(), 11)", RunStatus.CRASHED, 139),
        ("os._exit(0)", RunStatus.INCOMPLETE, 0),
    ],
)
def test_death_on_the_way(
    tmp_path: Path, data_dir: Path, body: str, status: RunStatus, exit_code: int
) -> None:
    record, _ = run(tmp_path, f"if pair.fixed_id == 2:\n    {body}\n{ZERO}")
    assert record.status is status
    assert record.exit_code == exit_code
    # What was finished before counts, with its time.
    assert record.pairs[0].field_state is FieldState.VALID
    assert record.pairs[0].runtime_s is not None
    assert record.pairs[1].field_state is FieldState.MISSING


def test_field_whose_completion_was_not_seen_makes_the_times_incomplete(
    tmp_path: Path, data_dir: Path
) -> None:
    """It had no runtime, and nothing said so: slow pairs could be left out of the median."""
    body = (
        "folder = os.environ['HARNESS_OUTPUT_DIR'] + '/task_01'\n"
        "if pair.fixed_id == 7:\n"
        "    os.rename(folder, folder + '.old')\n"
        "    os.mkdir(folder + '.new'); os.rename(folder + '.old/disp_0001_0001.npz',"
        " folder + '.new/disp_0001_0001.npz')\n"
        "    os.rename(folder + '.new', folder)\n" + ZERO
    )
    record, _ = run(tmp_path, body)
    assert record.pairs[0].field_state is FieldState.VALID
    assert record.pairs[0].runtime_s is None
    assert not record.witness.complete
    assert "the completion of 1 fields was not seen, task_01/0001_0001 the first" in (
        record.witness.lost
    )


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-1.0", "1e999", "1e308"])
def test_no_number_is_no_runtime(number: str) -> None:
    """Python's JSON writes NaN as it is, and nothing compares with it: no disagreement was seen."""
    pairs = f'[{{"pair": "task_01/0001_0001", "runtime_s": {number}}}]'
    report = f'{{"precision": "fifo", "complete": true, "pairs": {pairs}}}'
    assert parse_report(report.encode()) is None
    assert parse_report(report.replace(number, "1.0").encode()) is not None


def test_method_that_tidies_up_the_temporary_folder(tmp_path: Path, data_dir: Path) -> None:
    """The trace of the witness inside lay there: a run with all its fields ended in a traceback."""
    tidy = "import shutil, tempfile; shutil.rmtree(tempfile.gettempdir(), ignore_errors=True)\n"
    record, run_dir = run(tmp_path, tidy + ZERO)
    assert record.status is RunStatus.SUCCEEDED
    assert "no runtimes from inside" in run_dir.log_path.read_text()


def test_deadline_ends_a_run(tmp_path: Path, data_dir: Path) -> None:
    shorter = (("setup_time: 60s", "setup_time: 2s"), ("pair_time: 10s", "pair_time: 0.2s"))
    body = f"if pair.fixed_id == 2:\n    time.sleep(600)\n{ZERO}"
    started = time.monotonic()
    record, _ = run(tmp_path, body, yaml_changes=shorter)
    assert record.status is RunStatus.TIMED_OUT
    assert "deadline" in record.reason
    assert time.monotonic() - started < 30
    assert states(record)[0] is FieldState.VALID


def limits(text: str) -> tuple[tuple[str, str], ...]:
    return (("pair_time: 10s", f"pair_time: 10s\n  {text}"),)


def test_pair_that_takes_too_long_ends_a_run_and_is_named(tmp_path: Path, data_dir: Path) -> None:
    body = (
        "pair.fixed.array\n"
        "while pair.fixed_id == 2 or pair.fixed_id > 2 and time.sleep(1.2): pass\n"
        f"{ZERO}"
    )
    started = time.monotonic()
    record, _ = run(tmp_path, body, yaml_changes=limits("longest_pair: 2s"))
    assert record.status is RunStatus.TIMED_OUT
    assert "pair task_01/0002_0002 kept it for 2 s" in record.reason
    assert time.monotonic() - started < 20
    assert states(record)[:2] == [FieldState.VALID, FieldState.MISSING]
    assert record.ending is not None
    assert record.ending.cut is not None
    assert record.ending.cut.reason is Cut.PAIR_TIMED_OUT
    assert record.ending.cut.limit == 2.0


def test_run_of_many_pairs_may_take_longer_than_one(tmp_path: Path, data_dir: Path) -> None:
    body = "pair.fixed.array\ntime.sleep(0.8)\n" + ZERO
    record, _ = run(tmp_path, body, yaml_changes=limits("longest_pair: 2s"))
    assert record.status is RunStatus.SUCCEEDED
    assert record.duration_s > 3.2


def test_submission_that_hangs_is_ended_before_its_deadline(tmp_path: Path, data_dir: Path) -> None:
    body = f"if pair.fixed_id == 2:\n    time.sleep(600)\n{ZERO}"
    record, _ = run(tmp_path, body, yaml_changes=limits("idle_time: 3s"))
    assert record.status is RunStatus.TIMED_OUT
    assert "used no CPU for" in record.reason
    assert record.ending is not None
    assert record.ending.last_file_event_s is not None
    assert record.duration_s < 15


def test_busy_submission_is_not_idle(tmp_path: Path, data_dir: Path) -> None:
    body = "end = time.monotonic() + 4\nwhile pair.fixed_id == 2 and time.monotonic() < end: pass\n"
    record, _ = run(tmp_path, body + ZERO, yaml_changes=limits("idle_time: 2s"))
    assert record.status is RunStatus.SUCCEEDED
    assert record.ending is not None
    assert record.ending.last_cpu_use_s is not None


def test_too_many_files_end_a_run_even_when_it_ends_first(tmp_path: Path, data_dir: Path) -> None:
    """A verdict must not depend on which comes first, our look or its end."""
    body = (
        "folder = os.environ['HARNESS_OUTPUT_DIR']\n"
        "for number in range(200): open(f'{folder}/{number}', 'w').close()\n"
        "os._exit(0)"
    )
    record, _ = run(tmp_path, body, yaml_changes=limits("output_files: 100"))
    assert record.status is RunStatus.OUTPUT_LIMIT
    assert "100 files and folders" in record.reason


def test_fewer_files_than_the_fields_are_refused_at_the_start(
    tmp_path: Path, data_dir: Path
) -> None:
    """A submission was blamed for folders that the harness had made."""
    with pytest.raises(ChallengeError, match=r"at least 7, for the fields of 4 pairs.*found 6"):
        run(tmp_path, ZERO, yaml_changes=limits("output_files: 6"))
    record, _ = run(tmp_path, ZERO, yaml_changes=limits("output_files: 7"))
    assert record.status is RunStatus.SUCCEEDED


def test_evidence_is_stored(tmp_path: Path, data_dir: Path) -> None:
    record, _ = run(tmp_path, "print('hello')\n" + ZERO)
    ending = record.ending
    assert ending is not None
    assert (ending.exit_code, ending.exit_signal, ending.cut) == (0, None, None)
    assert ending.output_entries is not None
    assert ending.output_entries >= 6  # two folders, four fields
    assert ending.lowest_free_bytes is not None
    assert ending.free_floor_bytes is not None
    assert not ending.disk_was_full
    assert ending.isolation == Isolation()


def test_files_that_no_pair_expects_are_told(tmp_path: Path, data_dir: Path) -> None:
    body = (
        "folder = os.environ['HARNESS_OUTPUT_DIR']\n"
        "for name in (b'task_01/disp_0099_0099.npz', b'z\\n\\x1b[2J\\xff'):\n"
        "    open(os.path.join(folder.encode(), name), 'w').close()\n" + ZERO
    )
    record, _ = run(tmp_path, body)
    assert record.status is RunStatus.SUCCEEDED
    (told,) = [text for text in record.warnings if "no pair expects" in text]
    assert told.startswith("2 files in the output that no pair expects")
    assert "such as task_01/disp_0099_0099.npz" in told


@pytest.mark.parametrize(
    "kind", ["os.mkfifo(path)", "os.mkdir(path)", "os.truncate(path, 1 << 40)"]
)
def test_what_is_no_field_is_named_and_not_copied(
    tmp_path: Path, data_dir: Path, kind: str
) -> None:
    """A pipe, a folder, a file of a terabyte that takes no room on the disk."""
    body = (
        "path = os.environ['HARNESS_OUTPUT_DIR'] + '/task_01/disp_0001_0001.npz'\n"
        "if pair.fixed_id == 2:\n"
        f"    {'' if 'truncate' in kind else 'os.unlink(path); '}{kind}\n" + ZERO
    )
    record, run_dir = run(tmp_path, body)
    assert record.status is RunStatus.REJECTED
    assert states(record)[:2] == [FieldState.INVALID, FieldState.VALID]
    assert not (run_dir.fields_dir / "task_01/disp_0001_0001.npz").exists()
    assert not run_dir.output_dir.exists()


def test_names_that_reach_anywhere_are_left_alone(tmp_path: Path, data_dir: Path) -> None:
    """Folders that nobody may enter, sockets, hard links, names of any bytes: all are gone."""
    body = (
        "import socket\n"
        "folder = os.environ['HARNESS_OUTPUT_DIR']\n"
        "if pair.fixed_id == 8:\n"
        "    socket.socket(socket.AF_UNIX).bind(folder + '/s')\n"
        "    os.link(folder + '/task_01/disp_0001_0001.npz', folder + '/again')\n"
        "    os.makedirs(folder + '/a/b')\n"
        "    os.chmod(folder + '/a/b', 0); os.chmod(folder + '/a', 0)\n" + ZERO
    )
    record, run_dir = run(tmp_path, body)
    assert states(record) == [FieldState.VALID] * 4
    assert not run_dir.output_dir.exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """40 MiB for runs, in memory."""
    disk = tmp_path / "runs"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.decode()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_full_disk_loses_nothing_and_is_the_machines(
    tmp_path: Path, data_dir: Path, small_disk: Path
) -> None:
    """Within its output limit of 64 MiB, the submission is not to blame."""
    body = (
        "if pair.fixed_id == 2:\n"
        "    with open(os.environ['HARNESS_OUTPUT_DIR'] + '/big', 'wb', buffering=0) as file:\n"
        "        try:\n"
        "            while file.write(bytes(65536)): pass\n"
        "        except OSError: pass\n"
        "    time.sleep(600)\n" + ZERO
    )
    record, run_dir = run(tmp_path, body)
    assert run_dir.path.is_relative_to(small_disk)
    assert record.status is RunStatus.INFRASTRUCTURE
    assert record.blame is Blame.MACHINE
    assert "disk is full" in record.reason
    assert states(record)[:2] == [FieldState.VALID, FieldState.MISSING]
    assert run_dir.read_record() == record
    assert not run_dir.output_dir.exists()


def test_run_does_not_begin_without_room(tmp_path: Path, data_dir: Path, small_disk: Path) -> None:
    with (small_disk / "other").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 38 << 20)
    with pytest.raises(OutputError, match=r"free for 4 fields.*--runs"):
        run(tmp_path, ZERO)
    assert list((small_disk / "team").iterdir()) == []


def test_output_limit_ends_a_run(tmp_path: Path, data_dir: Path) -> None:
    body = (
        "folder = os.environ['HARNESS_OUTPUT_DIR']\n"
        "with open(folder + '/big', 'wb') as file:\n"
        "    while True:\n"
        "        file.write(bytes(1 << 20)); time.sleep(0.005)"
    )
    record, run_dir = run(tmp_path, body)
    assert record.status is RunStatus.OUTPUT_LIMIT
    assert not run_dir.output_dir.exists()


def test_output_that_cannot_be_looked_at_ends_a_run(tmp_path: Path, data_dir: Path) -> None:
    """Whatever hides from the look may be of any size."""
    body = (
        "folder = os.environ['HARNESS_OUTPUT_DIR']\n"
        "os.makedirs(folder + 33 * '/deeper', exist_ok=True)\n"
        "time.sleep(600)"
    )
    record, _ = run(tmp_path, body)
    assert record.status is RunStatus.OUTPUT_LIMIT
    assert "cannot be looked at" in record.reason
    assert "32 folders down" in record.reason


def test_invalid_field_is_rejected_and_named(tmp_path: Path, data_dir: Path) -> None:
    """A method that goes around the runner's own checks."""
    body = (
        "path = os.environ['HARNESS_OUTPUT_DIR'] + '/task_01/disp_0001_0001.npz'\n"
        "if pair.fixed_id == 2:\n"
        "    np.savez_compressed(path, np.full((3, 8, 6, 10), np.nan, np.float16))\n" + ZERO
    )
    record, _ = run(tmp_path, body)
    assert record.status is RunStatus.REJECTED
    first = record.pairs[0]
    assert first.field_state is FieldState.INVALID
    assert "NaN" in (first.field_problem or "")
    assert Flag.REWRITTEN in first.flags


def test_field_that_is_a_link_is_not_followed(tmp_path: Path, data_dir: Path) -> None:
    secret = tmp_path / "secret.npz"
    secret.write_bytes(b"not yours")
    body = (
        "path = os.environ['HARNESS_OUTPUT_DIR'] + '/task_01/disp_0001_0001.npz'\n"
        f"if pair.fixed_id == 2:\n    os.unlink(path); os.symlink({str(secret)!r}, path)\n" + ZERO
    )
    record, run_dir = run(tmp_path, body)
    assert record.pairs[0].field_state is FieldState.INVALID
    assert not (run_dir.fields_dir / "task_01/disp_0001_0001.npz").exists()


def test_children_do_not_outlive_the_run(tmp_path: Path, data_dir: Path) -> None:
    pid_file = tmp_path / "pid"
    body = (
        "import subprocess\n"
        f"child = subprocess.Popen(['sleep', '300'], start_new_session=True)\n"
        f"open({str(pid_file)!r}, 'w').write(str(child.pid))\n"
        "time.sleep(0.7)\n" + ZERO
    )
    run(tmp_path, body)
    pid = int(pid_file.read_text())
    # Dead is enough: reaping an orphan is the first process's business.
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_ctrl_c_keeps_what_is_finished(tmp_path: Path, data_dir: Path) -> None:
    """SIGINT, SIGTERM and SIGHUP to the command: stopped, stored, exit code 130."""
    folder = write_method(tmp_path / "team", f"if pair.fixed_id == 2:\n    time.sleep(600)\n{ZERO}")
    write_challenge(tmp_path / "tiny.yaml")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        command = subprocess.Popen(
            [
                *(sys.executable, "-m", "harness.cli", "run", str(folder), "--engine", "process"),
                *("--challenge", str(tmp_path / "tiny.yaml"), "--data", str(data_dir)),
                *("--runs", str(tmp_path / f"runs{number}")),
                *("--submission", str(tmp_path / "submission"), "--json"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "DOCKER_HOST": "unix:///nonexistent"},
        )
        assert command.stderr is not None
        for line in command.stderr:
            if "1/4" in line:
                break
        command.send_signal(number)
        stdout, _ = command.communicate(timeout=30)
        assert command.returncode == 130
        record = json.loads(stdout)
        assert record["status"] == "interrupted"
        assert [p["field_state"] for p in record["pairs"]][:2] == ["valid", "missing"]
        assert (tmp_path / "submission/task_01/disp_0001_0001.npz").is_file()


def test_second_ctrl_c_waits_until_the_run_is_stored(tmp_path: Path, data_dir: Path) -> None:
    """While a submission that ignores SIGTERM was stopped, it left no record and no fields."""
    deaf = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    body = f"{deaf}if pair.fixed_id == 2:\n    time.sleep(600)\n{ZERO}"
    folder = write_method(tmp_path / "team", body)
    write_challenge(tmp_path / "tiny.yaml")
    for presses in (2, 3):
        runs = tmp_path / f"runs{presses}"
        command = subprocess.Popen(
            [
                *(sys.executable, "-m", "harness.cli", "run", str(folder), "--engine", "process"),
                *("--challenge", str(tmp_path / "tiny.yaml"), "--data", str(data_dir)),
                *("--runs", str(runs), "--submission", str(tmp_path / "submission"), "--json"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "DOCKER_HOST": "unix:///nonexistent"},
        )
        assert command.stderr is not None
        for line in command.stderr:
            if "1/4" in line:
                break
        for _ in range(presses):
            command.send_signal(signal.SIGINT)
            time.sleep(0.7)
        stdout, stderr = command.communicate(timeout=30)
        assert command.returncode == 130
        assert "interrupt once more" in stderr
        record = json.loads(stdout)
        assert record["status"] == "interrupted"
        assert record["ending"]["cut"]["reason"] == "interrupted"
        assert [p["field_state"] for p in record["pairs"]][:2] == ["valid", "missing"]
        (run_dir,) = (runs / "local").iterdir()
        assert sorted(path.name for path in run_dir.iterdir()) == [
            "fields",
            "log.txt",
            "run.json",
            "trace.jsonl.gz",
        ]


def test_submission_is_kept_off_the_cpu_of_a_witness_without_real_time(
    tmp_path: Path, data_dir: Path
) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        pytest.skip("needs two CPUs")
    seen = tmp_path / "cpus"
    body = f"open({str(seen)!r}, 'w').write(repr(sorted(os.sched_getaffinity(0))))\n" + ZERO
    record, _ = run(tmp_path, body, realtime=False)
    assert record.witness.precision is Precision.RESERVED_CPU
    assert record.witness.reserved_cpu == cpus[-1]
    assert seen.read_text() == repr(cpus[:-1])


def test_challenge_may_forbid_to_reserve_a_cpu(tmp_path: Path, data_dir: Path) -> None:
    seen = tmp_path / "cpus"
    body = f"open({str(seen)!r}, 'w').write(repr(sorted(os.sched_getaffinity(0))))\n" + ZERO
    forbid = (("log_size: 64KiB", "log_size: 64KiB\n  reserve_cpu: false"),)
    record, _ = run(tmp_path, body, yaml_changes=forbid, realtime=False)
    assert record.witness.precision is Precision.PLAIN
    assert record.witness.reserved_cpu is None
    assert seen.read_text() == repr(sorted(os.sched_getaffinity(0)))


def test_probe_killed_during_the_run_costs_the_ranking_not_the_fields(
    tmp_path: Path, data_dir: Path
) -> None:
    """Killed in the middle of the second pair: every field is kept, the reason is stored."""

    def kill(progress: Progress) -> None:
        if progress.step is Step.FIELD_WRITTEN and progress.done == 1:
            probes = [
                child for child in psutil.Process().children() if "harness.probe" in child.cmdline()
            ]
            probes[0].kill()

    record, run_dir = run(tmp_path, "time.sleep(0.5)\n" + ZERO, on_progress=kill)
    assert record.status is RunStatus.SUCCEEDED
    assert states(record) == [FieldState.VALID] * 4
    assert not record.witness.complete
    assert "the witness: ended by SIGKILL" in record.witness.lost
    assert any("was not seen" in reason for reason in record.witness.lost)
    assert record.pairs[0].runtime_s is not None
    assert [record.ranked_runtime_s(pair) for pair in record.pairs] == [None] * 4
    assert run_dir.read_record() == record


def test_valid_field_that_nobody_saw_completed_makes_the_witness_incomplete(
    tmp_path: Path, data_dir: Path
) -> None:
    """A field that comes with its folder, complete, by rename."""
    body = (
        "if pair.fixed_id == 1:\n"
        "    output = os.environ['HARNESS_OUTPUT_DIR']\n"
        "    os.rename(output + '/task_02', output + '/aside')\n"
        "    for name in ('disp_0007_0008', 'disp_0008_0009'):\n"
        "        np.savez_compressed(output + f'/aside/{name}.npz',"
        " np.zeros((3, 8, 6, 10), np.float16))\n"
        "    os.rename(output + '/aside', output + '/task_02')\n"
        "if pair.fixed_id == 2:\n"
        "    time.sleep(0.1); os._exit(0)\n" + ZERO
    )
    record, _ = run(tmp_path, body)
    assert states(record)[2:] == [FieldState.VALID] * 2
    assert not record.witness.complete
    assert record.ranked_runtime_s(record.pairs[2]) is None
