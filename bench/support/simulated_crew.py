"""A crew whose attempts take time that nobody waits for: what a campaign itself costs is left."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.campaign.crew import Ended
from harness.campaign.order import AttemptKind, JobEnd, Outcome, Place
from harness.errors import Blame
from harness.machine.contamination import MachineVerdict
from harness.store import RunStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.campaign.crew import CrewReport
    from harness.campaign.order import JobOrder

PAIRS = 40
_ATTEMPT_S = (300.0, 3600.0)
_MACHINE_FAULTS = 0.01  # of all attempts; they are made again
_TEAM_FAULTS = 0.05


@dataclass(frozen=True, order=True, kw_only=True)
class _UnderWay:
    until_s: float
    place: str
    team: str
    run_id: str
    end: JobEnd


class SimulatedCrew:
    """``count`` machines. :meth:`poll` gives the attempts that end next, at once: those of one
    moment together, as a conductor that was busy for a while finds them. ``now_s``: virtual time,
    since the beginning. ``at_once``: how many ends one poll gives at most."""

    def __init__(
        self,
        count: int,
        *,
        seed: int = 2021,
        at_once: int = 1,
        made: Callable[[JobOrder, JobEnd], JobEnd] | None = None,
    ) -> None:
        self._places = tuple(
            Place(name=f"box{n:04d}", machine=f"box{n:04d}", machine_digest="simulated")
            for n in range(count)
        )
        self._random = random.Random(seed)
        self._at_once = at_once
        self._made = made
        self._under_way: list[_UnderWay] = []
        self._busy: set[str] = set()
        self.now_s = 0.0
        self.busy_s = 0.0
        self.ended = 0

    def places(self) -> tuple[Place, ...]:
        return self._places

    def give(self, order: JobOrder, place: str) -> None:
        if place in self._busy:
            raise ValueError(f"{place}: has an attempt already")
        self._busy.add(place)
        is_calibration = order.kind is AttemptKind.CALIBRATION
        duration_s = _ATTEMPT_S[0] if is_calibration else self._random.uniform(*_ATTEMPT_S)
        self.busy_s += duration_s
        end = self._end(duration_s, 1.0 if is_calibration else self._random.random())
        heapq.heappush(
            self._under_way,
            _UnderWay(
                until_s=self.now_s + duration_s,
                place=place,
                team=order.team,
                run_id=order.run_id,
                end=end if self._made is None else self._made(order, end),
            ),
        )

    def poll(self, timeout_s: float) -> list[CrewReport]:
        del timeout_s
        reports: list[CrewReport] = []
        while self._under_way and len(reports) < self._at_once:
            one = heapq.heappop(self._under_way)
            self.now_s = one.until_s
            self._busy.discard(one.place)
            self.ended += 1
            reports.append(Ended(team=one.team, run_id=one.run_id, end=one.end))
        return reports

    def resume(self, order: JobOrder, place: str) -> bool:
        del order, place
        return False

    def close(self) -> None:
        """Nothing is open."""

    def _end(self, duration_s: float, drawn: float) -> JobEnd:
        if drawn < _MACHINE_FAULTS:
            return JobEnd(
                outcome=Outcome.FAILED,
                reason="the engine does not answer",
                blame=Blame.MACHINE,
                exit_code=30,
            )
        failed = drawn < _MACHINE_FAULTS + _TEAM_FAULTS
        return JobEnd(
            outcome=Outcome.RAN,
            reason="exit code 1" if failed else f"{PAIRS} of {PAIRS} fields are valid",
            blame=Blame.SUBMISSION if failed else None,
            status=RunStatus.CRASHED if failed else RunStatus.SUCCEEDED,
            exit_code=21 if failed else 0,
            image_id=f"sha256:{self._random.getrandbits(256):064x}",
            valid_fields=0 if failed else PAIRS,
            expected_fields=PAIRS,
            runtimes_s={}
            if failed
            else {f"task_01/{n:04d}_{n + 1:04d}": duration_s / PAIRS for n in range(PAIRS)},
            is_timed=not failed,
            machine_digest="simulated",
            machine_verdict=MachineVerdict.CLEAN,
            record_sha256=f"sha256:{self._random.getrandbits(256):064x}",
        )
