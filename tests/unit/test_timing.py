"""The attribution rule, on scripts of how real methods behave: 10 s of compute, 0.5 s to read an
image, 0.2 s to write a field."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.challenge.pairs import Pair
from harness.probe.realtime import Precision
from harness.probe.trace import Event, FileEvent, Placement, Root, Trace
from harness.timing import ADVICE, Flag, PairTiming, time_pairs, time_task

READ_S, COMPUTE_S, WRITE_S = 0.5, 10.0, 0.2
SEQUENTIAL_S = 2 * READ_S + COMPUTE_S + WRITE_S
N = 6


def make_pair(fixed: int, moving: int, task: str = "task_01") -> Pair:
    return Pair(
        task=task,
        fixed_id=fixed,
        moving_id=moving,
        fixed=PurePosixPath(f"{task}/img{fixed:04d}.nii.gz"),
        moving=PurePosixPath(f"{task}/img{moving:04d}.nii.gz"),
        auxiliary=(),
        field=PurePosixPath(f"{task}/disp_{fixed:04d}_{moving:04d}.npz"),
    )


def make_trace(events: list[FileEvent]) -> Trace:
    ordered = tuple(sorted(events, key=lambda event: event.t_ns))
    return Trace(placement=Placement.HOST, precision=Precision.FIFO, events=ordered)


def file_event(t_s: float, event: Event, path: PurePosixPath) -> FileEvent:
    root = Root.DATA if event is Event.OPEN else Root.OUTPUT
    return FileEvent(t_ns=round(t_s * 1e9), event=event, root=root, path=str(path))


class Script:
    """A method's behaviour, step by step, on a clock of its own."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.events: list[FileEvent] = []

    def open(self, image: PurePosixPath, *, reading_s: float = READ_S) -> None:
        self.events.append(file_event(self.now_s, Event.OPEN, image))
        self.now_s += reading_s

    def read(self, pair: Pair) -> None:
        self.open(pair.fixed)
        self.open(pair.moving)

    def compute(self) -> None:
        self.now_s += COMPUTE_S

    def write(self, pair: Pair, *, writing_s: float = WRITE_S) -> None:
        self.events.append(file_event(self.now_s, Event.CREATED, pair.field))
        self.now_s += writing_s
        self.events.append(file_event(self.now_s, Event.CLOSED, pair.field))

    def timings(self, pairs: list[Pair]) -> tuple[PairTiming, ...]:
        return time_pairs(pairs, make_trace(self.events))


SEPARATE = [make_pair(i, 100 + i) for i in range(N)]
CHAIN = [make_pair(i, i + 1) for i in range(N)]


def runtimes(timings: tuple[PairTiming, ...]) -> list[float]:
    return [timing.runtime_s for timing in timings if timing.runtime_s is not None]


def exclusives(timings: tuple[PairTiming, ...]) -> list[float]:
    return [timing.exclusive_s for timing in timings if timing.exclusive_s is not None]


@pytest.mark.parametrize("pairs", [SEPARATE, CHAIN], ids=["separate", "chain read again"])
def test_one_pair_after_the_other(pairs: list[Pair]) -> None:
    script = Script()
    for pair in pairs:
        script.read(pair)
        script.compute()
        script.write(pair)
    timings = script.timings(pairs)
    assert runtimes(timings) == pytest.approx([SEQUENTIAL_S] * N)
    assert exclusives(timings) == pytest.approx([SEQUENTIAL_S] * N)
    assert all(timing.flags == frozenset() for timing in timings)
    sums = time_task("task_01", timings)
    assert sums is not None
    assert sums.overlap_ratio == pytest.approx(1.0)
    assert sums.makespan_per_pair_s == pytest.approx(SEQUENTIAL_S)


def test_chain_with_the_shared_image_cached() -> None:
    script = Script()
    for index, pair in enumerate(CHAIN):
        if index == 0:
            script.open(pair.fixed)
        script.open(pair.moving)
        script.compute()
        script.write(pair)
    timings = script.timings(CHAIN)
    assert runtimes(timings) == pytest.approx([SEQUENTIAL_S] + [SEQUENTIAL_S - READ_S] * (N - 1))
    assert timings[0].flags == frozenset()
    assert all(timing.flags == {Flag.REUSED_INPUT} for timing in timings[1:])


def test_everything_preloaded_is_charged() -> None:
    script = Script()
    for pair in SEPARATE:
        script.read(pair)
    for pair in SEPARATE:
        script.compute()
        script.write(pair)
    timings = script.timings(SEPARATE)
    loading_s, step_s = N * 2 * READ_S, COMPUTE_S + WRITE_S
    assert runtimes(timings) == pytest.approx(
        [loading_s - 2 * READ_S * i + step_s * (i + 1) for i in range(N)]
    )
    assert exclusives(timings) == pytest.approx([loading_s + step_s] + [step_s] * (N - 1))
    assert timings[0].flags == frozenset()
    assert all(t.flags == {Flag.OVERLAPPED, Flag.PRELOADED} for t in timings[1:])
    sums = time_task("task_01", timings)
    assert sums is not None
    assert sums.overlap_ratio > 2


def test_headers_of_all_files_opened_up_front() -> None:
    script = Script()
    for pair in SEPARATE:
        script.open(pair.fixed, reading_s=0.0)
        script.open(pair.moving, reading_s=0.0)
    for pair in SEPARATE:
        script.read(pair)
        script.compute()
        script.write(pair)
    timings = script.timings(SEPARATE)
    assert runtimes(timings) == pytest.approx([SEQUENTIAL_S * (i + 1) for i in range(N)])
    assert exclusives(timings) == pytest.approx([SEQUENTIAL_S] * N)
    # Read again in its own time, so not preloaded; the clock ran all the same.
    assert all(timing.flags == {Flag.OVERLAPPED} for timing in timings[1:])


def test_loader_that_prefetches_four_pairs() -> None:
    script = Script()
    ahead = 4
    for pair in SEPARATE[: ahead + 1]:
        script.read(pair)
    for index, pair in enumerate(SEPARATE):
        if 0 < index <= N - 1 - ahead:  # beside the computation, so it takes no time of its own
            late = SEPARATE[index + ahead]
            script.open(late.fixed, reading_s=0.0)
            script.open(late.moving, reading_s=0.0)
        script.compute()
        script.write(pair)
    timings = script.timings(SEPARATE)
    step_s = COMPUTE_S + WRITE_S
    assert exclusives(timings)[1:] == pytest.approx([step_s] * (N - 1))
    assert runtimes(timings)[ahead] == pytest.approx(2 * READ_S + step_s * (ahead + 1))
    assert all(t.flags == {Flag.OVERLAPPED, Flag.PRELOADED} for t in timings[1:])


def test_placeholder_first_and_the_real_field_later() -> None:
    script = Script()
    for pair in SEPARATE:
        script.write(pair, writing_s=0.0)
    for pair in SEPARATE:
        script.read(pair)
        script.compute()
        script.write(pair)
    timings = script.timings(SEPARATE)
    assert runtimes(timings) == pytest.approx([SEQUENTIAL_S] * N)
    assert all(timing.flags == {Flag.REWRITTEN} for timing in timings)


def test_all_fields_rewritten_at_the_end() -> None:
    script = Script()
    for pair in SEPARATE:
        script.read(pair)
        script.compute()
        script.write(pair)
    for pair in SEPARATE:
        script.write(pair)
    timings = script.timings(SEPARATE)
    total_s = N * SEQUENTIAL_S
    assert runtimes(timings) == pytest.approx(
        [total_s - i * SEQUENTIAL_S + (i + 1) * WRITE_S for i in range(N)]
    )
    assert exclusives(timings) == pytest.approx([total_s + WRITE_S] + [WRITE_S] * (N - 1))


def test_computing_first_and_replaying_the_reads_shows_in_the_sums() -> None:
    """The known way to a short runtime: the third pair shares all its files with other pairs, so
    its first reads count for those. The time that nobody is charged for shows in the sums."""
    pairs = [make_pair(1, 2), make_pair(2, 3), make_pair(1, 3)]
    script = Script()
    for pair in pairs:
        script.read(pair)
        script.compute()
    for pair in pairs:
        script.open(pair.fixed, reading_s=0.0)
        script.open(pair.moving, reading_s=0.0)
        script.write(pair)
    timings = script.timings(pairs)
    assert runtimes(timings)[2] == pytest.approx(WRITE_S)
    sums = time_task("task_01", timings)
    assert sums is not None
    assert sums.makespan_per_pair_s == pytest.approx(SEQUENTIAL_S)
    assert sums.overlap_ratio > 1.5

    assert [timing.key for timing in timings if Flag.REPLAYED in timing.flags] == [pairs[2].key]


def all_pairs_of(images: int) -> list[Pair]:
    return [make_pair(i, k) for i in range(images) for k in range(i + 1, images)]


def test_most_of_a_replay_is_flagged_when_every_image_is_in_many_pairs() -> None:
    """Ten pairs of five images: no more than five of them can be charged for the early reads."""
    pairs = all_pairs_of(5)
    script = Script()
    for pair in pairs:
        script.read(pair)
        script.compute()
    for pair in pairs:
        script.open(pair.fixed, reading_s=0.0)
        script.open(pair.moving, reading_s=0.0)
        script.write(pair)
    timings = script.timings(pairs)
    short = {t.key for t in timings if t.runtime_s is not None and t.runtime_s < COMPUTE_S}
    assert len(short) >= 5
    assert {t.key for t in timings if Flag.REPLAYED in t.flags} == short


@pytest.mark.parametrize("compiling_s", [0.0, 60.0])
@pytest.mark.parametrize("scan", [False, True], ids=["", "headers first"])
def test_shared_images_read_in_turn_are_no_replay(compiling_s: float, scan: bool) -> None:
    """Not when the first pair takes long, nor when every file was opened before."""
    pairs = all_pairs_of(5)
    script = Script()
    for pair in pairs if scan else []:
        script.open(pair.fixed, reading_s=0.0)
        script.open(pair.moving, reading_s=0.0)
    for index, pair in enumerate(pairs):
        script.read(pair)
        script.compute()
        script.now_s += compiling_s if index == 0 else 0.0
        script.write(pair)
    assert all(Flag.REPLAYED not in timing.flags for timing in script.timings(pairs))


def test_header_read_again_to_save_is_flagged_and_not_rewarded_in_silence() -> None:
    """All loaded ahead, and ``nibabel.load`` called once more for the affine of each field."""
    pairs = all_pairs_of(4)
    script = Script()
    for pair in pairs:
        script.read(pair)
    for pair in pairs:
        script.compute()
        script.open(pair.fixed, reading_s=0.0)
        script.open(pair.moving, reading_s=0.0)
        script.write(pair)
    timings = script.timings(pairs)
    short = {t.key for t in timings if t.runtime_s is not None and t.runtime_s < COMPUTE_S}
    assert short
    assert {t.key for t in timings if Flag.REPLAYED in t.flags} == short


def test_time_between_the_pairs_is_uncovered() -> None:
    """Both pairs that own the images are done with at once; the third is computed when no clock
    runs."""
    pairs = [make_pair(1, 2), make_pair(2, 3), make_pair(1, 3)]
    script = Script()
    for pair in pairs[:2]:
        script.read(pair)
        script.write(pair)
    script.compute()
    script.read(pairs[2])
    script.write(pairs[2])
    sums = time_task("task_01", script.timings(pairs))
    assert sums is not None
    assert sums.uncovered_s == pytest.approx(COMPUTE_S)
    assert sums.is_much_uncovered


def test_a_little_time_between_the_pairs_is_no_reason_to_warn() -> None:
    script = Script()
    for pair in SEPARATE:
        script.read(pair)
        script.compute()
        script.write(pair)
        script.now_s += 1.0
    sums = time_task("task_01", script.timings(SEPARATE))
    assert sums is not None
    assert sums.uncovered_s == pytest.approx(N - 1)
    assert not sums.is_much_uncovered


def test_another_tasks_pairs_cover_the_time_between_two() -> None:
    one, other, late = make_pair(1, 2), make_pair(1, 2, "task_02"), make_pair(3, 4)
    script = Script()
    for pair in (one, other, late):
        script.read(pair)
        script.compute()
        script.write(pair)
    sums = time_task("task_01", script.timings([one, other, late]))
    assert sums is not None
    assert sums.uncovered_s == pytest.approx(0.0)


def test_cached_inputs_start_the_clock_at_their_first_opening_ever() -> None:
    pairs = [make_pair(1, 2), make_pair(2, 1)]
    script = Script()
    script.read(pairs[0])
    for pair in pairs:
        script.compute()
        script.write(pair)
    first, second = script.timings(pairs)
    assert second.started_ns == first.started_ns
    assert second.flags == {Flag.REUSED_INPUT, Flag.OVERLAPPED, Flag.PRELOADED}


def test_field_without_a_read_has_no_runtime() -> None:
    script = Script()
    script.write(SEPARATE[0])
    script.read(SEPARATE[0])  # too late
    (timing,) = script.timings(SEPARATE[:1])
    assert timing.runtime_s is None
    assert timing.exclusive_s is None
    assert timing.flags == {Flag.UNREAD}


@pytest.mark.parametrize("last", [Event.DELETED, Event.MOVED_OUT])
def test_field_that_is_gone_has_no_finish(last: Event) -> None:
    script = Script()
    script.read(SEPARATE[0])
    script.write(SEPARATE[0])
    script.events.append(file_event(script.now_s + 1, last, SEPARATE[0].field))
    (timing,) = script.timings(SEPARATE[:1])
    assert timing.finished_ns is None
    assert timing.runtime_s is None


@pytest.mark.parametrize(
    ("events", "rewritten"),
    [
        ([Event.CREATED, Event.CLOSED], False),  # written in place
        ([Event.MOVED_IN], False),  # renamed
        ([Event.CREATED], False),  # hard link
        ([Event.CREATED, Event.CLOSED, Event.CLOSED], True),
        ([Event.MOVED_IN, Event.MOVED_IN], True),
        ([Event.CREATED, Event.CLOSED, Event.DELETED, Event.CREATED], True),
    ],
)
def test_last_completed_write_finishes(events: list[Event], rewritten: bool) -> None:
    pair = SEPARATE[0]
    made = [file_event(1.0, Event.OPEN, pair.fixed)]
    made += [file_event(2.0 + i, event, pair.field) for i, event in enumerate(events)]
    (timing,) = time_pairs([pair], make_trace(made))
    assert timing.runtime_s == pytest.approx(len(events))
    assert (Flag.REWRITTEN in timing.flags) == rewritten


MOVED_IN, MOVED_OUT = (2.0, Event.MOVED_IN), (3.0, Event.MOVED_OUT)
EXCHANGED = [MOVED_IN, (2.000_02, Event.MOVED_OUT)]


@pytest.mark.parametrize(
    ("events", "finished_s"),
    [
        (EXCHANGED, 2.0),
        ([(1.5, Event.CREATED), (1.6, Event.CLOSED), *EXCHANGED], 2.0),
        ([*EXCHANGED, (4.0, Event.MOVED_IN)], 4.0),
        ([*EXCHANGED, (4.0, Event.WRITTEN)], 4.0),  # under another name
        ([*EXCHANGED, (4.0, Event.DELETED)], None),
        ([MOVED_IN, MOVED_OUT], None),  # what is there is another file, which was not seen
        ([(2.0, Event.CREATED), (2.0, Event.CLOSED), MOVED_OUT], None),
        ([MOVED_IN, (2.0, Event.DELETED)], None),
    ],
)
def test_field_that_left_and_is_there(
    events: list[tuple[float, Event]], finished_s: float | None
) -> None:
    """An exchange of two names looks like moving in and out at once."""
    pair = SEPARATE[0]
    made = [file_event(1.0, Event.OPEN, pair.fixed)]
    made += [file_event(t_s, event, pair.field) for t_s, event in events]
    (timing,) = time_pairs([pair], make_trace(made), modified_ns={pair.key: 0})
    assert timing.finished_ns == (None if finished_s is None else round(finished_s * 1e9))


def test_content_changed_after_the_last_close() -> None:
    pair = SEPARATE[0]
    trace = make_trace(
        [file_event(1.0, Event.OPEN, pair.fixed), file_event(2.0, Event.CLOSED, pair.field)]
    )
    (honest,) = time_pairs([pair], trace, modified_ns={pair.key: 1_999_000_000})
    (changed,) = time_pairs([pair], trace, modified_ns={pair.key: 2_001_000_000})
    assert honest.flags == frozenset()
    assert changed.flags == {Flag.CHANGED_AFTER_CLOSE}


def test_pairs_of_other_tasks_overlap_too() -> None:
    one, other = make_pair(1, 2, "task_01"), make_pair(1, 2, "task_02")
    script = Script()
    script.read(one)
    script.read(other)
    script.compute()
    script.write(one)
    script.write(other)
    first, second = script.timings([one, other])
    assert first.flags == frozenset()
    assert Flag.OVERLAPPED in second.flags
    assert second.exclusive_s == pytest.approx(WRITE_S)


def test_every_flag_has_a_sentence_of_advice() -> None:
    assert set(ADVICE) == set(Flag)
    for advice in ADVICE.values():
        assert not advice.endswith(".")  # one sentence, after the flag's name
        assert ". " not in advice
        assert len(advice) < 300


def test_drawn_timeline_shows_what_the_rule_gives() -> None:
    repository = Path(__file__).parents[2]
    drawn = subprocess.run(
        [sys.executable, repository / "scripts/draw_timeline.py"], check=True, capture_output=True
    )
    committed = (repository / "docs/timing.svg").read_bytes()
    assert drawn.stdout == committed, "scripts/draw_timeline.py > docs/timing.svg"


def test_no_timed_pair_gives_no_sums() -> None:
    assert time_task("task_01", time_pairs(SEPARATE, make_trace([]))) is None


cases = st.integers(1, 5)
times_s = st.integers(0, 60)


@st.composite
def stories(draw: st.DrawFn) -> tuple[list[Pair], list[FileEvent]]:
    """Any pairs over a few images, with any openings and writes, at any times."""
    ids = draw(st.lists(st.tuples(cases, cases), min_size=1, max_size=6, unique=True))
    pairs = [make_pair(*pair) for pair in ids]
    openings = draw(st.lists(st.tuples(times_s, cases), max_size=25))
    writes = draw(st.lists(st.tuples(times_s, st.sampled_from(pairs)), max_size=10))
    events = [
        file_event(t_s, Event.OPEN, PurePosixPath(f"task_01/img{case:04d}.nii.gz"))
        for t_s, case in openings
    ]
    events += [file_event(t_s + 0.5, Event.CLOSED, pair.field) for t_s, pair in writes]
    return pairs, events


@given(stories())
def test_times_are_consistent(story: tuple[list[Pair], list[FileEvent]]) -> None:
    pairs, events = story
    timings = time_pairs(pairs, make_trace(events))
    openings = {(event.path, event.t_ns) for event in events if event.event is Event.OPEN}
    for pair, timing in zip(pairs, timings, strict=True):
        if timing.started_ns is None or timing.finished_ns is None:
            assert timing.runtime_s is None
            continue
        assert timing.runtime_s is not None
        assert timing.exclusive_s is not None
        assert 0 <= timing.exclusive_s <= timing.runtime_s + 1e-9
        assert any((str(path), timing.started_ns) in openings for path in pair.inputs)


@given(stories())
def test_exclusive_times_never_count_a_moment_twice(
    story: tuple[list[Pair], list[FileEvent]],
) -> None:
    pairs, events = story
    timings = time_pairs(pairs, make_trace(events))
    spans = [
        (t.started_ns, t.finished_ns)
        for t in timings
        if t.started_ns is not None and t.finished_ns is not None
    ]
    if spans:
        makespan_ns = max(finish for _, finish in spans) - min(start for start, _ in spans)
        assert sum(exclusives(timings)) <= makespan_ns * 1e-9 + 1e-6


@given(stories(), st.randoms(use_true_random=False))
def test_order_of_the_list_does_not_matter(
    story: tuple[list[Pair], list[FileEvent]], random: object
) -> None:
    pairs, events = story
    backwards = list(reversed(pairs))
    forward = {t.key: t for t in time_pairs(pairs, make_trace(events))}
    backward = {t.key: t for t in time_pairs(backwards, make_trace(events))}
    assert forward == backward


@given(stories())
def test_an_early_opening_never_shortens_a_runtime(
    story: tuple[list[Pair], list[FileEvent]],
) -> None:
    """Reading more, sooner, must never pay."""
    pairs, events = story
    before = time_pairs(pairs, make_trace(events))
    extra = [file_event(0.0, Event.OPEN, path) for pair in pairs for path in pair.inputs]
    after = time_pairs(pairs, make_trace([*extra, *events]))
    for old, new in zip(before, after, strict=True):
        if old.runtime_s is not None:
            assert new.runtime_s is not None
            assert new.runtime_s >= old.runtime_s


def test_field_filled_under_another_name_is_finished_by_that() -> None:
    script, pair = Script(), SEPARATE[0]
    script.read(pair)
    script.events.append(file_event(script.now_s, Event.CREATED, pair.field))
    script.compute()
    script.events.append(file_event(script.now_s, Event.WRITTEN, pair.field))
    (timing,) = script.timings([pair])
    assert timing.runtime_s == pytest.approx(2 * READ_S + COMPUTE_S)
    assert timing.flags == frozenset()


def test_write_to_a_field_that_was_moved_away_finishes_nothing() -> None:
    script, pair = Script(), SEPARATE[0]
    script.read(pair)
    script.write(pair)
    script.events.append(file_event(script.now_s, Event.MOVED_OUT, pair.field))
    script.events.append(file_event(script.now_s + 1.0, Event.WRITTEN, pair.field))
    (timing,) = script.timings([pair])
    assert timing.runtime_s is None
