"""The campaign's file, read: everything that is wrong with it at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml
from pydantic import ValidationError

from harness.campaign.policy import Policy
from harness.challenge.findings import did_you_mean, findings, kind_of
from harness.challenge.strict_yaml import load_yaml
from harness.errors import CampaignError

if TYPE_CHECKING:
    from pathlib import Path

    from harness.challenge.model import Challenge


def load_policy(path: Path | None) -> Policy:
    """The policy of a campaign's file; the defaults where there is none.

    An empty file says nothing, and gives the defaults too. Raises CampaignError with every finding:
    the key, what was expected, what was found.
    """
    if path is None:
        return Policy()
    content = _content(path)
    if not isinstance(content, dict):
        raise CampaignError(
            f"campaign file {path}: expected keys such as order, teams and counted, found "
            f"{kind_of(content)}"
        )
    try:
        return Policy.model_validate(content)
    except ValidationError as error:
        raise _told(path, findings(error, Policy)) from error


def check_tasks(policy: Policy, challenge: Challenge) -> None:
    """Raises CampaignError for a team's tasks that the challenge lacks."""
    told = [
        f"teams.{team}.tasks: {finding}"
        for team, override in policy.teams.items()
        for finding in unknown_tasks(override.tasks or (), challenge)
    ]
    if told:
        raise _told(None, told)


def unknown_tasks(names: tuple[str, ...], challenge: Challenge) -> list[str]:
    """One line for each name that is no task of the challenge."""
    known = [task.name for task in challenge.tasks]
    return [
        f"expected tasks of {challenge.name} ({', '.join(known)}), found {name[:60]!r}"
        f"{did_you_mean(name[:60], known)}"
        for name in names
        if name not in known
    ]


def _content(path: Path) -> object:
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        found = (error.strerror or str(error)).lower()
        raise CampaignError(f"campaign file {path}: {found}; expected a YAML file") from error
    except UnicodeDecodeError as error:
        raise CampaignError(
            f"campaign file {path}: expected a YAML file in UTF-8, found other bytes"
        ) from error
    try:
        content = load_yaml(text, name=str(path))
    except yaml.YAMLError as error:
        raise CampaignError(f"campaign file {path}: not valid YAML: {error}") from error
    return {} if content is None else content


def _told(path: Path | None, lines: list[str]) -> CampaignError:
    head = "campaign file" if path is None else f"campaign file {path}"
    return CampaignError("\n".join([f"{head}:", *(f"  - {line}" for line in lines)]))
