"""A whole campaign on three workers, while a worker, the conductor and the scheduler are killed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from harness.campaign.machine_lock import LOCK_DIR_VARIABLE
from harness.campaign.order import JobOrder, Outcome
from harness.campaign.policy import Exclusive
from harness.errors import Blame
from harness.store import RunStatus
from tests.campaign_parts import CampaignFiles
from tests.cluster_parts import Cluster, wait_for
from tests.tiny import ZERO

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.campaign.state import Attempt

NAMES = ("one", "two", "three")
TEAMS = ("alpha", "bravo", "charlie", "delta", "echo")
SLOW = f"time.sleep(0.8)\n{ZERO}"


@pytest.fixture
def files(tmp_path: Path) -> CampaignFiles:
    files = CampaignFiles(tmp_path)
    files.write_policy("exclusive: gpu\n")
    for team in TEAMS:
        files.add(team, f"# {team}\n{SLOW}")
    files.settle()
    return files


@pytest.fixture
def cluster(files: CampaignFiles, tmp_path: Path) -> Iterator[Cluster]:
    folder = tmp_path / "cluster"
    folder.mkdir()
    with Cluster(folder=folder) as running:
        for name in NAMES:
            shutil.copytree(files.path / "test", running.data(name))
        yield running.start(*NAMES)


def start(files: CampaignFiles, cluster: Cluster) -> subprocess.Popen[bytes]:
    arguments = files.arguments("--scheduler", cluster.address)
    with (files.path / "campaign.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "harness", *arguments],
            cwd=files.path,
            env={**os.environ, LOCK_DIR_VARIABLE: str(files.path / "locks")},
            stdout=log,
            stderr=log,
        )


def ended(files: CampaignFiles) -> list[Attempt]:
    if not files.folder.journal_path.exists():
        return []
    return [one for one in files.state().attempts.values() if one.end is not None]


def test_nothing_is_lost_and_nothing_doubled(files: CampaignFiles, cluster: Cluster) -> None:
    def under_way() -> list[Attempt]:
        if not files.folder.journal_path.exists():
            return []
        return files.state().under_way()

    conductor = start(files, cluster)
    wait_for(lambda: len(under_way()) == len(NAMES), "a run on every worker")
    victim = under_way()[0].started
    first_field = cluster.work(victim.place.name) / "runs" / victim.team / victim.run_id / "output"
    wait_for(lambda: any(first_field.rglob("*.npz")), "its first field")
    order_path = cluster.work(victim.place.name).joinpath(
        "attempts", victim.team, victim.run_id, "order.json"
    )
    order = JobOrder.model_validate_json(order_path.read_bytes())
    assert order.exclusive is Exclusive.GPU, "the campaign's file rules, on every worker"
    cluster.kill_worker(victim.place.name)
    cluster.start_worker(victim.place.name)
    wait_for(lambda: ended(files), "the first end")
    conductor.kill()
    conductor.wait()
    conductor = start(files, cluster)
    wait_for(lambda: len(ended(files)) >= 3, "three ends")
    cluster.kill_scheduler()
    cluster.start_scheduler()
    assert conductor.wait(120) == 0, (files.path / "campaign.log").read_text()

    attempts = ended(files)
    assert len(attempts) == len(files.state().attempts)
    good = [one for one in attempts if one.end and one.end.status is RunStatus.SUCCEEDED]
    assert Counter(one.started.team for one in good) == dict.fromkeys(TEAMS, 1)
    assert all(one.scored is not None and one.scored.exit_code == 0 for one in good)
    others = {one.key: one.end for one in attempts if one not in good and one.end is not None}
    killed = others.pop((victim.team, victim.run_id))
    assert (killed.status, killed.blame) == (RunStatus.INTERRUPTED, Blame.MACHINE)
    # The conductor may have died when an attempt was in its journal and on no worker yet.
    assert {end.outcome for end in others.values()} <= {Outcome.NEVER_STARTED}
    assert len(others) <= 1
    assert len({one.started.place.name for one in attempts}) > 1
    with_run = {one.key for one in attempts if one.end and one.end.outcome is Outcome.RAN}
    runs = {(path.parent.name, path.name) for path in files.folder.runs_dir.glob("[a-z]*/*")}
    assert runs == with_run
    assert not list(files.folder.runs_dir.glob("*/.incoming-*"))

    before = len(files.state().attempts)
    assert start(files, cluster).wait(60) == 0
    assert len(files.state().attempts) == before
    wait_for(
        lambda: not any(list(cluster.work(name).glob("runs/*/*")) for name in NAMES),
        "what is in the campaign's folder to be removed from the workers'",
    )
