"""A run's verdict explained to a person: a pure function from its record, and its trace if at hand.

What happened, what speaks for the verdict, and what to try (:mod:`harness.advice`).
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.advice import advise
from harness.challenge.quantity import format_bytes
from harness.ending import Cut
from harness.errors import Blame
from harness.probe.trace import Event, Root
from harness.store import RunStatus
from harness.text import harmless_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.ending import CutRecord, EndingRecord
    from harness.image_record import ImageRecord
    from harness.probe.salvage import Salvaged
    from harness.store import PairRecord, RunRecord

_NS = 1e-9
_MAX_CHARACTERS = 200
_LISTED_PAIRS = 6  # as many are listed one by one
_KILLED = 128 + signal.SIGKILL
_NUMBER = re.compile(r"\d{1,9}")
_DONE = frozenset({Event.CLOSED, Event.MOVED_IN, Event.CREATED, Event.WRITTEN})
_TURN = {
    None: "nobody has to act",
    Blame.SUBMISSION: "it is the team's turn: the submission has to change",
    Blame.CONFIGURATION: "it is the organiser's turn: the harness was told something wrong",
    Blame.MACHINE: "it is the organiser's turn: nothing speaks against the submission",
}
_RUN_AGAIN = "run it again: nothing speaks against the submission"
_CUTS = {
    Cut.TIMED_OUT: "its deadline was reached",
    Cut.PAIR_TIMED_OUT: "one pair took too long",
    Cut.IDLE: "it had been idle for too long",
    Cut.OUTPUT_LIMIT: "its output was too large",
    Cut.OUTPUT_UNSEEN: "part of its output could not be looked at",
    Cut.SCRATCH_LIMIT: "it had written too much inside its container",
    Cut.DISK_FULL: "the machine's disk was full",
    Cut.INTERRUPTED: "the harness was asked to stop",
    Cut.HARNESS_DIED: "the harness was gone",
}


@dataclass(frozen=True, kw_only=True)
class Moment:
    """``after_s``: since the submission's start; None where it is not known."""

    after_s: float | None
    text: str


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One piece of evidence. ``limit``: what applied, None where there is no limit."""

    name: str
    found: str
    limit: str | None = None


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """All texts are for people, without control characters."""

    headline: str
    turn: str
    timeline: tuple[Moment, ...]
    evidence: tuple[Figure, ...]
    advice: tuple[str, ...]


def explain(record: RunRecord, seen: Salvaged | None = None) -> Explanation:
    """``seen``: the run's trace, for the moments that the record does not hold."""
    return Explanation(
        headline=f"{record.status.replace('_', ' ')}: {_shown(record.reason)}",
        turn=_RUN_AGAIN if record.status is RunStatus.INTERRUPTED else _TURN[record.blame],
        timeline=tuple(_timeline(record, seen)),
        evidence=tuple(_evidence(record)),
        advice=advise(record, _last_touched(record, seen)),
    )


def _timeline(record: RunRecord, seen: Salvaged | None) -> Iterator[Moment]:
    """In the order of time; what has no time comes where it belongs."""
    yield Moment(after_s=0.0, text="started")
    cut = None if record.ending is None else record.ending.cut
    middle = list(_witnessed(record, seen))
    if record.ending is not None and record.ending.last_cpu_use_s is not None:
        middle.append(Moment(after_s=record.ending.last_cpu_use_s, text="last seen using CPU"))
    if cut is not None:
        middle.append(Moment(after_s=cut.after_s, text=_cut_text(cut)))
    yield from sorted(middle, key=lambda moment: moment.after_s or 0.0)
    yield Moment(after_s=record.duration_s, text=_end_text(record, cut))


def _witnessed(record: RunRecord, seen: Salvaged | None) -> Iterator[Moment]:
    if seen is None or not seen.trace.events:
        return
    began_ns = start_ns(record, seen)
    events = seen.trace.events
    opened = next((event for event in events if event.root is Root.DATA), None)
    if opened is not None:
        first_s = (opened.t_ns - began_ns) * _NS
        yield Moment(after_s=first_s, text=f"first image opened: {_shown(opened.path)}")
    names = {pair.field_path: pair.key for pair in record.pairs if pair.field_path is not None}
    finished = {
        names[event.path]: (event.t_ns - began_ns) * _NS
        for event in events
        if event.root is Root.OUTPUT and event.event in _DONE and event.path in names
    }
    in_order = sorted(finished.items(), key=lambda item: item[1])
    for count, (key, after_s) in enumerate(in_order, 1):
        if len(in_order) <= _LISTED_PAIRS or count in (1, len(in_order)):
            text = f"pair {count} of {len(record.pairs)} finished: {key}"
            yield Moment(after_s=after_s, text=text)
    last = events[-1]
    if last.root is Root.DATA:
        last_s = (last.t_ns - began_ns) * _NS
        yield Moment(after_s=last_s, text=f"last file touched: {_shown(last.path)}")


def _last_touched(record: RunRecord, seen: Salvaged | None) -> str | None:
    """The pair whose input was opened last; the input itself, where it may be several pairs'."""
    events = () if seen is None else seen.trace.events
    opened = [event.path for event in reversed(events) if event.root is Root.DATA]
    if not opened:
        return None
    candidates = [pair for pair in record.pairs if _may_be_of(opened[0], pair)]
    for path in opened[1:]:
        if len(candidates) < 2:
            break
        candidates = [pair for pair in candidates if _may_be_of(path, pair)] or candidates
    return candidates[0].key if len(candidates) == 1 else _shown(opened[0])


def _may_be_of(path: str, pair: PairRecord) -> bool:
    """By the folder of its task and the number in its name: a record has no names of inputs."""
    folder, _, name = path.partition("/")
    numbers = {int(digits) for digits in _NUMBER.findall(name)}
    return folder == pair.task and not numbers.isdisjoint((pair.fixed_id, pair.moving_id))


def start_ns(record: RunRecord, seen: Salvaged) -> float:
    """The submission's start on the trace's clock, to a second or so: the record has durations. 0
    for a trace without a sign of the witness."""
    ending = record.ending
    if ending is not None and ending.last_file_event_s is not None and seen.trace.events:
        return seen.trace.events[-1].t_ns - ending.last_file_event_s / _NS
    if seen.last_ns is None or seen.first_ns is None:
        return 0.0
    return max(seen.first_ns, seen.last_ns - record.duration_s / _NS)


def _cut_text(cut: CutRecord) -> str:
    if cut.reason is Cut.HARNESS_DIED:
        return "the harness was killed, or its machine went down"
    text = f"asked to stop, because {_CUTS[cut.reason]}"
    if cut.subject:
        text += f": {_shown(cut.subject)}"
    if cut.observed is not None and cut.limit is not None and cut.limit_name is not None:
        text += (
            f" ({_quantity(cut.observed, cut.limit_name)} of "
            f"{_quantity(cut.limit, cut.limit_name)})"
        )
    return text


def _end_text(record: RunRecord, cut: CutRecord | None) -> str:
    if cut is not None and cut.reason is Cut.HARNESS_DIED:
        return "last sign of life"
    code = record.exit_code
    if code is None:
        return "gone: nobody saw how it ended"
    how = "ended by itself" if cut is None else "gone"
    if cut is None and record.status is RunStatus.OUT_OF_MEMORY and code == _KILLED:
        how = "killed by the kernel, for memory"
    return f"{how}, exit code {exit_meaning(code)}"


def exit_meaning(code: int) -> str:
    """An exit code with the signal that it stands for, by custom."""
    if code <= 128:
        return str(code)
    try:
        number = signal.Signals(code - 128)
    except ValueError:
        return str(code)
    description = signal.strsignal(number)
    return f"{code} ({number.name}{f', {description.lower()}' if description else ''})"


def _evidence(record: RunRecord) -> Iterator[Figure]:
    limits = record.limits
    if record.exit_code is not None:
        yield Figure(name="exit code", found=exit_meaning(record.exit_code))
    yield Figure(
        name="time",
        found=f"{record.duration_s:.1f} s",
        limit=f"{limits.deadline_s(len(record.pairs)):.0f} s",
    )
    if record.ending is not None:
        yield from _measured(record, record.ending)
    if record.image is not None:
        yield from _image(record.image)
    if record.changed_limits:
        yield Figure(name="changed limits", found=", ".join(map(_shown, record.changed_limits)))


def _image(image: ImageRecord) -> Iterator[Figure]:
    """As the record has it: without control characters."""
    size = format_bytes(image.size_bytes)
    yield Figure(name="image", found=f"{_shown(image.platform)}, {size} unpacked")
    kind = {True: "root", False: "not root", None: "a name: its own files tell whether it is root"}
    user = f"{_shown(image.user)} ({kind[image.root]})" if image.user else "root, as it names none"
    yield Figure(name="image starts as", found=user)
    for name, words in (
        ("entry point", (*image.entrypoint,)),
        ("default arguments", image.cmd),
        ("declares volumes", image.volumes),
        ("declares ports", image.ports),
    ):
        if words:
            yield Figure(name=name, found=_shown(" ".join(words)))


def _measured(record: RunRecord, ending: EndingRecord) -> Iterator[Figure]:
    limits = record.limits
    if ending.cpu_s is not None:
        yield Figure(name="CPU time", found=f"{ending.cpu_s:.1f} s")
    if ending.memory_peak_bytes is not None:
        yield _size("memory peak", ending.memory_peak_bytes, limits.memory_bytes)
    if ending.memory_kills:
        yield Figure(name="killed for memory", found=f"{ending.memory_kills} processes")
    elif ending.out_of_memory:
        yield Figure(name="killed for memory", found="yes, says the engine")
    if ending.refused_processes:
        found = f"{ending.refused_processes} times"
        yield Figure(name="processes refused", found=found, limit=str(limits.processes))
    if ending.output_bytes is not None:
        yield _size("output", ending.output_bytes, limits.output_bytes)
    if ending.output_entries is not None:
        entries, most = str(ending.output_entries), str(limits.output_files)
        yield Figure(name="output files", found=entries, limit=most)
    if ending.scratch_bytes is not None:
        yield _size("written elsewhere", ending.scratch_bytes, limits.scratch_bytes)
    if ending.printed_bytes is not None:
        yield _size("printed", ending.printed_bytes, limits.log_bytes)
    yield from _free_space(ending)
    if ending.engine_failure is not None:
        yield Figure(name="engine", found=_shown(ending.engine_failure))
    if ending.isolation is not None and ending.isolation.runtime is not None:
        yield Figure(name="runtime", found=_shown(ending.isolation.runtime))


def _free_space(ending: EndingRecord) -> Iterator[Figure]:
    for name, found_bytes in (
        ("free disk, lowest", ending.lowest_free_bytes),
        ("free disk of the engine, lowest", ending.engine_lowest_free_bytes),
        ("free again with its container", ending.reclaimed_bytes),
    ):
        if found_bytes is not None:
            yield Figure(name=name, found=format_bytes(found_bytes))


def _size(name: str, found: int, limit: int) -> Figure:
    return Figure(name=name, found=format_bytes(found), limit=format_bytes(limit))


def _quantity(value: float, limit_name: str) -> str:
    if limit_name.endswith("_bytes"):
        return format_bytes(int(value))
    return f"{value:.0f} s" if limit_name.endswith("_s") else f"{value:.0f}"


def _shown(text: str) -> str:
    return harmless_line(text, _MAX_CHARACTERS)
