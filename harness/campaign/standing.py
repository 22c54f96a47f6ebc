"""How one upload stands: is it to be run, again, or no more, and why (pure functions).

The rules in words: docs/campaign-rules.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from harness.campaign.policy import Counted
from harness.errors import Blame
from harness.store import RunStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.campaign.order import Place
    from harness.campaign.policy import Policy
    from harness.campaign.state import Attempt, CampaignState, TeamState
    from harness.campaign.upload import Upload


class Stand(StrEnum):
    """DONE: there is a result. GIVEN_UP: there is none, and no further attempt is made by itself.
    DROPPED: its team is."""

    OUTSTANDING = "outstanding"
    UNDER_WAY = "under_way"
    DONE = "done"
    GIVEN_UP = "given_up"
    DROPPED = "dropped"


@dataclass(frozen=True, kw_only=True)
class Standing:
    """``why``: fit for the journal when it is outstanding, else for people. ``number``: of the next
    attempt. ``avoid``: where the machine was in the way, or not as it should be. ``last``: of the
    attempts that count.
    """

    upload: Upload
    stand: Stand
    why: str
    number: int
    interruptions: int = 0
    avoid: tuple[Place, ...] = ()
    last: Attempt | None = None


def counted_uploads(team: TeamState, policy: Policy) -> tuple[Upload, ...]:
    """Those that are run: the newest, or all, oldest first."""
    if policy.counted is Counted.BEST:
        return tuple(sorted(team.uploads.values(), key=lambda upload: upload.arrived_s))
    return () if team.newest is None else (team.newest,)


def dropped(team: TeamState, policy: Policy) -> str | None:
    """Why nothing of the team is run; None when it is."""
    override = policy.teams.get(team.team)
    if override is not None and override.drop is not None:
        return f"dropped in the campaign's file: {override.drop}"
    if team.dropped is None:
        return None
    return f"dropped: {team.dropped}" if team.dropped else "dropped"


def since_retried(state: CampaignState, upload: Upload) -> list[Attempt]:
    """Its attempts that count now: under the conditions of now, of the tasks of now, and for a
    team's newest upload only those since the organisers asked for another, if they did."""
    team = state.teams[upload.team]
    after_n = 0
    if team.retried_n is not None and team.newest is not None and team.newest.id == upload.id:
        after_n = team.retried_n
    return [
        attempt
        for attempt in state.of_upload(upload.id)
        if attempt.n > after_n and state.is_current(attempt) and attempt.tasks == upload.tasks
    ]


def standing(state: CampaignState, policy: Policy, upload: Upload) -> Standing:
    counting = since_retried(state, upload)
    interrupted = [one for one in counting if one.end is not None and one.end.is_interrupted]
    faults = [
        one
        for one in counting
        if one.end is not None and not one.end.is_final and not one.end.is_interrupted
    ]
    stand, why = _stand(state, policy, upload, counting, faults, interrupted)
    return Standing(
        upload=upload,
        stand=stand,
        why=why,
        number=len(state.of_upload(upload.id)) + 1,
        interruptions=len(interrupted),
        avoid=tuple(
            one.started.place
            for one in counting
            if one in faults or (one.is_final and _doubt(state.result_of(one)) is not None)
        ),
        last=counting[-1] if counting else None,
    )


def _stand(
    state: CampaignState,
    policy: Policy,
    upload: Upload,
    counting: Sequence[Attempt],
    faults: Sequence[Attempt],
    interrupted: Sequence[Attempt],
) -> tuple[Stand, str]:
    if state.is_under_way(upload.id):
        return Stand.UNDER_WAY, "under way"
    doubts = [_doubt(state.result_of(one)) for one in counting if one.is_final]
    if None in doubts:
        return Stand.DONE, "it has a result"
    if len(doubts) > policy.suspect_reruns:
        return Stand.DONE, f"suspect in {_times(len(doubts))}: {doubts[-1]}"
    if (out := dropped(state.teams[upload.team], policy)) is not None:
        return Stand.DROPPED, out
    if (spent := _spent(policy, faults, interrupted)) is not None:
        return Stand.GIVEN_UP, spent
    return Stand.OUTSTANDING, _why(state, policy, upload, counting, len(faults), doubts)


def _doubt(result: Attempt) -> str | None:
    """Why it is to be had again. A team's own fault is not: there is no runtime of it to rank, and
    who fails must not get another try by luck; but a machine that is slow can cause a timeout."""
    end = result.end
    if end is not None and end.blame is Blame.SUBMISSION and end.status is not RunStatus.TIMED_OUT:
        return None
    return result.doubt


def _spent(policy: Policy, faults: Sequence[Attempt], interrupted: Sequence[Attempt]) -> str | None:
    if len(faults) > policy.machine_retries:
        return f"{_fault(faults[-1])}, in {_times(len(faults))}"
    if len(interrupted) > policy.interruption_retries:
        return f"interrupted in {_times(len(interrupted))}"
    return None


def _why(
    state: CampaignState,
    policy: Policy,
    upload: Upload,
    counting: Sequence[Attempt],
    faults: int,
    doubts: Sequence[str | None],
) -> str:
    if not counting:
        return _why_at_all(state, upload)
    last = counting[-1]
    if last.is_final:
        return f"suspect: {doubts[-1]}"
    if last.end is not None and last.end.is_interrupted:
        return f"interrupted: {last.end.reason}"
    return f"{_fault(last)} (attempt {faults + 1} of {1 + policy.machine_retries})"


def _why_at_all(state: CampaignState, upload: Upload) -> str:
    """There were no attempts, or none that count now."""
    before = state.of_upload(upload.id)
    if not before:
        return "never run"
    last = before[-1]
    if not state.is_current(last) and state.conditions is not None:
        told = state.conditions.differences(last.conditions)
        limits = all(text.startswith("limit ") for text in told)
        return f"{'limits' if limits else 'conditions'} changed: {'; '.join(told)}"
    if last.tasks != upload.tasks:
        now, was = (_tasks(tasks) for tasks in (upload.tasks, last.tasks))
        return f"tasks changed: {was} before, {now} now"
    return "asked for by `harness retry`"


def _fault(attempt: Attempt) -> str:
    end = attempt.end
    if end is None:
        return "under way"
    whose = "configuration" if end.blame is Blame.CONFIGURATION else "machine"
    return f"the {whose}'s fault: {end.reason}"


def _times(count: int) -> str:
    return "1 attempt" if count == 1 else f"{count} attempts"


def _tasks(tasks: tuple[str, ...] | None) -> str:
    return "all" if tasks is None else ", ".join(tasks)
