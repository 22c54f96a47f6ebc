"""The probe on real files: the real program, the real kernel."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import pytest

from harness.errors import ProbeError
from harness.probe.client import ChildProgram, Probe
from harness.probe.inotify import IN_OPEN, RawEvent, decode
from harness.probe.realtime import Precision
from harness.probe.spec import WatchSpec
from harness.probe.trace import (
    End,
    Event,
    FileEvent,
    Header,
    Placement,
    Root,
    Trace,
    TraceTail,
    read_trace,
    to_line,
)
from harness.probe.watch import Watcher

if TYPE_CHECKING:
    from collections.abc import Callable

INPUT, OTHER_INPUT = PurePosixPath("task_01/a.nii.gz"), PurePosixPath("task_01/b.nii.gz")
FIELD, LATE_FIELD = PurePosixPath("task_01/disp.npz"), PurePosixPath("late/disp.npz")


@pytest.fixture
def spec(tmp_path: Path) -> WatchSpec:
    """Two inputs, a field whose folder is there and one whose folder is not."""
    (tmp_path / "data/task_01").mkdir(parents=True)
    (tmp_path / "output/task_01").mkdir(parents=True)
    for path in (INPUT, OTHER_INPUT):
        (tmp_path / "data" / path).write_bytes(b"voxels")
    return WatchSpec(
        placement=Placement.HOST,
        trace=tmp_path / "trace.jsonl",
        data_dir=tmp_path / "data",
        output_dir=tmp_path / "output",
        inputs=(INPUT, OTHER_INPUT),
        fields=(FIELD, LATE_FIELD),
    )


def events_of(trace: Trace, root: Root, path: PurePosixPath) -> list[Event]:
    return [e.event for e in trace.events if e.root is root and e.path == str(path)]


def in_child(code: str, *arguments: str | Path) -> None:
    """What a submission does, in a process of its own."""
    subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=True)


OPENINGS = {
    "read": "open(sys.argv[1], 'rb').read()",
    "low level": "os.read(os.open(sys.argv[1], os.O_RDONLY), 1)",
    "open only": "os.open(sys.argv[1], os.O_RDONLY)",
    "mmap": "mmap.mmap(os.open(sys.argv[1], os.O_RDONLY), 0, prot=mmap.PROT_READ)[0]",
    "relative to a folder": (
        "os.open(os.path.basename(sys.argv[1]), os.O_RDONLY,"
        " dir_fd=os.open(os.path.dirname(sys.argv[1]), os.O_RDONLY))"
    ),
    "symlink": "os.symlink(sys.argv[1], '{tmp}/link'); open('{tmp}/link', 'rb').read()",
    "another program": "subprocess.run(['cat', sys.argv[1]], check=True, stdout=-3)",
    "forked worker": "os.fork() or os._exit(len(open(sys.argv[1], 'rb').read()) * 0)",
}


@pytest.mark.parametrize("code", OPENINGS.values(), ids=OPENINGS.keys())
def test_every_way_to_read_is_an_access(spec: WatchSpec, tmp_path: Path, code: str) -> None:
    head = "import os, sys, mmap, subprocess; "
    with Probe(spec) as probe:
        before_ns = time.monotonic_ns()
        in_child(head + code.replace("{tmp}", str(tmp_path)), spec.data_dir / INPUT)
        after_ns = time.monotonic_ns()
        trace = probe.finish()
    assert trace.complete
    opened = [e for e in trace.events if e.path == str(INPUT)]
    assert opened
    assert all(e.event is Event.OPEN and before_ns < e.t_ns < after_ns + 10**7 for e in opened)
    assert events_of(trace, Root.DATA, OTHER_INPUT) == []


@pytest.mark.parametrize(
    "code",
    [
        "os.stat(sys.argv[1])",
        "os.access(sys.argv[1], os.R_OK)",
        "os.listdir(os.path.dirname(sys.argv[1]))",
        "os.open(sys.argv[1], os.O_PATH)",
        "list(os.scandir(os.path.dirname(sys.argv[1])))[0].stat()",
    ],
)
def test_looking_is_not_an_access(spec: WatchSpec, code: str) -> None:
    with Probe(spec) as probe:
        in_child(f"import os, sys; {code}", spec.data_dir / INPUT)
        trace = probe.finish()
    assert trace.complete
    assert trace.events == ()


def test_rename_onto_the_final_name(spec: WatchSpec) -> None:
    final = spec.output_dir / FIELD
    with Probe(spec) as probe:
        final.with_suffix(".part").write_bytes(b"1")
        final.with_suffix(".part").replace(final)
        trace = probe.finish()
    assert events_of(trace, Root.OUTPUT, FIELD) == [Event.MOVED_IN]


def test_written_in_place_then_removed(spec: WatchSpec) -> None:
    final = spec.output_dir / FIELD
    with Probe(spec) as probe:
        final.write_bytes(b"1")
        final.unlink()
        trace = probe.finish()
    assert events_of(trace, Root.OUTPUT, FIELD) == [Event.CREATED, Event.CLOSED, Event.DELETED]


def test_hard_link_to_the_final_name(spec: WatchSpec) -> None:
    final = spec.output_dir / FIELD
    with Probe(spec) as probe:
        final.with_suffix(".part").write_bytes(b"1")
        os.link(final.with_suffix(".part"), final)
        trace = probe.finish()
    assert events_of(trace, Root.OUTPUT, FIELD) == [Event.CREATED]


def late_link(hidden: Path, final: Path) -> Callable[[], None]:
    hidden.write_bytes(b"placeholder")
    os.link(hidden, final)
    return lambda: void(hidden.write_bytes(b"the real one"))


def late_descriptor(hidden: Path, final: Path) -> Callable[[], None]:
    descriptor = os.open(hidden.parent, os.O_TMPFILE | os.O_RDWR, 0o644)
    name = f"/proc/self/fd/{descriptor}".encode()
    at_cwd, follow = -100, 0x400  # fcntl.h
    assert ctypes.CDLL(None).linkat(at_cwd, name, at_cwd, os.fsencode(final), follow) == 0
    return lambda: os.close(descriptor)


def late_map(hidden: Path, final: Path) -> Callable[[], None]:
    hidden.write_bytes(bytes(4096))
    other = hidden.with_suffix(".other")
    os.link(hidden, other)
    descriptor = os.open(other, os.O_RDWR)
    mapped = mmap.mmap(descriptor, 4096)
    os.close(descriptor)
    mapped[:4] = b"hold"  # the page is dirty from here on: no later store moves the file's mtime
    hidden.rename(final)
    return mapped.close


def void(_: object) -> None:
    return None


@pytest.mark.parametrize("way", [late_link, late_descriptor, late_map])
def test_write_under_another_name_is_seen(
    spec: WatchSpec, way: Callable[[Path, Path], Callable[[], None]]
) -> None:
    """The folder's watch tells of its own names only. A field that was linked into its place empty
    and filled through another link, its mtime set back, had a runtime of 0.1 ms."""
    (spec.output_dir / "unwatched").mkdir()
    with Probe(spec) as probe:
        fill = way(spec.output_dir / "unwatched/x", spec.output_dir / FIELD)
        time.sleep(0.2)
        filling_ns = time.monotonic_ns()
        fill()
        trace = probe.finish()
    assert trace.complete
    last = [e for e in trace.events if e.path == str(FIELD)][-1]
    assert last.event is Event.WRITTEN
    assert last.t_ns >= filling_ns


def test_memory_map_is_closed_when_unmapped(spec: WatchSpec) -> None:
    with Probe(spec) as probe:
        descriptor = os.open(spec.output_dir / FIELD, os.O_RDWR | os.O_CREAT)
        os.truncate(descriptor, 4096)
        mapped = mmap.mmap(descriptor, 4096)
        os.close(descriptor)
        unmapping_ns = time.monotonic_ns()
        mapped.close()
        trace = probe.finish()
    closed = [e.t_ns for e in trace.events if e.event is Event.CLOSED]
    assert closed[-1] >= unmapping_ns


def test_killed_writer_closes_at_its_end(spec: WatchSpec) -> None:
    code = (
        "import os, sys, time\n"
        "file = open(sys.argv[1], 'wb', buffering=0); file.write(b'half')\n"
        "print('written', flush=True); time.sleep(60)"
    )
    with Probe(spec) as probe:
        writer = subprocess.Popen(
            [sys.executable, "-c", code, str(spec.output_dir / FIELD)], stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        trace = probe.finish()
    assert events_of(trace, Root.OUTPUT, FIELD) == [Event.CREATED, Event.CLOSED]


def test_other_files_leave_no_trace(spec: WatchSpec) -> None:
    """A submission can make as many files as it likes without making the trace longer."""
    with Probe(spec) as probe:
        for index in range(300):
            (spec.output_dir / f"task_01/noise{index}").write_bytes(b"x")
        (spec.output_dir / FIELD).write_bytes(b"1")
        trace = probe.finish()
    assert {e.path for e in trace.events} == {str(FIELD)}


def test_openings_that_cannot_matter_are_left_out(spec: WatchSpec) -> None:
    """A loader that reads its input again in each of a thousand iterations."""

    def open_both_often() -> None:
        for _ in range(500):
            for path in (INPUT, OTHER_INPUT):
                os.close(os.open(spec.data_dir / path, os.O_RDONLY))

    with Probe(spec) as probe:
        open_both_often()
        (spec.output_dir / FIELD).write_bytes(b"1")
        open_both_often()
        trace = probe.finish()
    assert trace.complete
    assert [e.event for e in trace.events] == [
        *[Event.OPEN] * 2,
        *[Event.CREATED, Event.CLOSED],
        *[Event.OPEN] * 2,
    ]


def test_endless_events_make_the_trace_incomplete_not_endless(spec: WatchSpec) -> None:
    """Twelve seconds of opening and closing two fields took 1.4 GB of the harness's memory, and
    made it miss its deadlines."""
    with Probe(replace(spec, max_events=10)) as probe:
        for _ in range(20):
            (spec.output_dir / FIELD).write_bytes(b"1")
            (spec.output_dir / FIELD).unlink()
        trace = probe.finish()
    assert len(trace.events) == 10
    assert trace.lost == ("more than 10 events; the rest was left out",)


def test_folder_made_late_is_watched(spec: WatchSpec) -> None:
    with Probe(spec) as probe:
        (spec.output_dir / "late").mkdir()
        time.sleep(0.2)
        (spec.output_dir / LATE_FIELD).write_bytes(b"1")
        trace = probe.finish()
    assert trace.complete
    assert events_of(trace, Root.OUTPUT, LATE_FIELD) == [Event.CREATED, Event.CLOSED]


def test_folder_that_arrives_with_its_field_makes_the_trace_incomplete(
    spec: WatchSpec, tmp_path: Path
) -> None:
    (tmp_path / "prepared").mkdir()
    (tmp_path / "prepared/disp.npz").write_bytes(b"1")
    with Probe(spec) as probe:
        (tmp_path / "prepared").rename(spec.output_dir / "late")
        trace = probe.finish()
    assert not trace.complete
    assert "late/disp.npz" in trace.lost[0]


def test_field_that_was_being_written_when_its_folder_appeared_is_caught(
    spec: WatchSpec, tmp_path: Path
) -> None:
    """It is there before the watch begins, but completed after."""
    (tmp_path / "prepared").mkdir()
    with Probe(spec) as probe, (tmp_path / "prepared/disp.npz").open("wb") as file:
        (tmp_path / "prepared").rename(spec.output_dir / "late")
        time.sleep(0.2)
        file.write(b"1")
        file.close()
        trace = probe.finish()
    assert trace.complete
    assert events_of(trace, Root.OUTPUT, LATE_FIELD) == [Event.CLOSED]


def test_removed_and_remade_folder_is_watched_again(spec: WatchSpec) -> None:
    with Probe(spec) as probe:
        shutil.rmtree(spec.output_dir / "task_01")
        (spec.output_dir / "task_01").mkdir()
        time.sleep(0.2)
        (spec.output_dir / FIELD).write_bytes(b"1")
        trace = probe.finish()
    assert trace.complete
    assert events_of(trace, Root.OUTPUT, FIELD) == [Event.CREATED, Event.CLOSED]


def test_folder_moved_away_makes_the_trace_incomplete(spec: WatchSpec) -> None:
    """A watch goes with its folder. Placeholders written into ``task_01``, moved away and replaced,
    once counted as the fields, and the real ones, written later into the new folder, were not
    seen: runtimes of 0.2 ms in a complete trace."""
    folder = spec.output_dir / "task_01"
    with Probe(spec) as probe:
        for _ in range(3):  # said once, however often
            folder.rename(spec.output_dir / "old")
            (spec.output_dir / "old").rename(folder)
        folder.rename(spec.output_dir / "old")
        folder.mkdir()
        time.sleep(0.2)
        (spec.output_dir / "old/disp.npz").write_bytes(b"placeholder")
        (spec.output_dir / FIELD).write_bytes(b"1")
        trace = probe.finish()
    assert trace.lost.count("task_01: moved by the submission during the run") == 1
    assert events_of(trace, Root.OUTPUT, FIELD) == [Event.CREATED, Event.CLOSED] * 2


def test_folder_removed_while_it_is_open_is_watched_again(spec: WatchSpec) -> None:
    """An open descriptor keeps a removed folder, and its watch, alive: its successor of the same
    name was taken for watched."""
    folder = spec.output_dir / "task_01"
    with Probe(spec) as probe:
        descriptor = os.open(folder, os.O_RDONLY)
        folder.rmdir()
        folder.mkdir()
        time.sleep(0.2)
        os.close(descriptor)
        (spec.output_dir / FIELD).write_bytes(b"1")
        trace = probe.finish()
    assert trace.complete
    assert events_of(trace, Root.OUTPUT, FIELD) == [Event.CREATED, Event.CLOSED]


def test_folder_in_the_place_of_an_empty_one_is_watched(spec: WatchSpec) -> None:
    """rename(2) replaces an empty folder. Its name was watched already, and nothing that happened
    in the new one was seen, with a complete trace."""
    (spec.output_dir / "new").mkdir()
    with Probe(spec) as probe:
        (spec.output_dir / "new").rename(spec.output_dir / "task_01")
        time.sleep(0.2)
        (spec.output_dir / FIELD).write_bytes(b"1")
        trace = probe.finish()
    assert trace.complete
    assert events_of(trace, Root.OUTPUT, FIELD) == [Event.CREATED, Event.CLOSED]


def test_folder_replaced_by_a_link_is_not_watched(spec: WatchSpec, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (spec.output_dir / "late").mkdir()
    shutil.rmtree(spec.output_dir / "late")
    (spec.output_dir / "late").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="Not a directory"):
        Watcher(spec)


def test_overflow_of_the_queue_makes_the_trace_incomplete(spec: WatchSpec) -> None:
    """The probe is stopped while the kernel's queue fills up."""
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    child = ChildProgram()
    with Probe(spec, child) as probe:
        os.kill(child.pid, signal.SIGSTOP)
        for _ in range(limit // 2 + 10):  # two files in turn, so that events do not merge
            for path in (INPUT, OTHER_INPUT):
                os.close(os.open(spec.data_dir / path, os.O_RDONLY))
        os.kill(child.pid, signal.SIGCONT)
        trace = probe.finish()
    assert trace.lost == ("the kernel's queue of events overflowed",)


def test_probe_that_died_leaves_an_incomplete_trace(spec: WatchSpec) -> None:
    child = ChildProgram()
    with Probe(spec, child) as probe:
        os.close(os.open(spec.data_dir / INPUT, os.O_RDONLY))
        time.sleep(0.5)  # longer than the writer waits for more events
        os.kill(child.pid, signal.SIGKILL)
        trace = probe.finish()
    assert trace.lost == ("the witness ended early", "the witness: ended by SIGKILL")
    assert events_of(trace, Root.DATA, INPUT) == [Event.OPEN]


def test_writer_that_died_makes_the_trace_incomplete(spec: WatchSpec) -> None:
    """Its thread ended with an error nobody expected, the watcher went on, and the trace had an end
    that said that nothing was lost."""
    code = (
        "import sys\n"
        "from harness.probe import __main__, watch\n"
        "def fail(*_): raise KeyError('a watch nobody knows')\n"
        "watch.Watcher._interpret = fail\n"
        "sys.exit(__main__.main())"
    )
    with Probe(spec, ChildProgram([sys.executable, "-c", code])) as probe:
        os.close(os.open(spec.data_dir / INPUT, os.O_RDONLY))
        trace = probe.finish()
    assert trace.lost == ("the writer of the trace died",)


def test_stamping_a_full_queue_waits_for_nothing(spec: WatchSpec) -> None:
    """Whoever filled the queue had the next opening stamped 14 ms late: the watcher looked through
    all of it for new folders first."""
    opened = 3000
    watcher = Watcher(spec)
    for _ in range(opened):
        for path in (INPUT, OTHER_INPUT):  # in turn, so that events do not merge
            os.close(os.open(spec.data_dir / path, os.O_RDONLY))
    watcher._read_all()
    stamped = [list(decode(buffer)) for _, buffer in watcher._pending]
    assert sum(map(len, stamped)) == 2 * opened
    assert max(map(len, stamped)) < 600
    assert len(watcher._unfollowed) == len(stamped)
    os.close(watcher._inotify)


def test_probe_survives_ctrl_c_and_the_request_to_stop(spec: WatchSpec) -> None:
    child = ChildProgram()
    with Probe(spec, child) as probe:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(child.pid, number)
        os.close(os.open(spec.data_dir / INPUT, os.O_RDONLY))
        trace = probe.finish()
    assert trace.complete
    assert events_of(trace, Root.DATA, INPUT) == [Event.OPEN]


def test_modules_of_the_current_folder_are_not_imported(
    spec: WatchSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``python -m`` looks there first: a ``json.py`` in an uploaded folder ran on the host, as the
    user who called ``harness run`` in it."""
    for name in ("json", "queue", "harness"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('hijacked')")
    monkeypatch.chdir(tmp_path)
    with Probe(spec) as probe:
        assert probe.finish().complete


def test_what_cannot_be_watched_is_said_before_the_run(spec: WatchSpec) -> None:
    shutil.rmtree(spec.data_dir / "task_01")
    with pytest.raises(ProbeError, match=r"could not start: .*task_01"), Probe(spec):
        pytest.fail("the probe must not become ready")


def in_namespace(watches: int, instances: int = 8) -> ChildProgram:
    """The probe in a user namespace of its own, whose limits are these."""
    limits = "/proc/sys/user/max_inotify_"
    script = (
        f"echo {watches} > {limits}watches && echo {instances} > {limits}instances"
        ' && exec "$0" -m harness.probe'
    )
    unshare = ["unshare", "--user", "--map-root-user", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*unshare, "true"], check=False).returncode:
        pytest.skip("this system lets nobody make user namespaces")
    return ChildProgram([*unshare, script, sys.executable])


def test_limit_of_watches_is_named_before_the_run(spec: WatchSpec) -> None:
    with pytest.raises(ProbeError, match="max_user_watches"), Probe(spec, in_namespace(1)):
        pytest.fail("the probe must not become ready")


def test_limit_of_watchers_is_named_before_the_run(spec: WatchSpec) -> None:
    with pytest.raises(ProbeError, match="max_user_instances"), Probe(spec, in_namespace(9, 0)):
        pytest.fail("the probe must not become ready")


def test_limit_of_watches_reached_during_the_run_makes_the_trace_incomplete(
    spec: WatchSpec,
) -> None:
    """Three folders are there (inputs, output, first field), the fourth comes late."""
    with Probe(spec, in_namespace(3)) as probe:
        (spec.output_dir / "late").mkdir()
        time.sleep(0.2)
        trace = probe.finish()
    assert len(trace.lost) == 1
    assert trace.lost[0].startswith("late: appeared and could not be watched (the limit of watches")


def test_without_real_time_scheduling_the_probe_is_plain(spec: WatchSpec) -> None:
    with Probe(replace(spec, realtime=False)) as probe:
        assert probe.header.precision is Precision.PLAIN


def test_without_real_time_scheduling_the_probe_moves_to_the_spare_cpu(spec: WatchSpec) -> None:
    cpu = min(os.sched_getaffinity(0))
    child = ChildProgram()
    with Probe(replace(spec, realtime=False, spare_cpu=cpu), child) as probe:
        assert probe.header.precision is Precision.RESERVED_CPU
        for thread in Path(f"/proc/{child.pid}/task").iterdir():
            assert os.sched_getaffinity(int(thread.name)) == {cpu}


def test_spare_cpu_that_is_not_there_leaves_the_probe_plain(spec: WatchSpec) -> None:
    with Probe(replace(spec, realtime=False, spare_cpu=5000)) as probe:
        assert probe.header.precision is Precision.PLAIN


def test_tail_reads_what_is_written_while_it_grows(spec: WatchSpec) -> None:
    with Probe(spec) as probe:
        tail = TraceTail(spec.trace)
        assert tail.new_records() == [probe.header]
        assert tail.new_records() == []
        (spec.output_dir / FIELD).write_bytes(b"1")
        deadline = time.monotonic() + 10
        seen: list[Header | FileEvent | End] = []
        while not seen and time.monotonic() < deadline:
            time.sleep(0.02)
            seen += tail.new_records()
        probe.finish()
        seen += tail.new_records()
        tail.close()
    assert [r.event for r in seen if isinstance(r, FileEvent)] == [Event.CREATED, Event.CLOSED]
    assert isinstance(seen[-1], End)


HEADER = {
    "kind": "header",
    "schema_version": 1,
    "clock": "CLOCK_MONOTONIC",
    "placement": "host",
    "precision": "plain",
    "t_ns": 1,
}


@pytest.mark.parametrize(
    "content",
    [b"", b"{}\n", b"nonsense\n", json.dumps(HEADER).encode() + b'\n{"kind":"file"}\n'],
)
def test_what_is_no_trace_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_bytes(content)
    with pytest.raises(ProbeError):
        read_trace(path)


def test_torn_last_line_makes_the_trace_incomplete(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    event = FileEvent(t_ns=2, event=Event.OPEN, root=Root.DATA, path="a")
    path.write_bytes(json.dumps(HEADER).encode() + b"\n" + to_line(event) + b'{"kind":"fi')
    trace = read_trace(path)
    assert trace.events == (event,)
    assert trace.lost == ("the witness ended early", "the trace's last line is cut")


def test_names_that_are_not_text_survive_the_trace(tmp_path: Path) -> None:
    path = os.fsdecode(b"task_01/\xff\x1b[31m\n.npz")
    event = FileEvent(t_ns=2, event=Event.CLOSED, root=Root.OUTPUT, path=path)
    trace = tmp_path / "trace.jsonl"
    end = End(t_ns=3, events=1)
    trace.write_bytes(json.dumps(HEADER).encode() + b"\n" + to_line(event) + to_line(end))
    assert read_trace(trace).events[0].path == path


def test_decode_reads_every_event_of_a_buffer() -> None:
    name = b"a.nii.gz".ljust(16, b"\0")
    one = (1).to_bytes(4, "little") + IN_OPEN.to_bytes(4, "little") + bytes(4)
    buffer = one + len(name).to_bytes(4, "little") + name + one + bytes(4)
    assert list(decode(buffer)) == [RawEvent(1, IN_OPEN, "a.nii.gz"), RawEvent(1, IN_OPEN, "")]


def test_spec_survives_its_line(spec: WatchSpec) -> None:
    odd = replace(spec, fields=(PurePosixPath("task_01/\udcff.npz"),), spare_cpu=3, realtime=False)
    assert WatchSpec.from_line(odd.to_line()) == odd
    assert odd.to_line().endswith(b"}\n")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"realtime": 1}, "expected bool, found 1"),
        ({"spare_cpu": True}, "expected int, found True"),
        ({"inputs": "a"}, "expected list, found 'a'"),
        ({"inputs": [1]}, "expected str, found 1"),
        ({"trace": None}, "expected str, found None"),
        ({"placement": "moon"}, "moon"),
        ({"colour": "red"}, "another version"),
    ],
)
def test_spec_that_is_none_is_refused(
    spec: WatchSpec, change: dict[str, object], message: str
) -> None:
    line = json.dumps({**json.loads(spec.to_line()), **change}).encode()
    with pytest.raises(ValueError, match=message):
        WatchSpec.from_line(line)


def test_spec_from_another_version_is_said_before_the_run(spec: WatchSpec) -> None:
    child = ChildProgram()
    child.start()
    child.send(b'{"placement": "host"}\n')
    assert child.read_line(30) == b""
    assert child.end(30) == 1
    assert "another version" in child.complaint


def test_spec_of_many_pairs_comes_through(spec: WatchSpec) -> None:
    """Longer than a pipe holds."""
    many = tuple(PurePosixPath(f"task_01/disp_{n:04d}.npz") for n in range(9999))
    with Probe(replace(spec, fields=(*many, FIELD))) as probe:
        (spec.output_dir / FIELD).write_bytes(b"1")
        trace = probe.finish()
    assert trace.complete
    assert events_of(trace, Root.OUTPUT, FIELD) == [Event.CREATED, Event.CLOSED]


def test_program_started_ahead_and_not_needed_ends_without_a_word() -> None:
    child = ChildProgram()
    child.start()
    assert child.end(30) == 0
    assert child.complaint == ""


def test_probe_imports_nothing_that_makes_its_start_slow() -> None:
    """A run waits for it; pydantic alone took longer than all the rest."""
    code = (
        "import sys, harness.probe.__main__\n"
        "print(*{'pydantic', 'numpy', 'nibabel', 'yaml', 'psutil'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
