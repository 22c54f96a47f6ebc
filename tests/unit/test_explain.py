"""What is said of a run's end, and what to try, for every way a run can end."""

from __future__ import annotations

import signal
from typing import TypeVar

import pytest
from pydantic import BaseModel

from harness.advice import advise
from harness.challenge.field_file import FieldState
from harness.ending import Cut, CutRecord, EndingRecord
from harness.engine.base import Isolation
from harness.engine.image_facts import facts_of_inspected
from harness.errors import Blame
from harness.explain import exit_meaning, explain
from harness.image_record import ImageRecord
from harness.probe.realtime import Precision
from harness.probe.salvage import Salvaged
from harness.probe.trace import Event, FileEvent, Placement, Root, Trace
from harness.store import PairRecord, RunRecord, RunStatus
from tests.unit.test_store import RECORD

M = TypeVar("M", bound=BaseModel)
S = 10**9


def pair(number: int, state: FieldState, **values: object) -> PairRecord:
    key = f"{number:04d}_{number:04d}"
    record = PairRecord(
        key=f"task_01/{key}",
        task="task_01",
        fixed_id=number,
        moving_id=number,
        field_state=state,
        field_path=None if state is FieldState.MISSING else f"task_01/disp_{key}.npz",
        expected_path=f"task_01/disp_{key}.npz",
        runtime_s=2.5 if state is FieldState.VALID else None,
    )
    return changed(record, **values)


def changed(record: M, **values: object) -> M:
    return record.model_copy(update=values)


PAIRS = (pair(1, FieldState.VALID), pair(2, FieldState.MISSING), pair(3, FieldState.MISSING))


def record_of(
    status: RunStatus,
    *,
    cut: CutRecord | Cut | None = None,
    exit_code: int | None = 0,
    pairs: tuple[PairRecord, ...] = PAIRS,
    **ending: object,
) -> RunRecord:
    if isinstance(cut, Cut):
        cut = CutRecord(reason=cut, after_s=12.25)
    return changed(
        RECORD,
        status=status,
        reason="a reason",
        exit_code=exit_code,
        pairs=pairs,
        duration_s=13.0,
        warnings=(),
        ending=EndingRecord.model_validate({"exit_code": exit_code, "cut": cut, **ending}),
    )


def advice(record: RunRecord) -> str:
    return "\n".join(advise(record))


@pytest.mark.parametrize("status", RunStatus)
@pytest.mark.parametrize("has_ending", [True, False])
def test_every_status_has_advice(status: RunStatus, has_ending: bool) -> None:
    """Also the records of version 1, which have no ending."""
    record = record_of(status)
    found = explain(record if has_ending else changed(record, ending=None))
    assert found.advice
    assert found.headline.startswith(status.replace("_", " "))


@pytest.mark.parametrize("cut", Cut)
def test_every_cut_has_advice_and_a_moment_of_its_own(cut: Cut) -> None:
    found = explain(record_of(RunStatus.TIMED_OUT, cut=cut, exit_code=137))
    assert found.advice
    texts = {explain(record_of(RunStatus.TIMED_OUT, cut=other)).timeline[1].text for other in Cut}
    assert len(texts) == len(Cut)
    assert found.timeline[1].after_s == 12.25
    # That it was killed after that is no news: the first recorded reason counts.
    assert "SIGKILL" not in "\n".join(found.advice)


def test_turn_is_told_for_everybody_who_can_be_to_blame() -> None:
    turns = {explain(changed(RECORD, blame=blame)).turn for blame in (None, *Blame)}
    assert len(turns) == 4


@pytest.mark.parametrize(
    ("exit_code", "expected"),
    [
        (1, "the traceback ends the log"),
        (20, "could not be loaded"),
        (126, "chmod +x"),
        (127, "ENTRYPOINT"),
        (128 + signal.SIGILL, "x86-64-v2"),
        (128 + signal.SIGSEGV, "faulthandler"),
        (128 + signal.SIGBUS, "64.0 MiB"),
        (128 + signal.SIGABRT, "gave up by itself"),
        (128 + signal.SIGXFSZ, "64.0 MiB of output"),
        (128 + signal.SIGSYS, "system call"),
        (128 + signal.SIGTERM, "not the harness"),
        (137, "no limit that was reached explains it"),
        (77, "the program's own choice"),
    ],
)
def test_crash_is_explained_by_its_exit_code(exit_code: int, expected: str) -> None:
    found = advise(record_of(RunStatus.CRASHED, exit_code=exit_code))
    assert expected in found[0]
    assert len(found) == 1


def test_kill_with_evidence_of_a_limit_is_not_called_unexplained() -> None:
    found = advice(record_of(RunStatus.CRASHED, exit_code=137, memory_kills=1))
    assert "no limit" not in found
    assert "limit of memory (2.0 GiB)" in found


def test_machine_without_memory_is_the_organisers_to_mend() -> None:
    record = record_of(
        RunStatus.INFRASTRUCTURE,
        exit_code=137,
        memory_kills=1,
        memory_limit_hits=0,
        memory_peak_bytes=1 << 20,
    )
    found = advice(record)
    assert "the machine has less memory" in found
    assert "limit of memory" not in found


@pytest.mark.parametrize("code", [1, 127, 137])
def test_refused_processes_are_told_with_the_limit(code: int) -> None:
    found = advice(record_of(RunStatus.CRASHED, exit_code=code, refused_processes=7))
    assert "7 times a process or thread was refused (the limit is 256)" in found


def test_out_of_memory_tells_peak_and_limit() -> None:
    record = record_of(
        RunStatus.OUT_OF_MEMORY, exit_code=137, memory_peak_bytes=2 << 30, memory_kills=1
    )
    found = explain(record)
    assert "its peak was 2.0 GiB of 2.0 GiB" in found.advice[0]
    assert "--limit memory=" in found.advice[1]
    assert not any("SIGKILL" in line for line in found.advice)
    figures = {figure.name: (figure.found, figure.limit) for figure in found.evidence}
    assert figures["memory peak"] == ("2.0 GiB", "2.0 GiB")
    assert figures["killed for memory"] == ("1 processes", None)


def test_child_that_was_killed_for_memory_unnoticed() -> None:
    found = advice(record_of(RunStatus.OUT_OF_MEMORY, exit_code=0))
    assert "how its worker processes ended" in found


def test_deadline_tells_how_far_it_came() -> None:
    found = advice(record_of(RunStatus.TIMED_OUT, cut=Cut.TIMED_OUT, exit_code=137))
    assert "1 of 3 pairs were finished, the slowest, task_01/0001_0001, in 2.5 s" in found
    assert "60 s and 10 s a pair" in found
    assert "task_01/0002_0002" in found


def test_deadline_before_any_pair() -> None:
    pairs = tuple(pair(number, FieldState.MISSING) for number in (1, 2))
    found = advice(record_of(RunStatus.TIMED_OUT, cut=Cut.TIMED_OUT, pairs=pairs))
    assert "no pair was finished within 80 s" in found
    assert "without a network" in found


def test_pair_that_took_too_long_is_named_with_figures() -> None:
    cut = CutRecord(
        reason=Cut.PAIR_TIMED_OUT,
        after_s=12.25,
        limit_name="longest_pair_s",
        limit=10.0,
        observed=10.5,
        subject="task_01/0002_0002",
    )
    found = explain(record_of(RunStatus.TIMED_OUT, cut=cut, exit_code=137))
    assert found.advice[0].startswith("task_01/0002_0002 took longer than 3600 s")
    moment = found.timeline[1]
    assert moment.text == (
        "asked to stop, because one pair took too long: task_01/0002_0002 (10 s of 10 s)"
    )
    assert found.timeline[-1].text == "gone, exit code 137 (SIGKILL, killed)"


def test_size_that_was_too_large_is_told_in_its_unit() -> None:
    cut = CutRecord(
        reason=Cut.OUTPUT_LIMIT,
        after_s=3.0,
        limit_name="output_bytes",
        limit=1 << 20,
        observed=3 << 20,
    )
    found = explain(record_of(RunStatus.OUTPUT_LIMIT, cut=cut))
    assert "(3.0 MiB of 1.0 MiB)" in found.timeline[1].text
    assert "64.0 MiB in 100000 files" in found.advice[0]


def test_missing_fields_are_named_as_expected() -> None:
    found = advice(record_of(RunStatus.INCOMPLETE))
    assert "task_01/disp_0002_0002.npz, task_01/disp_0003_0003.npz" in found


def test_field_that_is_missing_for_an_error_of_the_method_is_not_a_wrong_name() -> None:
    failed = pair(2, FieldState.MISSING, field_problem="no field, the method failed: ValueError")
    found = advice(record_of(RunStatus.INCOMPLETE, exit_code=23, pairs=(PAIRS[0], failed)))
    assert "raised an error in task_01/0002_0002" in found
    assert "is the name right" not in found


def test_rejected_fields_lead_to_the_check() -> None:
    pairs = tuple(pair(number, FieldState.INVALID) for number in range(1, 6))
    found = advice(record_of(RunStatus.REJECTED, pairs=pairs))
    assert f"`harness check {RECORD.run_id}`" in found
    assert "task_01/0003_0003 and 2 more" in found


def test_engine_that_failed_and_container_that_vanished_differ() -> None:
    failed = record_of(RunStatus.INFRASTRUCTURE, exit_code=None, engine_failure="no answer")
    assert "journalctl -u docker" in advice(failed)
    vanished = record_of(RunStatus.INFRASTRUCTURE, exit_code=None)
    assert "docker rm -f" in advice(vanished)
    assert explain(vanished).timeline[-1].text == "gone: nobody saw how it ended"


def test_read_only_container_is_remembered() -> None:
    record = record_of(
        RunStatus.CRASHED, exit_code=1, isolation=Isolation(read_only_root=True, runtime=None)
    )
    assert "Read-only file system" in advice(record)


def test_image_is_shown_by_what_it_says_of_itself() -> None:
    figures = {figure.name: figure.found for figure in explain(RECORD).evidence}
    assert figures["image"] == "linux/amd64, 1.0 GiB unpacked"
    assert figures["image starts as"].startswith("team (a name")
    assert figures["entry point"] == "/run.sh a b"
    assert figures["declares volumes"] == "/cache"
    assert "default arguments" not in figures


@pytest.mark.parametrize(
    ("user", "shown"),
    [("", "root, as it names none"), ("0:0", "0:0 (root)"), ("1000", "1000 (not root)")],
)
def test_image_is_recorded_harmlessly(user: str, shown: str) -> None:
    config = {
        "User": user,
        "Entrypoint": ["/x\x1b[2J", "y" * 300],
        "Volumes": {f"/v{n:03}": {} for n in range(100)},
    }
    inspected = {"Id": "sha256:0", "Os": "linux", "Architecture": "amd64", "Config": config}
    image = ImageRecord.of(facts_of_inspected(inspected))
    figures = {
        figure.name: figure.found
        for figure in explain(RECORD.model_copy(update={"image": image})).evidence
    }
    assert figures["image starts as"] == shown
    assert image.entrypoint[0].isprintable()
    assert len(image.entrypoint[1]) == 200
    assert len(image.volumes) == 32


def test_success_needs_nothing() -> None:
    record = record_of(RunStatus.SUCCEEDED, refused_processes=3, memory_kills=1)
    assert len(advise(record)) == 1


def test_timeline_takes_its_moments_from_the_trace() -> None:
    """An image is opened 2 s after the start, the pair is finished at 4.5, the last at 6."""

    def event(t_s: float, kind: Event, path: str) -> FileEvent:
        root = Root.DATA if kind is Event.OPEN else Root.OUTPUT
        return FileEvent(t_ns=round(t_s * S), event=kind, root=root, path=path)

    start_s = 1000.0
    events = (
        event(start_s + 2.0, Event.OPEN, "task_01/img0001.nii.gz"),
        event(start_s + 4.0, Event.CREATED, "task_01/disp_0001_0001.npz"),
        event(start_s + 4.5, Event.CLOSED, "task_01/disp_0001_0001.npz"),
        event(start_s + 6.0, Event.OPEN, "task_01/img0002.nii.gz"),
    )
    trace = Trace(placement=Placement.HOST, precision=Precision.PLAIN, events=events)
    seen = Salvaged(trace=trace, first_ns=999 * S, last_ns=round((start_s + 13.0) * S))
    plain = record_of(RunStatus.TIMED_OUT, cut=Cut.IDLE, exit_code=137)
    exact = record_of(RunStatus.TIMED_OUT, cut=Cut.IDLE, exit_code=137, last_file_event_s=6.0)
    for record in (plain, exact):
        moments = [(moment.after_s, moment.text) for moment in explain(record, seen).timeline]
        assert moments == [
            (0.0, "started"),
            (pytest.approx(2.0), "first image opened: task_01/img0001.nii.gz"),
            (pytest.approx(4.5), "pair 1 of 3 finished: task_01/0001_0001"),
            (pytest.approx(6.0), "last file touched: task_01/img0002.nii.gz"),
            (12.25, "asked to stop, because it had been idle for too long"),
            (13.0, "gone, exit code 137 (SIGKILL, killed)"),
        ]


def test_idle_run_names_what_it_touched_last() -> None:
    """The first pair without a field was named, when earlier pairs had failed and a later hung."""
    paths = ("task_01/img0001.nii.gz", "task_01/img0003.nii.gz")
    last = "the last that it had opened was "
    record = record_of(RunStatus.TIMED_OUT, cut=Cut.IDLE, exit_code=137)
    assert f"{last}task_01/0003_0003: look" in "".join(explain(record, opening(*paths)).advice)
    elsewhere = "".join(explain(record, opening("task_02/case_2.nii.gz")).advice)
    assert f"{last}task_02/case_2.nii.gz: look" in elsewhere
    assert last not in "".join(explain(record).advice)


def test_image_of_several_pairs_is_told_apart_by_the_one_before() -> None:
    pairs = tuple(
        changed(pair(number, FieldState.MISSING), moving_id=number + 1) for number in (1, 2, 3)
    )
    record = record_of(RunStatus.TIMED_OUT, cut=Cut.IDLE, pairs=pairs)
    seen = opening("task_01/img0003.nii.gz", "task_01/img0002.nii.gz")
    assert "opened was task_01/0002_0002" in explain(record, seen).advice[0]


def opening(*paths: str) -> Salvaged:
    events = tuple(
        FileEvent(t_ns=number * S, event=Event.OPEN, root=Root.DATA, path=path)
        for number, path in enumerate(paths, 1)
    )
    trace = Trace(placement=Placement.HOST, precision=Precision.PLAIN, events=events)
    return Salvaged(trace=trace, first_ns=0, last_ns=20 * S)


def test_of_many_pairs_the_first_and_the_last_are_told() -> None:
    pairs = tuple(pair(number, FieldState.VALID) for number in range(1, 21))
    events = tuple(
        FileEvent(
            t_ns=number * S,
            event=Event.CLOSED,
            root=Root.OUTPUT,
            path=f"task_01/disp_{number:04d}_{number:04d}.npz",
        )
        for number in range(1, 21)
    )
    trace = Trace(placement=Placement.HOST, precision=Precision.PLAIN, events=events)
    seen = Salvaged(trace=trace, first_ns=0, last_ns=21 * S)
    found = explain(record_of(RunStatus.SUCCEEDED, pairs=pairs), seen)
    told = [moment.text for moment in found.timeline if "finished" in moment.text]
    assert told == [
        "pair 1 of 20 finished: task_01/0001_0001",
        "pair 20 of 20 finished: task_01/0020_0020",
    ]


def test_nothing_of_a_submission_reaches_a_terminal_as_it_is() -> None:
    cut = CutRecord(reason=Cut.OUTPUT_UNSEEN, after_s=1.0, subject="\x1b[31mred\nline")
    record = changed(
        record_of(RunStatus.OUTPUT_LIMIT, cut=cut, engine_failure="\x1b]0;title\x07"),
        reason="\x1b[2Jcleared",
    )
    found = explain(record)
    texts = [found.headline, *(m.text for m in found.timeline), *(f.found for f in found.evidence)]
    assert all(text.isprintable() for text in texts)


@pytest.mark.parametrize(
    ("code", "expected"), [(0, "0"), (23, "23"), (139, "139 (SIGSEGV"), (255, "255"), (128, "128")]
)
def test_exit_code_with_its_signal(code: int, expected: str) -> None:
    assert exit_meaning(code).startswith(expected)
