"""What one fault must end as. Tests and ``docs/faults.md`` are made of the same table of these."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.errors import Blame
from harness.store import RunStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.timing import Flag

N_PAIRS = 4  # of the tiny challenge
MIB = 1 << 20
ALL_VALID = "all 4 fields of the attempted tasks are valid"
ONE_INVALID = "1 of 4 fields invalid"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """``name`` is that of its program in ``faults/`` or, of what happens to a run from outside, of
    its scenario. Blame the submission if nothing else is said and it did not succeed.

    ``reason``: a part of the run's. ``exit_code``: the submission's own; None when there is none or
    it depends on which of two signals came first. ``valid``: fields kept of four, ``timed`` with
    their runtimes. ``invalid``: the pair whose field is invalid, and a part of why. ``limits``
    replace the challenge's, ``limit_s`` after which the run must be ended. ``log``: what its log
    must hold.
    """

    name: str
    what: str
    status: RunStatus
    reason: str
    exit_code: int | None = None
    blame: Blame | None = Blame.SUBMISSION
    valid: int = N_PAIRS
    timed: bool = True
    invalid: tuple[str, str] | None = None
    limits: Mapping[str, float] = field(default_factory=dict)
    limit_s: float = 0.0
    log: tuple[str, ...] = ()
    warning: str | None = None
    flags: Mapping[str, Flag] = field(default_factory=dict)
    program: str | None = None
    image: tuple[str, ...] = ()
    outside: bool = False

    @property
    def expected_blame(self) -> Blame | None:
        return None if self.status is RunStatus.SUCCEEDED else self.blame


def table(faults: tuple[Fault, ...]) -> str:
    """Markdown: what happens, status and exit code of the command, whose turn, message, kept."""
    lines = [
        "| fault | status | exit code | whose turn | message | fields kept |",
        "|---|---|---|---|---|---|",
    ]
    for fault in faults:
        cells = (
            fault.what,
            f"`{fault.status}`",
            str(fault.status.exit_code),
            fault.expected_blame or "-",
            _message(fault),
            f"{fault.valid} of {N_PAIRS}" + ("" if fault.timed else ", without runtimes"),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _message(fault: Fault) -> str:
    parts = [] if fault.status is RunStatus.SUCCEEDED else [fault.reason]
    if fault.invalid is not None:
        parts.append(f"{fault.invalid[0]}: {fault.invalid[1]}")
    if fault.warning is not None:
        parts.append(f"warning: {fault.warning}")
    parts += [f"flag `{flag}`" for flag in fault.flags.values()]
    return "; ".join(parts) or "-"
