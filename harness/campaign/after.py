"""The command that an organiser wants run after each attempt."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from harness.text import harmless_lines

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.campaign.folder import CampaignFolder

PATIENCE_S = 600.0
STATUS_VARIABLE = "HARNESS_CAMPAIGN_STATUS"  # where status.json is
_MAX_CHARACTERS = 300


def run_after_each(
    command: tuple[str, ...] | None, folder: CampaignFolder, warn: Callable[[str], None]
) -> None:
    """It is told where status.json is. Whatever becomes of it is no reason to stop a campaign."""
    if command is None:
        return
    problem = _run(command, {**os.environ, STATUS_VARIABLE: str(folder.status_path)})
    if problem is not None:
        warn(f"after_each: {command[0]}: {problem}")


def _run(command: tuple[str, ...], environment: dict[str, str]) -> str | None:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
            env=environment,
            timeout=PATIENCE_S,
        )
    except OSError as error:
        return error.strerror or str(error)
    except subprocess.TimeoutExpired:
        return f"ended, as it took more than {PATIENCE_S:.0f} s"
    if done.returncode == 0:
        return None
    lines = [line for line in harmless_lines(done.stderr, _MAX_CHARACTERS) if line.strip()]
    return f"exit code {done.returncode}" + (f": {lines[-1]}" if lines else "")
