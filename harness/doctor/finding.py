"""One line of the doctor's, and its deadline: no look at a machine may hang or end the others."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Level(IntEnum):
    OK = 0
    WARNING = 1
    FAILURE = 2


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What was looked at and what was found; unless the level is OK, what that means for runs and
    how to mend it. ``command`` can be pasted into a shell; empty where no single one helps."""

    level: Level
    subject: str
    found: str
    remedy: str = ""
    command: str = ""


def ok(subject: str, found: str) -> Finding:
    return Finding(level=Level.OK, subject=subject, found=found)


def warning(subject: str, found: str, remedy: str, command: str = "") -> Finding:
    return Finding(
        level=Level.WARNING, subject=subject, found=found, remedy=remedy, command=command
    )


def failure(subject: str, found: str, remedy: str, command: str = "") -> Finding:
    return Finding(
        level=Level.FAILURE, subject=subject, found=found, remedy=remedy, command=command
    )


def look(
    subject: str, probe: Callable[[], Iterable[Finding]], deadline_s: float
) -> tuple[Finding, ...]:
    """What the probe finds, or a line that says why it found nothing.

    A probe that does not answer in time is left alone in its thread, which ends with the process.
    """
    found: list[Finding] = []
    trouble: list[Exception] = []

    def run() -> None:
        try:
            found.extend(probe())
        except Exception as error:  # whatever it is, the other lines matter too
            trouble.append(error)

    thread = threading.Thread(target=run, name=f"harness-doctor-{subject}", daemon=True)
    thread.start()
    thread.join(deadline_s)
    if thread.is_alive():
        lost = warning(
            subject,
            f"no answer in {deadline_s:.0f} s",
            "something hangs that should answer at once, a disk or a driver; see the system's log",
            "dmesg | tail",
        )
        return (*found, lost)
    if trouble:
        text = " ".join(str(trouble[0]).split()) or "no message"
        lost = warning(
            subject, f"could not be looked at ({type(trouble[0]).__name__}: {text})", "not known"
        )
        return (*found, lost)
    return tuple(found)
