"""What the sampler is made of, where no driver is asked: clocks, belonging, files, the spec."""

from __future__ import annotations

import gzip
import os
import subprocess
from pathlib import Path

import pytest

from harness.errors import ProbeError
from harness.sampler.belonging import Belonging, in_container
from harness.sampler.records import (
    Busy,
    End,
    Gpu,
    Header,
    Process,
    Sample,
    parse_line,
    to_line,
)
from harness.sampler.samples import read_samples
from harness.sampler.spec import (
    OwnContainer,
    OwnTree,
    SampleSpec,
    own_from_line,
    own_to_line,
)
from harness.sampler.stamped import StampedUse

ID = "4c01db0b339c9b27b1c4b1b2f5b0a1d9c5e2f6a7b8c9d0e1f2a3b4c5d6e7f809"
OTHER = "f" * 64
_NOBODY = 65534
HEADER = Header(
    t_ns=5,
    driver="550.54.15",
    period_ns=50_000_000,
    gpus=(Gpu(uuid="GPU-1", index=0, name="A", absent={"energy_mj": "Not Supported"}),),
)
SAMPLE = Sample(
    t_ns=7,
    took_ns=2,
    gpu=0,
    busy=(Busy(t_ns=6, ratio=0.5),),
    processes=(Process(pid=3, own=False, memory_bytes=0),),
    power_mw=0,
)
END = End(t_ns=9, samples=2, missed=0, cpu_s=0.5, absent={0: {"power_mw": "Timeout"}})


# --- stamps -------------------------------------------------------------------------------------


WALL_US, MONOTONIC_NS = 1_700_000_000_000_000, 5_000_000_000_000


def test_stamps_of_the_wall_clock_become_the_traces() -> None:
    use = StampedUse()
    first = use.take(
        [(WALL_US - 300, 40.0), (WALL_US - 100, 50.0)], wall_us=WALL_US, monotonic_ns=MONOTONIC_NS
    )
    assert first == (Busy(t_ns=MONOTONIC_NS - 100_000, ratio=0.5),)
    assert use.seen_us == WALL_US - 100
    second = use.take(
        [(WALL_US - 100, 50.0), (WALL_US + 200, 0.0), (WALL_US + 100, 100.0)],
        wall_us=WALL_US + 300,
        monotonic_ns=MONOTONIC_NS + 300_000,
    )
    assert second == (
        Busy(t_ns=MONOTONIC_NS + 100_000, ratio=1.0),
        Busy(t_ns=MONOTONIC_NS + 200_000, ratio=0.0),
    )


@pytest.mark.parametrize("step_us", [3_600_000_000, -3_600_000_000, 5_000, -5_000])
def test_entries_are_left_out_where_the_wall_clock_was_set(step_us: int) -> None:
    """By an hour or a few milliseconds, forwards or back: it goes on after it, with none twice."""
    use = StampedUse()
    use.take([(WALL_US - 100, 50.0)], wall_us=WALL_US, monotonic_ns=MONOTONIC_NS)
    wall_us, monotonic_ns = WALL_US + 50_000 + step_us, MONOTONIC_NS + 50_000_000
    old = (WALL_US + 20_000, 60.0)
    assert use.take([old], wall_us=wall_us, monotonic_ns=monotonic_ns) is None
    wall_us, monotonic_ns = wall_us + 50_000, monotonic_ns + 50_000_000
    found = use.take([old, (wall_us - 10, 70.0)], wall_us=wall_us, monotonic_ns=monotonic_ns)
    assert found == (Busy(t_ns=monotonic_ns - 10_000, ratio=0.7),)


def test_entries_are_left_out_where_the_driver_dropped_others() -> None:
    """The time of the first would seem to be all that since the last one that was seen."""
    use = StampedUse()
    use.take([(WALL_US, 50.0)], wall_us=WALL_US, monotonic_ns=MONOTONIC_NS)
    kept = [(WALL_US + 10_000_000 + look * 200_000, 60.0) for look in range(100)]
    wall_us, monotonic_ns = WALL_US + 30_000_000, MONOTONIC_NS + 30_000_000_000
    assert use.take(kept, wall_us=wall_us, monotonic_ns=monotonic_ns) is None
    wall_us, monotonic_ns = wall_us + 50_000, monotonic_ns + 50_000_000
    found = use.take([*kept, (wall_us, 70.0)], wall_us=wall_us, monotonic_ns=monotonic_ns)
    assert found == (Busy(t_ns=monotonic_ns, ratio=0.7),)


def test_a_clock_that_is_slewed_is_not_one_that_was_set() -> None:
    use = StampedUse()
    for look in range(100):  # 0.5 ms a second
        passed_us = look * 50_000
        found = use.take(
            [(WALL_US + passed_us + look * 25, 10.0)],
            wall_us=WALL_US + passed_us + look * 25,
            monotonic_ns=MONOTONIC_NS + passed_us * 1000,
        )
        assert found == (Busy(t_ns=MONOTONIC_NS + passed_us * 1000, ratio=0.1),)


# --- belonging ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        f"12:memory:/docker/{ID}\n1:name=systemd:/docker/{ID}\n0::/\n",
        f"0::/docker/{ID}\n",
        f"0::/system.slice/docker-{ID}.scope\n",
        f"0::/machine.slice/libpod-{ID}.scope/container\n",
        f"0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope\n",
        f"0::/../{ID}/init (deleted)\n",
        f"0::/docker/{ID} (deleted)\n",
        f"5:devices:/ecs:a/{ID}\n",
    ],
)
def test_groups_of_a_container(text: str) -> None:
    assert in_container(text, ID)
    assert not in_container(text, OTHER)
    assert not in_container(text, ID[:12])


@pytest.mark.parametrize("text", ["", "0::/\n", f"0::/docker/x{ID}\n", f"0::/docker-{ID}-x\n"])
def test_groups_of_no_container(text: str) -> None:
    assert not in_container(text, ID)


class Proc:
    """Files as those of ``/proc``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(
        self, pid: int, *, parent: int = 1, group: int = 0, marks: bytes = b"", cgroup: str = ""
    ) -> Path:
        entry = self.folder / str(pid)
        (entry / "fd").mkdir(parents=True)
        (entry / "stat").write_text(f"{pid} (a) b (c) S {parent} {group or pid} 1 0")
        (entry / "environ").write_bytes(b"A=b\0" + marks + b"\0")
        (entry / "cgroup").write_text(cgroup)
        return entry


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    return Proc(tmp_path)


def test_belonging_to_a_tree(proc: Proc) -> None:
    proc.add(1, parent=0)
    proc.add(50)
    proc.add(51, parent=50)
    proc.add(52, parent=51)
    proc.add(60, group=50)
    proc.add(61, marks=b"RUN=1")
    proc.add(62, marks=b"RUN=12")
    who = Belonging(proc=proc.folder, numbers_are_ours=True)
    assert who.is_own(50) is None  # nobody has said
    who.set_own(OwnTree(root=50, mark="RUN=1"))
    own = {pid: who.is_own(pid) for pid in (1, 50, 52, 60, 61, 62, 99)}
    assert own == {1: False, 50: True, 52: True, 60: True, 61: True, 62: False, 99: None}


def test_what_belonged_does_so_as_long_as_the_driver_names_it(proc: Proc) -> None:
    """An orphan descends from nobody any more; a number given anew is looked at again."""
    proc.add(50)
    entry = proc.add(51, parent=50)
    who = Belonging(proc=proc.folder, numbers_are_ours=True)
    who.set_own(OwnTree(root=50, mark="RUN=1"))
    assert who.is_own(51) is True
    (entry / "stat").write_text("51 (a) S 1 51 1 0")
    who.keep({51})
    assert who.is_own(51) is True
    who.keep(set())
    assert who.is_own(51) is False


def test_a_new_owner_is_looked_for_anew(proc: Proc) -> None:
    proc.add(50, cgroup=f"0::/docker/{ID}\n")
    who = Belonging(proc=proc.folder, numbers_are_ours=True)
    who.set_own(OwnContainer(container=OTHER))
    assert who.is_own(50) is False
    who.set_own(OwnContainer(container=ID))
    assert who.is_own(50) is True


def test_in_another_namespace_only_who_has_a_gpu_open_is_known(proc: Proc) -> None:
    """Its number there may be another process's on the host, which the driver means."""
    proc.add(50, cgroup=f"0::/docker/{ID}\n")
    user = proc.add(51, cgroup=f"0::/docker/{ID}\n")
    other = proc.add(52, cgroup="0::/\n")
    for entry in (user, other):
        (entry / "fd" / "3").symlink_to("/dev/nvidia0")
    who = Belonging(proc=proc.folder, numbers_are_ours=False)
    who.set_own(OwnContainer(container=ID))
    assert [who.is_own(pid) for pid in (50, 51, 52)] == [None, True, False]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can start processes of others")
def test_processes_of_other_users_are_not_ours() -> None:
    """One of the sampler's own user can forbid it to look, and then it cannot tell. Here both are
    of users whose environments it may not read."""
    who = Belonging(numbers_are_ours=True)
    who.set_own(OwnTree(root=4194303, mark="RUN=1"))
    with (
        subprocess.Popen(["sleep", "60"]) as same,
        subprocess.Popen(["sleep", "60"], user=1) as other,
    ):
        os.seteuid(_NOBODY)
        try:
            assert who.is_own(same.pid) is None
            assert who.is_own(other.pid) is False
        finally:
            os.seteuid(0)
            same.kill()
            other.kill()


# --- what it is told ----------------------------------------------------------------------------


def test_what_is_told_arrives() -> None:
    spec = SampleSpec(uuids=("GPU-1", "MIG-2"), file=Path("/a b/ö.jsonl"), period_ns=7)
    assert SampleSpec.from_line(spec.to_line()) == spec
    for own in (OwnContainer(container=ID), OwnTree(root=7, mark="A=b c")):
        assert own_from_line(own_to_line(own)) == own


@pytest.mark.parametrize(
    "line",
    [
        *(b"", b"x", b"[]", b"{}", b'{"own": 5}', b'{"own": {"container": ""}}'),
        *(b'{"own": {"root": 1}}', b'{"own": {"root": true, "mark": "a"}}'),
        *(b'{"own": {"root": 0, "mark": "a"}}', b'{"own": {"container": "a"}, "more": 1}'),
    ],
)
def test_what_says_nobody(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"Expecting|expected"):
        own_from_line(line)


@pytest.mark.parametrize(
    ("name", "value"), [("uuids", "5"), ("uuids", "[5]"), ("period_ns", "0"), ("file", "null")]
)
def test_what_is_no_spec(name: str, value: str) -> None:
    parts = {"uuids": '["a"]', "file": '"f"', "period_ns": "1", "max_samples": "1", name: value}
    line = "{" + ",".join(f'"{key}": {part}' for key, part in parts.items()) + "}"
    with pytest.raises(ValueError, match="expected"):
        SampleSpec.from_line(line.encode())


# --- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("record", [HEADER, SAMPLE, END])
def test_records_arrive(record: Header | Sample | End) -> None:
    assert parse_line(to_line(record)) == record


@pytest.mark.parametrize("line", [b"", b"\xff\n", b'{"kind":"sample"}', b'{"kind":"other"}'])
def test_what_is_no_record(line: bytes) -> None:
    with pytest.raises(ProbeError, match="not a line of samples"):
        parse_line(line)


WHOLE = to_line(HEADER) + 2 * to_line(SAMPLE) + to_line(END)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_a_whole_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(WHOLE) if name.endswith("gz") else WHOLE)
    found = read_samples(path)
    assert (found.header, found.samples, found.end) == (HEADER, (SAMPLE, SAMPLE), END)
    assert found.problem is None


@pytest.mark.parametrize(
    ("content", "samples", "problem"),
    [
        (b"", 0, "the file of samples is empty"),
        (to_line(SAMPLE), 0, "the samples do not begin with their header"),
        (WHOLE[: -len(to_line(END))], 2, "the sampler ended early"),
        (WHOLE[:-1], 2, "the last line of the samples is cut"),
        (WHOLE[: -len(to_line(END)) - 5], 1, "the last line of the samples is cut"),
        (WHOLE + to_line(SAMPLE), 2, "there are lines behind the end of the samples"),
        (to_line(HEADER) + to_line(END), 0, "expected 2 samples, found 0"),
        (to_line(HEADER) + b"\0\0\n" + to_line(SAMPLE), 0, "not a line of samples"),
        (to_line(HEADER) + b" " * (1 << 20), 0, "the last line of the samples is cut"),
        (
            to_line(HEADER) + to_line(SAMPLE).replace(b'"gpu":0', b'"gpu":1'),
            0,
            "there is a sample of a GPU that is not in the header",
        ),
    ],
)
def test_a_file_is_read_as_far_as_it_goes(
    tmp_path: Path, content: bytes, samples: int, problem: str
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    found = read_samples(path)
    assert len(found.samples) == samples
    assert (found.problem or "").startswith(problem)


def test_a_file_that_is_not_there_or_no_archive(tmp_path: Path) -> None:
    assert "cannot be read" in (read_samples(tmp_path / "a.jsonl").problem or "")
    cut = tmp_path / "b.jsonl.gz"
    cut.write_bytes(gzip.compress(WHOLE * 100)[:60])
    assert "cannot be read" in (read_samples(cut).problem or "")


def test_no_more_is_read_than_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(WHOLE)
    found = read_samples(path, max_samples=1)
    assert len(found.samples) == 1
    assert found.problem == "more than 1 samples; the rest was left out"
