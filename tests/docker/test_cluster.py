"""Attempts on several workers with real images, however they are handed in."""

from __future__ import annotations

import shutil
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import docker.errors
import pytest

from harness.campaign.order import Outcome
from harness.campaign.upload import UploadKind
from harness.engine.base import EngineName
from harness.store import RunDirectory, RunStatus
from tests.cluster_parts import (
    Cluster,
    conditions_of,
    ends_of,
    files_below,
    order_of,
    places_of,
    wait_for,
)
from tests.docker.campaign_command import arguments_of, harness
from tests.docker.campaign_results import CampaignResults
from tests.docker.campaign_uploads import (
    EXACT,
    REFERENCE,
    Folder,
    ImageMaker,
    fields_zip,
    root_layer,
)
from tests.docker.test_campaign_attempts import GOOD, HANGS, assert_good, upload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from docker import DockerClient

    from harness.campaign.order import Source
    from harness.cluster.crew import DaskCrew

pytestmark = pytest.mark.docker

__all__ = ["upload"]  # a fixture

LABEL = "l2r-cluster-test"
NAMES = ("one", "two", "three")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    with Cluster(folder=folder, engine=EngineName.DOCKER) as running:
        yield running.start(*NAMES)


@pytest.fixture
def crew(cluster: Cluster, tmp_path: Path) -> Iterator[DaskCrew]:
    with closing(cluster.crew(tmp_path / "runs")) as crew:
        places_of(crew, *NAMES)
        yield crew


def test_images_however_they_are_handed_in(
    cluster: Cluster,
    crew: DaskCrew,
    upload: Callable[..., Source],
    tmp_path: Path,
) -> None:
    """Each on a worker of its own. What is no file becomes one on the conductor's machine."""
    conditions = conditions_of(cluster.data("one"), EngineName.DOCKER)
    kinds = (UploadKind.ARCHIVE, UploadKind.IMAGE, UploadKind.FOLDER)
    orders = {kind: order_of(kind, upload(GOOD, kind), conditions) for kind in kinds}
    for name, order in zip(NAMES, orders.values(), strict=True):
        crew.give(order, name)
    ends = ends_of(crew, 3, timeout_s=120)
    for kind, order in orders.items():
        assert_good(ends[kind])
        record = RunDirectory(tmp_path / "runs" / kind / order.run_id).read_record()
        assert record.image_id == ends[kind].image_id
    assert ends[UploadKind.IMAGE].image_id == orders[UploadKind.IMAGE].source.sha256
    made = {
        f"{orders[kind].source.sha256.removeprefix('sha256:')}.tar"
        for kind in (UploadKind.IMAGE, UploadKind.FOLDER)
    }
    assert set(files_below(tmp_path / "runs/_campaign/images")) == made


def test_worker_that_is_killed(
    cluster: Cluster,
    crew: DaskCrew,
    upload: Callable[..., Source],
    tmp_path: Path,
    client: DockerClient,
) -> None:
    """The worker that is started in its place ends the container and keeps the finished field."""
    conditions = conditions_of(cluster.data("one"), EngineName.DOCKER)
    order = order_of("team", upload(HANGS, UploadKind.ARCHIVE), conditions)
    crew.give(order, "one")
    output = cluster.work("one") / "runs/team" / order.run_id / "output"
    wait_for((output / "task_01/disp_0001_0001.npz").exists, "the first field", timeout_s=90)
    assert len(client.containers.list(filters={"name": order.run_id})) == 1
    cluster.kill_worker("one")
    cluster.start_worker("one")
    end = ends_of(crew, 1, timeout_s=90)["team"]
    assert (end.outcome, end.status) == (Outcome.RAN, RunStatus.INTERRUPTED)
    assert (end.recovered, end.valid_fields) == (True, 1)
    run_dir = RunDirectory(tmp_path / "runs/team" / order.run_id)
    assert files_below(run_dir.fields_dir) == ["task_01/disp_0001_0001.npz"]
    assert client.containers.list(all=True, filters={"name": order.run_id}) == []


def test_conductor_needs_no_engine_for_tars_and_zips(
    client: DockerClient, base: str, tmp_path: Path
) -> None:
    """An engine on its machine was asked for, and images were run on the workers' alone."""
    maker = ImageMaker(root=root_layer(client, base), label=LABEL)
    folder = Folder(tmp_path / "campaign", maker)
    folder.add_image("alpha.tar", EXACT)
    folder.add("zipped.zip", fields_zip())
    (folder.path / "reference.tar").write_bytes(maker.tar(REFERENCE))
    calibration = {"source": "reference.tar", "threshold": 0.99}
    folder.write_policy(calibration=calibration, suspect_reruns=0)
    folder.settle()
    nowhere = {"DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    try:
        with Cluster(folder=tmp_path / "cluster", engine=EngineName.DOCKER) as running:
            shutil.copytree(folder.path / "test", running.data("one"))
            running.start("one")
            options = ("--engine", "docker", "--scheduler", running.address)
            arguments = arguments_of("runs", *options)
            done = harness(folder.path, *arguments, environment=nowhere)
            assert done.returncode == 0, done.stderr
            # What takes one says so, by name, before anything is begun.
            folder.write_policy(calibration={"source": base})
            done = harness(folder.path, *arguments, environment=nowhere)
            assert done.returncode in {31, 32}, done.stderr
            assert base in done.stderr
            assert "container engine on this machine" in " ".join(done.stderr.split())
    finally:
        for image in client.images.list(all=True, filters={"label": LABEL}):
            with suppress(docker.errors.APIError):
                client.images.remove(str(image.id), force=True)
    attempts = CampaignResults(folder=folder.path).state.attempts.values()
    became = {one.started.team: one.end.status or one.end.outcome for one in attempts if one.end}
    assert became == {
        "_calibration": RunStatus.SUCCEEDED,
        "alpha": RunStatus.SUCCEEDED,
        "zipped": Outcome.FIELDS,
    }
