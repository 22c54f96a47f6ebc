"""What the journal's events add up to. A pure function; nothing here is written anywhere.

Whoever decides asks for the next step after every event, so what is asked often is kept by team,
upload and rig as the events come, and :attr:`CampaignState.touched` tells what one changed.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, assert_never

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
from harness.campaign.upload import TeamInfo
from harness.machine.contamination import MachineVerdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from harness.campaign.conditions import Conditions
    from harness.campaign.events import Event, Line
    from harness.campaign.order import JobEnd
    from harness.campaign.upload import Upload


@dataclass(kw_only=True)
class Attempt:
    """``n`` and ``ended_n``: numbers of the journal's lines, so an order in time. ``tasks``: those
    that its team took part in when it began; None for all."""

    started: AttemptStarted
    conditions: Conditions
    n: int
    started_at: str
    tasks: tuple[str, ...] | None = None
    ended_at: str | None = None
    ended_n: int | None = None
    end: JobEnd | None = None
    suspicion: str | None = None
    scored: Scored | None = None

    @property
    def key(self) -> tuple[str, str]:
        return self.started.team, self.started.run_id

    @property
    def is_calibration(self) -> bool:
        return self.started.kind is AttemptKind.CALIBRATION

    @property
    def is_final(self) -> bool:
        return self.end is not None and self.end.is_final

    @property
    def is_timed(self) -> bool:
        return self.end is not None and self.end.is_timed

    @property
    def machine_digest(self) -> str | None:
        """As the run recorded it, else as its place was said to be."""
        recorded = None if self.end is None else self.end.machine_digest
        return recorded or self.started.place.machine_digest

    @property
    def doubt(self) -> str | None:
        """Why its runtimes are suspect. None: they are not, or there are none to doubt."""
        if not self.is_timed:
            return None
        if self.suspicion is not None:
            return self.suspicion
        noisy = self.end is not None and self.end.machine_verdict is MachineVerdict.SUSPECT
        return "the machine was not the submission's alone while it ran" if noisy else None


@dataclass(kw_only=True)
class TeamState:
    """``uploads`` in the order they were first seen; ``retried_n``: of the last line that asked for
    another attempt."""

    team: str
    info: TeamInfo = field(default_factory=TeamInfo)
    uploads: dict[str, Upload] = field(default_factory=dict)
    dropped: str | None = None  # why; "" when nobody said
    retried_n: int | None = None

    @property
    def newest(self) -> Upload | None:
        """That which came last; of two in one moment, the one that was seen last."""
        newest = None
        for upload in self.uploads.values():
            if newest is None or upload.arrived_s >= newest.arrived_s:
                newest = upload
        return newest


class Touch(NamedTuple):
    """What an event may have changed: nothing else that is decided by team or by rig. Both None:
    everything."""

    team: str | None = None
    rig: str | None = None


@dataclass(kw_only=True)
class CampaignState:
    """``attempts`` and ``rejected`` in the order of the journal, ``attempts`` by team and run id.
    ``conditions``: those now, in force since line ``opened_n``. ``touched``: one for each event,
    in their order. ``memo`` belongs to who decides: what it found, for the next time it is asked.
    """

    conditions: Conditions | None = None
    seed: int | None = None
    teams: dict[str, TeamState] = field(default_factory=dict)
    attempts: dict[tuple[str, str], Attempt] = field(default_factory=dict)
    rejected: list[UploadRejected] = field(default_factory=list)
    closed: Closed | None = None
    last_n: int = 0
    opened_n: int = 0
    touched: list[Touch] = field(default_factory=list, repr=False)
    memo: dict[object, object] = field(default_factory=dict, repr=False, compare=False)
    _conditions: list[Conditions] = field(default_factory=list, repr=False)
    _of_upload: dict[str, list[Attempt]] = field(default_factory=dict, repr=False)
    _of_team: dict[str, list[Attempt]] = field(default_factory=dict, repr=False)
    _on_rig: dict[str, list[Attempt]] = field(default_factory=dict, repr=False)
    _team_changes: dict[str, int] = field(default_factory=dict, repr=False)
    _rig_changes: dict[str, int] = field(default_factory=dict, repr=False)
    _under_way: dict[tuple[str, str], Attempt] = field(default_factory=dict, repr=False)
    _uploads_under_way: defaultdict[str, int] = field(
        default_factory=lambda: defaultdict(int), repr=False
    )

    def of_upload(self, upload_id: str) -> Sequence[Attempt]:
        """Its attempts, under any conditions, in their order."""
        return self._of_upload.get(upload_id, ())

    def of_team(self, team: str) -> Sequence[Attempt]:
        return self._of_team.get(team, ())

    def on_rig(self, rig: str) -> Sequence[Attempt]:
        """Calibrations too, under any conditions, in their order: see :attr:`.order.Place.rig`."""
        return self._on_rig.get(rig, ())

    def rigs(self) -> Sequence[str]:
        return tuple(self._on_rig)

    def rig_changes(self, rig: str) -> int:
        """How many events were about attempts on it: as long as it is the same, nothing changed."""
        return self._rig_changes.get(rig, 0)

    def team_changes(self, team: str) -> int:
        """The same of a team, for events that are not about everybody (``opened_n``)."""
        return self._team_changes.get(team, 0)

    def under_way(self) -> list[Attempt]:
        """Started and not ended: being made, or left so by a harness that died."""
        return list(self._under_way.values())

    def is_under_way(self, upload_id: str) -> bool:
        return self._uploads_under_way.get(upload_id, 0) > 0

    def is_current(self, attempt: Attempt) -> bool:
        """Was it made under the conditions of now?"""
        # Equal conditions are one object here: comparing them costs more than all else.
        return attempt.conditions is self.conditions

    def result_of(self, attempt: Attempt) -> Attempt:
        """The attempt that holds its result: another of its team's when its image had run."""
        end = attempt.end
        if end is None or end.outcome is not Outcome.SAME or end.same_as is None:
            return attempt
        return self.attempts.get((attempt.started.team, end.same_as), attempt)

    def apply(self, line: Line) -> None:
        """One more line."""
        event: Event = line.event
        self.last_n = line.n
        touch: Touch | None = None
        match event:
            case Opened():
                self.conditions, self.seed = self._same(event.conditions), event.seed
                self.closed, self.opened_n = None, line.n
                touch = Touch()
            case UploadSeen():
                touch = self._seen(event)
            case UploadRejected():
                self.rejected.append(event)
            case AttemptStarted():
                touch = self._start(event, line)
            case AttemptEnded():
                touch = self._end(event, line)
            case Suspected():
                doubted = self.attempts[event.team, event.run_id]
                doubted.suspicion = event.reason
                touch = _of(doubted)
            case Scored():
                self.attempts[event.team, event.run_id].scored = event
                touch = Touch(team=event.team)
            case TeamDropped() | TeamRetried():
                touch = self._ask(event, line)
            case Closed():
                self.closed = event
            case _:
                assert_never(event)
        if touch is not None:
            self._note(touch)

    def _note(self, touch: Touch) -> None:
        self.touched.append(touch)
        if touch.rig is not None:
            self._rig_changes[touch.rig] = self.rig_changes(touch.rig) + 1
        if touch.team is not None:
            self._team_changes[touch.team] = self.team_changes(touch.team) + 1

    def _seen(self, event: UploadSeen) -> Touch:
        team = self._team(event.upload.team)
        known = team.uploads.get(event.upload.id)
        # Another name makes no newer upload.
        arrived_s = event.upload.arrived_s if known is None else known.arrived_s
        team.uploads[event.upload.id] = event.upload.model_copy(update={"arrived_s": arrived_s})
        team.info = event.info
        return Touch(team=team.team)

    def _start(self, event: AttemptStarted, line: Line) -> Touch:
        if self.conditions is None:
            raise ValueError(f"line {line.n}: an attempt before the campaign was opened")
        attempt = Attempt(started=event, conditions=self.conditions, n=line.n, started_at=line.at)
        self.attempts[attempt.key] = self._under_way[attempt.key] = attempt
        self._of_team.setdefault(event.team, []).append(attempt)
        self._on_rig.setdefault(event.place.rig, []).append(attempt)
        if event.upload is not None:
            self._of_upload.setdefault(event.upload, []).append(attempt)
            self._uploads_under_way[event.upload] += 1
            team = self.teams.get(event.team)
            upload = None if team is None else team.uploads.get(event.upload)
            attempt.tasks = None if upload is None else upload.tasks
        return _of(attempt)

    def _end(self, event: AttemptEnded, line: Line) -> Touch:
        ended = self.attempts[event.team, event.run_id]
        ended.end, ended.ended_at, ended.ended_n = event.end, line.at, line.n
        if self._under_way.pop(ended.key, None) is not None and ended.started.upload is not None:
            self._uploads_under_way[ended.started.upload] -= 1
        return _of(ended)

    def _ask(self, event: TeamDropped | TeamRetried, line: Line) -> Touch:
        team = self._team(event.team)
        match event:
            case TeamDropped():
                team.dropped = event.reason or ""
            case TeamRetried():
                team.dropped, team.retried_n = None, line.n
            case _:
                assert_never(event)
        return Touch(team=team.team)

    def _same(self, conditions: Conditions) -> Conditions:
        for known in self._conditions:
            if known == conditions:
                return known
        self._conditions.append(conditions)
        return conditions

    def _team(self, name: str) -> TeamState:
        return self.teams.setdefault(name, TeamState(team=name))


def _of(attempt: Attempt) -> Touch:
    return Touch(team=attempt.started.team, rig=attempt.started.place.rig)


def replay(lines: Iterable[Line]) -> CampaignState:
    state = CampaignState()
    for line in lines:
        state.apply(line)
    return state
