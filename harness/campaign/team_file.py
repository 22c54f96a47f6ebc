"""team.yaml: what a team says of itself. Anybody may have written anything there.

It is small, plain YAML: no aliases, which a few lines of can fill the memory with, and no tags.
What decides what is run (``team``, ``tasks``, ``image``) must be right; anything else that is wrong
is told, and left out.
"""

from __future__ import annotations

import math
import os
import re
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, field_validator

from harness.beneath import open_beneath
from harness.campaign.policy_file import unknown_tasks
from harness.campaign.upload import RESERVED_TEAMS, Team, TeamInfo
from harness.challenge.findings import findings, kind_of
from harness.challenge.quantity import Bytes, Seconds, format_bytes
from harness.challenge.strict_yaml import load_yaml
from harness.errors import SubmissionError
from harness.text import harmless, harmless_line

if TYPE_CHECKING:
    from pathlib import Path, PurePosixPath

    from harness.challenge.contract import Limits
    from harness.challenge.model import Challenge

MAX_FILE_BYTES = 16 * 1024
_MAX_DEPTH = 8  # lists and mappings in each other; the file needs three
_MAX_NAME, _MAX_CONTACT, _MAX_AMOUNT, _MAX_IMAGE = 100, 200, 40, 255  # characters
_MAX_FINDINGS, _MAX_FINDING = 20, 300  # lines, and characters of one
_DECISIVE = ("team", "tasks", "image")

# Names that the harness gives to images, imports of other teams among them; with what engines take
# for granted before a name, which may be said as well.
_OURS = re.compile(r"(((index\.)?docker\.io|localhost|library)/)*l2r[-_].*")
_IMAGE = re.compile(r"[a-z0-9][a-zA-Z0-9._/:-]*")
# Engines take the beginning of an ID for the image, however short, where only one begins so.
_BARE_ID = re.compile(r"[0-9a-f]{1,64}|sha256:.*")
_LARGEST = 2**63 - 1


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Resources(_Part):
    """Named as a challenge's limits, which are never raised by this."""

    memory: Annotated[Bytes, Field(gt=0)] | None = None
    shared_memory: Annotated[Bytes, Field(gt=0)] | None = None
    temporary_size: Annotated[Bytes, Field(gt=0)] | None = None
    scratch_size: Annotated[Bytes, Field(gt=0)] | None = None
    processes: PositiveInt | None = None
    setup_time: Seconds | None = None
    pair_time: Seconds | None = None
    gpu: bool | None = None
    gpu_memory: Annotated[Bytes, Field(gt=0)] | None = None


class _Content(_Part):
    team: Team | None = None
    name: str | None = None
    contact: str | None = None
    tasks: Annotated[tuple[str, ...], Field(min_length=1, max_length=100)] | None = None
    resources: Resources = Resources()
    image: Annotated[str, Field(max_length=_MAX_IMAGE)] | None = None

    @field_validator("team")
    @classmethod
    def _is_free(cls, team: str | None) -> str | None:
        if team in RESERVED_TEAMS:
            raise ValueError(f"expected another name than {team!r}, which is the harness's own")
        return team

    @field_validator("image")
    @classmethod
    def _is_theirs(cls, image: str | None) -> str | None:
        """Whoever could name what was imported for others could hand in their image."""
        if image is not None and not _IMAGE.fullmatch(image):
            raise ValueError(f"expected the name of an image, found {image[:60]!r}")
        if image is not None and (_OURS.fullmatch(image) or _BARE_ID.fullmatch(image)):
            raise ValueError(
                "expected a name of the team's own, found an ID or one of the harness's names, "
                "which only the campaign's file may use; a name of a to f and digits needs its tag"
            )
        return image


@dataclass(frozen=True, kw_only=True)
class TeamFile:
    """``notes``: what is wrong and was left out, or asks for more than the challenge's limits; for
    people, fit to be shown, as every text here is."""

    team: str | None = None
    info: TeamInfo = field(default_factory=TeamInfo)
    tasks: tuple[str, ...] | None = None
    image: str | None = None
    notes: tuple[str, ...] = ()


def read_team_file(root: Path, name: PurePosixPath, challenge: Challenge) -> TeamFile:
    """The file ``root/name``, no link in ``name`` followed.

    Raises SubmissionError, with lines fit to be shown, for a file that is none of the kind or is
    wrong in what decides what is run; OSError when it cannot be read.
    """
    return parse_team_file(_read(root, name), challenge)


def parse_team_file(raw: bytes, challenge: Challenge) -> TeamFile:
    """As :func:`read_team_file`, of the file's content."""
    content, told = _validated(_plain(raw))
    if content.tasks is not None and (lacking := unknown_tasks(content.tasks, challenge)):
        raise _wrong([f"tasks: {line}" for line in lacking])
    declared = content.resources.model_dump(exclude_none=True)
    return TeamFile(
        team=content.team,
        info=TeamInfo(
            display_name=_line(content.name, _MAX_NAME),
            contact=_line(content.contact, _MAX_CONTACT),
            declared=tuple((key, _amount(key, value)) for key, value in declared.items()),
        ),
        tasks=None if content.tasks is None else tuple(dict.fromkeys(content.tasks)),
        image=content.image,
        notes=(*_shown(told), *_asks_for_more(declared, challenge.limits)),
    )


def _read(root: Path, name: PurePosixPath) -> bytes:
    file = open_beneath(root, name)
    with os.fdopen(file, "rb") as opened:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise _wrong(["expected a file"])
        raw = opened.read(MAX_FILE_BYTES + 1)
    if len(raw) > MAX_FILE_BYTES:
        raise _wrong([f"expected at most {format_bytes(MAX_FILE_BYTES)}, found more"])
    return raw


def _plain(raw: bytes) -> dict[Any, Any]:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _wrong(["expected YAML in UTF-8, found other bytes"]) from error
    try:
        _check_plain(text)
        content = load_yaml(text, name="it")
    except (yaml.YAMLError, OverflowError) as error:
        raise _wrong([f"not valid YAML: {' '.join(str(error).split())}"]) from error
    content = _usable(content)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise _wrong([f"expected keys such as team, name and tasks, found {kind_of(content)}"])
    return content


def _check_plain(text: str) -> None:
    """Before anything is built of it. Raises YAMLError, SubmissionError."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _wrong(["expected plain YAML, found an anchor or an alias (& or *)"])
        if getattr(event, "tag", None) is not None:
            raise _wrong(["expected plain YAML, found a tag (!)"])
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise _wrong([f"expected at most {_MAX_DEPTH} lists and mappings in each other"])


def _usable(value: object) -> object:
    """What can be told and computed with: a number beyond 64 bits is as good as infinite, and half
    of a surrogate pair in a key is no text."""
    match value:
        case dict():
            return {_usable_key(key): _usable(one) for key, one in value.items()}
        case list():
            return [_usable(one) for one in value]
        case int() if abs(value) > _LARGEST:
            return math.inf
        case _:
            return value


def _usable_key(key: object) -> object:
    return harmless(key) if isinstance(key, str) else _usable(key)


def _validated(content: dict[Any, Any]) -> tuple[_Content, list[str]]:
    """What can be used, and what is told about the rest."""
    try:
        return _Content.model_validate(content), []
    except ValidationError as error:
        wrong = {str(item["loc"][0]) for item in error.errors()}
        told = findings(error, _Content)
        if wrong & {*_DECISIVE}:
            raise _wrong(told) from error
    known = _Content.model_fields.keys() - wrong
    rest = {key: value for key, value in content.items() if key in known}
    return _Content.model_validate(rest), [f"{line}; left out" for line in told]


def _asks_for_more(declared: dict[str, Any], limits: Limits) -> list[str]:
    given = limits.model_dump(by_alias=True)
    return [
        f"resources.{key}: asks for {_amount(key, value)}, and the challenge gives "
        f"{_amount(key, given[key])}"
        for key, value in declared.items()
        if key in given and value > given[key]
    ]


def _amount(key: str, value: float) -> str:
    if key == "gpu":
        return "yes" if value else "no"
    if key.endswith("_time"):
        return f"{value:.{_MAX_AMOUNT // 4}g} s"
    return harmless_line(str(value) if key == "processes" else format_bytes(value), _MAX_AMOUNT)


def _line(text: str | None, limit: int) -> str | None:
    return (harmless_line(text, limit) or None) if text is not None else None


def _shown(lines: list[str]) -> list[str]:
    shown = [harmless(_shortened(line)) for line in lines[:_MAX_FINDINGS]]
    if len(lines) > _MAX_FINDINGS:
        shown.append(f"and {len(lines) - _MAX_FINDINGS} more")
    return shown


def _shortened(line: str) -> str:
    return line if len(line) <= _MAX_FINDING else line[: _MAX_FINDING - 1] + "…"


def _wrong(lines: list[str]) -> SubmissionError:
    return SubmissionError("team file: " + "; ".join(_shown(lines)))
