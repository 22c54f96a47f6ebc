"""Where everything stands: what ``status.json`` says, from the journal's sum."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from harness.campaign.calibration import drift_ratio, is_good, rig_state
from harness.campaign.decide import outstanding
from harness.campaign.drift import machines
from harness.campaign.rules import Published, published_of
from harness.campaign.standing import Stand, Standing, counted_uploads, dropped, standing
from harness.campaign.status import (
    OutstandingRow,
    RejectedRow,
    RigRow,
    RowState,
    StatusRecord,
    TaskRow,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from harness.campaign.crew import Progressed
    from harness.campaign.policy import Policy
    from harness.campaign.state import Attempt, CampaignState, TeamState


def campaign_status(
    state: CampaignState,
    policy: Policy,
    present: frozenset[str] | None = None,
    under_way: Iterable[Progressed] = (),
    *,
    tasks: Sequence[str] = (),
    requests: Sequence[str] = (),
) -> StatusRecord:
    """``present``: IDs of the uploads in the folder, None when nobody looked. ``tasks``: the
    challenge's; without them, those that any result is of."""
    results = {name: _published_of(state, policy, team) for name, team in state.teams.items()}
    progress = {(one.team, one.run_id): one for one in under_way}
    attempts = {one.started.team: one for one in state.under_way()}
    names = tuple(tasks) or _tasks_of(results.values())
    rows = tuple(
        row
        for name in sorted(state.teams)
        for row in _kept_rows(
            state,
            policy,
            results[name],
            present,
            attempts.get(name),
            progress.get(attempts[name].key) if name in attempts else None,
            names,
        )
    )
    states = {row.team: row.state for row in rows}
    return StatusRecord(
        journal_lines=state.last_n,
        title=policy.title,
        counted=policy.counted,
        conditions=state.conditions,
        teams={one: count for one in RowState if (count := list(states.values()).count(one))},
        rows=rows,
        outstanding=tuple(_outstanding(state, policy)),
        rejected=tuple(
            RejectedRow(entry=one.entry, team=one.team, reason=one.reason) for one in state.rejected
        ),
        rigs=tuple(_rig_rows(state, policy)),
        warnings=machines(state, results),
        requests=tuple(requests),
        exit_code=None if state.closed is None else state.closed.exit_code,
    )


def _published_of(state: CampaignState, policy: Policy, team: TeamState) -> Published:
    """Looked at again only when something of the team happened."""
    key = ("published", team.team)
    now = (policy, state.opened_n, state.team_changes(team.team))
    match state.memo.get(key):
        case (kept_for, Published() as kept) if kept_for == now:
            return kept
    found = published_of(state, policy, team)
    state.memo[key] = now, found
    return found


def _tasks_of(results: Iterable[Published]) -> tuple[str, ...]:
    names: set[str] = set()
    for one in results:
        if one.result is not None and one.result.end is not None:
            names |= {key.partition("/")[0] for key in one.result.end.runtimes_s}
        if one.result is not None and one.result.scored is not None:
            names |= one.result.scored.metrics.keys()
    return tuple(sorted(names))


def _kept_rows(
    state: CampaignState,
    policy: Policy,
    counts: Published,
    present: frozenset[str] | None,
    attempt: Attempt | None,
    progress: Progressed | None,
    tasks: tuple[str, ...],
) -> tuple[TaskRow, ...]:
    """Made anew only when something of the team happened: of a thousand teams one has changed."""
    key, team = ("rows", counts.team), state.teams[counts.team]
    here = None if present is None else tuple(one in present for one in team.uploads)
    changes = state.team_changes(counts.team)
    now = (policy, state.opened_n, changes, here, progress, tasks)
    match state.memo.get(key):
        case (kept_for, tuple() as kept) if kept_for == now:
            return kept
    found = tuple(_rows(state, policy, counts, present, attempt, progress, tasks))
    state.memo[key] = now, found
    return found


def _rows(
    state: CampaignState,
    policy: Policy,
    counts: Published,
    present: frozenset[str] | None,
    attempt: Attempt | None,
    progress: Progressed | None,
    tasks: tuple[str, ...],
) -> Iterator[TaskRow]:
    team = state.teams[counts.team]
    stands = [standing(state, policy, one) for one in counted_uploads(team, policy)]
    shown = _shown(stands)
    row = TaskRow(
        team=team.team,
        display_name=_display_name(team, policy),
        task=None,
        state=_row_state(shown, present, is_dropped=dropped(team, policy) is not None),
        notes=tuple(_notes(policy, team, counts, stands)),
    ).model_copy(update={**_upload_of(state, counts, shown), **_result(counts)})
    if attempt is not None:
        row = row.model_copy(update=_under_way(attempt, progress))
    only = None if counts.upload is None else counts.upload.tasks
    if shown_tasks := [name for name in tasks if only is None or name in only]:
        for task in shown_tasks:
            yield row.model_copy(update=_of_task(counts, task))
    else:
        yield row


def _shown(stands: Sequence[Standing]) -> Standing | None:
    """That which tells most about what is still to be done for a team."""
    order = [Stand.UNDER_WAY, Stand.OUTSTANDING, Stand.GIVEN_UP, Stand.DONE, Stand.DROPPED]
    return min(stands, key=lambda one: order.index(one.stand), default=None)


def _row_state(
    shown: Standing | None, present: frozenset[str] | None, *, is_dropped: bool
) -> RowState:
    """A team that is dropped is that, whatever results it has: they are published no more."""
    if is_dropped and (shown is None or shown.stand is not Stand.UNDER_WAY):
        return RowState.DROPPED
    if shown is None:
        return RowState.NOTHING
    if shown.stand is Stand.OUTSTANDING:
        here = present is None or shown.upload.id in present
        return RowState.QUEUED if here else RowState.ABSENT
    return {
        Stand.UNDER_WAY: RowState.RUNNING,
        Stand.DONE: RowState.DONE,
        Stand.GIVEN_UP: RowState.GIVEN_UP,
        Stand.DROPPED: RowState.DROPPED,
    }[shown.stand]


def _display_name(team: TeamState, policy: Policy) -> str | None:
    override = policy.teams.get(team.team)
    if override is not None and override.display_name is not None:
        return override.display_name
    return team.info.display_name


def _notes(
    policy: Policy, team: TeamState, counts: Published, stands: Sequence[Standing]
) -> Iterator[str]:
    if (out := dropped(team, policy)) is not None:
        yield out
    for one in stands:
        waits = one.stand is Stand.OUTSTANDING and one.number > 1
        if waits or one.stand is Stand.GIVEN_UP:
            yield f"{one.upload.entry}: {one.why}"
    for text in counts.differences:
        yield f"made under other conditions: {text}"
    if counts.result is not None and counts.result.scored is not None:
        scored = counts.result.scored
        if scored.problem is not None:
            yield f"not scored: {scored.problem}"


def _upload_of(
    state: CampaignState, counts: Published, shown: Standing | None
) -> dict[str, object]:
    waits = shown is not None and shown.stand in {Stand.UNDER_WAY, Stand.OUTSTANDING}
    upload = shown.upload if shown is not None and waits else counts.upload
    if upload is None:
        return {}
    return {
        "upload": upload.entry,
        "upload_id": upload.id,
        "attempts": len(state.of_upload(upload.id)),
    }


def _result(counts: Published) -> dict[str, object]:
    told: dict[str, object] = {"published": counts.reason}
    if counts.result is None or counts.result.end is None:
        return told
    end = counts.result.end
    return told | {
        "verdict": str(end.status or end.outcome),
        "reason": end.reason,
        "run_id": counts.result.started.run_id,
        "valid_fields": end.valid_fields,
        "expected_fields": end.expected_fields,
        "suspect": counts.doubt,
    }


def _of_task(counts: Published, task: str) -> dict[str, object]:
    told: dict[str, object] = {"task": task}
    if counts.result is None or counts.result.end is None:
        return told
    runtimes_s = [
        value
        for key, value in counts.result.end.runtimes_s.items()
        if key.partition("/")[0] == task
    ]
    told["median_runtime_s"] = median(runtimes_s) if runtimes_s else None
    if (scored := counts.result.scored) is not None:
        told["gain"] = scored.gains.get(task)
        told["metrics"] = scored.metrics.get(task, {})
        told["lacking"] = scored.lacking.get(task, 0)
    return told


def _under_way(attempt: Attempt, one: Progressed | None) -> dict[str, object]:
    told: dict[str, object] = {"state": RowState.RUNNING, "place": attempt.started.place.name}
    if one is None:
        return told
    if one.progress is None:
        return told | {"state": RowState.IMPORTING, "doing": one.doing}
    of = "" if one.pairs is None else f"/{one.pairs}"
    return told | {"doing": f"{one.progress.done}{of} pairs"}


def _outstanding(state: CampaignState, policy: Policy) -> Iterator[OutstandingRow]:
    kept = state.memo.get("outstanding rows")
    before: dict[str, tuple[Standing, OutstandingRow]] = kept if isinstance(kept, dict) else {}
    now: dict[str, tuple[Standing, OutstandingRow]] = {}
    for one in outstanding(state, policy):
        known = before.get(one.upload.id)
        row = known[1] if known is not None and known[0] is one else _outstanding_row(one)
        now[row.upload_id] = one, row
        yield row
    state.memo["outstanding rows"] = now


def _outstanding_row(one: Standing) -> OutstandingRow:
    return OutstandingRow(
        team=one.upload.team,
        upload=one.upload.entry,
        upload_id=one.upload.id,
        number=one.number,
        why=one.why,
    )


def _rig_rows(state: CampaignState, policy: Policy) -> Iterator[RigRow]:
    under_way: dict[str, list[str]] = {}
    for one in state.under_way():
        under_way.setdefault(one.started.place.rig, []).append(one.started.team)
    for rig in state.rigs():
        key = ("rig row", rig)
        now = (policy, state.conditions, state.opened_n, state.rig_changes(rig))
        match state.memo.get(key):
            case (kept_for, RigRow() as kept) if kept_for == now:
                yield kept
            case _:
                found = _rig_row(state, policy, rig, tuple(under_way.get(rig, ())))
                state.memo[key] = now, found
                yield found


def _rig_row(state: CampaignState, policy: Policy, rig: str, under_way: tuple[str, ...]) -> RigRow:
    attempts = state.on_rig(rig)
    place = attempts[-1].started.place
    good = [one for one in attempts if is_good(one) and state.is_current(one)]
    now = rig_state(state, policy, place)
    calibrated = policy.calibration.source is not None
    return RigRow(
        rig=rig,
        machine_digest=attempts[-1].machine_digest,
        attempts=len(attempts),
        calibrations=len(good),
        drift_ratio=drift_ratio(state, good[-1]) if good else None,
        uncalibrated=now.since,
        under_way=under_way,
        unusable=now.unusable if calibrated else None,
    )
