"""The loop of a campaign: look, decide, write it down, do it, write down what came of it.

Everything that happens is in the journal, on the disk, before the next step. So a conductor that
dies loses nothing but what was under way, and the next one finds out what became of that.
"""

from __future__ import annotations

import logging
import platform
import time
from collections import deque
from typing import TYPE_CHECKING

from harness.campaign import decide, drift, requests
from harness.campaign.admission import Admission
from harness.campaign.after import run_after_each
from harness.campaign.crew import Ended, Progressed
from harness.campaign.events import AttemptEnded, AttemptStarted, Closed, Opened
from harness.campaign.journal import Journal
from harness.campaign.orders import new_run_id, order_of
from harness.campaign.pace import Pace
from harness.campaign.readiness import Readiness
from harness.campaign.rows import campaign_status
from harness.campaign.setting import Setting, write_setting
from harness.campaign.state import replay
from harness.campaign.verdict import exit_code
from harness.errors import EngineError, Interrupted, OutputError
from harness.store import RunDirectory, write_json

if TYPE_CHECKING:
    from harness.campaign.breaks import Breaks
    from harness.campaign.conditions import Conditions
    from harness.campaign.crew import CrewReport
    from harness.campaign.decide import Assignment
    from harness.campaign.events import Event
    from harness.campaign.folder import CampaignFolder
    from harness.campaign.intake import Scan
    from harness.campaign.means import Campaign, Means
    from harness.campaign.order import JobEnd, JobOrder
    from harness.campaign.state import CampaignState
    from harness.campaign.status import StatusRecord
    from harness.campaign.view import View

_log = logging.getLogger(__name__)

_CREW_POLL_S = 1.0  # how long reports are waited for while there is work
_SCORE_POLL_S = 0.2  # and while an attempt is scored meanwhile: the next one waits for its end
_DISK_PAUSE_S = 60.0
_SETTLE_POLL_S = 0.5
_PAUSES = 20.0  # between two refreshes, or two looks, so many times what one took
_LOOK_PAUSE_S = 5.0  # and no more between two looks: one that read an upload took long for once


def refreshed(folder: CampaignFolder, status: StatusRecord) -> None:
    """What others read of the campaign, after each step. Raises OutputError."""
    try:
        write_json(folder.status_path, status)
    except OSError as error:
        raise OutputError(f"{folder.status_path}: {error.strerror}") from error


class Conductor:
    def __init__(self, campaign: Campaign, means: Means, view: View, breaks: Breaks) -> None:
        self._campaign, self._means, self._view, self._breaks = campaign, means, view, breaks
        self._policy = campaign.policy
        self._readiness = Readiness(means.ready, view, breaks, for_ever=campaign.watch)
        self._state = replay(())
        self._reports: deque[CrewReport] = deque()
        self._busy: dict[str, tuple[str, str]] = {}  # what the crew has, by the place's name
        self._scan: Scan | None = None
        self._present: frozenset[str] = frozenset()  # uploads that are in the folder
        self._unusable: dict[str, str] = {}
        self._noticed: set[str] = set()
        self._progress: dict[tuple[str, str], Progressed] = {}
        self._refreshes = Pace(pauses=_PAUSES)
        self._looks = Pace(pauses=_PAUSES, most_s=_LOOK_PAUSE_S)
        self._is_news = False
        self._idle_since_s: float | None = None  # and waiting for what is being written
        self._machine = platform.node() or "here"

    @property
    def state(self) -> CampaignState:
        return self._state

    def conduct(self) -> int:
        """The exit code. Raises HarnessError for what stops the campaign: its journal has all that
        was done, and the same command goes on."""
        with self._breaks, Journal(self._campaign.folder.journal_path) as self._journal:
            self._state = replay(self._journal.lines)
            self._admission = Admission(self._journal.lines)
            try:
                self._take_up()
                self._go_on()
            except KeyboardInterrupt:
                self._break_off()
                return self._close(Interrupted.exit_code)
            return self._close(exit_code(self._state, self._policy, self._present))

    def _break_off(self) -> None:
        """What ended is written down; what nobody makes any more is found out."""
        self._means.scorer.close()
        for report in self._reports:
            if isinstance(report, Ended) and report.run_id in self._under_way_ids(report.team):
                self._write_end((report.team, report.run_id), report.end)
        self._reports.clear()
        self._find_out_what_became()

    def _under_way_ids(self, team: str) -> set[str]:
        return {one.started.run_id for one in self._state.under_way() if one.started.team == team}

    # From the journal to a campaign that goes on.

    def _take_up(self) -> None:
        self._find_out_what_became()
        before = self._state.conditions
        write_setting(
            self._campaign.folder, Setting(policy=self._policy, tasks=self._campaign.task_names)
        )
        self._write(Opened(conditions=self._campaign.conditions, seed=self._policy.seed))
        for text in self._campaign.conditions.differences(before) if before is not None else ():
            self._view.noticed(f"changed since the last command: {text}")
        self._means.scorer.begin(self._state)
        self._refresh()

    def _find_out_what_became(self) -> None:
        """Of attempts under way that nobody makes any more. One whose engine does not answer stays
        under way in the journal until that is known."""
        self._busy = {}
        for attempt in self._state.under_way():
            place = attempt.started.place.name
            order = self._order(attempt.started, attempt.conditions)
            if order is not None and self._means.crew.resume(order, place):
                self._busy[place] = attempt.key
                continue
            directory = RunDirectory(self._campaign.folder.runs_dir.joinpath(*attempt.key))
            try:
                end = self._means.find_out(directory)
            except EngineError:
                self._readiness.wait()
                end = self._means.find_out(directory)
            self._write_end(attempt.key, end)

    # The loop.

    def _go_on(self) -> None:
        told = False
        while True:
            try:
                self._take_requests()
                self._look_for_uploads()
                self._suspect()
                if not told:
                    told = True
                    self._tell_what_is_run_again()
                self._give_work()
                self._poll()
                scored = self._score()
                self._tell_others()
            except OutputError as error:
                if not self._campaign.watch:
                    raise
                self._pause_for(error)
                continue
            if not (self._busy or scored) and self._is_done():
                return

    def _is_done(self) -> bool:
        """Nothing can be done now. Something may be later: with --watch, or as soon as what is
        still being written to the submissions folder is complete."""
        waiting = self._scan.waiting if self._scan is not None else ()
        if self._next_work():
            return False
        if not self._campaign.watch and not (waiting and self._is_worth_waiting()):
            if waiting:
                self._view.warned(
                    f"{', '.join(waiting)}: still being written, so not taken up; run the same "
                    "command again, or use --watch"
                )
            return True
        if waiting or self._means.crew.places():  # a crew without a place has said so
            self._view.waits(waiting)
        with self._breaks.allowed():
            time.sleep(self._policy.poll_time_s if self._campaign.watch else _SETTLE_POLL_S)
        return False

    def _is_worth_waiting(self) -> bool:
        if self._idle_since_s is None:
            self._idle_since_s = time.monotonic()
        return time.monotonic() - self._idle_since_s < self._policy.settle_time_s + _SETTLE_POLL_S

    def _next_work(self) -> tuple[Assignment, ...]:
        places = self._means.crew.places()
        return decide.next_work(self._state, self._policy, self._present, places, dict(self._busy))

    def _take_requests(self) -> None:
        for path, request in requests.pending(self._campaign.folder):
            self._write(request.event)
            requests.done(path)

    def _look_for_uploads(self) -> None:
        """While there is work, not again at once: of a thousand uploads a look takes a while."""
        if self._busy and not self._looks.is_due:
            return
        with self._looks.measured():
            with self._breaks.allowed():
                self._scan = scan = self._means.intake.scan(
                    watching=self._campaign.watch,
                    now_s=time.time(),
                    may_read=not self._is_timing_here(),
                )
            self._present = frozenset(one.upload.id for one in scan.uploads)
            for event in self._admission.events(self._state, self._policy, scan):
                self._write(event)
                self._admission.note(event)
            for one in scan.uploads:
                for note in one.notes:
                    self._notice_once(f"{one.upload.team}: {one.upload.entry}: {note}")

    def _suspect(self) -> None:
        for event in drift.new_suspicions(self._state, self._policy):
            self._write(event)

    def _tell_what_is_run_again(self) -> None:
        for one in decide.outstanding(self._state, self._policy):
            if one.number > 1:
                self._view.noticed(f"{one.upload.team:<14} is run again: {one.why}")

    def _give_work(self) -> None:
        self._stop_if_asked()
        for assignment in self._next_work():
            started = self._started(assignment)
            order = self._order(started, self._campaign.conditions)
            if order is None:  # decided from a policy that has a calibration where there is none
                raise ValueError(f"{assignment.team}: nothing to be run for it")
            self._write(started)
            self._idle_since_s = None
            self._means.crew.give(order, assignment.place.name)
            self._busy[assignment.place.name] = (started.team, started.run_id)
        self._tell_unusable()

    def _started(self, assignment: Assignment) -> AttemptStarted:
        runs_dir = self._campaign.folder.runs_dir
        is_first_of_an_upload = assignment.number == 1 and assignment.upload is not None
        return AttemptStarted(
            kind=assignment.kind,
            team=assignment.team,
            run_id=new_run_id(self._state, runs_dir, assignment.team, time.time()),
            place=assignment.place,
            upload=None if assignment.upload is None else assignment.upload.id,
            number=assignment.number,
            why=None if is_first_of_an_upload else assignment.why,
        )

    def _tell_unusable(self) -> None:
        places = self._means.crew.places()
        for name, reason in decide.unusable(self._state, self._policy, places).items():
            if self._unusable.get(name) != reason:
                self._unusable[name] = reason
                self._view.warned(f"nothing more is timed on {name}: {reason}")

    def _poll(self) -> None:
        # One place alone is a process that does nothing else until its attempt has ended.
        self._refresh(now=len(self._busy) == 1)
        if self._is_timing_here():
            self._means.scorer.rest()
        if self._busy and not self._reports:
            poll_s = _SCORE_POLL_S if self._means.scorer.is_busy else _CREW_POLL_S
            try:
                with self._breaks.allowed():
                    self._reports.extend(self._means.crew.poll(poll_s))
            except EngineError as error:
                self._view.warned(str(error))
                self._readiness.wait()
                self._find_out_what_became()
        while self._reports:
            report = self._reports[0]
            if isinstance(report, Ended):
                self._take_end(report)
            else:
                self._progress[report.team, report.run_id] = report
                self._view.progressed(report)
            self._reports.popleft()

    def _take_end(self, report: Ended) -> None:
        attempt = self._state.attempts[report.team, report.run_id]
        if attempt.end is None:  # else it was written before the disk was full
            self._write_end(attempt.key, report.end)
        if not report.end.is_final and not report.end.is_interrupted:
            self._readiness.wait()

    def _write_end(self, key: tuple[str, str], end: JobEnd) -> None:
        team, run_id = key
        self._write(AttemptEnded(team=team, run_id=run_id, end=end))
        self._busy = {name: held for name, held in self._busy.items() if held != key}
        self._progress.pop(key, None)
        self._is_news = True
        self._means.scorer.look_at(self._state, self._state.attempts[key])
        self._suspect()

    def _score(self) -> bool:
        """Is any attempt being scored? At most one is, and the next one begins at once."""
        scorer = self._means.scorer
        if scorer.is_busy or self._hand_over():
            with self._breaks.allowed():
                result = scorer.result(0.0 if self._busy else _CREW_POLL_S)
            if result is None:
                return True
            if result.scored is None:  # the machine is not free just now
                if not self._busy:
                    with self._breaks.allowed():
                        time.sleep(_CREW_POLL_S)
                return True
            self._write(result.scored)
            scorer.done(result.attempt)
            self._is_news = True
            if scorer.is_aside:
                self._hand_over()
            return True
        return False

    def _hand_over(self) -> bool:
        """The next attempt that is to be scored; False when there is none."""
        attempt = self._means.scorer.next()
        if attempt is None:
            return False
        self._stop_if_asked()
        self._view.scoring(*attempt.key)
        self._means.scorer.hand_over(attempt)
        return True

    def _tell_others(self) -> None:
        """When an attempt has ended and is scored, as far as it can be."""
        if not self._is_news or self._is_timing_here():
            return
        if self._means.scorer.next() is None or not self._busy:
            self._is_news = False
            # Whoever is called reads what is so now; others see it within the next second.
            self._refresh(now=bool(self._policy.after_each) or len(self._busy) < 2)
            with self._breaks.allowed():
                run_after_each(self._policy.after_each, self._campaign.folder, self._view.warned)

    def _is_timing_here(self) -> bool:
        """A run may be under way on this machine: nothing heavy, nor much reading, beside it."""
        return any(
            self._state.attempts[key].started.place.machine == self._machine
            for key in self._busy.values()
        )

    # Parts of every step.

    def _write(self, event: Event) -> None:
        line = self._journal.append(event)
        self._state.apply(line)
        self._view.happened(line, self._state)

    def _refresh(self, *, now: bool = True) -> None:
        """With ``now`` False not again at once: of a thousand teams it takes a while."""
        if not now and not self._refreshes.is_due:
            return
        with self._refreshes.measured():
            status = self.status()
            refreshed(self._campaign.folder, status)
            self._view.refreshed(status)

    def status(self) -> StatusRecord:
        return campaign_status(
            self._state,
            self._policy,
            self._present if self._scan is not None else None,
            self._progress.values(),
            tasks=self._campaign.task_names,
        )

    def _order(self, started: AttemptStarted, conditions: Conditions) -> JobOrder | None:
        campaign = self._campaign
        return order_of(
            started,
            self._state,
            conditions=conditions,
            challenge=campaign.challenge,
            challenge_text=campaign.challenge_text,
            changed_limits=campaign.changed_limits,
            calibration=campaign.calibration,
            exclusive=self._policy.exclusive,
        )

    def _notice_once(self, text: str) -> None:
        if text not in self._noticed:
            self._noticed.add(text)
            self._view.noticed(text)

    def _stop_if_asked(self) -> None:
        with self._breaks.allowed():
            pass

    def _pause_for(self, error: OutputError) -> None:
        self._view.warned(f"{error}\ntried again every {_DISK_PAUSE_S:.0f} s")
        with self._breaks.allowed():
            time.sleep(_DISK_PAUSE_S)

    def _close(self, exit_code: int) -> int:
        outstanding = len(decide.outstanding(self._state, self._policy))
        self._write(Closed(exit_code=exit_code, outstanding=outstanding))
        self._refresh()
        return exit_code
