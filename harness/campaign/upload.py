"""What a team handed in."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from harness.store import LOCAL_SUBMISSION

MAX_TEAM_CHARACTERS = 64
TEAM_PATTERN = rf"^[a-z0-9][a-z0-9._-]{{0,{MAX_TEAM_CHARACTERS - 1}}}$"
# Names that folders of runs have already: dry runs', and the reference image's.
CALIBRATION = "_calibration"
RESERVED_TEAMS = frozenset({LOCAL_SUBMISSION})


def _is_team(name: str) -> str:
    if not re.fullmatch(TEAM_PATTERN, name):
        raise ValueError(
            f"expected at most {MAX_TEAM_CHARACTERS} lower-case letters, digits, ., _ and -, a "
            f"letter or digit first, found {name[:MAX_TEAM_CHARACTERS]!r}"
        )
    return name


Team = Annotated[str, AfterValidator(_is_team)]
Sha256 = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class UploadKind(StrEnum):
    """ARCHIVE: an image's file, as `docker save` makes it. IMAGE: the name of one that is here.
    FOLDER: with a Dockerfile. FIELDS: a zip of fields, which is checked and scored and never
    run."""

    ARCHIVE = "archive"
    IMAGE = "image"
    FOLDER = "folder"
    FIELDS = "fields"


class TeamInfo(_Record):
    """What a team says of itself; text of anybody's, so to be escaped where it is shown.

    ``declared``: resources that it says it needs, such as ("memory", "8GiB"): never more than the
    challenge's limits are given.
    """

    display_name: str | None = None
    contact: str | None = None
    declared: tuple[tuple[str, str], ...] = ()


class Upload(_Record):
    """One upload, complete. ``sha256`` is of its content: a file's bytes, a folder's tree, for the
    name of an image its ID. ``entry`` is what it is called in the submissions folder (or the
    image's name); ``path`` where it lies, None for the name of an image. ``arrived_s``: when it was
    complete, seconds since 1970 UTC. ``tasks``: those that the team takes part in; None for all.
    """

    team: Team
    kind: UploadKind
    entry: str
    path: Path | None
    sha256: Sha256
    size_bytes: int | None
    arrived_s: float
    tasks: tuple[str, ...] | None = None

    @property
    def id(self) -> str:
        """The same upload, however its file is called: renaming makes no new one."""
        return f"{self.team}/{self.kind}-{self.sha256.removeprefix('sha256:')[:16]}"
