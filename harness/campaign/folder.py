"""The campaign's own files, beside the runs in its ``--out`` folder.

::

    runs/
      <team>/<run id>/         the attempts: see harness.store
      _calibration/<run id>/   those of the reference image
      _campaign/
        journal.jsonl          what happened
        requests/              what `harness retry` and `harness drop` ask for
        contents.json          digests of files that have not changed since
        setting.json           the campaign's file as the last command read it
        status.json            what `harness status --json` says, after each step
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class CampaignFolder:
    def __init__(self, runs_dir: Path) -> None:
        self.runs_dir = runs_dir
        self.path = runs_dir / "_campaign"

    @property
    def journal_path(self) -> Path:
        return self.path / "journal.jsonl"

    @property
    def requests_dir(self) -> Path:
        return self.path / "requests"

    @property
    def contents_path(self) -> Path:
        return self.path / "contents.json"

    @property
    def status_path(self) -> Path:
        return self.path / "status.json"

    @property
    def setting_path(self) -> Path:
        return self.path / "setting.json"
