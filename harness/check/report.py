"""What a check found, as ``harness check --json`` prints it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from harness.challenge.field_file import FieldState
from harness.check.findings import Finding, Severity


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CheckedPair(_Model):
    """``path``: the file that counts, below the top; None when there is none."""

    key: str
    task: str
    state: FieldState
    path: str | None


class CheckReport(_Model):
    """``source`` is what was checked, as it was called. ``meaning_checked``: were the fields held
    against the images, or their format alone looked at."""

    schema_version: Literal[1] = 1
    harness_version: str
    source: str
    challenge: str
    challenge_digest: str
    meaning_checked: bool
    pairs: tuple[CheckedPair, ...]
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(one for one in self.findings if one.severity is Severity.ERROR)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        return tuple(one for one in self.findings if one.severity is Severity.WARNING)
