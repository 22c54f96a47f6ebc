"""What a campaign over a scheduler does not wait for: its own scoring, and a worker to come."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import psutil
import pytest

from harness.campaign.machine_lock import LOCK_DIR_VARIABLE
from harness.campaign.requests import Asked, Request, ask
from tests.campaign_parts import CampaignFiles
from tests.cluster_parts import Cluster, wait_for
from tests.tiny import ZERO

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.campaign.state import Attempt

TEAMS = ("alpha", "bravo", "charlie")


@pytest.fixture
def files(tmp_path: Path) -> CampaignFiles:
    files = CampaignFiles(tmp_path)
    files.write_policy("poll_time: 0.2s\nsettle_time: 0.5s\n")
    for team in TEAMS:
        files.add(team, f"# {team}\n{ZERO}")
    files.settle()
    return files


@pytest.fixture
def cluster(files: CampaignFiles, tmp_path: Path) -> Iterator[Cluster]:
    """Without a worker yet."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    with Cluster(folder=folder) as running:
        shutil.copytree(files.path / "test", running.data("one"))
        yield running.start()


@contextmanager
def campaign(
    files: CampaignFiles, cluster: Cluster, *options: str
) -> Iterator[subprocess.Popen[bytes]]:
    arguments = files.arguments("--scheduler", cluster.address, *options)
    with (files.path / "campaign.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "harness", *arguments],
            cwd=files.path,
            env={**os.environ, LOCK_DIR_VARIABLE: str(files.path / "locks")},
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def told(files: CampaignFiles) -> str:
    return (files.path / "campaign.log").read_text()


def attempts(files: CampaignFiles) -> list[Attempt]:
    if not files.folder.journal_path.exists():
        return []
    return list(files.state().attempts.values())


def scoring_processes(conductor: int) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(conductor).children():
        with suppress(psutil.Error):
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
    return found


def test_a_free_worker_gets_its_next_attempt_while_one_is_scored(
    files: CampaignFiles, cluster: Cluster
) -> None:
    """The process that scores is stopped. Ctrl-C then ends the command, and nothing is recorded of
    what it was about."""
    cluster.start_worker("one")
    with campaign(files, cluster) as conductor:
        wait_for(lambda: scoring_processes(conductor.pid), "the first attempt to be scored")
        frozen = scoring_processes(conductor.pid)[0]
        frozen.suspend()
        wait_for(
            lambda: len([one for one in attempts(files) if one.end]) == len(TEAMS),
            "all attempts to be made meanwhile",
        )
        assert [one.scored for one in attempts(files)] == [None] * len(TEAMS)
        conductor.send_signal(signal.SIGINT)
        assert conductor.wait(30) == 130, told(files)
    assert not frozen.is_running()
    assert [one.scored for one in attempts(files)] == [None] * len(TEAMS)
    assert not list(files.folder.runs_dir.glob("*/*/evaluation.json"))
    with campaign(files, cluster) as conductor:
        assert conductor.wait(60) == 0, told(files)
    scored = [one.scored for one in attempts(files)]
    assert [(one and (one.exit_code, one.problem)) for one in scored] == [(0, None)] * len(TEAMS)


def test_uploads_and_requests_are_taken_while_no_worker_is_there(
    files: CampaignFiles, cluster: Cluster
) -> None:
    with campaign(files, cluster, "--watch"):
        wait_for(lambda: "no worker is there; waiting for one" in told(files), "that to be told")
        ask(files.folder, Request(asked=Asked.DROP, team="alpha", reason="withdrew"))
        files.add("delta", f"# delta\n{ZERO}")
        wait_for(lambda: "delta" in files.state().teams, "the upload to be taken")
        wait_for(lambda: files.state().teams["alpha"].dropped, "the request to be taken")
        assert attempts(files) == []
        assert "nothing to do" not in told(files)
        cluster.start_worker("one")
        wait_for(lambda: len([one for one in attempts(files) if one.scored]) == 3, "three scores")
    assert {one.started.team for one in attempts(files)} == {"bravo", "charlie", "delta"}
    assert told(files).count("no worker is there; waiting for one") == 1
