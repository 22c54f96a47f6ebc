"""Whose an entry of the submissions folder is, and which of them may be somebody else's."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.campaign.entry_name import slug

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.campaign.listing import Candidate
    from harness.campaign.team_file import TeamFile
    from harness.campaign.upload import UploadKind

MAX_NAMED = 5  # entries, in one message


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A candidate, and whose it is. ``declared``: its team file says so."""

    candidate: Candidate
    kind: UploadKind
    team: str
    declared: bool
    said: TeamFile


def rivals_of(claims: Iterable[Claim]) -> dict[str, list[str]]:
    """Entries whose different names come to one team, which none of them says: by team."""
    undeclared: dict[str, list[Candidate]] = defaultdict(list)
    for claim in claims:
        if not claim.declared:
            undeclared[claim.team].append(claim.candidate)
    return {
        team: _named(found)
        for team, found in undeclared.items()
        if len({one.stem for one in found}) > 1
    }


def namesakes_of(claims: Iterable[Claim]) -> dict[str, list[str]]:
    """Entries that have a team's own name, by team: whoever says under another name that an upload
    is that team's may be somebody else."""
    found: dict[str, list[Candidate]] = defaultdict(list)
    for claim in claims:
        if is_namesake(claim):
            found[claim.team].append(claim.candidate)
    return {team: _named(candidates) for team, candidates in found.items()}


def is_namesake(claim: Claim) -> bool:
    try:
        return slug(claim.candidate.stem) == claim.team
    except ValueError:
        return False


def _named(candidates: list[Candidate]) -> list[str]:
    entries = sorted(one.entry for one in candidates)
    more = [f"{len(entries) - MAX_NAMED} more"] if len(entries) > MAX_NAMED else []
    return entries[:MAX_NAMED] + more
