"""Every error the harness raises on purpose: whose fault it is, and the exit code it gives.

::

    HarnessError
    ├── ConfigurationError          the person who runs the harness can mend it
    │   ├── ChallengeError      10  the challenge file
    │   ├── DataError           11  the data folder
    │   ├── OutputError         12  a folder the harness must write to
    │   ├── ConventionError     13  what a field's convention is said to be does not fit together
    │   ├── OptionError         14  an option asks for what this engine cannot do
    │   └── CampaignError       15  a campaign's file, or what it asks for
    ├── SubmissionError             the team can mend it
    │   ├── MethodError         20  the plugin cannot be loaded
    │   ├── FieldError          21  a displacement field breaks the contract
    │   ├── BuildError          22  the image cannot be built
    │   ├── PairsFailed         23  some pairs have no field (the reference runner's end)
    │   └── ImportRejected      24  an uploaded image cannot be taken
    └── MachineError                the machine or the container engine
        ├── EngineError         30
        │   ├── EngineMissing       31  nothing answers
        │   ├── EngineUnreachable   32  something is there, and refuses us
        │   ├── BaseImageUnavailable 33
        │   └── ImageMissing        34
        ├── ProbeError          35  the witness could not watch
        ├── MachineBusy         36  somebody else has the machine, or one of its GPUs
        └── Interrupted         130 somebody pressed Ctrl-C or ended the command

A run that failed is not an error but a result with a status; :mod:`harness.store` holds those and
their exit codes (40 and up).
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class Blame(StrEnum):
    """Who has to act."""

    SUBMISSION = "submission"
    CONFIGURATION = "configuration"
    MACHINE = "machine"


class HarnessError(Exception):
    """Base of all errors raised on purpose. ``str(error)`` is a message for a person."""

    exit_code = 1
    blame = Blame.MACHINE


class ConfigurationError(HarnessError):
    exit_code = 9
    blame = Blame.CONFIGURATION


class ChallengeError(ConfigurationError):
    exit_code = 10


class DataError(ConfigurationError):
    """The data folder cannot be used. ``findings`` lists everything that is wrong with it."""

    exit_code = 11

    def __init__(self, message: str, findings: Sequence[str] = ()) -> None:
        self.findings = tuple(findings)
        super().__init__("\n".join([message, *(f"  - {finding}" for finding in self.findings)]))


class OutputError(ConfigurationError):
    exit_code = 12


class ConventionError(ConfigurationError):
    exit_code = 13


class OptionError(ConfigurationError):
    exit_code = 14


class CampaignError(ConfigurationError):
    exit_code = 15


class SubmissionError(HarnessError):
    exit_code = 19
    blame = Blame.SUBMISSION


class MethodError(SubmissionError):
    exit_code = 20


class FieldError(SubmissionError):
    exit_code = 21


class BuildError(SubmissionError):
    exit_code = 22


class PairsFailed(SubmissionError):
    exit_code = 23


class ImportRejected(SubmissionError):
    """An image, uploaded or here, cannot be run. ``findings`` lists all that could be known."""

    exit_code = 24

    def __init__(self, message: str, findings: Sequence[str] = ()) -> None:
        self.findings = tuple(findings)
        super().__init__("\n".join([message, *(f"  - {finding}" for finding in self.findings)]))


class MachineError(HarnessError):
    exit_code = 29
    blame = Blame.MACHINE


class EngineError(MachineError):
    exit_code = 30


class EngineMissing(EngineError):
    exit_code = 31


class EngineUnreachable(EngineError):
    exit_code = 32


class BaseImageUnavailable(EngineError):
    exit_code = 33


class ImageMissing(EngineError):
    exit_code = 34


class ProbeError(MachineError):
    exit_code = 35


class MachineBusy(MachineError):
    exit_code = 36


class Interrupted(MachineError):
    exit_code = 130
