"""What is to be begun now, and where (pure functions).

The rules in words: docs/campaign-rules.md. Who asks writes what it begins to the journal, and asks
again after each event.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.campaign.agenda import agenda
from harness.campaign.calibration import rig_state
from harness.campaign.order import AttemptKind
from harness.campaign.policy import Exclusive
from harness.campaign.upload import CALIBRATION, UploadKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.campaign.calibration import RigState
    from harness.campaign.order import Place
    from harness.campaign.policy import Policy
    from harness.campaign.standing import Standing
    from harness.campaign.state import CampaignState
    from harness.campaign.upload import Upload


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """One attempt to begin now. ``upload`` None: a calibration, whose ``team`` is
    :data:`.upload.CALIBRATION`. ``number``: 1, 2, ... of this upload, or of the calibrations of
    this rig. ``why``: what made it necessary."""

    place: Place
    kind: AttemptKind
    team: str
    upload: Upload | None
    number: int
    why: str


def next_work(
    state: CampaignState,
    policy: Policy,
    present: frozenset[str],
    places: tuple[Place, ...],
    busy: Mapping[str, tuple[str, str]],
) -> tuple[Assignment, ...]:
    """All that can begin now. ``present``: IDs of the uploads that are in the folder; ``busy``: the
    team and run ID that is under way in each place that has one.

    Nothing comes back while nothing is under way only when nothing can be done any more.
    """
    return _Round(state, policy, places, busy).assign(present)


def outstanding(state: CampaignState, policy: Policy) -> tuple[Standing, ...]:
    """Uploads that are to be run, in their order, whether or not they can be now."""
    return tuple(agenda(state, policy).outstanding())


def unusable(state: CampaignState, policy: Policy, places: tuple[Place, ...]) -> dict[str, str]:
    """Places where nothing is timed any more, by name, and why."""
    if policy.calibration.source is None:
        return {}
    rigs = {place.name: rig_state(state, policy, place).unusable for place in places}
    return {name: reason for name, reason in rigs.items() if reason is not None}


class _Round:
    """One answer of :func:`next_work`, as it is put together."""

    def __init__(
        self,
        state: CampaignState,
        policy: Policy,
        places: tuple[Place, ...],
        busy: Mapping[str, tuple[str, str]],
    ) -> None:
        self._state, self._policy = state, policy
        self._taken = set(busy) | {one.started.place.name for one in state.under_way()}
        self._taken_machines = {place.machine for place in places if place.name in self._taken}
        self._taken_machines |= {one.started.place.machine for one in state.under_way()}
        self._places = places
        self._free = [place for place in places if self._is_free(place)]
        # Begun in this round, so not yet in the journal.
        self._begun: dict[str, int] = {}
        self._calibrating: set[str] = set()
        self._assignments: list[Assignment] = []

    @property
    def _calibrates(self) -> bool:
        return self._policy.calibration.source is not None

    def _rig(self, place: Place) -> RigState:
        return rig_state(self._state, self._policy, place)

    def _is_usable(self, place: Place) -> bool:
        """May anything be timed there, now or when it is free again?"""
        return not self._calibrates or self._rig(place).unusable is None

    def assign(self, present: frozenset[str]) -> tuple[Assignment, ...]:
        full = False  # for what is timed: what finds no place leaves none for those after it
        for standing in agenda(self._state, self._policy).outstanding():
            if not self._free:
                break
            is_fields = standing.upload.kind is UploadKind.FIELDS
            if (full and not is_fields) or standing.upload.id not in present:
                continue
            if is_fields:
                self._begin(self._free[0], standing)
            elif not self._find_place(standing) and not standing.avoid:
                full = True
        if self._calibrates:
            for place in tuple(self._free):
                self._close(place)
        return tuple(self._assignments)

    def _find_place(self, standing: Standing) -> bool:
        """Begin it, or the calibration that must come before it."""
        suited = [place for place in self._free if self._suits(place, standing)]
        for place in suited:
            if self._is_ready(place):
                self._begin(place, standing)
                return True
        for place in suited:
            if not self._calibrates:
                break
            rig = self._rig(place)
            if rig.due is not None and rig.under_way == 0 and place.rig not in self._begun:
                self._calibrate(place, f"{rig.due} on {place.rig}")
                return True
        return False

    def _suits(self, place: Place, standing: Standing) -> bool:
        """Where the machine was in the way once, another is preferred, if there is one that is
        free or will be."""
        if not self._is_usable(place):
            return False
        avoid = standing.avoid
        if not avoid:
            return True
        machines = {one.machine for one in avoid}
        usable = [one for one in self._places if self._is_usable(one)]
        if any(one.machine not in machines for one in usable):
            return place.machine not in machines
        names = {one.name for one in avoid}
        if any(one.name not in names for one in usable):
            return place.name not in names
        return True

    def _is_ready(self, place: Place) -> bool:
        if not self._calibrates:
            return True
        rig = self._rig(place)
        return (
            rig.due is None
            and not rig.calibrating
            and place.rig not in self._calibrating
            and rig.left > self._begun.get(place.rig, 0)
        )

    def _close(self, place: Place) -> None:
        """A calibration after the last attempt."""
        rig = self._rig(place)
        idle = rig.under_way == 0 and place.rig not in self._begun
        usable = self._is_free(place) and rig.unusable is None
        if usable and idle and rig.since > 0:
            self._calibrate(place, rig.due or f"after the last attempt on {place.rig}")

    def _begin(self, place: Place, standing: Standing) -> None:
        timed = standing.upload.kind is not UploadKind.FIELDS
        self._begun[place.rig] = self._begun.get(place.rig, 0) + timed
        self._take(
            Assignment(
                place=place,
                kind=AttemptKind.SUBMISSION,
                team=standing.upload.team,
                upload=standing.upload,
                number=standing.number,
                why=standing.why,
            )
        )

    def _calibrate(self, place: Place, why: str) -> None:
        self._calibrating.add(place.rig)
        self._begun[place.rig] = self._begun.get(place.rig, 0) + 1
        made = sum(one.is_calibration for one in self._state.on_rig(place.rig))
        self._take(
            Assignment(
                place=place,
                kind=AttemptKind.CALIBRATION,
                team=CALIBRATION,
                upload=None,
                number=made + 1,
                why=why,
            )
        )

    def _take(self, assignment: Assignment) -> None:
        self._assignments.append(assignment)
        self._taken.add(assignment.place.name)
        self._taken_machines.add(assignment.place.machine)
        self._free = [place for place in self._free if self._is_free(place)]

    def _is_free(self, place: Place) -> bool:
        if place.name in self._taken:
            return False
        alone = self._policy.exclusive is Exclusive.MACHINE
        return not (alone and place.machine in self._taken_machines)
