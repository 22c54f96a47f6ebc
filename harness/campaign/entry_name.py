"""What the name of an entry says: which kind of upload it is, and whose."""

from __future__ import annotations

import re
import unicodedata

from harness.campaign.upload import MAX_TEAM_CHARACTERS, RESERVED_TEAMS, TEAM_PATTERN, UploadKind
from harness.text import harmless

TEAM_FILE = "team.yaml"  # in a folder
TEAM_FILE_ENDING = ".team.yaml"  # NAME.team.yaml, beside NAME.tar
DOCKERFILE = "Dockerfile"
# The longer before the shorter.
_ENDINGS = {
    ".tar.gz": UploadKind.ARCHIVE,
    ".tar.zst": UploadKind.ARCHIVE,
    ".tgz": UploadKind.ARCHIVE,
    ".tar": UploadKind.ARCHIVE,
    ".zip": UploadKind.FIELDS,
}
EXPECTED = "expected .tar, .tar.gz, .tgz, .tar.zst, .zip, or a folder"
# What programs call a file until all of it is there: rsync, scp and browsers among them.
_IN_PROGRESS = (".part", ".tmp", ".partial", ".crdownload", ".filepart", ".download", "~")
_MAX_NAME = 128  # characters
_MAX_SHOWN = 100


def is_in_progress(name: str) -> bool:
    """Not complete as its name has it, or hidden: nobody's upload."""
    return name.startswith(".") or name.lower().endswith(_IN_PROGRESS)


def split_name(name: str) -> tuple[str, UploadKind] | None:
    """``Team A.tar.gz`` gives ``Team A`` and its kind; None for what is no upload's file."""
    for ending, kind in _ENDINGS.items():
        if name.lower().endswith(ending):
            return name[: -len(ending)], kind
    return None


def slug(stem: str) -> str:
    """The team that a name stands for, such as ``muller-lab`` for ``Müller Lab``.

    Raises ValueError with what is wrong with it.
    """
    if stem.startswith("_"):
        raise ValueError("names that begin with _ are the harness's own; rename it")
    plain = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode().lower()
    team = re.sub(r"[^a-z0-9._-]+", "-", plain).strip("-._")
    if team in RESERVED_TEAMS:
        raise ValueError(f"the name {team} is the harness's own; rename it")
    if not re.fullmatch(TEAM_PATTERN, team):
        raise ValueError(
            f"expected a name of 1 to {MAX_TEAM_CHARACTERS} letters and digits for its team; "
            f"rename it, or say `team:` in its {TEAM_FILE}"
        )
    return team


def name_problem(name: str) -> str | None:
    """Why a name is not taken, whatever lies under it."""
    if len(name) > _MAX_NAME:
        return f"its name has {len(name)} characters, expected at most {_MAX_NAME}; rename it"
    try:
        name.encode()
    except UnicodeEncodeError:
        return "its name is no UTF-8; rename it"
    if harmless(name) != name or "\t" in name:
        return "its name has characters that cannot be shown; rename it"
    return None


def shown_name(name: str) -> str:
    """One line of printable characters, different for different names as far as it is long."""
    if name_problem(name) is None:
        return name
    plain = ascii(name)[1:-1]
    return plain if len(plain) <= _MAX_SHOWN else plain[: _MAX_SHOWN - 3] + "..."
