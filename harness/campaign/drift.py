"""Which attempts were made while the machine was not as it should be (pure functions).

Per rig (a machine, or one GPU of it), and only for what was timed under the conditions of now. The
rules in words: docs/campaign-rules.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.campaign.calibration import drifted, is_good, rig_state
from harness.campaign.events import Suspected

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.campaign.policy import Policy
    from harness.campaign.state import Attempt, CampaignState


def new_suspicions(state: CampaignState, policy: Policy) -> tuple[Suspected, ...]:
    """To be journalled; each attempt is suspected once."""
    if policy.calibration.source is None:
        return ()
    found: list[Suspected] = []
    for rig in state.rigs():
        key = ("drift", rig)
        now = (policy.calibration, state.conditions, state.rig_changes(rig))
        if state.memo.get(key) == now:
            continue
        suspicions = tuple(_on_rig(state, policy, rig))
        if not suspicions:
            state.memo[key] = now
        found += suspicions
    return tuple(found)


def _on_rig(state: CampaignState, policy: Policy, rig: str) -> Iterator[Suspected]:
    """An attempt counts as made on a quiet rig when the calibrations before and after it are within
    the threshold, with none between that is beyond it."""
    open_attempts: list[Attempt] = []  # timed, and no calibration has ended well since
    beyond: str | None = None  # how far the last calibration was
    digest: str | None = None
    for attempt in state.on_rig(rig):
        if not state.is_current(attempt) or not attempt.is_timed:
            continue
        if attempt.machine_digest != digest:
            yield from _suspect(open_attempts, "the machine changed before it was calibrated again")
            open_attempts, beyond, digest = [], None, attempt.machine_digest
        if not is_good(attempt):
            if not attempt.is_calibration:
                open_attempts.append(attempt)
        elif (beyond := drifted(state, policy, attempt)) is None:
            open_attempts = []
        if beyond is not None:
            yield from _suspect(open_attempts, beyond)
    if open_attempts:
        last = state.on_rig(rig)[-1].started.place
        if (unusable := rig_state(state, policy, last).unusable) is not None:
            yield from _suspect(open_attempts, f"no calibration after it: {unusable}")


def _suspect(attempts: list[Attempt], reason: str) -> Iterator[Suspected]:
    """Those that are not suspected yet; ``attempts`` is emptied, so that none is told twice."""
    for attempt in attempts:
        if attempt.suspicion is None:
            yield Suspected(team=attempt.started.team, run_id=attempt.started.run_id, reason=reason)
    attempts.clear()
