"""What the calibrations of a rig say: may anything be timed there? (Pure functions.)

A rig is a machine, or one GPU of it (:attr:`.order.Place.rig`): what may get slower by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from harness.campaign.order import Outcome
from harness.campaign.state import Attempt
from harness.campaign.upload import UploadKind

if TYPE_CHECKING:
    from harness.campaign.order import Place
    from harness.campaign.policy import Policy
    from harness.campaign.state import CampaignState


@dataclass(frozen=True, kw_only=True)
class RigState:
    """``due``: why a calibration must end well before anything is timed there; None: none must.
    ``left``: how many attempts may begin before it is. ``since``: timed attempts since the last
    good one. ``under_way``: attempts, ``calibrating`` whether one is a calibration. ``unusable``:
    why no calibration is tried any more, until somebody takes the campaign up again."""

    due: str | None
    left: int
    since: int
    under_way: int
    calibrating: bool
    unusable: str | None


def is_good(attempt: Attempt) -> bool:
    """A calibration that others can be compared with."""
    end = attempt.end
    return (
        attempt.is_calibration
        and end is not None
        and end.outcome is Outcome.RAN
        and end.blame is None
        and end.is_timed
        and any(value > 0 for value in end.runtimes_s.values())
    )


def baseline(state: CampaignState, rig: str, digest: str | None) -> Attempt | None:
    """The calibration that the others of this rig, with this fingerprint, under the conditions of
    now, are measured by: the first good one on a quiet machine, or else the first good one."""
    key = ("baseline", rig, digest)
    match state.memo.get(key):
        case (kept_for, Attempt() as kept) if kept_for is state.conditions:
            return kept
    first = None
    for attempt in state.on_rig(rig):
        if is_good(attempt) and state.is_current(attempt) and attempt.machine_digest == digest:
            if attempt.doubt is None:
                state.memo[key] = state.conditions, attempt
                return attempt
            first = first or attempt
    return first


def runtime_ratio(before: Attempt, now: Attempt) -> float | None:
    """How many times as long the second took: the median over the pairs that both have a runtime
    of; None when there are none."""
    if before.end is None or now.end is None:
        return None
    now_s = now.end.runtimes_s
    ratios = [
        now_s[key] / was_s
        for key, was_s in before.end.runtimes_s.items()
        if was_s > 0 and now_s.get(key, 0.0) > 0
    ]
    return median(ratios) if ratios else None


def drift_ratio(state: CampaignState, calibration: Attempt) -> float | None:
    """How much slower than the baseline a good calibration is: the median over the pairs that both
    have, 0 when it is as fast, negative when it is faster. None: they have no pair in common."""
    first = baseline(state, calibration.started.place.rig, calibration.machine_digest)
    if first is None:
        return None
    key = ("drift ratio", calibration.key)
    match state.memo.get(key):
        case (kept_for, float() | None as kept) if kept_for is first:
            return kept
    ratio = runtime_ratio(first, calibration)
    drift = None if ratio is None else ratio - 1
    state.memo[key] = first, drift
    return drift


def drifted(state: CampaignState, policy: Policy, calibration: Attempt) -> str | None:
    """By how much a good calibration is beyond the threshold; None when it is within."""
    drift = drift_ratio(state, calibration)
    if drift is None:
        return f"{_where(calibration)} has no pair in common with the first calibration there"
    threshold = policy.calibration.threshold
    if abs(drift) <= threshold:
        return None
    faster = "slower" if drift > 0 else "faster"
    return (
        f"{_where(calibration)} was {abs(drift):.1%} {faster} than the first one there, "
        f"of {threshold:.0%} allowed"
    )


def _where(calibration: Attempt) -> str:
    return f"calibration {calibration.started.run_id} on {calibration.started.place.rig}"


def rig_state(state: CampaignState, policy: Policy, place: Place) -> RigState:
    """Of the rig that ``place`` is, as its machine is now: its fingerprint may have changed."""
    key = ("rig", place.rig, place.machine_digest)
    now = (policy, state.conditions, state.opened_n, state.rig_changes(place.rig))
    match state.memo.get(key):
        case (kept_for, RigState() as kept) if kept_for == now:
            return kept
    found = _look(state, policy, place)
    state.memo[key] = now, found
    return found


def _look(state: CampaignState, policy: Policy, place: Place) -> RigState:
    good: Attempt | None = None
    failed: list[Attempt] = []
    since = under_way = calibrations_under_way = 0
    first = "before the first attempt"
    for attempt in reversed(state.on_rig(place.rig)):
        if attempt.end is None:
            under_way += 1
            calibrations_under_way += attempt.is_calibration
        if not state.is_current(attempt):
            continue
        if attempt.started.place.machine_digest != place.machine_digest:
            first = "the machine is not what it was"
            break
        if attempt.is_calibration:
            if is_good(attempt):
                good = attempt
                break
            if attempt.end is not None:
                failed.append(attempt)
        elif attempt.is_timed or (attempt.end is None and _is_run(state, attempt)):
            since += 1
    left = policy.calibration.every - since
    return RigState(
        due=_due(state, policy, good=good, failed=failed, left=left, first=first),
        left=left,
        since=since,
        under_way=under_way,
        calibrating=calibrations_under_way > 0,
        unusable=_unusable(policy, [one for one in failed if one.n > state.opened_n]),
    )


def _due(
    state: CampaignState,
    policy: Policy,
    *,
    good: Attempt | None,
    failed: list[Attempt],
    left: int,
    first: str,
) -> str | None:
    if failed:
        end = failed[0].end
        return f"again, as it failed ({'' if end is None else end.reason}),"
    if good is None:
        return first
    if left <= 0:
        return f"after {policy.calibration.every} attempts"
    return _due_for_drift(state, policy, good)


def _due_for_drift(state: CampaignState, policy: Policy, good: Attempt) -> str | None:
    """What is run on a machine that has drifted is suspect at once, so it is given time to come
    back; one that does not is used as it is."""
    if drifted(state, policy, good) is None:
        return None
    tried = 0
    for attempt in reversed(state.on_rig(good.started.place.rig)):
        if attempt.is_calibration and state.is_current(attempt):
            if not is_good(attempt) or drifted(state, policy, attempt) is None:
                break
            tried += 1
            if tried > policy.machine_retries:
                return None
    return "again, as it drifted,"


def _unusable(policy: Policy, failed: list[Attempt]) -> str | None:
    """``failed``: in a row, the last one first."""
    ends = [attempt.end for attempt in failed if attempt.end is not None]
    faults = [end for end in ends if not end.is_interrupted]
    if len(faults) > policy.machine_retries:
        return f"its calibration failed {len(faults)} times in a row: {_told(faults[0].reason)}"
    if len(ends) - len(faults) > policy.interruption_retries:
        return f"its calibration was interrupted {len(ends) - len(faults)} times in a row"
    return None


def _told(reason: str) -> str:
    return reason or "no reason is known"


def _is_run(state: CampaignState, attempt: Attempt) -> bool:
    """Fields are checked, and not timed."""
    team = state.teams.get(attempt.started.team)
    upload = None if team is None else team.uploads.get(attempt.started.upload or "")
    return upload is None or upload.kind is not UploadKind.FIELDS
