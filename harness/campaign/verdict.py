"""The exit code of a campaign: of the worst that is the organisers' to mend (a pure function)."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from harness.campaign.calibration import rig_state
from harness.campaign.rules import published_of
from harness.campaign.standing import Stand, counted_uploads, dropped, standing
from harness.errors import Blame, CampaignError, Interrupted, MachineError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.campaign.order import JobEnd
    from harness.campaign.policy import Policy
    from harness.campaign.standing import Standing
    from harness.campaign.state import CampaignState, TeamState

# See docs/exit-codes.md: 20 to 24 and 40 to 45 are a team's own.
_CONFIGURATION_CODES = range(2, 20)


def exit_code(state: CampaignState, policy: Policy, present: frozenset[str] | None = None) -> int:
    """0 when every upload that counts has a result, or lacks one by its team's own doing.

    Else of the worst: what is the configuration's before what is the machine's, and what was
    interrupted last; of several codes the one that most uploads have, of those the lowest.
    ``present``: IDs of the uploads in the folder, if they are known: others are not missed.
    """
    codes: dict[int, Counter[int]] = {0: Counter(), 1: Counter(), 2: Counter()}
    for team in state.teams.values():
        if dropped(team, policy) is None:
            for code, blame in _of_team(state, policy, team, present):
                codes[_worse(code, blame)][code] += 1
    for counted in codes.values():
        if counted:
            return min(counted, key=lambda code: (-counted[code], code))
    return 0


def _worse(code: int, blame: Blame) -> int:
    if code == Interrupted.exit_code:
        return 2
    return 0 if blame is Blame.CONFIGURATION else 1


def _of_team(
    state: CampaignState, policy: Policy, team: TeamState, present: frozenset[str] | None
) -> Iterator[tuple[int, Blame]]:
    for upload in counted_uploads(team, policy):
        stands = standing(state, policy, upload)
        if stands.stand is Stand.GIVEN_UP:
            yield from _of_last(stands)
        elif stands.stand in {Stand.OUTSTANDING, Stand.UNDER_WAY}:
            here = present is None or upload.id in present
            yield from _of_waiting(state, policy, stands, here=here, known=present is not None)
    yield from _of_scoring(state, policy, team)


def _of_last(stands: Standing) -> Iterator[tuple[int, Blame]]:
    end = None if stands.last is None else stands.last.end
    if end is not None and not end.is_final:
        yield _told(end)


def _told(end: JobEnd) -> tuple[int, Blame]:
    """A reference image that fails by itself is the organisers' to mend."""
    if end.blame is Blame.CONFIGURATION:
        return end.exit_code or CampaignError.exit_code, Blame.CONFIGURATION
    if end.blame is Blame.MACHINE:
        code = Interrupted.exit_code if end.is_interrupted else end.exit_code
        return code or MachineError.exit_code, Blame.MACHINE
    return CampaignError.exit_code, Blame.CONFIGURATION


def _of_waiting(
    state: CampaignState, policy: Policy, stands: Standing, *, here: bool, known: bool
) -> Iterator[tuple[int, Blame]]:
    if not here:
        return
    tried = list(_of_last(stands))
    failed = list(_of_calibrations(state, policy))
    if tried or failed:
        yield from failed or tried
    elif stands.stand is Stand.UNDER_WAY:
        yield Interrupted.exit_code, Blame.MACHINE
    elif known:  # it could be run, and there was no place for it
        yield MachineError.exit_code, Blame.MACHINE


def _of_calibrations(state: CampaignState, policy: Policy) -> Iterator[tuple[int, Blame]]:
    """Of each rig that is given up."""
    if policy.calibration.source is None:
        return
    for rig in state.rigs():
        place = state.on_rig(rig)[-1].started.place
        if rig_state(state, policy, place).unusable is not None:
            for attempt in reversed(state.on_rig(rig)):
                if attempt.is_calibration and attempt.end is not None:
                    yield _told(attempt.end)
                    break


def _of_scoring(
    state: CampaignState, policy: Policy, team: TeamState
) -> Iterator[tuple[int, Blame]]:
    """A result that counts, and could not be scored."""
    result = published_of(state, policy, team).result
    scored = None if result is None else result.scored
    if scored is None or scored.problem is None:
        return
    if scored.exit_code in _CONFIGURATION_CODES:
        yield scored.exit_code, Blame.CONFIGURATION
    elif scored.exit_code == 1 or scored.exit_code >= MachineError.exit_code:
        yield scored.exit_code, Blame.MACHINE
