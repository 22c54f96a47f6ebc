"""A challenge with other limits than its file has: for a small machine, a test, a dry run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

from harness.challenge.contract import Limits
from harness.challenge.findings import did_you_mean, findings
from harness.errors import ChallengeError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.challenge.model import Challenge


def change_limits(
    challenge: Challenge, changes: Iterable[str]
) -> tuple[Challenge, tuple[str, ...]]:
    """The challenge with limits replaced, and the names of those that differ from its own.

    ``changes``: such as ``memory=8GiB``, named as in a challenge's file. Raises ChallengeError.
    """
    values = challenge.limits.model_dump(by_alias=True)
    for change in changes:
        name, sign, text = change.partition("=")
        if not sign:
            raise ChallengeError(f"limit {change!r}: expected NAME=VALUE, such as memory=8GiB")
        if name not in values:
            raise ChallengeError(
                f"limit {name!r}: expected one of {', '.join(values)}{did_you_mean(name, values)}"
            )
        values[name] = text
    try:
        limits = Limits.model_validate(values)
    except ValidationError as error:
        lines = "\n".join(f"  - {finding}" for finding in findings(error, Limits))
        raise ChallengeError(f"changed limits:\n{lines}") from error
    before, after = (one.model_dump(by_alias=True) for one in (challenge.limits, limits))
    changed = tuple(name for name in before if before[name] != after[name])
    return challenge.model_copy(update={"limits": limits}), changed
