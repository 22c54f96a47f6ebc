"""Which limit is passed, from made-up observations."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import pytest

from harness.challenge.pairs import Pair, read_pairs
from harness.ending import Cut
from harness.probe.trace import Event, FileEvent, Root
from harness.watchdog import LifeSigns, PairClock, disk_cut, output_cut, scratch_cut, time_cut
from tests.tiny import tiny_challenge, write_data

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LIMITS = tiny_challenge(
    ("pair_time: 10s", "pair_time: 10s\n  longest_pair: 60s\n  idle_time: 30s")
).limits


@pytest.fixture
def pairs(tmp_path: Path) -> tuple[Pair, ...]:
    """Two of the first task; two of the second, a chain whose inner image serves both."""
    challenge = tiny_challenge()
    found = read_pairs(challenge, write_data(tmp_path / "test"))
    return tuple(pair for task in found for pair in task.pairs)


def read(path: PurePosixPath) -> FileEvent:
    return FileEvent(t_ns=0, event=Event.OPEN, root=Root.DATA, path=str(path))


def wrote(path: PurePosixPath, event: Event = Event.CLOSED) -> FileEvent:
    return FileEvent(t_ns=0, event=event, root=Root.OUTPUT, path=str(path))


# --- Pairs --------------------------------------------------------------------------------------


def test_what_was_not_read_keeps_nothing(pairs: tuple[Pair, ...]) -> None:
    assert PairClock(pairs).longest(1000.0) is None


def test_pair_keeps_the_run_from_its_first_access(pairs: tuple[Pair, ...]) -> None:
    clock = PairClock(pairs)
    clock.saw(read(pairs[0].fixed), 10.0)
    clock.saw(read(pairs[0].moving), 15.0)
    kept = clock.longest(40.0)
    assert kept is not None
    assert (kept.pair, kept.kept_s) == (pairs[0].key, 30.0)
    clock.saw(wrote(pairs[0].field), 41.0)
    assert clock.longest(5000.0) is None


@pytest.mark.parametrize("event", [Event.CLOSED, Event.MOVED_IN, Event.WRITTEN])
def test_what_was_read_ahead_counts_from_the_field_before(
    pairs: tuple[Pair, ...], event: Event
) -> None:
    """Who reads everything first works on one pair at a time all the same."""
    clock = PairClock(pairs)
    for pair in pairs:
        for path in pair.inputs:
            clock.saw(read(path), 1.0)
    clock.saw(wrote(pairs[0].field, event), 50.0)
    kept = clock.longest(55.0)
    assert kept is not None
    assert (kept.pair, kept.kept_s) == (pairs[1].key, 5.0)


def test_shared_image_names_the_pair_that_began_first(pairs: tuple[Pair, ...]) -> None:
    clock = PairClock(pairs)
    chain = pairs[2:]
    assert chain[0].moving == chain[1].fixed
    clock.saw(read(chain[0].fixed), 1.0)
    clock.saw(read(chain[0].moving), 2.0)
    kept = clock.longest(3.0)
    assert kept is not None
    assert kept.pair == chain[0].key


def test_linked_field_is_complete_when_another_pair_is_read(pairs: tuple[Pair, ...]) -> None:
    clock = PairClock(pairs)
    clock.saw(read(pairs[0].fixed), 0.0)
    clock.saw(wrote(pairs[0].field, Event.CREATED), 20.0)
    kept = clock.longest(25.0)
    assert kept is not None
    assert kept.kept_s == 25.0
    clock.saw(read(pairs[0].moving), 26.0)  # its own image: it may be written still
    kept = clock.longest(30.0)
    assert kept is not None
    assert kept.pair == pairs[0].key
    clock.saw(read(pairs[1].fixed), 31.0)
    kept = clock.longest(35.0)
    assert kept is not None
    assert (kept.pair, kept.kept_s) == (pairs[1].key, 4.0)


def test_files_that_belong_to_no_pair_mean_nothing(pairs: tuple[Pair, ...]) -> None:
    clock = PairClock(pairs)
    clock.saw(read(PurePosixPath("task_01/pairs_val.csv")), 1.0)
    clock.saw(wrote(PurePosixPath("task_01/other.npz")), 2.0)
    assert clock.longest(9.0) is None


# --- Signs of life ------------------------------------------------------------------------------


def watched(cpu_s: Sequence[float | None], *, window_s: float = 10.0) -> LifeSigns:
    """A sample a second."""
    life = LifeSigns(window_s)
    for second, value in enumerate(cpu_s):
        life.sample(float(second), value)
    return life


def test_no_cpu_for_the_whole_window_is_idle() -> None:
    assert watched([1.0] * 11).idle_s() == 10.0
    assert watched([1.0] * 10).idle_s() is None


def test_less_than_one_percent_of_a_cpu_is_idle() -> None:
    assert watched([0.009 * second for second in range(11)]).idle_s() == 10.0
    assert watched([0.011 * second for second in range(11)]).idle_s() is None


def test_burst_within_the_window_is_life() -> None:
    life = watched([0.0] * 10 + [0.5] * 5)
    assert life.idle_s() is None
    assert life.last_cpu_use_s == 10.0


def test_cpu_time_that_falls_is_no_use_of_it() -> None:
    """Processes that ended take theirs with them."""
    assert watched([5.0, *[1.0] * 10]).idle_s() == 10.0


def test_unknown_cpu_time_is_no_idleness() -> None:
    assert watched([None] * 30).idle_s() is None
    assert watched([1.0] * 8 + [None] + [1.0] * 8).idle_s() is None


def test_event_is_a_sign_of_life() -> None:
    life = LifeSigns(10.0)
    for second in range(15):
        if second == 7:
            life.saw_event(7.0)
        life.sample(float(second), 1.0)
    assert life.idle_s() is None
    for second in range(15, 19):
        life.sample(float(second), 1.0)
    assert life.idle_s() is not None


# --- Limits -------------------------------------------------------------------------------------


def test_the_deadline_comes_first(pairs: tuple[Pair, ...]) -> None:
    clock, life = PairClock(pairs), LifeSigns(30.0)
    clock.saw(read(pairs[0].fixed), 0.0)
    assert time_cut(60.0, 100.0, LIMITS, clock, life) is None
    found = time_cut(61.0, 100.0, LIMITS, clock, life)
    assert found is not None
    assert (found.reason, found.subject) == (Cut.PAIR_TIMED_OUT, pairs[0].key)
    assert (found.limit_name, found.limit, found.observed) == ("longest_pair_s", 60.0, 61.0)
    found = time_cut(101.0, 100.0, LIMITS, clock, life)
    assert found is not None
    assert (found.reason, found.limit_name) == (Cut.TIMED_OUT, "deadline_s")


def test_idle_run_is_cut(pairs: tuple[Pair, ...]) -> None:
    life = LifeSigns(LIMITS.idle_time_s)
    life.sample(0.0, 1.0)
    life.sample(31.0, 1.0)
    found = time_cut(31.0, 100.0, LIMITS, PairClock(pairs), life)
    assert found is not None
    assert (found.reason, found.observed) == (Cut.IDLE, 31.0)


def test_limit_of_output_is_the_last_that_is_allowed() -> None:
    def cut(used_bytes: int = 0, entries: int = 0, unseen: str | None = None) -> Cut | None:
        found = output_cut(1.0, LIMITS, used_bytes=used_bytes, entries=entries, unseen=unseen)
        return None if found is None else found.reason

    assert cut(LIMITS.output_bytes, LIMITS.output_files) is None
    assert cut(LIMITS.output_bytes + 1) is Cut.OUTPUT_LIMIT
    assert cut(0, LIMITS.output_files + 1) is Cut.OUTPUT_LIMIT
    assert cut(LIMITS.output_bytes + 1, unseen="a") is Cut.OUTPUT_LIMIT
    assert cut(unseen="a") is Cut.OUTPUT_UNSEEN


def test_limit_of_scratch_and_of_the_disk() -> None:
    assert scratch_cut(1.0, LIMITS, LIMITS.scratch_bytes) is None
    found = scratch_cut(1.0, LIMITS, LIMITS.scratch_bytes + 1)
    assert found is not None
    assert found.reason is Cut.SCRATCH_LIMIT
    assert disk_cut(1.0, free_bytes=5, floor_bytes=5) is None
    full = disk_cut(1.0, free_bytes=4, floor_bytes=5)
    assert full is not None
    assert (full.reason, full.limit, full.observed) == (Cut.DISK_FULL, 5, 4)
