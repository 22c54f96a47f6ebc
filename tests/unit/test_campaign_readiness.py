"""Whether a campaign can go on with the engine that is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.campaign.events import Opened
from harness.campaign.folder import CampaignFolder
from harness.campaign.journal import Journal
from harness.campaign.readiness import require_isolation_as_before
from harness.engine.base import EngineName
from harness.errors import EngineMissing
from tests.campaign_story import conditions

if TYPE_CHECKING:
    from pathlib import Path


def test_campaign_of_containers_does_not_go_on_without_them(tmp_path: Path) -> None:
    """With the daemon stopped, folders' methods would have run as this user's plain processes."""
    folder = CampaignFolder(tmp_path)
    require_isolation_as_before(folder, EngineName.PROCESS)  # it has run with nothing yet
    folder.path.mkdir()
    with Journal(folder.journal_path) as journal:
        journal.append(Opened(conditions=conditions(), seed=None))
        require_isolation_as_before(folder, EngineName.DOCKER)
        with pytest.raises(EngineMissing, match="has run with docker so far"):
            require_isolation_as_before(folder, EngineName.PROCESS)
        chosen = conditions().model_copy(update={"engine": EngineName.PROCESS})
        journal.append(Opened(conditions=chosen, seed=None))  # --engine process, by whoever knows
    require_isolation_as_before(folder, EngineName.PROCESS)
