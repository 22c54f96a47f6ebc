"""A campaign in plain lines, one a change, for a log file that somebody reads in the morning."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, assert_never

from harness.campaign.events import (
    AttemptEnded,
    AttemptStarted,
    Closed,
    Opened,
    Scored,
    Suspected,
    TeamDropped,
    TeamRetried,
    UploadRejected,
    UploadSeen,
)
from harness.campaign.order import AttemptKind, Outcome
from harness.campaign.upload import CALIBRATION
from harness.console import seconds
from harness.errors import Blame
from harness.execute import Step
from harness.store import RunStatus
from harness.text import harmless_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.campaign.crew import Progressed
    from harness.campaign.events import Event, Line
    from harness.campaign.order import JobEnd
    from harness.campaign.state import CampaignState

_MAX_REASON = 200  # characters
_MAX_ENTRY = 60
_WHOSE = {
    Blame.SUBMISSION: "the team's to mend",
    Blame.CONFIGURATION: "yours to mend",
    Blame.MACHINE: "the machine's fault",
}


def line_of(line: Line, state: CampaignState) -> str | None:
    """What is told of an event that ``state`` has; None for nothing."""
    event: Event = line.event
    match event:
        case Opened():
            who, what = "campaign", _opened(state)
        case UploadSeen():
            who, what = event.upload.team, f"upload {_entry(event.upload.entry)} taken up"
        case UploadRejected():
            who, what = event.team or "-", f"{_entry(event.entry)} not taken: {event.reason}"
        case AttemptStarted():
            who, what = event.team, _started(event)
        case AttemptEnded():
            who, what = event.team, ended(event.end)
            if (doubt := state.attempts[event.team, event.run_id].doubt) is not None:
                what += f"; suspect: {doubt}"
        case Suspected():
            who, what = event.team, f"{event.run_id} suspect: {event.reason}"
        case Scored():
            who, what = event.team, _scored(event)
        case TeamDropped():
            who, what = event.team, f"dropped: {event.reason or 'no reason was given'}"
        case TeamRetried():
            who, what = event.team, "its latest upload is to be run once more, as was asked for"
        case Closed():  # the summary says more
            return None
        case _:
            assert_never(event)
    return _said(who, what)


def progress_line(report: Progressed) -> str | None:
    """Of a run that goes on: its pairs as they come."""
    progress = report.progress
    if progress is None:
        return _said(report.team, report.doing)
    if progress.step is Step.FIELD_WRITTEN:
        done = f"{progress.done}/{report.pairs}  {progress.pair}  {seconds(progress.runtime_s)}"
        return _said(report.team, done)
    if progress.step is Step.STARTED:
        return _said(report.team, f"running, {_count(report.pairs, 'pair')}")
    return None


def scoring_line(team: str, run_id: str) -> str:
    return _said(team, f"scoring {run_id}")


def ended(end: JobEnd) -> str:
    """How an attempt ended, and whose turn it is."""
    match end.outcome:
        case Outcome.RAN:
            what = (end.status or "ended").replace("_", " ")
        case Outcome.FIELDS:
            what = "fields checked"
        case Outcome.REFUSED:
            what = "refused"
        case Outcome.SAME:
            return f"not run again: {_short(end.reason)}"
        case Outcome.FAILED:
            what = "not begun"
        case Outcome.NEVER_STARTED:
            what = "never started"
        case _:
            assert_never(end.outcome)
    is_whole = end.expected_fields is not None and end.valid_fields == end.expected_fields
    is_plain = is_whole and (end.status == RunStatus.SUCCEEDED or end.outcome is Outcome.FIELDS)
    parts = [what if is_plain else f"{what}: {_short(end.reason)}"]
    if end.expected_fields is not None:
        parts.append(f"{end.valid_fields}/{end.expected_fields} fields")
    if end.runtimes_s:
        parts.append(f"median {seconds(median(end.runtimes_s.values()))}")
    whose = f" ({_WHOSE[end.blame]})" if end.blame is not None else ""
    return ", ".join(parts) + whose


def metrics_text(metrics: Mapping[str, float | None]) -> str:
    return ", ".join(
        f"{name} {'-' if value is None else f'{value:.3f}'}" for name, value in metrics.items()
    )


def _opened(state: CampaignState) -> str:
    attempts = sum(not one.is_calibration for one in state.attempts.values())
    if not state.teams:
        return "begins"
    return (
        f"goes on: {_count(len(state.teams), 'team')} and {_count(attempts, 'attempt')} are known"
    )


def _started(event: AttemptStarted) -> str:
    what = f"attempt {event.number}" if event.kind is AttemptKind.SUBMISSION else "calibration"
    return f"{what} begins as {event.run_id}" + (f": {_short(event.why)}" if event.why else "")


def _scored(event: Scored) -> str:
    if event.problem is not None:
        return f"not scored: {_short(event.problem)}"
    tasks = [f"{name} {metrics_text(values)}" for name, values in event.metrics.items() if values]
    found = f", {_count(event.findings, 'finding')} of the check" if event.findings else ""
    return f"scored: {'; '.join(tasks) or 'no field to score'}{found}"


def _said(who: str, what: str) -> str:
    name = "reference" if who == CALIBRATION else who
    return f"{name:<14} {_short(what)}"


def _count(number: int | None, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _short(text: str) -> str:
    return harmless_line(" ".join(text.split()), _MAX_REASON)


def _entry(text: str) -> str:
    return harmless_line(text, _MAX_ENTRY)
