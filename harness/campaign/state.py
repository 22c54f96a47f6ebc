"""What the journal's events add up to. A pure function; nothing here is written anywhere."""

from __future__ import annotations

from dataclasses import dataclass, field
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
from harness.campaign.order import AttemptKind
from harness.campaign.upload import TeamInfo

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.campaign.conditions import Conditions
    from harness.campaign.events import Event, Line
    from harness.campaign.order import JobEnd
    from harness.campaign.upload import Upload


@dataclass(kw_only=True)
class Attempt:
    """``n`` and ``ended_n``: numbers of the journal's lines, so an order in time."""

    started: AttemptStarted
    conditions: Conditions
    n: int
    started_at: str
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


@dataclass(kw_only=True)
class TeamState:
    """``uploads`` in the order they came; ``retried_n``: of the last line that asked for another
    attempt."""

    team: str
    info: TeamInfo = field(default_factory=TeamInfo)
    uploads: dict[str, Upload] = field(default_factory=dict)
    dropped: str | None = None  # why; "" when nobody said
    retried_n: int | None = None


@dataclass(kw_only=True)
class CampaignState:
    """``attempts`` and ``rejected`` in the order of the journal, ``attempts`` by team and run id.
    ``conditions``: those now."""

    conditions: Conditions | None = None
    seed: int | None = None
    teams: dict[str, TeamState] = field(default_factory=dict)
    attempts: dict[tuple[str, str], Attempt] = field(default_factory=dict)
    rejected: list[UploadRejected] = field(default_factory=list)
    closed: Closed | None = None
    last_n: int = 0

    def of_upload(self, upload_id: str) -> list[Attempt]:
        """Its attempts, under any conditions, in their order."""
        return [one for one in self.attempts.values() if one.started.upload == upload_id]

    def of_team(self, team: str) -> list[Attempt]:
        return [one for one in self.attempts.values() if one.started.team == team]

    def under_way(self) -> list[Attempt]:
        """Started and not ended: being made, or left so by a harness that died."""
        return [one for one in self.attempts.values() if one.end is None]

    def apply(self, line: Line) -> None:
        """One more line."""
        event: Event = line.event
        self.last_n = line.n
        match event:
            case Opened():
                self.conditions, self.seed, self.closed = event.conditions, event.seed, None
            case UploadSeen():
                team = self._team(event.upload.team)
                team.uploads[event.upload.id] = event.upload
                team.info = event.info
            case UploadRejected():
                self.rejected.append(event)
            case AttemptStarted():
                if self.conditions is None:
                    raise ValueError(f"line {line.n}: an attempt before the campaign was opened")
                attempt = Attempt(
                    started=event, conditions=self.conditions, n=line.n, started_at=line.at
                )
                self.attempts[attempt.key] = attempt
            case AttemptEnded():
                ended = self.attempts[event.team, event.run_id]
                ended.end, ended.ended_at, ended.ended_n = event.end, line.at, line.n
            case Suspected():
                self.attempts[event.team, event.run_id].suspicion = event.reason
            case Scored():
                self.attempts[event.team, event.run_id].scored = event
            case TeamDropped():
                self._team(event.team).dropped = event.reason or ""
            case TeamRetried():
                again = self._team(event.team)
                again.dropped, again.retried_n = None, line.n
            case Closed():
                self.closed = event
            case _:
                assert_never(event)

    def _team(self, name: str) -> TeamState:
        return self.teams.setdefault(name, TeamState(team=name))


def replay(lines: Iterable[Line]) -> CampaignState:
    state = CampaignState()
    for line in lines:
        state.apply(line)
    return state
