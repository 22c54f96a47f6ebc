"""How a run ended, judged from evidence: a table."""

from __future__ import annotations

import itertools

import pytest

from harness.challenge.field_file import FieldState
from harness.ending import Cut, CutRecord, EndingRecord
from harness.errors import Blame
from harness.store import RunStatus
from harness.verdict import Evidence, judge
from tests.tiny import tiny_challenge

VALID, MISSING, INVALID, UNCOLLECTED, NOT_ATTEMPTED = (
    FieldState.VALID,
    FieldState.MISSING,
    FieldState.INVALID,
    FieldState.UNCOLLECTED,
    FieldState.NOT_ATTEMPTED,
)
LIMITS = tiny_challenge().limits  # 2 GiB of memory, 64 MiB of output, 256 processes


def evidence(*fields: FieldState, **ending: object) -> Evidence:
    """A run that ended with exit code 0, but for what is named; two valid fields, if none is."""
    return Evidence(
        ending=EndingRecord.model_validate({"exit_code": 0, "out_of_memory": False} | ending),
        limits=LIMITS,
        fields=fields or (VALID, VALID),
    )


def cut(reason: Cut, **details: object) -> CutRecord:
    return CutRecord.model_validate({"reason": reason, "after_s": 1.0} | details)


FINE = evidence()
FULL = {"lowest_free_bytes": 0, "free_floor_bytes": 1 << 20}


def test_success_blames_nobody() -> None:
    verdict = judge(FINE)
    assert verdict.status is RunStatus.SUCCEEDED
    assert verdict.reason == "all 2 fields of the attempted tasks are valid"
    assert verdict.blame is None
    assert verdict.warnings == ()


TABLE = {
    "not_attempted": (
        evidence(VALID, NOT_ATTEMPTED, NOT_ATTEMPTED),
        (RunStatus.SUCCEEDED, "the one field of the attempted tasks is valid"),
    ),
    "nothing_attempted": (
        evidence(NOT_ATTEMPTED, NOT_ATTEMPTED),
        (RunStatus.INCOMPLETE, "it ended without reading or writing anything"),
    ),
    "none_written": (
        evidence(MISSING, MISSING),
        (RunStatus.INCOMPLETE, "2 of 2 fields missing"),
    ),
    "some_missing": (
        evidence(VALID, MISSING, VALID, NOT_ATTEMPTED),
        (RunStatus.INCOMPLETE, "1 of 3 fields missing"),
    ),
    "some_invalid": (
        evidence(VALID, INVALID, VALID),
        (RunStatus.REJECTED, "1 of 3 fields invalid"),
    ),
    "invalid_before_missing": (
        evidence(VALID, INVALID, MISSING, NOT_ATTEMPTED),
        (RunStatus.REJECTED, "1 of 3 fields invalid"),
    ),
    "all_invalid": (
        evidence(INVALID, INVALID),
        (RunStatus.REJECTED, "2 of 2 fields invalid"),
    ),
    "exit_1": (evidence(exit_code=1), (RunStatus.CRASHED, "exit code 1; see the log")),
    "exit_23": (
        evidence(VALID, MISSING, exit_code=23),
        (RunStatus.INCOMPLETE, "1 of 2 fields missing"),
    ),
    "exit_23_with_all_fields": (
        evidence(exit_code=23),
        (RunStatus.CRASHED, "exit code 23; see the log"),
    ),
    "exit_20": (
        evidence(MISSING, MISSING, exit_code=20),
        (RunStatus.CRASHED, "exit code 20: the method could not be loaded; see the log"),
    ),
    "exit_code_before_fields": (
        evidence(INVALID, MISSING, exit_code=2),
        (RunStatus.CRASHED, "exit code 2; see the log"),
    ),
    "exit_125_is_not_the_engine": (
        evidence(MISSING, exit_code=125),
        (RunStatus.CRASHED, "exit code 125; see the log"),
    ),
    "exit_126": (
        evidence(MISSING, exit_code=126),
        (RunStatus.CRASHED, "exit code 126: a program in it could not be executed; see the log"),
    ),
    "exit_127": (
        evidence(MISSING, exit_code=127),
        (RunStatus.CRASHED, "exit code 127: a program in it was not found; see the log"),
    ),
    "segmentation_fault": (
        evidence(exit_code=139),
        (RunStatus.CRASHED, "exit code 139 (ended by SIGSEGV); see the log"),
    ),
    "killed_by_itself": (
        evidence(exit_code=137, memory_kills=0),
        (RunStatus.CRASHED, "exit code 137 (ended by SIGKILL); see the log"),
    ),
    "abort": (evidence(exit_code=134), (RunStatus.CRASHED, "(ended by SIGABRT)")),
    "exit_128": (evidence(exit_code=128), (RunStatus.CRASHED, "exit code 128; see the log")),
    "exit_255": (evidence(exit_code=255), (RunStatus.CRASHED, "exit code 255; see the log")),
    "out_of_memory": (
        evidence(VALID, MISSING, exit_code=137, out_of_memory=True),
        (RunStatus.OUT_OF_MEMORY, "the submission ran out of memory (2.0 GiB)"),
    ),
    "out_of_memory_with_all_fields": (
        evidence(exit_code=137, out_of_memory=True),
        (RunStatus.OUT_OF_MEMORY, "the submission ran out of memory (2.0 GiB)"),
    ),
    "out_of_memory_by_the_kernels_count": (
        evidence(MISSING, exit_code=1, memory_kills=1),
        (RunStatus.OUT_OF_MEMORY, "the submission ran out of memory (2.0 GiB)"),
    ),
    "child_out_of_memory": (
        evidence(VALID, MISSING, out_of_memory=True),
        (RunStatus.OUT_OF_MEMORY, "a child process of the submission ran out of memory (2.0 GiB)"),
    ),
    "child_out_of_memory_by_count": (
        evidence(VALID, MISSING, memory_kills=2),
        (RunStatus.OUT_OF_MEMORY, "a child process of the submission ran out of memory (2.0 GiB)"),
    ),
    "child_out_of_memory_invalid": (
        evidence(VALID, INVALID, out_of_memory=True),
        (RunStatus.OUT_OF_MEMORY, "a child process of the submission ran out of memory"),
    ),
    "child_out_of_memory_nothing": (
        evidence(NOT_ATTEMPTED, out_of_memory=True),
        (RunStatus.OUT_OF_MEMORY, "a child process of the submission ran out of memory"),
    ),
    "fork_bomb": (
        evidence(MISSING, exit_code=1, refused_processes=812),
        (
            RunStatus.CRASHED,
            "it wanted more processes and threads than its limit of 256, and was refused 812 times",
        ),
    ),
    "fork_bomb_that_ends_well": (
        evidence(MISSING, refused_processes=1),
        (RunStatus.INCOMPLETE, "limit of 256, and was refused once"),
    ),
    "timed_out": (
        evidence(
            VALID,
            MISSING,
            exit_code=137,
            cut=cut(Cut.TIMED_OUT, limit_name="deadline_s", limit=100.4, observed=100.5),
        ),
        (RunStatus.TIMED_OUT, "ended at its deadline of 100 s"),
    ),
    "pair_timed_out": (
        evidence(
            VALID,
            MISSING,
            exit_code=137,
            cut=cut(Cut.PAIR_TIMED_OUT, limit=60.0, observed=60.9, subject="task_01/0002_0002"),
        ),
        (
            RunStatus.TIMED_OUT,
            "because pair task_01/0002_0002 kept it for 61 s; no pair may take longer than 60 s",
        ),
    ),
    "idle": (
        evidence(MISSING, exit_code=143, cut=cut(Cut.IDLE, limit=600.0, observed=601.0)),
        (RunStatus.TIMED_OUT, "ended because it touched no file and used no CPU for 601 s"),
    ),
    "output_limit": (
        evidence(
            exit_code=143,
            cut=cut(Cut.OUTPUT_LIMIT, limit_name="output_bytes", limit=64 << 20, observed=80 << 20),
        ),
        (
            RunStatus.OUTPUT_LIMIT,
            "ended because its output grew past 64.0 MiB (80.0 MiB seen)",
        ),
    ),
    "too_many_files": (
        evidence(
            exit_code=143,
            cut=cut(Cut.OUTPUT_LIMIT, limit_name="output_files", limit=1000, observed=1001),
        ),
        (RunStatus.OUTPUT_LIMIT, "its output grew past 1000 files and folders (1001 seen)"),
    ),
    "scratch_limit": (
        evidence(exit_code=137, cut=cut(Cut.SCRATCH_LIMIT, limit=1 << 30, observed=2 << 30)),
        (RunStatus.OUTPUT_LIMIT, "it wrote more than 1.0 GiB outside of its output folder"),
    ),
    "output_unseen": (
        evidence(exit_code=143, cut=cut(Cut.OUTPUT_UNSEEN, subject="a (Permission denied)")),
        (
            RunStatus.OUTPUT_LIMIT,
            "ended because part of its output cannot be looked at: a (Permission denied)",
        ),
    ),
    "disk_full": (
        evidence(
            MISSING,
            exit_code=137,
            cut=cut(Cut.DISK_FULL),
            output_bytes=3 << 20,
            scratch_bytes=1 << 20,
            **FULL,
        ),
        (
            RunStatus.INFRASTRUCTURE,
            "disk is full: 0 B left for the run directory; 4.0 MiB were the submission's",
        ),
    ),
    "disk_full_of_hidden_files": (
        evidence(
            MISSING,
            exit_code=137,
            cut=cut(Cut.DISK_FULL),
            output_bytes=3 << 20,
            scratch_bytes=1 << 20,
            reclaimed_bytes=(17 << 30) + (1 << 20),
            **FULL,
        ),
        (
            RunStatus.OUTPUT_LIMIT,
            "0 B left for the run directory; 17.0 GiB that it had hidden from every look were free",
        ),
    ),
    "disk_full_and_no_more_came_back_than_it_may_write": (
        evidence(
            MISSING,
            exit_code=137,
            cut=cut(Cut.DISK_FULL),
            output_bytes=3 << 20,
            scratch_bytes=2 << 30,
            reclaimed_bytes=17 << 30,
            **FULL,
        ),
        (RunStatus.INFRASTRUCTURE, "2.0 GiB were the submission's, within its limits"),
    ),
    "disk_full_of_what_was_seen_too_late": (
        evidence(
            MISSING,
            exit_code=137,
            cut=cut(Cut.DISK_FULL),
            output_bytes=3 << 20,
            scratch_bytes=17 << 30,
            **FULL,
        ),
        (RunStatus.OUTPUT_LIMIT, "it had written 17.0 GiB outside of its output folder (16.0 GiB)"),
    ),
    "disk_of_the_engine_full": (
        evidence(
            MISSING,
            exit_code=137,
            cut=cut(Cut.DISK_FULL),
            output_bytes=3 << 20,
            lowest_free_bytes=9 << 30,
            free_floor_bytes=1 << 20,
            engine_lowest_free_bytes=1 << 10,
            engine_free_floor_bytes=1 << 20,
        ),
        (RunStatus.INFRASTRUCTURE, "disk is full: 1.0 KiB left for the engine's containers"),
    ),
    "disk_full_may_be_why_it_crashed": (
        evidence(MISSING, exit_code=1, **FULL),
        (RunStatus.INFRASTRUCTURE, "it ended with exit code 1, which may be why"),
    ),
    "disk_full_may_be_why_a_field_is_cut": (
        evidence(VALID, INVALID, **FULL),
        (RunStatus.INFRASTRUCTURE, "the machine's disk is full"),
    ),
    "disk_full_and_no_harm_done": (
        evidence(**FULL),
        (RunStatus.SUCCEEDED, "all 2 fields"),
    ),
    "uncollected": (
        evidence(VALID, UNCOLLECTED),
        (RunStatus.INFRASTRUCTURE, "1 field was written and could not be copied"),
    ),
    "interrupted": (
        evidence(exit_code=137, cut=cut(Cut.INTERRUPTED)),
        (RunStatus.INTERRUPTED, "ended because the harness was asked to stop"),
    ),
    "engine_failed": (
        evidence(engine_failure="no space left", exit_code=None),
        (RunStatus.INFRASTRUCTURE, "the engine failed: no space left"),
    ),
    "vanished": (
        evidence(exit_code=None, out_of_memory=None),
        (RunStatus.INFRASTRUCTURE, "the container vanished while it ran"),
    ),
    "vanished_without_a_code": (
        evidence(exit_code=None, out_of_memory=True),
        (RunStatus.INFRASTRUCTURE, "the container vanished while it ran"),
    ),
}


@pytest.mark.parametrize(("found", "expected"), TABLE.values(), ids=TABLE)
def test_judge(found: Evidence, expected: tuple[RunStatus, str]) -> None:
    verdict = judge(found)
    assert verdict.status is expected[0]
    assert expected[1] in verdict.reason


@pytest.mark.parametrize(
    "words", ["no space left on device", "Server Error", "Read timed out.", "cgroup: busy"]
)
def test_engine_that_fails_is_the_machines(words: str) -> None:
    verdict = judge(evidence(MISSING, exit_code=None, engine_failure=words))
    assert verdict.status is RunStatus.INFRASTRUCTURE


def test_child_out_of_memory_is_a_warning_when_all_fields_are_there() -> None:
    for found in (evidence(out_of_memory=True), evidence(memory_kills=1)):
        verdict = judge(found)
        assert verdict.status is RunStatus.SUCCEEDED
        assert verdict.warnings == ("a child process ran out of memory (2.0 GiB)",)


def test_refused_processes_are_a_warning_when_all_fields_are_there() -> None:
    verdict = judge(evidence(refused_processes=3))
    assert verdict.status is RunStatus.SUCCEEDED
    assert verdict.warnings == ("more processes and threads than 256 were refused 3 times",)


def test_limits_met_on_the_way_are_told_of_a_run_that_was_cut_short() -> None:
    """Who waits for a worker that was killed for memory is ended for idling."""
    verdict = judge(evidence(cut=cut(Cut.IDLE), memory_kills=1, refused_processes=1))
    assert verdict.status is RunStatus.TIMED_OUT
    assert verdict.warnings == (
        "a child process ran out of memory (2.0 GiB)",
        "more processes and threads than 256 were refused once",
    )


def test_kill_far_below_the_limit_of_memory_is_told() -> None:
    """The kernel counts those that it killed because the whole machine had no memory left, too."""
    far = judge(evidence(exit_code=137, memory_kills=1, memory_peak_bytes=1 << 20))
    near = judge(evidence(exit_code=137, memory_kills=1, memory_peak_bytes=2 << 30))
    assert far.status is near.status is RunStatus.OUT_OF_MEMORY
    assert "1.0 MiB was the most seen of it" in far.warnings[0]
    assert near.warnings == ()


@pytest.mark.parametrize("exit_code", [0, 1, 137])
def test_kill_for_the_machines_own_lack_of_memory_is_the_machines(exit_code: int) -> None:
    """Counted by the kernel, without the submission ever having come to its limit, or near it."""
    clear = {"memory_kills": 2, "memory_limit_hits": 0, "memory_peak_bytes": 1 << 20}
    verdict = judge(evidence(MISSING, exit_code=exit_code, **clear))
    assert verdict.status is RunStatus.INFRASTRUCTURE
    assert verdict.blame is Blame.MACHINE
    assert "killed 2 processes of the submission" in verdict.reason
    assert "1.0 MiB of 2.0 GiB" in verdict.reason
    for unclear in (
        {"memory_limit_hits": 1},
        {"memory_limit_hits": None},
        {"memory_peak_bytes": None},
        {"memory_peak_bytes": 1900 << 20},
        {"memory_kills": 0, "out_of_memory": True},
        {"memory_kills": None, "out_of_memory": True},
    ):
        found = judge(evidence(MISSING, exit_code=exit_code, **{**clear, **unclear}))
        assert found.status is RunStatus.OUT_OF_MEMORY, unclear


def test_child_killed_for_the_machine_is_a_warning_when_all_fields_are_there() -> None:
    verdict = judge(evidence(memory_kills=1, memory_limit_hits=0, memory_peak_bytes=1 << 20))
    assert verdict.status is RunStatus.SUCCEEDED
    (warning,) = verdict.warnings
    assert warning.startswith("the machine had no memory left")


def test_what_failed_after_a_cut_is_told_and_changes_nothing() -> None:
    found = evidence(VALID, UNCOLLECTED, cut=cut(Cut.IDLE), engine_failure="gone", exit_code=None)
    verdict = judge(found)
    assert verdict.status is RunStatus.TIMED_OUT
    assert verdict.warnings[0] == "after that the engine failed: gone"
    assert "1 field was written and could not be copied" in verdict.warnings[1]


EXITS: tuple[dict[str, object], ...] = (
    {"exit_code": None, "out_of_memory": None},
    {"exit_code": 0},
    {"exit_code": 1},
    {"exit_code": 1, "refused_processes": 2},
    {"exit_code": 137},
    {"exit_code": 137, "out_of_memory": True},
    {"exit_code": 137, "memory_kills": 1, "memory_peak_bytes": 1},
    {"exit_code": 1, "memory_kills": 1, "memory_limit_hits": 0, "memory_peak_bytes": 1},
    {"exit_code": 1, **FULL},
)
ENDED_BY_US = {
    Cut.TIMED_OUT: RunStatus.TIMED_OUT,
    Cut.PAIR_TIMED_OUT: RunStatus.TIMED_OUT,
    Cut.IDLE: RunStatus.TIMED_OUT,
    Cut.OUTPUT_LIMIT: RunStatus.OUTPUT_LIMIT,
    Cut.OUTPUT_UNSEEN: RunStatus.OUTPUT_LIMIT,
    Cut.SCRATCH_LIMIT: RunStatus.OUTPUT_LIMIT,
    Cut.DISK_FULL: RunStatus.INFRASTRUCTURE,
    Cut.INTERRUPTED: RunStatus.INTERRUPTED,
    Cut.HARNESS_DIED: RunStatus.INTERRUPTED,
}


@pytest.mark.parametrize("reason", list(Cut))
@pytest.mark.parametrize("ending", EXITS, ids=str)
@pytest.mark.parametrize("failure", [None, "refused"])
def test_the_first_recorded_reason_wins(
    reason: Cut, ending: dict[str, object], failure: str | None
) -> None:
    """We end a run only while it goes on, so whatever its end then looks like came later."""
    for fields in ((VALID,), (MISSING, INVALID)):
        found = evidence(*fields, cut=cut(reason), engine_failure=failure, **ending)
        assert judge(found).status is ENDED_BY_US[reason]


def test_engine_failure_comes_before_how_the_container_ended() -> None:
    for ending in EXITS:
        verdict = judge(evidence(engine_failure="refused", **ending))
        assert verdict.status is RunStatus.INFRASTRUCTURE


BLAME = {
    RunStatus.SUCCEEDED: None,
    RunStatus.INCOMPLETE: Blame.SUBMISSION,
    RunStatus.CRASHED: Blame.SUBMISSION,
    RunStatus.OUT_OF_MEMORY: Blame.SUBMISSION,
    RunStatus.TIMED_OUT: Blame.SUBMISSION,
    RunStatus.OUTPUT_LIMIT: Blame.SUBMISSION,
    RunStatus.REJECTED: Blame.SUBMISSION,
    RunStatus.INTERRUPTED: Blame.MACHINE,
    RunStatus.INFRASTRUCTURE: Blame.MACHINE,
}


def test_blame_and_status_of_every_evidence() -> None:
    """All combinations: each has a verdict, a status tells the blame, all statuses are reached."""
    states = [
        combination
        for n in range(1, 4)
        for combination in itertools.combinations_with_replacement(FieldState, n)
    ]
    reached = set()
    for reason, failure, ending, fields in itertools.product(
        (None, *Cut), (None, "refused"), EXITS, states
    ):
        ended = None if reason is None else cut(reason)
        verdict = judge(evidence(*fields, cut=ended, engine_failure=failure, **ending))
        assert verdict.blame is BLAME[verdict.status]
        assert verdict.reason
        if verdict.status is RunStatus.SUCCEEDED:
            assert VALID in fields
            assert not {MISSING, INVALID, UNCOLLECTED} & set(fields)
        reached.add(verdict.status)
    assert reached == set(RunStatus)
