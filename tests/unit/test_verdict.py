"""How a run ended, judged from evidence: a table."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from harness.challenge.field_file import FieldState
from harness.engine.base import ExitState
from harness.errors import Blame
from harness.store import RunStatus
from harness.verdict import Cut, Evidence, judge
from tests.tiny import tiny_challenge

VALID, MISSING, INVALID, NOT_ATTEMPTED = (
    FieldState.VALID,
    FieldState.MISSING,
    FieldState.INVALID,
    FieldState.NOT_ATTEMPTED,
)
LIMITS = tiny_challenge().limits  # 2 GiB of memory, 64 MiB of output


def ended(exit_code: int | None, *, out_of_memory: bool = False) -> ExitState:
    return ExitState(exit_code=exit_code, out_of_memory=out_of_memory)


FINE = Evidence(
    exit=ended(0),
    cut=None,
    engine_failure=None,
    deadline_s=100.4,
    limits=LIMITS,
    fields=(VALID, VALID),
)


def evidence(**changes: object) -> Evidence:
    return dataclasses.replace(FINE, **changes)  # type: ignore[arg-type]  # any field of Evidence


def test_success_blames_nobody() -> None:
    verdict = judge(FINE)
    assert verdict.status is RunStatus.SUCCEEDED
    assert verdict.reason == "all 2 fields of the attempted tasks are valid"
    assert verdict.blame is None
    assert verdict.warnings == ()


TABLE = {
    "not_attempted": (
        evidence(fields=(VALID, NOT_ATTEMPTED, NOT_ATTEMPTED)),
        (RunStatus.SUCCEEDED, "the one field of the attempted tasks is valid"),
    ),
    "nothing_attempted": (
        evidence(fields=(NOT_ATTEMPTED, NOT_ATTEMPTED)),
        (RunStatus.INCOMPLETE, "it ended without reading or writing anything"),
    ),
    "none_written": (
        evidence(fields=(MISSING, MISSING)),
        (RunStatus.INCOMPLETE, "2 of 2 fields missing"),
    ),
    "no_pairs": (
        evidence(fields=()),
        (RunStatus.INCOMPLETE, "it ended without reading or writing anything"),
    ),
    "some_missing": (
        evidence(fields=(VALID, MISSING, VALID, NOT_ATTEMPTED)),
        (RunStatus.INCOMPLETE, "1 of 3 fields missing"),
    ),
    "some_invalid": (
        evidence(fields=(VALID, INVALID, VALID)),
        (RunStatus.REJECTED, "1 of 3 fields invalid"),
    ),
    "invalid_before_missing": (
        evidence(fields=(VALID, INVALID, MISSING, NOT_ATTEMPTED)),
        (RunStatus.REJECTED, "1 of 3 fields invalid"),
    ),
    "all_invalid": (
        evidence(fields=(INVALID, INVALID)),
        (RunStatus.REJECTED, "2 of 2 fields invalid"),
    ),
    "exit_1": (
        evidence(exit=ended(1)),
        (RunStatus.CRASHED, "exit code 1; see the log"),
    ),
    "exit_23": (
        evidence(exit=ended(23), fields=(VALID, MISSING)),
        (RunStatus.INCOMPLETE, "1 of 2 fields missing"),
    ),
    "exit_23_with_all_fields": (
        evidence(exit=ended(23), fields=(VALID, VALID)),
        (RunStatus.CRASHED, "exit code 23; see the log"),
    ),
    "exit_20": (
        evidence(exit=ended(20), fields=(MISSING, MISSING)),
        (RunStatus.CRASHED, "exit code 20: the method could not be loaded; see the log"),
    ),
    "exit_code_before_fields": (
        evidence(exit=ended(2), fields=(INVALID, MISSING)),
        (RunStatus.CRASHED, "exit code 2; see the log"),
    ),
    "segmentation_fault": (
        evidence(exit=ended(139)),
        (RunStatus.CRASHED, "exit code 139 (ended by SIGSEGV); see the log"),
    ),
    "killed_by_itself": (
        evidence(exit=ended(137)),
        (RunStatus.CRASHED, "exit code 137 (ended by SIGKILL); see the log"),
    ),
    "abort": (evidence(exit=ended(134)), (RunStatus.CRASHED, "(ended by SIGABRT)")),
    "exit_128": (evidence(exit=ended(128)), (RunStatus.CRASHED, "exit code 128; see the log")),
    "exit_255": (evidence(exit=ended(255)), (RunStatus.CRASHED, "exit code 255; see the log")),
    "out_of_memory": (
        evidence(exit=ended(137, out_of_memory=True), fields=(VALID, MISSING)),
        (RunStatus.OUT_OF_MEMORY, "the submission ran out of memory (2.0 GiB)"),
    ),
    "out_of_memory_with_all_fields": (
        evidence(exit=ended(137, out_of_memory=True)),
        (RunStatus.OUT_OF_MEMORY, "the submission ran out of memory (2.0 GiB)"),
    ),
    "child_out_of_memory": (
        evidence(exit=ended(0, out_of_memory=True), fields=(VALID, MISSING)),
        (RunStatus.OUT_OF_MEMORY, "a child process of the submission ran out of memory (2.0 GiB)"),
    ),
    "child_out_of_memory_invalid": (
        evidence(exit=ended(0, out_of_memory=True), fields=(VALID, INVALID)),
        (RunStatus.OUT_OF_MEMORY, "a child process of the submission ran out of memory"),
    ),
    "child_out_of_memory_nothing": (
        evidence(exit=ended(0, out_of_memory=True), fields=(NOT_ATTEMPTED,)),
        (RunStatus.OUT_OF_MEMORY, "a child process of the submission ran out of memory"),
    ),
    "timed_out": (
        evidence(cut=Cut.TIMED_OUT, exit=ended(137), fields=(VALID, MISSING)),
        (RunStatus.TIMED_OUT, "ended at its deadline of 100 s"),
    ),
    "output_limit": (
        evidence(cut=Cut.OUTPUT_LIMIT, exit=ended(143)),
        (
            RunStatus.OUTPUT_LIMIT,
            "ended because its output grew past 64.0 MiB, or too many files or folders",
        ),
    ),
    "output_unseen": (
        evidence(cut=Cut.OUTPUT_UNSEEN, exit=ended(143), unseen="a (Permission denied)"),
        (
            RunStatus.OUTPUT_LIMIT,
            "ended because part of its output cannot be looked at: a (Permission denied)",
        ),
    ),
    "interrupted": (
        evidence(cut=Cut.INTERRUPTED, exit=ended(137)),
        (RunStatus.INTERRUPTED, "ended because the harness was asked to stop"),
    ),
    "engine_failed": (
        evidence(engine_failure="no space left", exit=None),
        (RunStatus.INFRASTRUCTURE, "the engine failed: no space left"),
    ),
    "vanished": (
        evidence(exit=None),
        (RunStatus.INFRASTRUCTURE, "the container vanished while it ran"),
    ),
    "vanished_without_a_code": (
        evidence(exit=ended(None, out_of_memory=True)),
        (RunStatus.INFRASTRUCTURE, "the container vanished while it ran"),
    ),
}


@pytest.mark.parametrize(("found", "expected"), TABLE.values(), ids=TABLE)
def test_judge(found: Evidence, expected: tuple[RunStatus, str]) -> None:
    verdict = judge(found)
    assert verdict.status is expected[0]
    assert expected[1] in verdict.reason


def test_child_out_of_memory_is_a_warning_when_all_fields_are_there() -> None:
    verdict = judge(evidence(exit=ended(0, out_of_memory=True)))
    assert verdict.status is RunStatus.SUCCEEDED
    assert verdict.warnings == ("a child process ran out of memory (2.0 GiB)",)


EXITS = (None, ended(None), ended(0), ended(1), ended(137), ended(137, out_of_memory=True))


@pytest.mark.parametrize("cut", list(Cut))
@pytest.mark.parametrize("exit_state", EXITS, ids=str)
@pytest.mark.parametrize("failure", [None, "refused"])
def test_the_first_recorded_reason_wins(
    cut: Cut, exit_state: ExitState | None, failure: str | None
) -> None:
    """We end a run only while it goes on, so whatever its end then looks like came later."""
    for fields in ((), (VALID,), (MISSING, INVALID)):
        found = evidence(cut=cut, exit=exit_state, engine_failure=failure, fields=fields)
        unseen = cut is Cut.OUTPUT_UNSEEN  # the same end, for another reason
        expected = RunStatus.OUTPUT_LIMIT if unseen else RunStatus(cut.value)
        assert judge(found).status is expected


def test_engine_failure_comes_before_how_the_container_ended() -> None:
    for exit_state in EXITS:
        verdict = judge(evidence(engine_failure="refused", exit=exit_state))
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
        for n in range(4)
        for combination in itertools.combinations_with_replacement(FieldState, n)
    ]
    reached = set()
    for cut, failure, exit_state, fields in itertools.product(
        (None, *Cut), (None, "refused"), EXITS, states
    ):
        verdict = judge(evidence(cut=cut, engine_failure=failure, exit=exit_state, fields=fields))
        assert verdict.blame is BLAME[verdict.status]
        assert verdict.reason
        if verdict.status is RunStatus.SUCCEEDED:
            assert VALID in fields
            assert not {MISSING, INVALID} & set(fields)
        reached.add(verdict.status)
    assert reached == set(RunStatus)
