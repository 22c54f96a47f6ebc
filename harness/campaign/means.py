"""What a conductor is given: a campaign that was checked, and the means to make its attempts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.campaign.conditions import Conditions
    from harness.campaign.crew import Crew
    from harness.campaign.folder import CampaignFolder
    from harness.campaign.intake import Intake
    from harness.campaign.order import JobEnd, Source
    from harness.campaign.policy import Policy
    from harness.campaign.scorer import Scorer
    from harness.challenge.model import Challenge
    from harness.store import RunDirectory


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """What a command was asked for, checked. ``calibration``: None where there is no reference
    image, so that drift cannot be told; the policy says the same. The policy's seed is the one that
    holds."""

    folder: CampaignFolder
    policy: Policy
    conditions: Conditions
    challenge: Challenge
    challenge_text: str | None = None
    changed_limits: tuple[str, ...] = ()
    calibration: Source | None = None
    watch: bool = False

    @property
    def task_names(self) -> tuple[str, ...]:
        return tuple(task.name for task in self.challenge.tasks)


@dataclass(frozen=True, kw_only=True)
class Means:
    """``ready`` raises EngineError while no attempt can be made (the engine is gone). ``find_out``:
    what became of an attempt whose maker is gone; raises EngineError, OutputError."""

    crew: Crew
    intake: Intake
    scorer: Scorer
    ready: Callable[[], None]
    find_out: Callable[[RunDirectory], JobEnd]
