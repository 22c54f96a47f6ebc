"""The campaign's file: how uploads are chosen, ordered, repeated and watched over."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.campaign.upload import Team
from harness.challenge.quantity import Bytes, Seconds


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Counted(StrEnum):
    """Which of a team's uploads is published. BEST: by the mean over the challenge's tasks of how
    far its fields go from the zero field to a perfect one (:mod:`.rules`)."""

    LATEST = "latest"
    BEST = "best"


class Exclusive(StrEnum):
    """What a timed run has for itself: its whole machine, or one GPU of it."""

    MACHINE = "machine"
    GPU = "gpu"


class Calibration(_Part):
    """``source``: of the reference image: a folder with a Dockerfile, an image's name or file; None
    for no calibration. ``every``: after so many attempts; also before the first and after the last.
    ``threshold``: the most by which the median of the pairs' runtime ratios to the machine's first
    calibration may differ from 1."""

    source: str | None = "."
    every: Annotated[int, Field(ge=1)] = 5
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.1


class TeamOverride(_Part):
    """What the organisers say of a team, over its own team.yaml. ``image``: the name of an image,
    in place of a file. ``drop``: why nothing of it is run."""

    display_name: str | None = None
    contact: str | None = None
    image: str | None = None
    tasks: tuple[str, ...] | None = None
    drop: str | None = None


class Policy(_Part):
    """``campaign.yaml``. Everything has a default, so it may be absent.

    ``order``: teams that come first, in that order; the others follow by name, or shuffled by
    ``seed``. ``uploads_per_day``: of one team, by the day (UTC) they arrived; those beyond are
    rejected. ``machine_retries``: further attempts after the machine's fault.
    ``interruption_retries``: further attempts after the harness, or its machine, died under one.
    ``suspect_reruns``: further attempts when the machine was not quiet, or had drifted.
    ``settle_time``: an upload is complete when it has not changed for so long.
    ``after_each``: a command to run after each attempt, never while one is timed.
    """

    schema_version: Literal[1] = 1
    title: str | None = None
    order: tuple[Team, ...] = ()
    seed: int | None = None
    teams: dict[Team, TeamOverride] = Field(default_factory=dict)
    counted: Counted = Counted.LATEST
    uploads_per_day: Annotated[int, Field(ge=1)] | None = None
    machine_retries: Annotated[int, Field(ge=0, le=20)] = 2
    interruption_retries: Annotated[int, Field(ge=0, le=1000)] = 20
    suspect_reruns: Annotated[int, Field(ge=0, le=20)] = 1
    exclusive: Exclusive = Exclusive.MACHINE
    calibration: Calibration = Calibration()
    settle_time_s: Seconds = Field(alias="settle_time", default=10.0)
    poll_time_s: Seconds = Field(alias="poll_time", default=5.0)
    image_size_bytes: Bytes = Field(alias="image_size", default=40 << 30, gt=0)
    after_each: tuple[str, ...] | None = None
