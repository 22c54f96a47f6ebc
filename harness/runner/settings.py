"""Where the runner finds things: the contract's places, unless the environment says else."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.challenge.model import DEFAULT_CHALLENGE, Challenge, load_challenge
from harness.errors import ChallengeError

if TYPE_CHECKING:
    from collections.abc import Mapping

CHALLENGE_VARIABLE = "HARNESS_CHALLENGE"  # a built-in name or a YAML file
DATA_VARIABLE = "HARNESS_DATA_DIR"
OUTPUT_VARIABLE = "HARNESS_OUTPUT_DIR"
METHOD_VARIABLE = "HARNESS_METHOD_DIR"
INSIDE_REPORT_VARIABLE = "HARNESS_INSIDE_REPORT"  # a file for the runtimes seen from inside

_DEFAULT_METHOD_DIR = "/opt/l2r/method"


@dataclass(frozen=True, kw_only=True)
class Settings:
    challenge: Challenge
    data_dir: Path
    output_dir: Path
    method_dir: Path
    inside_report: Path | None


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Raises ChallengeError when the challenge cannot be read, or does not show us all its data."""
    challenge = load_challenge(environment.get(CHALLENGE_VARIABLE, DEFAULT_CHALLENGE))
    mounts = challenge.container.mounts
    data = environment.get(DATA_VARIABLE) or next(
        (mount.target for mount in mounts if mount.is_whole_data), None
    )
    if data is None:
        raise ChallengeError(
            f"challenge {challenge.name}: expected a mount of the whole data folder, found only "
            f"parts of it; name the folder with {DATA_VARIABLE}"
        )
    output = next(mount.target for mount in mounts if mount.source == "output")
    report = environment.get(INSIDE_REPORT_VARIABLE)
    return Settings(
        challenge=challenge,
        data_dir=Path(data),
        output_dir=Path(environment.get(OUTPUT_VARIABLE) or output),
        method_dir=Path(environment.get(METHOD_VARIABLE) or _DEFAULT_METHOD_DIR),
        inside_report=Path(report) if report else None,
    )
