"""What an organiser promises: which uploads are taken, which is published, by which attempt.

Pure functions. The same in words: docs/campaign-rules.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from statistics import fmean
from typing import TYPE_CHECKING

from harness.campaign.policy import Counted
from harness.campaign.standing import counted_uploads, since_retried
from harness.challenge.model import Metric

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.campaign.policy import Policy
    from harness.campaign.state import Attempt, CampaignState, TeamState
    from harness.campaign.upload import Upload

_OVERLAPS = frozenset({Metric.DICE, Metric.DICE30})
_DISTANCES = frozenset({Metric.TRE, Metric.TRE30})


def admitted(state: CampaignState, upload: Upload, policy: Policy) -> str | None:
    """Why an upload comes too late for the limit per day; None when it is taken. One that was taken
    before is taken again."""
    limit, team = policy.uploads_per_day, state.teams.get(upload.team)
    if limit is None or team is None or upload.id in team.uploads:
        return None
    day = _utc_day(upload.arrived_s)
    taken = sum(_utc_day(one.arrived_s) == day for one in team.uploads.values())
    if taken < limit:
        return None
    next_day = day + timedelta(days=1)
    return (
        f"{upload.team} has {_count(taken, 'upload')} of {day:%Y-%m-%d} (UTC) already, of {limit} "
        f"allowed a day; hand it in again from {next_day:%Y-%m-%d} 00:00 UTC"
    )


def gain(initial: float | None, value: float | None, metric: Metric) -> float | None:
    """How far from the zero field to a perfect one a result goes: 0 as good as no registration, 1
    perfect, negative when it is worse.

    Dice: (value - initial) / (1 - initial). TRE: (initial - value) / initial. None where that says
    nothing: for another metric, when the zero field has no finite value, or is perfect already. A
    result without a finite value gains nothing: 0.
    """
    if metric in _OVERLAPS:
        perfect = 1.0
    elif metric in _DISTANCES:
        perfect = 0.0
    else:
        return None
    if initial is None or not math.isfinite(initial) or initial == perfect:
        return None
    if value is None or not math.isfinite(value):
        return 0.0
    return (value - initial) / (perfect - initial)


@dataclass(frozen=True, kw_only=True)
class Published:
    """Which result of a team counts, or why none does. ``attempt`` is of ``upload``; ``result``
    holds what came of it (another attempt when its image had been run before); both None when it
    was never run. ``final``: whether that is a result. ``doubt``: why its runtimes are not ranked.
    ``differences``: under which other conditions it was made. ``reason``: for people.
    """

    team: str
    upload: Upload | None
    attempt: Attempt | None
    result: Attempt | None
    final: bool
    doubt: str | None
    differences: tuple[str, ...]
    reason: str


def published(state: CampaignState, policy: Policy) -> dict[str, Published]:
    """By team, of all that handed in anything."""
    return {name: published_of(state, policy, team) for name, team in state.teams.items()}


def published_of(state: CampaignState, policy: Policy, team: TeamState) -> Published:
    uploads = counted_uploads(team, policy)
    if not uploads:
        return _nothing(team.team, None, "it handed in nothing that was taken")
    if policy.counted is Counted.LATEST:
        upload = uploads[-1]
        return _published(state, upload, "the newest upload")
    return _best([_published(state, upload, "the best upload") for upload in uploads])


def _best(each: Sequence[Published]) -> Published:
    """``each``: of one team, oldest first. What was made under the conditions of now comes before
    all else, then what was scored, then what has a result at all."""
    newest = each[-1]
    if len(each) == 1:
        return _because(newest, "the only upload")
    final = [one for one in each if one.final]
    if not final:
        return _because(newest, "the newest upload, as none has a result")
    comparable = [one for one in final if not one.differences] or final
    scores = _scores(comparable)
    if not scores:
        return _because(comparable[-1], "the newest upload with a result, as none was scored")
    # The first of equals: whoever hands the same in again gains nothing by it.
    best = max(scores, key=lambda number: scores[number])
    told = f"the best of {_count(len(each), 'upload')}, with a gain of {scores[best]:.4f}"
    return _because(comparable[best], told)


def _scores(each: Sequence[Published]) -> dict[int, float]:
    """Mean gain over all tasks that any of them was scored on, by its number in ``each``. A task
    that one lacks is as good as the zero field there; one where the zero field was not scored is
    left out for all."""
    gains = {
        number: one.result.scored.gains
        for number, one in enumerate(each)
        if one.result is not None
        and one.result.scored is not None
        and one.result.scored.problem is None
    }
    tasks = dict.fromkeys(task for scored in gains.values() for task in scored)
    usable = [
        task for task in tasks if all(one.get(task, 0.0) is not None for one in gains.values())
    ]
    if not usable:
        return {}
    return {number: fmean(one.get(task) or 0.0 for task in usable) for number, one in gains.items()}


def _published(state: CampaignState, upload: Upload, which: str) -> Published:
    attempts = state.of_upload(upload.id)
    if not attempts:
        return _nothing(upload.team, upload, f"{which}: not run yet")
    counting = since_retried(state, upload)
    attempt, told = _first_final(state, counting)
    if attempt is None:
        attempt, told = _of_before(state, upload, attempts)
    if attempt is None:
        attempt, told = attempts[-1], "its last attempt, as none has a result"
    differences: tuple[str, ...] = ()
    if state.conditions is not None and not state.is_current(attempt):
        differences = state.conditions.differences(attempt.conditions)
    if differences:
        told += f", made under other conditions ({'; '.join(differences)})"
    result = state.result_of(attempt)
    return Published(
        team=upload.team,
        upload=upload,
        attempt=attempt,
        result=result,
        final=attempt.is_final,
        doubt=result.doubt,
        differences=differences,
        reason=f"{which}: {told}",
    )


def _first_final(state: CampaignState, attempts: Sequence[Attempt]) -> tuple[Attempt | None, str]:
    """The first with a result that is not suspect, else the first with one."""
    finals = [one for one in attempts if one.is_final]
    for number, attempt in enumerate(finals):
        if state.result_of(attempt).doubt is None:
            if len(attempts) == 1:
                return attempt, "its only attempt"
            told = "that has a result" if number == 0 else "that is not suspect"
            return attempt, f"the first of {len(attempts)} attempts {told}"
    if not finals:
        return None, ""
    told = f"the first of {_count(len(attempts), 'attempt')} that has a result, all suspect"
    return finals[0], f"{told}, so its runtimes are not ranked"


def _of_before(
    state: CampaignState, upload: Upload, attempts: Sequence[Attempt]
) -> tuple[Attempt | None, str]:
    """A result that is to be replaced and is not yet: of the conditions that held last."""
    finals = [one for one in attempts if one.is_final]
    if not finals:
        return None, ""
    last = finals[-1]
    alike = [
        one for one in attempts if one.conditions is last.conditions and one.tasks == last.tasks
    ]
    attempt, told = _first_final(state, alike)
    if last.tasks != upload.tasks:
        return attempt, f"{told}, of other tasks than now, until it is run again"
    return attempt, f"{told}, until it is run again"


def _nothing(team: str, upload: Upload | None, reason: str) -> Published:
    return Published(
        team=team,
        upload=upload,
        attempt=None,
        result=None,
        final=False,
        doubt=None,
        differences=(),
        reason=reason,
    )


def _because(one: Published, which: str) -> Published:
    reason = one.reason.replace("the best upload", which, 1)
    return replace(one, reason=reason)


def _utc_day(moment_s: float) -> datetime:
    moment = datetime.fromtimestamp(moment_s, UTC)
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
