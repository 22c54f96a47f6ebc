"""What a worker says of itself when it registers, and with each heartbeat."""

from __future__ import annotations

import platform
from enum import StrEnum
from importlib.metadata import version
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from harness import __version__
from harness.campaign.order import Place
from harness.engine.base import EngineName
from harness.execute import Progress

PROTOCOL = 2  # of the tasks and records in this package
FACTS = "harness_facts"  # names in what Dask passes on
NEWS = "harness_news"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Versions(_Record):
    """All must be equal: results of two harnesses cannot be compared, and Dask's messages hold
    pickles of functions."""

    harness: str
    protocol: int
    python: str
    distributed: str

    @classmethod
    def here(cls) -> Versions:
        return cls(
            harness=__version__,
            protocol=PROTOCOL,
            python=".".join(platform.python_version_tuple()[:2]),
            distributed=version("distributed"),
        )

    def differences(self, theirs: Versions) -> tuple[str, ...]:
        """Fit to follow "worker X: "."""
        names = (
            ("harness", "harness"),
            ("protocol", "protocol"),
            ("python", "Python"),
            ("distributed", "distributed"),
        )
        return tuple(
            f"has {label} {getattr(theirs, name)}, expected {getattr(self, name)}"
            for name, label in names
            if getattr(theirs, name) != getattr(self, name)
        )


class WorkerFacts(_Record):
    """``engine``: that of its runs. ``session``: another one each time its process starts."""

    versions: Versions
    place: Place
    engine: EngineName
    session: str


class Stage(StrEnum):
    UNDER_WAY = "under_way"
    MADE = "made"


class AttemptNews(_Record):
    """``doing``, ``progress``, ``pairs``: the latest of an attempt under way."""

    team: str
    run_id: str
    stage: Stage
    doing: str = ""
    progress: Progress | None = None
    pairs: int | None = None

    @property
    def key(self) -> tuple[str, str]:
        return self.team, self.run_id


class WorkerNews(_Record):
    """Every attempt that the worker still keeps."""

    schema_version: Literal[1] = 1
    attempts: tuple[AttemptNews, ...] = ()


class _VersionsAtLeast(BaseModel):
    versions: Versions


def read_facts(text: object) -> WorkerFacts | Versions | None:
    """The versions alone of a worker that says more, or less, than this harness knows; None for
    what is no worker of the harness's."""
    try:
        return WorkerFacts.model_validate_json(str(text))
    except ValidationError:
        pass
    try:
        return _VersionsAtLeast.model_validate_json(str(text)).versions
    except ValidationError:
        return None


def read_news(text: object) -> WorkerNews:
    """Without any when it cannot be read: the facts have been judged before."""
    try:
        return WorkerNews.model_validate_json(str(text))
    except ValidationError:
        return WorkerNews()
