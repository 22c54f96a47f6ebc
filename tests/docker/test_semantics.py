"""What each behaviour of a submission becomes in a run's record: real processes, real containers.

A submission prints when it did what, on the witness's own clock. What was seen is compared with
that, never with how long it should take.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from harness.challenge.field_file import FieldState
from harness.challenge.pairs import read_pairs
from harness.engine.process import ProcessEngine
from harness.execute import execute
from harness.plan import Plan
from harness.probe.trace import read_trace
from harness.store import PairRecord, RunDirectory, RunRecord
from harness.timing import Flag, PairTiming, time_pairs
from tests.docker.behaviours import COMPUTE_S, READS, TASK, WRITES
from tests.tiny import tiny_challenge, write_challenge, write_data

if TYPE_CHECKING:
    from harness.engine.base import Engine, Image

PROGRAM = Path(__file__).with_name("behaviours.py")
Ids = tuple[tuple[int, int], ...]

SEPARATE: Ids = ((1, 2), (3, 4), (5, 6))
CHAIN: Ids = ((1, 2), (2, 3), (3, 4))
TRIANGLE: Ids = ((1, 2), (2, 3), (1, 3))
ONE_A_READ: Ids = tuple((2 * i + 1, 2 * i + 2) for i in range(len(READS)))
ONE_A_WRITE: Ids = tuple((2 * i + 1, 2 * i + 2) for i in range(len(WRITES)))


@dataclass(frozen=True, kw_only=True)
class Observed:
    """One run: what the program says it did, and what the harness says of it."""

    record: RunRecord
    timings: dict[str, PairTiming]
    stamps: dict[str, dict[str, list[int]]]

    @property
    def keys(self) -> list[str]:
        return [pair.key for pair in self.record.pairs]

    def pair(self, key: str) -> PairRecord:
        return next(pair for pair in self.record.pairs if pair.key == key)

    def stamp_ns(self, what: str, key: str) -> int:
        """When the program did this for the pair, the last time it did."""
        return self.stamps[what][key][-1]

    def started_ns(self, key: str) -> int:
        started = self.timings[key].started_ns
        assert started is not None
        return started

    def finished_ns(self, key: str) -> int:
        finished = self.timings[key].finished_ns
        assert finished is not None
        return finished

    @property
    def runtimes_s(self) -> list[float]:
        return [pair.runtime_s for pair in self.record.pairs if pair.runtime_s is not None]

    @property
    def exclusives_s(self) -> list[float]:
        return [pair.exclusive_s for pair in self.record.pairs if pair.exclusive_s is not None]

    @property
    def flags(self) -> list[set[Flag]]:
        return [set(pair.flags) for pair in self.record.pairs]


class Stage:
    """Where scenarios are played, each once."""

    def __init__(
        self, folder: Path, engine: Engine, image: Image, command: tuple[str, ...]
    ) -> None:
        self._folder = folder
        self._engine = engine
        self._image = image
        self._command = command
        self._played: dict[tuple[str, Ids], Observed] = {}

    def play(self, scenario: str, pairs: Ids) -> Observed:
        """A submission that does ``scenario`` with these pairs of the first task."""
        played = self._played.get((scenario, pairs))
        if played is None:
            played = self._played[scenario, pairs] = self._execute(scenario, pairs)
        return played

    def _execute(self, scenario: str, pairs: Ids) -> Observed:
        folder = self._folder / f"{scenario}-{len(self._played)}"
        data_dir = write_data(folder / "test", first=pairs, second=())
        shutil.rmtree(data_dir / "task_02")
        shutil.copy(PROGRAM, data_dir / TASK)
        for name, value in (("field", 0), ("other", 1)):
            np.savez_compressed(data_dir / TASK / name, np.full((3, 8, 6, 10), value, np.float16))
        challenge = tiny_challenge()
        arguments = (" ".join([*self._command, scenario]),) if self._command else (scenario,)
        contract = challenge.container.model_copy(update={"arguments": arguments})
        challenge = challenge.model_copy(update={"container": contract})
        plan = Plan(
            challenge=challenge,
            challenge_file=write_challenge(folder / "tiny.yaml"),
            data_dir=data_dir,
            tasks=read_pairs(challenge, data_dir),
            image=self._image,
            submission="team",
        )
        run_dir = RunDirectory.create(folder / "runs", "team")
        record = execute(plan, self._engine, run_dir)
        log = run_dir.log_path.read_text()
        assert record.exit_code == 0, log
        stamps: dict[str, dict[str, list[int]]] = {}
        for line in log.splitlines():
            said = json.loads(line)
            stamps.setdefault(said["what"], {}).setdefault(said["pair"], []).append(said["t_ns"])
        there = {pair.key: 0 for pair in record.pairs if pair.field_sha256 is not None}
        timings = time_pairs(plan.pairs, read_trace(run_dir.trace_path), modified_ns=there)
        assert [t.runtime_s for t in timings] == [pair.runtime_s for pair in record.pairs]
        return Observed(record=record, timings={t.key: t for t in timings}, stamps=stamps)


@pytest.fixture(
    scope="module", params=["process", pytest.param("docker", marks=pytest.mark.docker)]
)
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "docker":
        engine: Engine = request.getfixturevalue("engine")
        image: Image = request.getfixturevalue("shell_image")
        return Stage(folder, engine, image, ("python3", f"/l2r/test/{TASK}/behaviours.py"))
    (folder / "team/method").mkdir(parents=True)
    process = ProcessEngine(command=(sys.executable, str(PROGRAM)))
    return Stage(folder, process, process.build(folder / "team", tag="-"), ())


READ_PAIRS = dict(zip(READS, ONE_A_READ, strict=True))
WRITE_PAIRS = dict(zip(WRITES, ONE_A_WRITE, strict=True))


def key_of(ids: tuple[int, int]) -> str:
    return f"task_01/{ids[0]:04d}_{ids[1]:04d}"


@pytest.mark.parametrize("way", READS)
def test_way_to_read_starts_the_clock(stage: Stage, way: str) -> None:
    """Also: looking at all files before that (stat, access, listdir, O_PATH, the list of pairs)
    does not."""
    seen = stage.play("ways_to_read", ONE_A_READ)
    key = key_of(READ_PAIRS[way])
    assert seen.stamp_ns("opening", key) < seen.started_ns(key) < seen.stamp_ns("computed", key)
    assert seen.pair(key).flags == ()
    assert seen.record.witness.complete


# What a way to write leaves behind.
STATES = {
    "killed_writer": FieldState.INVALID,
    "planted_symlink": FieldState.INVALID,
    "truncated_later": FieldState.INVALID,
}
FLAGS: dict[str, set[Flag]] = {
    "exchange": {Flag.REWRITTEN},  # with what was there before
    "second_descriptor": {Flag.REWRITTEN},
    "rewritten": {Flag.REWRITTEN},
    "placeholder_first": {Flag.REWRITTEN},
    "written_later_by_another_name": {Flag.REWRITTEN},
    "written_later_with_a_forged_time": {Flag.REWRITTEN},
    "truncated_later": {Flag.CHANGED_AFTER_CLOSE},
}
# Finished only after the last pair was: after that many others, so their clocks overlap theirs.
AT_THE_END = {
    "written_later_by_another_name": "finishing",
    "written_later_with_a_forged_time": "finishing",
    "never_closed": "ending",
}
LATE_FLAGS = {Flag.OVERLAPPED, Flag.PRELOADED}


@pytest.mark.parametrize("way", [way for way in WRITES if way not in AT_THE_END])
def test_way_to_write_stops_the_clock(stage: Stage, way: str) -> None:
    """At the last completed write, whatever was there before and whatever is touched later."""
    seen = stage.play("ways_to_write", ONE_A_WRITE)
    key = key_of(WRITE_PAIRS[way])
    following = key_of(ONE_A_WRITE[ONE_A_WRITE.index(WRITE_PAIRS[way]) + 1])
    assert seen.stamp_ns("finishing", key) < seen.finished_ns(key)
    assert seen.finished_ns(key) < seen.stamp_ns("computed", following)


@pytest.mark.parametrize("way", WRITES)
def test_way_to_write_has_its_state_and_flags(stage: Stage, way: str) -> None:
    pair = stage.play("ways_to_write", ONE_A_WRITE).pair(key_of(WRITE_PAIRS[way]))
    assert pair.field_state is STATES.get(way, FieldState.VALID)
    assert set(pair.flags) - LATE_FLAGS == FLAGS.get(way, set())


@pytest.mark.parametrize("way", AT_THE_END)
def test_field_that_is_written_to_the_end_is_finished_at_the_end(stage: Stage, way: str) -> None:
    """A hard link in another folder, its time set back; or a file that is never closed."""
    seen = stage.play("ways_to_write", ONE_A_WRITE)
    key = key_of(WRITE_PAIRS[way])
    assert seen.finished_ns(key) > seen.stamp_ns(AT_THE_END[way], key)
    assert seen.record.witness.complete


@pytest.mark.parametrize(
    "pairs", [SEPARATE, CHAIN, TRIANGLE], ids=["separate", "chain", "triangle"]
)
def test_one_pair_after_the_other(stage: Stage, pairs: Ids) -> None:
    """Shared images that are read again belong to the pair they are read for."""
    seen = stage.play("one_after_the_other", pairs)
    assert seen.flags == [set()] * 3
    for key in seen.keys:
        assert seen.stamp_ns("opening", key) < seen.started_ns(key) < seen.stamp_ns("computed", key)
        assert seen.finished_ns(key) > seen.stamp_ns("finishing", key)
    assert seen.exclusives_s == pytest.approx(seen.runtimes_s)
    (task,) = seen.record.tasks
    assert task.overlap_ratio == pytest.approx(1.0)
    assert task.makespan_per_pair_s is not None
    assert task.makespan_per_pair_s * 3 == pytest.approx(
        (seen.finished_ns(seen.keys[-1]) - seen.started_ns(seen.keys[0])) * 1e-9
    )
    assert task.uncovered_s == pytest.approx(
        task.makespan_per_pair_s * 3 - sum(seen.runtimes_s), abs=1e-6
    )
    assert seen.record.warnings == ()


def test_chain_with_the_shared_image_cached(stage: Stage) -> None:
    seen = stage.play("shared_image_cached", CHAIN)
    assert seen.flags == [set(), {Flag.REUSED_INPUT}, {Flag.REUSED_INPUT}]
    for key in seen.keys:
        assert seen.stamp_ns("opening", key) < seen.started_ns(key) < seen.stamp_ns("computed", key)


@pytest.mark.parametrize("scenario", ["everything_preloaded", "prefetching_loader"])
def test_reading_ahead_is_charged(stage: Stage, scenario: str) -> None:
    seen = stage.play(scenario, SEPARATE)
    assert seen.flags == [set(), *[{Flag.OVERLAPPED, Flag.PRELOADED}] * 2]
    for key in seen.keys:
        assert seen.stamp_ns("opening", key) < seen.started_ns(key)
    assert seen.started_ns(seen.keys[1]) < seen.finished_ns(seen.keys[0])
    for runtime_s, exclusive_s in list(zip(seen.runtimes_s, seen.exclusives_s, strict=True))[1:]:
        assert runtime_s > exclusive_s + COMPUTE_S / 2
        assert exclusive_s >= COMPUTE_S
    (task,) = seen.record.tasks
    assert task.overlap_ratio is not None
    assert task.overlap_ratio > 1.2


def test_headers_of_all_files_scanned_first(stage: Stage) -> None:
    seen = stage.play("headers_scanned", SEPARATE)
    assert seen.flags == [set(), {Flag.OVERLAPPED}, {Flag.OVERLAPPED}]
    for index, key in enumerate(seen.keys):
        first_ns = seen.stamps["opening"][key][0]
        assert first_ns < seen.started_ns(key) < seen.stamp_ns("computed", key)
        assert seen.runtimes_s[index] >= (index + 1) * COMPUTE_S


def test_all_fields_rewritten_at_the_end(stage: Stage) -> None:
    seen = stage.play("all_rewritten_at_the_end", SEPARATE)
    assert all(Flag.REWRITTEN in flags for flags in seen.flags)
    assert seen.runtimes_s[0] >= 3 * COMPUTE_S
    for key in seen.keys:
        assert seen.finished_ns(key) > seen.stamp_ns("finishing", key)


def test_computing_first_and_replaying_is_flagged(stage: Stage) -> None:
    seen = stage.play("computed_first_then_replayed", TRIANGLE)
    *charged, last = seen.flags
    assert Flag.REPLAYED in last
    assert all(Flag.REPLAYED not in flags for flags in charged)
    assert seen.runtimes_s[2] < seen.runtimes_s[0] / 2


def test_computing_between_the_pairs_is_warned_of(stage: Stage) -> None:
    seen = stage.play("computed_between_the_pairs", TRIANGLE)
    (task,) = seen.record.tasks
    assert task.uncovered_s is not None
    assert task.uncovered_s >= 6 * COMPUTE_S
    assert "belong to no pair" in seen.record.warnings[0]


@pytest.mark.parametrize("scenario", ["folder_made_late", "folder_over_an_empty_one"])
def test_new_folder_is_watched(stage: Stage, scenario: str) -> None:
    seen = stage.play(scenario, SEPARATE)
    assert seen.record.witness.complete
    for key in seen.keys:
        assert seen.finished_ns(key) > seen.stamp_ns("finishing", key)


@pytest.mark.parametrize(
    "scenario", ["folder_away_and_back", "folder_put_in_place", "folders_exchanged"]
)
def test_renamed_folder_makes_the_times_incomplete(stage: Stage, scenario: str) -> None:
    seen = stage.play(scenario, SEPARATE)
    assert [pair.field_state for pair in seen.record.pairs] == [FieldState.VALID] * 3
    assert not seen.record.witness.complete
    assert "task_01: moved by the submission during the run" in seen.record.witness.lost
    assert "cannot be ranked" in seen.record.warnings[0]
