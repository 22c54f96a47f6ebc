"""``status.json``, which is also what `harness status --json` prints: where everything stands."""

from __future__ import annotations

from enum import StrEnum
from statistics import median
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

from harness.campaign.calibration import drift_ratio, is_good, rig_state
from harness.campaign.conditions import Conditions
from harness.campaign.decide import outstanding
from harness.campaign.drift import machines
from harness.campaign.policy import Counted
from harness.campaign.rules import Published, published_of
from harness.campaign.standing import Stand, Standing, counted_uploads, dropped, standing
from harness.campaign.verdict import exit_code

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from harness.campaign.crew import Progressed
    from harness.campaign.policy import Policy
    from harness.campaign.state import Attempt, CampaignState, TeamState

__all__ = ["RowState", "StatusRecord", "TaskRow", "campaign_status", "exit_code"]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RowState(StrEnum):
    """NOTHING: the team handed in nothing that was taken. ABSENT: what is to be run is not in the
    submissions folder. IMPORTING: an image is read or built. GIVEN_UP: nothing more is tried by
    itself, and there is no result."""

    NOTHING = "nothing"
    QUEUED = "queued"
    ABSENT = "absent"
    IMPORTING = "importing"
    RUNNING = "running"
    DONE = "done"
    GIVEN_UP = "given_up"
    DROPPED = "dropped"


class TaskRow(_Record):
    """One team's work on one task; ``task`` None while no task is known. ``doing``: what is under
    way, such as "3/8 pairs". ``upload`` is what it is called in the folder, of the published
    result or of what waits to be run. ``attempts``: of that upload, so far.

    What follows is of the published result, None or empty where there is none: ``verdict`` (how
    the run ended, or what else became of the attempt), ``reason``, ``run_id``,
    ``median_runtime_s`` over the task's pairs, ``gain``, ``metrics`` (means over the cases that
    have a field) and ``lacking`` (how many have none, so that these means are not those of
    others), ``suspect`` (why its runtimes are not ranked), ``published`` (why it is the one that
    counts). Texts may be a submission's own words.
    """

    team: str
    display_name: str | None
    task: str | None
    state: RowState
    doing: str | None = None
    place: str | None = None
    upload: str | None = None
    upload_id: str | None = None
    attempts: int = 0
    verdict: str | None = None
    reason: str | None = None
    run_id: str | None = None
    valid_fields: int | None = None
    expected_fields: int | None = None
    median_runtime_s: float | None = None
    gain: float | None = None
    metrics: dict[str, float | None] = {}
    lacking: int = 0
    suspect: str | None = None
    published: str | None = None
    notes: tuple[str, ...] = ()


class OutstandingRow(_Record):
    """In the order in which they are run."""

    team: str
    upload: str
    upload_id: str
    number: int
    why: str


class RigRow(_Record):
    """A machine, or one GPU of it. ``drift_ratio``: of its last good calibration, see
    docs/campaign-rules.md; ``uncalibrated``: timed attempts since; ``under_way``: teams."""

    rig: str
    machine_digest: str | None
    attempts: int
    calibrations: int
    drift_ratio: float | None
    uncalibrated: int
    under_way: tuple[str, ...]
    unusable: str | None


class RejectedRow(_Record):
    entry: str
    team: str | None
    reason: str


class StatusRecord(_Record):
    """``journal_lines``: how many this is the sum of. ``teams``: how many are in each state.
    ``exit_code``: of the command that ended by itself, None while one goes on or was killed.
    ``warnings``: what must be known before runtimes are compared. ``requests``: asked for, and not
    yet taken up."""

    schema_version: Literal[1] = 1
    journal_lines: int
    title: str | None
    counted: Counted
    conditions: Conditions | None
    teams: dict[RowState, int]
    rows: tuple[TaskRow, ...]
    outstanding: tuple[OutstandingRow, ...]
    rejected: tuple[RejectedRow, ...]
    rigs: tuple[RigRow, ...]
    warnings: tuple[str, ...]
    requests: tuple[str, ...] = ()
    exit_code: int | None = None


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
        for row in _rows(
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
        rigs=tuple(_rig_row(state, policy, rig) for rig in state.rigs()),
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
    for one in outstanding(state, policy):
        yield OutstandingRow(
            team=one.upload.team,
            upload=one.upload.entry,
            upload_id=one.upload.id,
            number=one.number,
            why=one.why,
        )


def _rig_row(state: CampaignState, policy: Policy, rig: str) -> RigRow:
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
        under_way=tuple(
            one.started.team for one in state.under_way() if one.started.place.rig == rig
        ),
        unusable=now.unusable if calibrated else None,
    )
