"""Attempts on three real workers on loopback: what is killed costs time, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.campaign.order import Outcome
from harness.errors import Blame
from harness.store import RunDirectory, RunStatus
from tests.cluster_parts import (
    Cluster,
    began,
    conditions_of,
    ends_of,
    files_below,
    gated_method,
    method_source,
    order_of,
    places_of,
    wait_for,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.campaign.order import JobEnd

NAMES = ("one", "two", "three")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(folder=tmp_path) as running:
        yield running.start(*NAMES)


def test_results_come_home(cluster: Cluster, tmp_path: Path) -> None:
    crew = cluster.crew()
    places_of(crew, *NAMES)
    conditions = conditions_of(tmp_path / "one/data")
    for name in NAMES:
        order = order_of(f"team-{name}", method_source(tmp_path / f"team-{name}"), conditions)
        crew.give(order, name)
    ends = ends_of(crew, 3)
    for name in NAMES:
        end = ends[f"team-{name}"]
        assert (end.outcome, end.status) == (Outcome.RAN, RunStatus.SUCCEEDED), end
        run_dir = RunDirectory(tmp_path / f"runs/team-{name}/20260101-000000")
        record = run_dir.read_record()
        assert end.runtimes_s == {pair.key: pair.runtime_s for pair in record.pairs}
    # Those of the last poll may not be in the journal before the next.
    last = cluster.work(name_of_last(ends)) / "runs"
    assert files_below(last)
    crew.poll(0.1)
    wait_for(
        lambda: not any(files_below(cluster.work(name) / "runs") for name in NAMES),
        "what is in the campaign's folder to be removed from the workers'",
    )
    crew.close()


def name_of_last(ends: dict[str, JobEnd]) -> str:
    return list(ends)[-1].removeprefix("team-")


def test_worker_that_is_killed(cluster: Cluster, tmp_path: Path) -> None:
    """Its attempt has failed by the machine, and another worker makes the next."""
    crew = cluster.crew()
    places_of(crew, *NAMES)
    team = tmp_path / "team"
    order = order_of("team", gated_method(team), conditions_of(tmp_path / "one/data"))
    crew.give(order, "one")
    wait_for(lambda: began(team), "the submission to start")
    cluster.kill_worker("one")
    end = ends_of(crew, 1)["team"]
    assert (end.outcome, end.blame) == (Outcome.FAILED, Blame.MACHINE)
    assert end.reason == "worker one was lost"
    places_of(crew, "two", "three")
    (team / "gate").touch()
    crew.give(order.model_copy(update={"run_id": "20260101-000001"}), "two")
    end = ends_of(crew, 1)["team"]
    assert (end.outcome, end.status) == (Outcome.RAN, RunStatus.SUCCEEDED)
    assert began(team) == 2
    crew.close()
