"""What is outstanding, in the order in which it is to be run.

It is kept from one question to the next, and only what an event touched is looked at again: with
thousands of teams all else would take longer than the shortest runs.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, insort
from typing import TYPE_CHECKING, NamedTuple

from harness.campaign.standing import Stand, counted_uploads, standing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.campaign.policy import Policy
    from harness.campaign.standing import Standing
    from harness.campaign.state import CampaignState

_MEMO = "agenda"


class _Rank(NamedTuple):
    """Least comes first. ``interruptions`` before all: what takes its machine down must not keep
    the others from being run."""

    interruptions: int
    position: int
    shuffled: str
    team: str


class Agenda:
    """Of one policy. ``outstanding()`` is right after ``refresh``."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._positions = {team: number for number, team in enumerate(policy.order)}
        self._todo: dict[str, tuple[_Rank, tuple[Standing, ...]]] = {}
        self._ranks: list[_Rank] = []
        self._seen = 0

    def refresh(self, state: CampaignState) -> None:
        touched = state.touched[self._seen :]
        self._seen = len(state.touched)
        if any(touch.team is None and touch.rig is None for touch in touched):
            self._rebuild(state)
            return
        for team in dict.fromkeys(touch.team for touch in touched):
            if team is not None and team in state.teams:
                self._look_again(state, team)

    def outstanding(self) -> Iterator[Standing]:
        for rank in self._ranks:
            yield from self._todo[rank.team][1]

    def _rebuild(self, state: CampaignState) -> None:
        self._todo = {}
        for team in state.teams:
            self._judge(state, team)
        self._ranks = sorted(rank for rank, _ in self._todo.values())

    def _look_again(self, state: CampaignState, team: str) -> None:
        if (before := self._todo.pop(team, None)) is not None:
            del self._ranks[bisect_left(self._ranks, before[0])]
        self._judge(state, team)
        if (now := self._todo.get(team)) is not None:
            insort(self._ranks, now[0])

    def _judge(self, state: CampaignState, team: str) -> None:
        stands = [
            standing(state, self.policy, upload)
            for upload in counted_uploads(state.teams[team], self.policy)
        ]
        todo = tuple(one for one in stands if one.stand is Stand.OUTSTANDING)
        if todo:
            rank = _Rank(
                interruptions=sum(one.interruptions for one in stands),
                position=self._positions.get(team, len(self._positions)),
                shuffled=_shuffled(self.policy.seed, team),
                team=team,
            )
            self._todo[team] = rank, todo


def agenda(state: CampaignState, policy: Policy) -> Agenda:
    kept = state.memo.get(_MEMO)
    if not isinstance(kept, Agenda) or (kept.policy is not policy and kept.policy != policy):
        kept = state.memo[_MEMO] = Agenda(policy)
    kept.refresh(state)
    return kept


def _shuffled(seed: int | None, team: str) -> str:
    """The same for the same seed and team, whoever else takes part."""
    return "" if seed is None else hashlib.sha256(f"{seed} {team}".encode()).hexdigest()
