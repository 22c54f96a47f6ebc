"""What `harness retry` and `harness drop` ask for: files that the campaign takes into its journal.

Only who has the journal open may write it, and a campaign may go on for days. So a request is a
file of its own, complete or not there; the campaign journals it, then removes the file. Who is
killed between the two journals it twice, which means the same as once.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.campaign.events import TeamDropped, TeamRetried
from harness.campaign.journal import read_journal
from harness.campaign.state import replay
from harness.campaign.upload import Team
from harness.challenge.findings import did_you_mean
from harness.errors import CampaignError, OutputError
from harness.store import sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.campaign.folder import CampaignFolder
    from harness.campaign.state import CampaignState, TeamState

_log = logging.getLogger(__name__)


class Asked(StrEnum):
    RETRY = "retry"
    DROP = "drop"


class Request(BaseModel):
    """One file in ``requests/``. ``reason``: why a team is dropped, in the organiser's words."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    asked: Asked
    team: Team
    reason: str | None = None

    @property
    def event(self) -> TeamRetried | TeamDropped:
        if self.asked is Asked.RETRY:
            return TeamRetried(team=self.team)
        return TeamDropped(team=self.team, reason=self.reason)


def known_team(folder: CampaignFolder, team: str) -> tuple[CampaignState, TeamState]:
    """The campaign's state, and the team's. Raises CampaignError for a team that it does not know,
    OutputError where there is no campaign."""
    state = replay(read_journal(folder.journal_path))
    found = state.teams.get(team)
    if found is None:
        names = sorted(state.teams)
        listed = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if names[20:] else "")
        raise CampaignError(
            f"team {team!r}: expected one of the campaign in {folder.runs_dir} "
            f"({listed or 'it has none yet'}){did_you_mean(team, names)}"
        )
    return state, found


def ask(folder: CampaignFolder, request: Request) -> Path:
    """On the disk when this returns. Raises OutputError."""
    name = f"{time.time_ns():020d}-{request.asked}-{request.team}.json"
    path = folder.requests_dir / name
    part = path.with_suffix(".part")
    try:
        folder.requests_dir.mkdir(parents=True, exist_ok=True)
        with part.open("w", encoding="utf-8") as file:
            file.write(request.model_dump_json() + "\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        sync_folder(folder.requests_dir)
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror}; nothing was asked for") from error
    return path


def pending(folder: CampaignFolder) -> Iterator[tuple[Path, Request]]:
    """In the order they were made. A file that is no request is put aside, and told. Raises
    OutputError for a folder that cannot be read."""
    try:
        paths = sorted(folder.requests_dir.glob("*.json"))
    except OSError as error:
        raise OutputError(f"{folder.requests_dir}: {error.strerror}") from error
    for path in paths:
        try:
            request = Request.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            continue  # taken back by who made it
        except OSError as error:
            raise OutputError(f"{path}: {error.strerror}") from error
        except ValidationError:
            aside = path.with_suffix(".damaged")
            _log.warning(
                "%s: not a request that this program wrote; it is left as %s", path, aside.name
            )
            _rename(path, aside)
            continue
        yield path, request


def done(path: Path) -> None:
    """The request is in the journal. Raises OutputError: it would be taken up again and again."""
    try:
        path.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror}; remove it") from error


def is_running(folder: CampaignFolder) -> bool:
    """Has a campaign the journal open just now?"""
    try:
        file = os.open(folder.journal_path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def _rename(path: Path, aside: Path) -> None:
    try:
        path.rename(aside)
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror}; remove it") from error
