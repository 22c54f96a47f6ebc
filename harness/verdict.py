"""How a run ended and whose turn it is, from evidence alone."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from harness.challenge.field_file import FieldState
from harness.challenge.quantity import format_bytes
from harness.errors import Blame, MethodError, PairsFailed
from harness.store import RunStatus

if TYPE_CHECKING:
    from harness.challenge.model import Limits
    from harness.engine.base import ExitState


class Cut(StrEnum):
    """Why the harness ended a submission before it ended by itself.

    OUTPUT_UNSEEN  something in its output cannot be looked at, so that no limit could hold.
    """

    TIMED_OUT = "timed_out"
    OUTPUT_LIMIT = "output_limit"
    OUTPUT_UNSEEN = "output_unseen"
    INTERRUPTED = "interrupted"
    HARNESS_DIED = "harness_died"


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that a verdict rests on. ``fields`` holds the state of every expected field, ``unseen``
    what of the output could not be looked at."""

    exit: ExitState | None
    cut: Cut | None
    engine_failure: str | None
    deadline_s: float
    limits: Limits
    fields: tuple[FieldState, ...]
    unseen: str | None = None

    def count(self, state: FieldState) -> int:
        return self.fields.count(state)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    status: RunStatus
    reason: str
    blame: Blame | None
    warnings: tuple[str, ...] = ()


def judge(evidence: Evidence) -> Verdict:
    """The first recorded reason wins: a kill that follows a timeout is still a timeout."""
    if evidence.cut is not None:
        return _cut_short(evidence.cut, evidence)
    if evidence.engine_failure is not None:
        return _machine(f"the engine failed: {evidence.engine_failure}")
    if evidence.exit is None or evidence.exit.exit_code is None:
        return _machine("the container vanished while it ran")
    return _by_itself(evidence, evidence.exit, evidence.exit.exit_code)


def _cut_short(cut: Cut, evidence: Evidence) -> Verdict:
    if cut is Cut.TIMED_OUT:
        reason = f"ended at its deadline of {evidence.deadline_s:.0f} s"
        return Verdict(status=RunStatus.TIMED_OUT, reason=reason, blame=Blame.SUBMISSION)
    if cut is Cut.OUTPUT_LIMIT:
        limit = format_bytes(evidence.limits.output_bytes)
        reason = f"ended because its output grew past {limit}, or too many files or folders"
        return Verdict(status=RunStatus.OUTPUT_LIMIT, reason=reason, blame=Blame.SUBMISSION)
    if cut is Cut.OUTPUT_UNSEEN:
        reason = (
            f"ended because part of its output cannot be looked at: {evidence.unseen}; leave "
            "folders that anybody may enter, and few in each other"
        )
        return Verdict(status=RunStatus.OUTPUT_LIMIT, reason=reason, blame=Blame.SUBMISSION)
    reason = "ended because the harness was asked to stop"
    if cut is Cut.HARNESS_DIED:
        reason = "the harness was killed, or its machine went down, before the run had ended"
    return Verdict(
        status=RunStatus.INTERRUPTED,
        reason=reason,
        blame=Blame.MACHINE,
    )


def _machine(reason: str) -> Verdict:
    return Verdict(status=RunStatus.INFRASTRUCTURE, reason=reason, blame=Blame.MACHINE)


def _by_itself(evidence: Evidence, exit_state: ExitState, exit_code: int) -> Verdict:
    missing, invalid = evidence.count(FieldState.MISSING), evidence.count(FieldState.INVALID)
    valid = evidence.count(FieldState.VALID)
    unfinished = bool(missing or invalid or not valid)
    memory = f"ran out of memory ({format_bytes(evidence.limits.memory_bytes)})"
    if exit_state.out_of_memory and (exit_code or unfinished):
        who = "the submission" if exit_code else "a child process of the submission"
        return _fault(RunStatus.OUT_OF_MEMORY, f"{who} {memory}")
    failed_pairs = exit_code == PairsFailed.exit_code and missing and not invalid
    if exit_code and not failed_pairs:
        return _fault(RunStatus.CRASHED, _exit_reason(exit_code))
    if unfinished:
        return _unfinished(missing=missing, invalid=invalid, valid=valid)
    return Verdict(
        status=RunStatus.SUCCEEDED,
        reason=f"all {valid} fields of the attempted tasks are valid"
        if valid != 1
        else "the one field of the attempted tasks is valid",
        blame=None,
        warnings=(f"a child process {memory}",) if exit_state.out_of_memory else (),
    )


def _unfinished(*, missing: int, invalid: int, valid: int) -> Verdict:
    expected = missing + invalid + valid
    if invalid:
        return _fault(RunStatus.REJECTED, f"{invalid} of {expected} fields invalid")
    if not expected:
        return _fault(RunStatus.INCOMPLETE, "it ended without reading or writing anything")
    return _fault(RunStatus.INCOMPLETE, f"{missing} of {expected} fields missing")


def _fault(status: RunStatus, reason: str) -> Verdict:
    return Verdict(status=status, reason=reason, blame=Blame.SUBMISSION)


def _exit_reason(exit_code: int) -> str:
    if exit_code == MethodError.exit_code:
        return f"exit code {exit_code}: the method could not be loaded; see the log"
    try:
        name = signal.Signals(exit_code - 128).name
    except ValueError:
        return f"exit code {exit_code}; see the log"
    return f"exit code {exit_code} (ended by {name}); see the log"
