"""How a run ended and whose turn it is, from evidence alone.

What a submission prints or calls its files is no evidence, so it cannot make its own fault look
like the machine's, nor the other way round. How the cases are told apart, in this order:

ended by the harness  the first recorded reason, whatever the exit code, the engine or the fields
                      say later: they may be its consequence. A full disk is the machine's as long
                      as the submission kept its limits, which are looked at first, and unless more
                      than its limit was free again as soon as its container was gone: it had hidden
                      that from every look.
did not start         what the engine refused because of the image (a program that is missing or
                      foreign, a user that is unknown) has an exit code, 126 or 127, and is the
                      submission's; every other failure of the engine is the machine's.
vanished              no exit code at all. Nothing inside a container can bring that about: a main
                      process that kills itself, its parent or everything leaves an exit code, and
                      so does the init, which ignores signals from within but can be traced
                      (ptrace) and made to end with a code of choice. So: the machine.
disk full             the disk's free space went below its floor, and the run failed: it may be
                      why.
out of memory         the engine's word or the kernel's count of kills, never an exit code: 137
                      alone is a crash. With exit code 0 only a child died, which counts where
                      fields are missing or invalid. Kills that the kernel counted of one that
                      never came to its limit, nor near it, are the machine's, which had no memory
                      left.
too many processes    the kernel's count of refusals beside an exit code or missing fields.
exit code             any but 0 is the submission's: also 125 to 127 and 128 + n, which it may
                      have chosen itself, as it may 0: success is a matter of fields. 23 with
                      missing fields is the reference runner's "some pairs failed".
fields                that the machine could not copy (no room) are the machine's; invalid or
                      missing ones are the submission's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

from harness.challenge.field_file import FieldState
from harness.challenge.quantity import format_bytes
from harness.ending import Cut, exit_signal
from harness.errors import Blame, MethodError, PairsFailed
from harness.store import RunStatus

if TYPE_CHECKING:
    from harness.challenge.model import Limits
    from harness.ending import CutRecord, EndingRecord

# By custom of shells, and of engines that cannot start what an image says.
_START_CODES = {
    126: "a program in it could not be executed",
    127: "a program in it was not found",
}


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that a verdict rests on. ``fields`` holds the state of every expected field."""

    ending: EndingRecord
    limits: Limits
    fields: tuple[FieldState, ...]

    def count(self, state: FieldState) -> int:
        return self.fields.count(state)

    @property
    def killed_for_memory(self) -> bool:
        return bool(self.ending.out_of_memory or self.ending.memory_kills)

    @property
    def unfinished(self) -> bool:
        return bool(
            self.count(FieldState.MISSING)
            or self.count(FieldState.INVALID)
            or self.count(FieldState.UNCOLLECTED)
            or not self.count(FieldState.VALID)
        )


@dataclass(frozen=True, kw_only=True)
class Verdict:
    status: RunStatus
    reason: str
    blame: Blame | None
    warnings: tuple[str, ...] = ()


def judge(evidence: Evidence) -> Verdict:
    """The first recorded reason wins: a kill that follows a timeout is still a timeout."""
    ending = evidence.ending
    if ending.cut is not None:
        return _cut_short(ending.cut, evidence)
    if ending.engine_failure is not None:
        return _machine(f"the engine failed: {ending.engine_failure}")
    if ending.exit_code is None:
        return _machine("the container vanished while it ran")
    if ending.disk_was_full and (ending.exit_code or evidence.unfinished):
        how = f"it ended with exit code {ending.exit_code}" if ending.exit_code else "it ended"
        return _machine(f"{_disk(evidence)}; {how}, which may be why")
    return _by_itself(evidence, ending.exit_code)


def _cut_short(cut: CutRecord, evidence: Evidence) -> Verdict:
    warnings = _limits_met(evidence)  # a worker that died is what many hang for
    if evidence.ending.engine_failure is not None:
        warnings.append(f"after that the engine failed: {evidence.ending.engine_failure}")
    if uncollected := evidence.count(FieldState.UNCOLLECTED):
        warnings.append(_uncollected(uncollected))
    status, blame = _status(cut.reason)
    if evidence.ending.filled_the_disk(evidence.limits.scratch_bytes):
        status, blame = RunStatus.OUTPUT_LIMIT, Blame.SUBMISSION
    reason = f"ended {_why(cut, evidence)}"
    return Verdict(status=status, reason=reason, blame=blame, warnings=tuple(warnings))


def _status(reason: Cut) -> tuple[RunStatus, Blame]:
    match reason:
        case Cut.TIMED_OUT | Cut.PAIR_TIMED_OUT | Cut.IDLE:
            return RunStatus.TIMED_OUT, Blame.SUBMISSION
        case Cut.OUTPUT_LIMIT | Cut.OUTPUT_UNSEEN | Cut.SCRATCH_LIMIT:
            return RunStatus.OUTPUT_LIMIT, Blame.SUBMISSION
        case Cut.DISK_FULL:
            return RunStatus.INFRASTRUCTURE, Blame.MACHINE
        case Cut.INTERRUPTED | Cut.HARNESS_DIED:
            return RunStatus.INTERRUPTED, Blame.MACHINE
        case _:
            assert_never(reason)


def _why(cut: CutRecord, evidence: Evidence) -> str:
    limit, observed = cut.limit or 0.0, cut.observed or 0.0
    match cut.reason:
        case Cut.TIMED_OUT:
            text = f"at its deadline of {limit:.0f} s"
        case Cut.PAIR_TIMED_OUT:
            text = (
                f"because pair {cut.subject} kept it for {observed:.0f} s; no pair may take longer "
                f"than {limit:.0f} s"
            )
        case Cut.IDLE:
            text = (
                f"because it touched no file and used no CPU for {observed:.0f} s (at most "
                f"{limit:.0f} s): it waits for something that does not come"
            )
        case Cut.OUTPUT_LIMIT if cut.limit_name == "output_files":
            text = (
                f"because its output grew past {limit:.0f} files and folders ({observed:.0f} seen)"
            )
        case Cut.OUTPUT_LIMIT:
            text = (
                f"because its output grew past {format_bytes(limit)} "
                f"({format_bytes(observed)} seen)"
            )
        case Cut.SCRATCH_LIMIT:
            text = (
                f"because it wrote more than {format_bytes(limit)} outside of its output folder "
                f"({format_bytes(observed)} seen)"
            )
        case Cut.OUTPUT_UNSEEN:
            text = (
                f"because part of its output cannot be looked at: {cut.subject}; leave folders "
                "that anybody may enter, and few in each other"
            )
        case Cut.DISK_FULL:
            text = f"because {_disk(evidence)}"
        case Cut.INTERRUPTED:
            text = "because the harness was asked to stop"
        case Cut.HARNESS_DIED:
            text = "because the harness was killed, or its machine went down"
        case _:
            assert_never(cut.reason)
    return text


def _by_itself(evidence: Evidence, exit_code: int) -> Verdict:
    ending = evidence.ending
    missing, invalid = evidence.count(FieldState.MISSING), evidence.count(FieldState.INVALID)
    uncollected, valid = evidence.count(FieldState.UNCOLLECTED), evidence.count(FieldState.VALID)
    if evidence.killed_for_memory and (exit_code or evidence.unfinished):
        return _out_of_memory(evidence, exit_code)
    failed_pairs = exit_code == PairsFailed.exit_code and missing and not invalid
    if ending.refused_processes and (exit_code or evidence.unfinished):
        return _fault(
            RunStatus.CRASHED if exit_code and not failed_pairs else RunStatus.INCOMPLETE,
            f"{_exit_reason(exit_code)}; it wanted more processes and threads than its limit of "
            f"{evidence.limits.processes}, and was refused {_times(ending.refused_processes)}",
        )
    if exit_code and not failed_pairs:
        return _fault(RunStatus.CRASHED, f"{_exit_reason(exit_code)}; see the log")
    if uncollected:
        return _machine(_uncollected(uncollected))
    if evidence.unfinished:
        return _unfinished(missing=missing, invalid=invalid, valid=valid)
    return Verdict(
        status=RunStatus.SUCCEEDED,
        reason=f"all {valid} fields of the attempted tasks are valid"
        if valid != 1
        else "the one field of the attempted tasks is valid",
        blame=None,
        warnings=tuple(_limits_met(evidence)),
    )


def _out_of_memory(evidence: Evidence, exit_code: int) -> Verdict:
    memory_bytes, peak_bytes = evidence.limits.memory_bytes, evidence.ending.memory_peak_bytes
    if evidence.ending.machine_lacked_memory(memory_bytes):
        return _machine(f"{_machine_out_of_memory(evidence)}; it ended with exit code {exit_code}")
    who = "the submission" if exit_code else "a child process of the submission"
    warnings = []
    if peak_bytes is not None and evidence.ending.is_far_from(memory_bytes):
        warnings.append(
            f"it was killed for memory, and {format_bytes(peak_bytes)} was the most seen of it: it "
            "took the rest within a second, or the machine itself had none left (see the verdict "
            "on the machine)"
        )
    return Verdict(
        status=RunStatus.OUT_OF_MEMORY,
        reason=f"{who} ran out of memory ({format_bytes(memory_bytes)})",
        blame=Blame.SUBMISSION,
        warnings=tuple(warnings),
    )


def _limits_met(evidence: Evidence) -> list[str]:
    """Limits that held, and did not end the run by themselves."""
    told = []
    if evidence.ending.machine_lacked_memory(evidence.limits.memory_bytes):
        told.append(_machine_out_of_memory(evidence))
    elif evidence.killed_for_memory:
        memory = format_bytes(evidence.limits.memory_bytes)
        told.append(f"a child process ran out of memory ({memory})")
    if refused := evidence.ending.refused_processes:
        told.append(
            f"more processes and threads than {evidence.limits.processes} were refused "
            f"{_times(refused)}"
        )
    return told


def _unfinished(*, missing: int, invalid: int, valid: int) -> Verdict:
    expected = missing + invalid + valid
    if invalid:
        return _fault(RunStatus.REJECTED, f"{invalid} of {expected} fields invalid")
    if not expected:
        return _fault(RunStatus.INCOMPLETE, "it ended without reading or writing anything")
    return _fault(RunStatus.INCOMPLETE, f"{missing} of {expected} fields missing")


def _fault(status: RunStatus, reason: str) -> Verdict:
    return Verdict(status=status, reason=reason, blame=Blame.SUBMISSION)


def _machine(reason: str) -> Verdict:
    return Verdict(status=RunStatus.INFRASTRUCTURE, reason=reason, blame=Blame.MACHINE)


def _disk(evidence: Evidence) -> str:
    """What happened to the disk, and how much of it was the submission's doing."""
    ending = evidence.ending
    engine_s = ending.engine_disk_was_full and not ending.run_disk_was_full
    left_bytes = ending.engine_lowest_free_bytes if engine_s else ending.lowest_free_bytes
    free = "no" if left_bytes is None else format_bytes(left_bytes)
    where = "the engine's containers" if engine_s else "the run directory"
    text = f"the machine's disk is full: {free} left for {where}"
    if ending.filled_the_disk(evidence.limits.scratch_bytes):
        return f"{text}; {_filled_by_it(evidence)}"
    if ending.output_bytes is None:
        return text
    wrote_bytes = ending.output_bytes + (ending.scratch_bytes or 0)
    return f"{text}; {format_bytes(wrote_bytes)} were the submission's, within its limits"


def _filled_by_it(evidence: Evidence) -> str:
    ending, most = evidence.ending, format_bytes(evidence.limits.scratch_bytes)
    scratch_bytes = ending.scratch_bytes or 0
    if scratch_bytes > evidence.limits.scratch_bytes:
        return f"it had written {format_bytes(scratch_bytes)} outside of its output folder ({most})"
    return (
        f"{format_bytes(ending.hidden_bytes)} that it had hidden from every look were free again "
        f"when its container was gone; outside of its output folder it may write {most}"
    )


def _machine_out_of_memory(evidence: Evidence) -> str:
    kills, peak_bytes = evidence.ending.memory_kills or 0, evidence.ending.memory_peak_bytes or 0
    processes = "1 process" if kills == 1 else f"{kills} processes"
    return (
        f"the machine had no memory left, and the kernel killed {processes} of the submission for "
        f"that, which never came to its limit: {format_bytes(peak_bytes)} of "
        f"{format_bytes(evidence.limits.memory_bytes)} was the most seen of it"
    )


def _uncollected(count: int) -> str:
    fields = "1 field was" if count == 1 else f"{count} fields were"
    return (
        f"{fields} written and could not be copied, the machine's disk being full: see output/ in "
        "the run directory"
    )


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _exit_reason(exit_code: int) -> str:
    if exit_code == MethodError.exit_code:
        return f"exit code {exit_code}: the method could not be loaded"
    if exit_code in _START_CODES:
        return f"exit code {exit_code}: {_START_CODES[exit_code]}"
    name = exit_signal(exit_code)
    return f"exit code {exit_code}" + (f" (ended by {name})" if name else "")
