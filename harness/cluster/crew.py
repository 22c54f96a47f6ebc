"""A campaign's places on several machines: the workers that a scheduler knows."""

from __future__ import annotations

import logging
import queue
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.campaign.crew import Ended, Progressed
from harness.campaign.ends import end_of_failure
from harness.campaign.events import AttemptEnded
from harness.campaign.folder import CampaignFolder
from harness.campaign.journal import read_journal
from harness.campaign.order import Outcome
from harness.cluster import tasks
from harness.cluster.errand import Errand, Patience
from harness.cluster.facts import Stage, Versions, WorkerFacts
from harness.cluster.images import Images
from harness.cluster.link import Link, Lost
from harness.cluster.settings import configure
from harness.errors import (
    EngineMissing,
    EngineUnreachable,
    HarnessError,
    MachineError,
    OutputError,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.campaign.crew import CrewReport
    from harness.campaign.order import JobEnd, JobOrder, Place
    from harness.cluster.facts import AttemptNews
    from harness.cluster.link import SeenWorker
    from harness.cluster.security import Tls

_log = logging.getLogger(__name__)

_LOOK_S = 0.5
_CLOSE_S = 5.0
# A machine where this happens does no better with the next upload: without it, one broken worker
# would be quicker than all others and fail every attempt.
_BROKEN = {EngineMissing.exit_code, EngineUnreachable.exit_code, OutputError.exit_code}

_Key = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class _Given:
    order: JobOrder
    place: str
    thread: threading.Thread


class DaskCrew:
    """``address``: of the scheduler, as Dask has it (:func:`.security.scheduler_address`).

    What :meth:`poll` returned must be in the journal before it is called again: only then are the
    workers told to forget it. ``pause``: how to wait for so many seconds, for a caller that wants
    to be interrupted meanwhile. Raises MachineError when no scheduler answers.
    """

    def __init__(
        self,
        address: str,
        tls: Tls | None,
        runs_dir: Path,
        *,
        images: Images | None = None,
        patience: Patience | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        configure()
        self._runs_dir = runs_dir
        self._pause = pause
        self._images = images or Images(CampaignFolder(runs_dir).path / "images")
        self._patience = patience or Patience()
        self._reports: queue.SimpleQueue[CrewReport | HarnessError] = queue.SimpleQueue()
        self._given: dict[_Key, _Given] = {}
        self._returned: list[tuple[str, _Key]] = []  # by the last poll: place and attempt
        self._workers: dict[str, SeenWorker] = {}
        self._told: dict[_Key, AttemptNews] = {}
        self._ended: set[_Key] = set()  # of which a worker's latest news may not know yet
        self._kept_here = _ended_before(runs_dir)
        self._is_alone_told = False
        self._refused: set[tuple[str, str]] = set()  # workers that were warned of, and why
        self._broken: dict[str, str] = {}  # place to the session in which it broke
        self._address = address
        self._link = Link(address, tls, patience_s=self._patience.campaign_s)
        try:
            self._look()
        except Lost as error:
            raise MachineError(f"scheduler {address}: {error}; try again") from error
        self._watcher = threading.Thread(target=self._watch, name="crew", daemon=True)
        self._watcher.start()

    def places(self) -> tuple[Place, ...]:
        """Of this harness's version, and doing nothing that nobody here asked for. When there is
        nothing under way and no place, one is waited for; raises MachineError when none comes as
        long as the patience lasts. With a patience that lasts for ever, the caller waits: it may
        have other things to do, and is told of none."""
        until_s = time.monotonic() + self._patience.campaign_s
        while not (found := self._usable_places()) and not self._given:
            if not self._is_alone_told:
                self._is_alone_told = True
                _log.warning("scheduler %s: no worker is there; waiting for one", self._address)
            if self._patience.for_ever:
                return ()
            if time.monotonic() > until_s:
                raise MachineError(
                    f"scheduler {self._address}: no worker that can be used for "
                    f"{self._patience.scheduler_s:.0f} s; start one with `harness cluster worker`, "
                    "and the same command goes on"
                )
            self._pause(_LOOK_S)
        self._is_alone_told = False
        return found

    def _usable_places(self) -> tuple[Place, ...]:
        return tuple(
            facts.place
            for name, worker in sorted(self._workers.items())
            if isinstance(facts := worker.facts, WorkerFacts)
            and self._is_usable(worker)
            and self._broken.get(name) != facts.session
            and not self._is_busy_otherwise(worker)
        )

    def give(self, order: JobOrder, place: str) -> None:
        key = (order.team, order.run_id)
        if any(one.place == place for one in self._given.values()):
            raise ValueError(f"{place}: has work already")
        thread = threading.Thread(
            target=self._run, args=(order, place), name=f"errand {place}", daemon=True
        )
        self._given[key] = _Given(order=order, place=place, thread=thread)
        thread.start()

    def poll(self, timeout_s: float) -> list[CrewReport]:
        self._forget_returned()
        found: list[CrewReport] = []
        try:
            one = self._reports.get(timeout=timeout_s)
            while True:
                if isinstance(one, HarnessError):
                    raise one
                if isinstance(one, Ended):
                    given = self._given.pop((one.team, one.run_id))
                    self._returned.append((given.place, (one.team, one.run_id)))
                    self._ended.add((one.team, one.run_id))
                found.append(one)
                one = self._reports.get_nowait()
        except queue.Empty:
            return found

    def resume(self, order: JobOrder, place: str) -> bool:
        """Waits for a worker that has lost the scheduler as well, but not for ever."""
        key = (order.team, order.run_id)
        if key in self._given:
            return True
        worker = self._workers.get(place) or self._wait_for(place)
        if worker is None or not self._is_usable(worker):
            return False
        if not any(one.key == key for one in worker.news.attempts):
            return False
        self.give(order, place)
        return True

    def close(self) -> None:
        """What is being made goes on, for whoever comes next to take over."""
        self._link.close()
        for one in self._given.values():
            one.thread.join(_CLOSE_S)
        self._watcher.join(_CLOSE_S)

    def _run(self, order: JobOrder, place: str) -> None:
        def tell(doing: str) -> None:
            self._reports.put(Progressed(team=order.team, run_id=order.run_id, doing=doing))

        errand = Errand(
            order,
            place,
            link=self._link,
            images=self._images,
            runs_dir=self._runs_dir,
            patience=self._patience,
            tell=tell,
        )
        try:
            end = errand.run()
        except Lost:  # this crew was closed
            return
        except HarnessError as error:
            self._reports.put(error)
            return
        except Exception as error:  # the boundary of one attempt: it must not be waited for
            _log.exception("%s/%s on %s", order.team, order.run_id, place)
            reason = f"the harness failed: {type(error).__name__}: {error}"
            end = end_of_failure(MachineError(f"{order.team} on {place}: {reason}"))
        self._note_broken(place, end)
        self._reports.put(Ended(team=order.team, run_id=order.run_id, end=end))

    def _note_broken(self, place: str, end: JobEnd) -> None:
        worker = self._workers.get(place)
        if (
            end.outcome is Outcome.FAILED
            and end.exit_code in _BROKEN
            and worker is not None
            and isinstance(worker.facts, WorkerFacts)
        ):
            self._broken[place] = worker.facts.session
            _log.warning("worker %s gets no more work until it is restarted: %s", place, end.reason)

    def _watch(self) -> None:
        while not self._link.is_closed:
            try:
                self._look()
                self._link.pause(_LOOK_S)
            except Lost:
                try:
                    self._link.reconnect()
                except HarnessError as error:
                    self._reports.put(error)
                    return

    def _look(self) -> None:
        self._workers = self._link.workers()
        for worker in self._workers.values():
            self._judge(worker)
            for news in worker.news.attempts:
                self._pass_on(news)
                if news.stage is Stage.MADE and news.key in self._kept_here:
                    self._kept_here.remove(news.key)
                    self._link.send(worker, tasks.forget, *news.key)

    def _pass_on(self, news: AttemptNews) -> None:
        if news.stage is Stage.UNDER_WAY and news.doing and news.key in self._given:
            if self._told.get(news.key) == news:
                return
            self._told[news.key] = news
            self._reports.put(
                Progressed(
                    team=news.team,
                    run_id=news.run_id,
                    doing=news.doing,
                    progress=news.progress,
                    pairs=news.pairs,
                )
            )

    def _is_usable(self, worker: SeenWorker) -> bool:
        return (
            isinstance(worker.facts, WorkerFacts)
            and not Versions.here().differences(worker.facts.versions)
            and worker.facts.place.name == worker.name
        )

    def _judge(self, worker: SeenWorker) -> None:
        """Say once of each worker why it is not used."""
        if self._is_usable(worker):
            return
        facts = worker.facts
        if facts is None:
            why = "is none of `harness cluster worker`"
        else:
            versions = facts if isinstance(facts, Versions) else facts.versions
            why = "; ".join(Versions.here().differences(versions)) or "says what cannot be read"
        if (worker.name, why) not in self._refused:
            self._refused.add((worker.name, why))
            _log.warning("worker %s is not used: %s; install the same on both", worker.name, why)

    def _is_busy_otherwise(self, worker: SeenWorker) -> bool:
        return any(
            one.stage is Stage.UNDER_WAY
            and one.key not in self._given
            and one.key not in self._ended
            for one in worker.news.attempts
        )

    def _wait_for(self, place: str) -> SeenWorker | None:
        for _ in range(round(self._patience.worker_s / _LOOK_S)):
            self._pause(_LOOK_S)
            if found := self._workers.get(place):
                return found
        return None

    def _forget_returned(self) -> None:
        """In a worker's one thread, so never beside a run; nobody waits for it."""
        for place, (team, run_id) in self._returned:
            self._told.pop((team, run_id), None)
            if worker := self._workers.get(place):
                self._link.send(worker, tasks.forget, team, run_id)
        self._returned = []


def _ended_before(runs_dir: Path) -> set[_Key]:
    """Attempts that ended in the journal, and whose result is here: a conductor that died may not
    have told their workers. What was given up and made nevertheless stays where it is."""
    journal = CampaignFolder(runs_dir).journal_path
    lines = read_journal(journal) if journal.exists() else ()
    ended = {(e.team, e.run_id) for line in lines if isinstance(e := line.event, AttemptEnded)}
    return {key for key in ended if (runs_dir / key[0] / key[1]).is_dir()}
