"""A small campaign in a folder: data, truth, and uploads that the process engine can run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from harness.campaign.folder import CampaignFolder
from harness.campaign.journal import read_journal
from harness.campaign.state import CampaignState, replay
from tests.evaluation_data import write_labels
from tests.tiny import YAML, ZERO, write_data, write_method

if TYPE_CHECKING:
    from collections.abc import Mapping

REPOSITORY = Path(__file__).parents[1]
NO_ENGINE = "unix:///nonexistent/docker.sock"
SETTLED_S = 1.2  # what has not changed for so long is not being written any more

_TRUTH = """    truth:
      fixed_labels: {task}/seg{{fixed:04d}}.nii.gz
      moving_labels: {task}/seg{{moving:04d}}.nii.gz
      labels: [1, 2]
    metrics: [dice, sdlogj]
    field: {{path: "{task}/"""


def challenge_text() -> str:
    """The tiny challenge, with labels as its truth."""
    text = YAML
    for task in ("task_01", "task_02"):
        text = text.replace(f'    field: {{path: "{task}/', _TRUTH.format(task=task))
    return text


class CampaignFiles:
    """``campaign.yaml`` is empty: machines that are busy must decide nothing in a test, so runs are
    not repeated where they were suspect."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.submissions = path / "submissions"
        self.submissions.mkdir()
        write_data(path / "test")
        self.write_truth()
        (path / "tiny.yaml").write_text(challenge_text())
        self.write_policy("")

    def write_truth(self, *, shift: int = 0) -> None:
        for task, cases in (("task_01", (1, 2)), ("task_02", (7, 8, 9))):
            for case in cases:
                path = self.path / f"truth/{task}/seg{case:04d}.nii.gz"
                write_labels(path, shift=(case + shift) % 3)

    def write_policy(self, text: str) -> None:
        (self.path / "campaign.yaml").write_text(
            "suspect_reruns: 0\ncalibration: {source: null}\n" + text
        )

    def add(self, team: str, body: str = ZERO) -> Path:
        """A folder to be run, complete at once."""
        part = self.path / f"{team}.part"
        write_method(part, body)
        (part / "Dockerfile").write_text("FROM scratch\n")
        return part.rename(self.submissions / team)

    def settle(self) -> None:
        time.sleep(SETTLED_S)

    @property
    def folder(self) -> CampaignFolder:
        return CampaignFolder(self.path / "runs")

    def state(self) -> CampaignState:
        return replay(read_journal(self.folder.journal_path))

    def arguments(self, *further: str) -> list[str]:
        return [
            *("campaign", "submissions", "--challenge", "tiny.yaml", "--engine", "process"),
            *("--campaign", "campaign.yaml", "--plain", *further),
        ]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "harness", *arguments],
            cwd=self.path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self._environment(),
        )

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "harness", *arguments],
            cwd=self.path,
            capture_output=True,
            text=True,
            check=False,
            env=self._environment(),
        )

    def _environment(self) -> Mapping[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "DOCKER_HOST": NO_ENGINE,
            "NO_COLOR": "1",
            "HARNESS_LOCK_DIR": str(self.path / "locks"),
        }
