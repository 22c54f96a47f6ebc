"""From what lies in the submissions folder to what the journal says of it, each thing once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.campaign import rules
from harness.campaign.events import UploadRejected, UploadSeen

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from harness.campaign.events import Line
    from harness.campaign.intake import Arrived, Scan
    from harness.campaign.policy import Policy
    from harness.campaign.state import CampaignState


class Admission:
    """``lines``: what the journal has. It is told of what is written later, too."""

    def __init__(self, lines: Iterable[Line] = ()) -> None:
        self._seen: dict[str, UploadSeen] = {}
        self._rejected: set[tuple[object, ...]] = set()
        for line in lines:
            self.note(line.event)

    def note(self, event: object) -> None:
        if isinstance(event, UploadSeen):
            self._seen[event.upload.id] = event
        elif isinstance(event, UploadRejected):
            self._rejected.add(_of(event))

    def events(
        self, state: CampaignState, policy: Policy, scan: Scan
    ) -> Iterator[UploadSeen | UploadRejected]:
        """Each is to be written, and ``state`` to have it, before the next is asked for: the limit
        a day counts those before."""
        for one in scan.uploads:
            event = self._taken(state, policy, one)
            if event is not None:
                yield event
        for rejected in scan.rejected:
            if _of(rejected) not in self._rejected:
                yield rejected

    def _taken(
        self, state: CampaignState, policy: Policy, one: Arrived
    ) -> UploadSeen | UploadRejected | None:
        upload, before = one.upload, self._seen.get(one.upload.id)
        if before is not None:
            # When it came is what was first written down of it. All are asked for time and again,
            # and most have not changed at all: copying each would take most of that time.
            same = before.upload == upload or before.upload == upload.model_copy(
                update={"arrived_s": before.upload.arrived_s}
            )
            if same and before.info == one.info:
                return None
            return UploadSeen(upload=upload, info=one.info)
        too_late = rules.admitted(state, upload, policy)
        if too_late is None:
            return UploadSeen(upload=upload, info=one.info)
        rejected = UploadRejected(
            entry=upload.entry,
            reason=too_late,
            team=upload.team,
            sha256=upload.sha256,
            arrived_s=upload.arrived_s,
        )
        return None if _of(rejected) in self._rejected else rejected


def _of(event: UploadRejected) -> tuple[object, ...]:
    return event.entry, event.team, event.sha256, event.reason
