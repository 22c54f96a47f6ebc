"""From what is decided to what the job function is told (pure functions)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from harness.campaign.order import AttemptKind, JobOrder, KnownRun, Outcome, Source
from harness.campaign.upload import UploadKind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.campaign.conditions import Conditions
    from harness.campaign.events import AttemptStarted
    from harness.campaign.policy import Exclusive
    from harness.campaign.state import CampaignState
    from harness.campaign.upload import Upload
    from harness.challenge.model import Challenge


def new_run_id(state: CampaignState, runs_dir: Path, team: str, now_s: float) -> str:
    """The time it begins (UTC), as :meth:`.store.RunDirectory.create` names a run, but never one
    that the journal or the disk has: a run that was removed by hand keeps its name."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now_s))
    taken = {one.started.run_id for one in state.of_team(team)}
    number = 0
    while True:
        name = f"{stamp}-{number}" if number else stamp
        if name not in taken and not (runs_dir / team / name).exists():
            return name
        number += 1


def source_of(upload: Upload) -> Source:
    return Source(
        kind=upload.kind,
        sha256=upload.sha256,
        entry=upload.entry,
        path=upload.path,
        reference=upload.entry if upload.kind is UploadKind.IMAGE else None,
        size_bytes=upload.size_bytes,
    )


def known_runs(state: CampaignState, upload: Upload, conditions: Conditions) -> Iterator[KnownRun]:
    """Finished runs of its team that hold for this upload too, should it be the same image: over
    the same tasks, none that is suspect, or from before the organisers asked for another."""
    retried_n = state.teams[upload.team].retried_n or 0
    for one in state.of_team(upload.team):
        end = one.end
        if (
            end is not None
            and end.outcome is Outcome.RAN
            and end.image_id is not None
            and end.is_final
            and one.doubt is None
            and one.n > retried_n
            and one.tasks == upload.tasks
            and one.conditions == conditions
        ):
            yield KnownRun(image_id=end.image_id, run_id=one.started.run_id)


def order_of(
    started: AttemptStarted,
    state: CampaignState,
    *,
    conditions: Conditions,
    challenge: Challenge,
    challenge_text: str | None,
    changed_limits: tuple[str, ...],
    calibration: Source | None,
    exclusive: Exclusive,
) -> JobOrder | None:
    """None for a calibration whose reference image is no longer named."""
    tasks: tuple[str, ...] | None = None
    known: tuple[KnownRun, ...] = ()
    if started.kind is AttemptKind.CALIBRATION:
        if calibration is None:
            return None
        source = calibration
    else:
        upload = state.teams[started.team].uploads[started.upload or ""]
        source, tasks = source_of(upload), upload.tasks
        known = tuple(known_runs(state, upload, conditions))
    return JobOrder(
        kind=started.kind,
        team=started.team,
        run_id=started.run_id,
        source=source,
        conditions=conditions,
        challenge=challenge,
        challenge_text=challenge_text,
        changed_limits=changed_limits,
        tasks=tasks,
        known=known,
        gpu=started.place.gpu,
        exclusive=exclusive,
    )
