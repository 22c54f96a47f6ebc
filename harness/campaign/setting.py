"""What a campaign goes by, for those that look at it while it goes on, or later."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.campaign.policy import Policy
from harness.errors import OutputError
from harness.store import write_json

if TYPE_CHECKING:
    from harness.campaign.folder import CampaignFolder


class Setting(BaseModel):
    """``setting.json``. ``tasks``: the challenge's, in its order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    policy: Policy
    tasks: tuple[str, ...]


def write_setting(folder: CampaignFolder, setting: Setting) -> None:
    """Raises OutputError."""
    try:
        write_json(folder.setting_path, setting)
    except OSError as error:
        raise OutputError(f"{folder.setting_path}: {error.strerror}") from error


def read_setting(folder: CampaignFolder) -> Setting:
    """The defaults where there is none. Raises OutputError for one that cannot be read."""
    try:
        return Setting.model_validate_json(folder.setting_path.read_bytes())
    except FileNotFoundError:
        return Setting(policy=Policy(), tasks=())
    except (OSError, ValidationError) as error:
        raise OutputError(f"{folder.setting_path}: cannot be read: {error}") from error
