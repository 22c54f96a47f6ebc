"""The campaign's file: how uploads are chosen, ordered, repeated and watched over."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from harness.campaign.upload import RESERVED_TEAMS, Team
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


_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]


class TeamOverride(_Part):
    """What the organisers say of a team, over its own team.yaml. ``image``: the name of an image,
    in place of all its files. ``drop``: why nothing of it is run."""

    display_name: _Text | None = Field(alias="name", default=None)
    contact: _Text | None = None
    image: _Text | None = None
    tasks: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    drop: _Text | None = None


class Policy(_Part):
    """``campaign.yaml``. Everything has a default, so it may be absent.

    ``order``: teams that come first, in that order; the others follow by name, or shuffled by
    ``seed``. ``uploads_per_day``: of one team, by the day (UTC) they arrived; those beyond are
    rejected. ``machine_retries``: further attempts after the machine's fault.
    ``interruption_retries``: further attempts after the harness, or its machine, died under one.
    ``suspect_reruns``: further attempts when the machine was not quiet, or had drifted.
    ``settle_time``: a watched upload is complete when it has not changed for so long.
    ``image_size``: the most that an upload may hold, uncompressed.
    ``build_time``, ``build_memory``: the most that building a folder's image may take.
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
    poll_time_s: Seconds = Field(alias="poll_time", default=5.0, gt=0)
    image_size_bytes: Bytes = Field(alias="image_size", default=40 << 30, gt=0)
    build_time_s: Seconds = Field(alias="build_time", default=3600.0, gt=0)
    build_memory_bytes: Bytes = Field(alias="build_memory", default=16 << 30, ge=8 << 20)
    after_each: Annotated[tuple[str, ...], Field(min_length=1)] | None = None

    @field_validator("order")
    @classmethod
    def _once_each(cls, order: tuple[str, ...]) -> tuple[str, ...]:
        if twice := sorted({team for team in order if order.count(team) > 1}):
            raise ValueError(f"expected every team once, found {twice[0]} twice")
        return order

    @field_validator("teams")
    @classmethod
    def _no_names_of_ours(cls, teams: dict[str, TeamOverride]) -> dict[str, TeamOverride]:
        if taken := sorted(RESERVED_TEAMS & teams.keys()):
            raise ValueError(f"expected other names than {taken[0]!r}, which is the harness's own")
        return teams
