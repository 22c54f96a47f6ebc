"""A campaign over real containers, to its end: what is run, what is refused, what is said."""

from __future__ import annotations

import json
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING

import docker.errors
import pytest

from harness.campaign.order import Outcome
from harness.campaign.status import StatusRecord
from harness.store import RunDirectory, RunStatus
from tests.docker.campaign_command import arguments_of, harness
from tests.docker.campaign_results import CampaignResults
from tests.docker.campaign_uploads import (
    CRASHING,
    EXACT,
    REFERENCE,
    Folder,
    ImageMaker,
    fields_zip,
    root_layer,
)
from tests.docker.leftovers import Leftovers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from docker import DockerClient

    from tests.docker.conftest import Tags

pytestmark = pytest.mark.docker


@pytest.fixture
def folder(client: DockerClient, base: str, tags: Tags, tmp_path: Path) -> Iterator[Folder]:
    """Three uploads and the reference image."""
    label = f"l2r-campaign-test-{uuid.uuid4().hex}"  # so they are no other test's images
    maker = ImageMaker(root=root_layer(client, base), label=label)
    name = tags.new()
    client.images.load(maker.tar(REFERENCE, tag=name))
    folder = Folder(tmp_path, maker)
    folder.write_policy(calibration={"source": name, "threshold": 0.99}, suspect_reruns=0)
    folder.add_image("alpha.tar", EXACT)
    folder.add_image("crashing.tar", CRASHING)
    folder.add("nonsense.tar", b"this is no image, " * 1000)
    folder.add("zipped.zip", fields_zip())
    folder.settle()
    yield folder
    for image in client.images.list(all=True, filters={"label": label}):
        with suppress(docker.errors.APIError):
            client.images.remove(str(image.id), force=True)


def test_a_campaign_to_its_end_and_once_more(
    folder: Folder, client: DockerClient, tmp_path: Path
) -> None:
    leftovers = Leftovers(client, tmp_path)
    done = harness(folder.path, *arguments_of())
    assert done.returncode == 0, done.stderr
    assert leftovers.found() == []
    state = CampaignResults(folder=folder.path).state
    became = {
        attempt.started.team: attempt.end.status or attempt.end.outcome
        for attempt in state.attempts.values()
        if attempt.end is not None
    }
    assert became == {
        "_calibration": RunStatus.SUCCEEDED,
        "alpha": RunStatus.SUCCEEDED,
        "crashing": RunStatus.CRASHED,
        "nonsense": Outcome.REFUSED,
        "zipped": Outcome.FIELDS,
    }
    (alpha,) = state.of_team("alpha")
    assert RunDirectory(folder.path.joinpath("runs", *alpha.key)).read_record().image is not None
    assert alpha.scored is not None
    assert alpha.scored.metrics["task_01"]["DSC"] == pytest.approx(1.0)
    assert "the teams' own\n  crashing: crashed, 1/3 fields" in done.stdout
    assert "nonsense: refused" in done.stdout
    again = harness(folder.path, *arguments_of())
    assert again.returncode == 0, again.stderr
    assert len(CampaignResults(folder=folder.path).state.attempts) == len(state.attempts)
    status = StatusRecord.model_validate(
        json.loads(harness(folder.path, "status", "--json").stdout)
    )
    assert status.exit_code == 0
    assert status.outstanding == ()
