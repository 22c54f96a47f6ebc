"""`harness retry` and `harness drop` of teams whose images run in real containers, before, while
and after a campaign goes on."""

from __future__ import annotations

import hashlib
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING

import docker.errors
import pytest

from harness.campaign.events import TeamDropped, TeamRetried
from harness.campaign.folder import CampaignFolder
from harness.campaign.journal import read_journal
from harness.campaign_asked import ask_drop, ask_retry
from harness.challenge.field_file import FieldState
from harness.store import RunStatus
from tests.docker.campaign_command import CampaignCommand, Phase, arguments_of, harness
from tests.docker.campaign_results import CampaignResults
from tests.docker.campaign_uploads import (
    CRASHING,
    EXACT,
    Behaviour,
    Folder,
    ImageMaker,
    root_layer,
)
from tests.docker.leftovers import Leftovers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from docker import DockerClient

    from harness.campaign.state import CampaignState

pytestmark = pytest.mark.docker

LINGERING = Behaviour(
    what="good, once it has begun",
    program=f"sleep 4\n{EXACT.program}",
    status=RunStatus.SUCCEEDED,
    reason="all 3 fields of the attempted tasks are valid",
    states=(FieldState.VALID,) * 3,
    blame=None,
)
CRASHED = ("crashing", RunStatus.CRASHED)


@pytest.fixture
def folder(client: DockerClient, base: str, tmp_path: Path) -> Iterator[Folder]:
    """Four uploads; the second one takes some seconds."""
    label = f"l2r-retry-test-{uuid.uuid4().hex}"
    folder = Folder(tmp_path, ImageMaker(root=root_layer(client, base), label=label))
    folder.write_policy(
        order=["crashing", "lingering"], calibration={"source": None}, suspect_reruns=0
    )
    folder.add_image("crashing.tar", CRASHING)
    folder.add_image("lingering.tar", LINGERING)
    folder.add_image("queued.tar", EXACT)
    folder.add_image("back.tar", EXACT)
    folder.settle()
    yield folder
    for image in client.images.list(all=True, filters={"label": label}):
        with suppress(docker.errors.APIError):
            client.images.remove(str(image.id), force=True)


def is_running(command: CampaignCommand, team: str) -> bool:
    return command.phase() is Phase.RUN and command.attempts()[-1].started.team == team


def began(state: CampaignState) -> list[tuple[str, RunStatus | None]]:
    """In the order they began."""
    attempts = sorted(state.attempts.values(), key=lambda one: one.n)
    return [(one.started.team, one.end.status if one.end else None) for one in attempts]


def content_of(runs: Path) -> dict[str, str]:
    """The SHA-256 of each file of each run."""
    return {
        str(path.relative_to(runs)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in runs.glob("*/*/**/*")
        if path.is_file() and not path.is_relative_to(CampaignFolder(runs).path)
    }


def requests_of(folder: Folder) -> list[str]:
    lines = read_journal(CampaignFolder(folder.path / "runs").journal_path)
    return [line.event.team for line in lines if isinstance(line.event, TeamDropped | TeamRetried)]


def test_asked_while_a_run_is_under_way_and_afterwards(
    folder: Folder, client: DockerClient, tmp_path: Path
) -> None:
    leftovers = Leftovers(client, tmp_path)
    runs = folder.path / "runs"
    with CampaignCommand(folder.path) as command:
        assert command.wait_until(lambda: is_running(command, "lingering")), command.told
        ask_drop("queued", "withdrew", runs)
        ask_drop("lingering", None, runs)
        ask_drop("back", None, runs)
        ask_retry("back", runs)  # before its turn, so as if nothing had been
        done = harness(folder.path, "retry", "crashing")
        assert (done.returncode, requests_of(folder)) == (0, []), "the run had ended"
        assert "as soon as the run under way has ended" in done.stderr
        unknown = harness(folder.path, "drop", "qeued")
        assert (unknown.returncode, "queued" in unknown.stderr) == (15, True), unknown
        assert command.end() == 0, command.told
    assert requests_of(folder) == ["queued", "lingering", "back", "back", "crashing"]
    state = CampaignResults(folder=folder.path).state
    assert began(state)[:2] == [CRASHED, ("lingering", RunStatus.SUCCEEDED)]  # and not cut short
    assert sorted(began(state)[2:]) == [("back", RunStatus.SUCCEEDED), CRASHED]
    assert state.of_team("lingering")[0].scored is not None
    assert not (runs / "queued").exists()

    # A retry takes a drop back, and runs an image that was mended meanwhile, once.
    before = content_of(runs)
    folder.add_image("crashing.tar", EXACT)
    folder.settle()
    ask_retry("queued", runs)
    done = harness(folder.path, "retry", "crashing")
    assert "when `harness campaign` is started again" in done.stderr, done
    done = harness(folder.path, *arguments_of())
    assert done.returncode == 0, done.stderr
    state = CampaignResults(folder=folder.path).state
    assert sorted(began(state)[4:]) == [
        ("crashing", RunStatus.SUCCEEDED),
        ("queued", RunStatus.SUCCEEDED),
    ]
    after = content_of(runs)
    assert {name: after.get(name) for name in before} == before, "a result was changed"
    assert leftovers.found() == []
