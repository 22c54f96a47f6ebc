"""From evidence to the record: fields, trace and the submission's end become ``run.json``."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import PurePosixPath
from statistics import median
from typing import TYPE_CHECKING

from harness import __version__
from harness.challenge.field_file import FieldState
from harness.collect import (
    CollectedField,
    collect_field,
    read_small_file,
    unexpected_files,
)
from harness.gpu_record import gpu_warnings, record_gpus, with_foreign
from harness.runner.inside import InsideReport, parse_report
from harness.store import PairRecord, RunDirectory, RunRecord, TaskRecord, WitnessRecord
from harness.text import harmless, harmless_line
from harness.timing import UNCOVERED_ADVICE, PairTiming, time_pairs, time_task
from harness.verdict import Evidence, judge

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.cache import CacheRecord
    from harness.challenge.pairs import Pair, TaskPairs
    from harness.ending import EndingRecord
    from harness.engine.base import EngineInfo
    from harness.gpu_figures import GpuStretch
    from harness.gpu_record import Sampled
    from harness.machine.contamination import Contamination
    from harness.machine.fingerprint import Fingerprint
    from harness.plan import Plan
    from harness.probe.trace import Trace
    from harness.store import RepeatRecord

INSIDE_REPORT = PurePosixPath(".inside_report.json")  # in the output folder
_INSIDE_REPORT_MAX_BYTES = 8 << 20
_MAX_TOLD_CHARACTERS = 300


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How the submission's execution went. ``doubt``: what is wrong with its output folder."""

    ending: EndingRecord
    duration_s: float
    reserved_cpu: int | None = None
    doubt: str | None = None


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What the machine was like when the submission ran."""

    cache: CacheRecord
    machine: Fingerprint
    contamination: Contamination


def make_record(
    plan: Plan,
    engine: EngineInfo,
    run_dir: RunDirectory,
    ended: Ended,
    trace: Trace,
    conditions: Conditions,
    *,
    repeat: RepeatRecord | None = None,
    wall_offset_ns: int | None = None,
    sampled: Sampled | None = None,
) -> RunRecord:
    """Collects the fields on the way. ``sampled``: its GPUs, None where they were not.
    ``wall_offset_ns``: what to add to the trace's clock for UTC;
    None for the offset of now, which is another after a restart of the machine."""
    collected = {
        pair.key: collect_field(
            run_dir.output_dir,
            pair.field_names,
            run_dir.fields_dir,
            plan.challenge.task(pair.task).field,
        )
        for pair in plan.pairs
    }
    timed = tuple(_as_written(pair, collected[pair.key].path) for pair in plan.pairs)
    modified_ns = _modified_on_trace_clock(collected, wall_offset_ns)
    timings = time_pairs(timed, trace, modified_ns=modified_ns)
    gpus = record_gpus(
        plan, sampled, ended.duration_s, timings, trace.placement, conditions.machine
    )
    lost = (*trace.lost, *_unseen(collected, timings))
    inside, inside_problem = _inside_report(run_dir)
    failures = _told_failures(inside)
    touched = _attempted_tasks(plan, collected, trace, failures)
    pairs = tuple(
        _pair_record(
            pair,
            collected[pair.key],
            timing,
            inside,
            told=failures.get(pair.key),
            attempted=pair.task in touched,
            gpu=None if gpus is None else gpus.pairs.get(pair.key),
        )
        for pair, timing in zip(plan.pairs, timings, strict=True)
    )
    verdict = judge(
        Evidence(
            ending=ended.ending,
            limits=plan.challenge.limits,
            fields=tuple(pair.field_state for pair in pairs),
        )
    )
    warnings = [*verdict.warnings, *_witness_warnings(pairs, trace, inside, lost)]
    warnings += [*_uncovered_warnings(plan, timings), *gpu_warnings(gpus)]
    doubts = (
        _changed_limits(plan),
        _fewer_files(plan, ended.ending),
        ended.doubt,
        _unexpected(plan, run_dir),
        inside_problem,
        conditions.cache.warning,
    )
    warnings += [text for text in doubts if text is not None]
    return RunRecord(
        harness_version=__version__,
        run_id=run_dir.run_id,
        submission=run_dir.submission,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        challenge=plan.challenge.name,
        challenge_digest=plan.challenge.digest,
        engine=engine.name,
        engine_version=engine.version,
        image_id=plan.image.id,
        image_reference=plan.image.reference,
        image=plan.image_facts,
        limits=plan.challenge.limits,
        changed_limits=plan.changed_limits,
        status=verdict.status,
        reason=harmless(verdict.reason),
        blame=verdict.blame,
        exit_code=ended.ending.exit_code,
        ending=ended.ending,
        duration_s=ended.duration_s,
        witness=WitnessRecord(
            placement=trace.placement,
            precision=trace.precision,
            complete=not lost,
            lost=lost,
            reserved_cpu=ended.reserved_cpu,
        ),
        cache=conditions.cache,
        machine=conditions.machine,
        machine_digest=conditions.machine.digest,
        gpu=plan.gpus[0] if plan.gpus is not None and len(plan.gpus) == 1 else None,
        gpus=None if gpus is None else gpus.record,
        contamination=with_foreign(conditions.contamination, gpus),
        tasks=tuple(_task_record(found, pairs, timings, touched) for found in plan.tasks),
        pairs=pairs,
        repeat=repeat,
        warnings=tuple(map(harmless, warnings)),
    )


def _changed_limits(plan: Plan) -> str | None:
    if not plan.changed_limits:
        return None
    return (
        f"the limits are not all the challenge's: {', '.join(plan.changed_limits)} changed; "
        "another run may end otherwise"
    )


def _fewer_files(plan: Plan, ending: EndingRecord) -> str | None:
    asked, had = plan.challenge.limits.open_files, ending.open_files
    if had is None or had >= asked:
        return None
    return (
        f"the engine may not raise the limit of open files: a process of the submission could have "
        f"{had} open, and not the {asked} that the challenge allows"
    )


def _unexpected(plan: Plan, run_dir: RunDirectory) -> str | None:
    """Fields of pairs that do not exist, say: they change nothing, and somebody meant something."""
    expected = {name for pair in plan.pairs for name in pair.field_names} | {INSIDE_REPORT}
    found = unexpected_files(run_dir.output_dir, expected, plan.challenge.limits.output_files)
    if not found.count:
        return None
    files = "1 file" if found.count == 1 else f"{found.count} files"
    return f"{files} in the output that no pair expects, such as {found.first}; left out"


def _as_written(pair: Pair, path: PurePosixPath | None) -> Pair:
    """The pair with the name that its field has, of those it may have, for the one that counts."""
    return pair if path is None else replace(pair, field=path)


def _unseen(
    collected: dict[str, CollectedField], timings: tuple[PairTiming, ...]
) -> tuple[str, ...]:
    """A file that is there was completed once. Not to have seen that is the witness's gap: a
    median without just these pairs would be a wrong number. A folder was not, nor what lies behind
    a link to one."""
    keys = [
        timing.key
        for timing in timings
        if timing.finished_ns is None and collected[timing.key].modified_ns is not None
    ]
    if not keys:
        return ()
    return (f"the completion of {len(keys)} fields was not seen, {keys[0]} the first",)


def _modified_on_trace_clock(
    collected: dict[str, CollectedField], offset_ns: int | None
) -> dict[str, int]:
    """File times on the trace's clock. They tick coarsely and lag, so they never run ahead."""
    if offset_ns is None:
        monotonic_ns = time.monotonic_ns()  # read first: interrupted, it makes files seem older
        offset_ns = time.time_ns() - monotonic_ns
    return {
        key: field.modified_ns - offset_ns
        for key, field in collected.items()
        if field.modified_ns is not None
    }


def _told_failures(inside: InsideReport | None) -> dict[str, str]:
    """Why pairs failed, as the reference runner tells it: a submission's text, so made harmless."""
    if inside is None:
        return {}
    return {
        pair.pair: harmless_line(pair.problem, _MAX_TOLD_CHARACTERS)
        for pair in inside.pairs
        if pair.problem
    }


def _attempted_tasks(
    plan: Plan,
    collected: dict[str, CollectedField],
    trace: Trace,
    failures: dict[str, str],
) -> frozenset[str]:
    """Tasks of which a field was written, an input opened or a pair reported as failed.

    Where events are missing, a task could have been attempted unseen, so all count as attempted.
    """
    if not trace.complete:
        return frozenset(pair.task for pair in plan.pairs)
    opened = {event.path for event in trace.events}
    return frozenset(
        pair.task
        for pair in plan.pairs
        if collected[pair.key].state is not FieldState.MISSING
        or pair.key in failures
        or any(str(path) in opened for path in pair.inputs)
    )


def _pair_record(
    pair: Pair,
    field: CollectedField,
    timing: PairTiming,
    inside: InsideReport | None,
    *,
    told: str | None,
    attempted: bool,
    gpu: GpuStretch | None,
) -> PairRecord:
    problem = field.problem
    if field.state is FieldState.MISSING and told is not None:
        problem = f"no field, the method failed: {told}"
    seen_inside = {t.pair: t.runtime_s for t in inside.pairs} if inside else {}
    return PairRecord(
        key=pair.key,
        task=pair.task,
        fixed_id=pair.fixed_id,
        moving_id=pair.moving_id,
        field_state=field.state if attempted else FieldState.NOT_ATTEMPTED,
        field_problem=harmless(problem) if attempted and problem is not None else None,
        field_path=None if field.path is None else str(field.path),
        expected_path=str(pair.field),
        field_sha256=field.sha256,
        runtime_s=timing.runtime_s,
        exclusive_s=timing.exclusive_s,
        inside_runtime_s=seen_inside.get(pair.key),
        flags=tuple(sorted(timing.flags)),
        gpu=gpu,
    )


def _task_record(
    found: TaskPairs,
    pairs: tuple[PairRecord, ...],
    timings: tuple[PairTiming, ...],
    attempted: frozenset[str],
) -> TaskRecord:
    name = found.task.name
    sums = time_task(name, timings)
    first_s, rest_s = _first_and_rest([timing for timing in timings if timing.task == name])
    return TaskRecord(
        name=name,
        attempted=name in attempted,
        pairs=len(found.pairs),
        valid_fields=sum(
            pair.task == name and pair.field_state is FieldState.VALID for pair in pairs
        ),
        median_runtime_s=sums.median_runtime_s if sums else None,
        first_runtime_s=first_s,
        median_rest_s=rest_s,
        makespan_per_pair_s=sums.makespan_per_pair_s if sums else None,
        overlap_ratio=sums.overlap_ratio if sums else None,
        uncovered_s=sums.uncovered_s if sums else None,
    )


def _first_and_rest(timings: list[PairTiming]) -> tuple[float | None, float | None]:
    """Runtime of the pair that finished first, and the median of the others; None: there is none.

    The one that finished, not started, first: a loader that prefetches starts several at once.
    """
    in_order = sorted(
        (timing.finished_ns, timing.runtime_s)
        for timing in timings
        if timing.finished_ns is not None and timing.runtime_s is not None
    )
    runtimes_s = [runtime_s for _, runtime_s in in_order]
    if not runtimes_s:
        return None, None
    return runtimes_s[0], median(runtimes_s[1:]) if runtimes_s[1:] else None


def _inside_report(run_dir: RunDirectory) -> tuple[InsideReport | None, str | None]:
    """The reference runner's own times, and what is wrong with them. Other images write none."""
    raw = read_small_file(run_dir.output_dir, INSIDE_REPORT, _INSIDE_REPORT_MAX_BYTES)
    if raw is None:
        return None, None
    report = parse_report(raw)
    if report is None:
        return None, "the runtimes that the container reported could not be read"
    return report, None


def _uncovered_warnings(plan: Plan, timings: tuple[PairTiming, ...]) -> Iterator[str]:
    for found in plan.tasks:
        sums = time_task(found.task.name, timings)
        if sums is not None and sums.is_much_uncovered:
            makespan_s = sums.makespan_per_pair_s * sums.timed_pairs
            yield (
                f"{sums.task}: {sums.uncovered_s:.1f} of the {makespan_s:.1f} s from its first "
                f"opened file to its last field belong to no pair; {UNCOVERED_ADVICE}"
            )


def _witness_warnings(
    pairs: tuple[PairRecord, ...],
    trace: Trace,
    inside: InsideReport | None,
    lost: tuple[str, ...],
) -> Iterator[str]:
    if lost:
        yield "the witness missed events, so these runtimes cannot be ranked: " + "; ".join(lost)
    if inside is None:
        return
    tolerance_s = trace.precision.worst_error_s + inside.precision.worst_error_s
    for pair in pairs:
        if pair.runtime_s is None or pair.inside_runtime_s is None:
            continue
        difference_s = abs(pair.runtime_s - pair.inside_runtime_s)
        if difference_s > tolerance_s:
            yield (
                f"{pair.key}: the witnesses outside and inside disagree by "
                f"{difference_s * 1000:.1f} ms (expected at most {tolerance_s * 1000:.0f} ms)"
            )
