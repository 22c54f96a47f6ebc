"""Whose an entry of the submissions folder is, and which of them may be somebody else's."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

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


def _named(candidates: list[Candidate]) -> list[str]:
    entries = sorted(one.entry for one in candidates)
    more = [f"{len(entries) - MAX_NAMED} more"] if len(entries) > MAX_NAMED else []
    return entries[:MAX_NAMED] + more
