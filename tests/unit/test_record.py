"""From evidence to the record, where the evidence is made up."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from harness.cache import CacheMode, CacheRecord, CacheState
from harness.challenge.field import write_field
from harness.challenge.pairs import read_pairs
from harness.ending import EndingRecord
from harness.engine.base import EngineInfo, EngineName, Image
from harness.machine.contamination import Contamination
from harness.machine.fingerprint import take_fingerprint
from harness.plan import Plan
from harness.probe.realtime import Precision
from harness.probe.trace import Event, FileEvent, Placement, Root, Trace
from harness.record import Conditions, Ended, make_record
from harness.store import RunDirectory, RunRecord
from harness.timing import Flag
from tests.tiny import tiny_challenge, write_challenge, write_data

if TYPE_CHECKING:
    from pathlib import Path, PurePosixPath

    from harness.challenge.pairs import Pair

ENGINE = EngineInfo(name=EngineName.PROCESS, version="0", isolation="none")


class Bench:
    """A run of two pairs, all of whose fields are written, and the events one makes up for it."""

    def __init__(self, folder: Path) -> None:
        challenge = tiny_challenge()
        data_dir = write_data(folder / "test")
        self.plan = Plan(
            challenge=challenge,
            challenge_file=write_challenge(folder / "tiny.yaml"),
            data_dir=data_dir,
            tasks=read_pairs(challenge, data_dir)[:1],
            image=Image(id="sha256:0", reference="image"),
            submission="team",
        )
        self.run_dir = RunDirectory.create(folder / "runs", "team")
        self.events: list[FileEvent] = []
        for pair in self.pairs:
            self.write(pair, 1.0)

    @property
    def pairs(self) -> tuple[Pair, ...]:
        return self.plan.pairs

    def path(self, pair: Pair) -> Path:
        return self.run_dir.output_dir / pair.field

    def write(self, pair: Pair, value: float) -> None:
        self.path(pair).parent.mkdir(parents=True, exist_ok=True)
        write_field(np.full((3, 8, 6, 10), value, np.float16), self.path(pair))

    def see(self, t_ns: int, event: Event, path: PurePosixPath) -> None:
        root = Root.DATA if event is Event.OPEN else Root.OUTPUT
        self.events.append(FileEvent(t_ns=t_ns, event=event, root=root, path=str(path)))

    def see_all(self, *, gap_ns: int = 0) -> None:
        """Every pair read and written in turn, a second each."""
        now_ns = time.monotonic_ns() - 3600 * 10**9
        for pair in self.pairs:
            os.utime(self.path(pair), ns=(0, time.time_ns() - 7200 * 10**9))
            self.see(now_ns, Event.OPEN, pair.fixed)
            now_ns += 10**9
            self.see(now_ns, Event.CLOSED, pair.field)
            now_ns += gap_ns

    def record(self, **ending: int) -> RunRecord:
        trace = Trace(placement=Placement.HOST, precision=Precision.FIFO, events=tuple(self.events))
        observed = {"exit_code": 0, "out_of_memory": False, **ending}
        ended = Ended(ending=EndingRecord.model_validate(observed), duration_s=1.0)
        conditions = Conditions(
            cache=CacheRecord(asked=CacheMode.WARM, applied=CacheState.WARM),
            machine=take_fingerprint("process 0"),
            contamination=Contamination(verdict=None),
        )
        return make_record(self.plan, ENGINE, self.run_dir, ended, trace, conditions)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_field_whose_completion_was_not_seen_makes_the_times_incomplete(bench: Bench) -> None:
    bench.see_all()
    first, second = bench.pairs
    bench.events = [event for event in bench.events if event.path != str(first.field)]
    record = bench.record()
    assert not record.witness.complete
    assert record.witness.lost == (
        f"the completion of 1 fields was not seen, {first.key} the first",
    )
    assert "cannot be ranked" in record.warnings[0]
    assert record.pairs[1].key == second.key
    assert record.pairs[1].runtime_s == pytest.approx(1.0)


def test_fewer_open_files_than_allowed_are_warned_of(bench: Bench) -> None:
    bench.see_all()
    allowed = bench.plan.challenge.limits.open_files
    (warning,) = bench.record(open_files=allowed - 1).warnings
    assert f"{allowed - 1} open, and not the {allowed}" in warning
    assert bench.record(open_files=allowed).warnings == ()
    assert bench.record().warnings == ()


def test_missing_field_leaves_the_times_complete(bench: Bench) -> None:
    bench.see_all()
    first, _ = bench.pairs
    bench.events = [event for event in bench.events if event.path != str(first.field)]
    bench.path(first).unlink()
    assert bench.record().witness.complete


def test_modification_after_the_completion_is_flagged(bench: Bench) -> None:
    bench.see_all()
    first, _ = bench.pairs
    os.utime(bench.path(first))
    assert bench.record().pairs[0].flags == (Flag.CHANGED_AFTER_CLOSE,)


def test_mode_and_links_may_change_after_the_completion(bench: Bench) -> None:
    """As ``chmod -R`` at the end of an entry point does."""
    bench.see_all()
    for pair in bench.pairs:
        bench.path(pair).chmod(0o666)
        os.link(bench.path(pair), bench.path(pair).with_suffix(".copy"))
    assert all(pair.flags == () for pair in bench.record().pairs)


def test_time_that_no_pair_covers_is_recorded_and_warned_of(bench: Bench) -> None:
    bench.see_all(gap_ns=5 * 10**9)
    record = bench.record()
    assert record.tasks[0].uncovered_s == pytest.approx(5.0)
    (warning,) = record.warnings
    assert warning.startswith("task_01: 5.0 of the 7.0 s ")


def test_little_time_between_pairs_is_recorded_only(bench: Bench) -> None:
    bench.see_all(gap_ns=5 * 10**8)
    record = bench.record()
    assert record.tasks[0].uncovered_s == pytest.approx(0.5)
    assert record.warnings == ()
