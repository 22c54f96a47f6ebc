"""Attempts on three real workers on loopback: what is killed costs time, and nothing else."""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import sys
import threading
import time
import zipfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest

from harness import __version__
from harness.campaign.crew import Ended
from harness.campaign.order import Outcome, Source
from harness.campaign.upload import UploadKind
from harness.cluster.crew import DaskCrew
from harness.cluster.errand import CHUNK_BYTES, Patience
from harness.cluster.images import Images
from harness.cluster.parcel import sha256_of
from harness.cluster.security import scheduler_address
from harness.errors import Blame, BuildError, HarnessError, MachineError, OptionError
from harness.store import RunDirectory, RunStatus
from tests.cluster_parts import (
    HASTE,
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
from tests.tiny import write_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.campaign.order import JobEnd, JobOrder

NAMES = ("one", "two", "three")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(folder=tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster.start(*NAMES)


@pytest.fixture
def cluster(running: Cluster) -> Cluster:
    """With all its workers, whatever the test before did to them."""
    for name in NAMES:
        if name not in running.workers:
            running.start_worker(name)
    return running


@pytest.fixture
def crew(cluster: Cluster, tmp_path: Path) -> Iterator[DaskCrew]:
    with closing(cluster.crew(tmp_path / "runs")) as crew:
        places_of(crew, *NAMES)
        yield crew


def test_results_come_home(cluster: Cluster, crew: DaskCrew, tmp_path: Path) -> None:
    conditions = conditions_of(cluster.data("one"))
    orders = {
        name: order_of(f"team-{name}", method_source(tmp_path / f"team-{name}"), conditions)
        for name in NAMES
    }
    for name, order in orders.items():
        crew.give(order, name)
    ends = ends_of(crew, 3)
    for name in NAMES:
        end = ends[f"team-{name}"]
        assert (end.outcome, end.status) == (Outcome.RAN, RunStatus.SUCCEEDED), end
        run_dir = RunDirectory(tmp_path / "runs" / f"team-{name}" / orders[name].run_id)
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


def name_of_last(ends: dict[str, JobEnd]) -> str:
    return list(ends)[-1].removeprefix("team-")


def test_worker_that_is_killed(cluster: Cluster, crew: DaskCrew, tmp_path: Path) -> None:
    """Its attempt has failed by the machine, and another worker makes the next."""
    team = tmp_path / "team"
    order = order_of("team", gated_method(team), conditions_of(cluster.data("one")))
    crew.give(order, "one")
    wait_for(lambda: began(team), "the submission to start")
    cluster.kill_worker("one")
    end = ends_of(crew, 1)["team"]
    assert (end.outcome, end.blame) == (Outcome.FAILED, Blame.MACHINE)
    assert end.reason == "worker one was lost"
    places_of(crew, "two", "three")
    (team / "gate").touch()
    crew.give(order.model_copy(update={"run_id": "20260102-000000"}), "two")
    end = ends_of(crew, 1)["team"]
    assert (end.outcome, end.status) == (Outcome.RAN, RunStatus.SUCCEEDED)
    assert began(team) == 2


def test_worker_that_is_killed_and_started_again(
    cluster: Cluster, crew: DaskCrew, tmp_path: Path
) -> None:
    """It finishes what it had left, with the fields that were there."""
    team = tmp_path / "team"
    order = order_of("team", gated_method(team), conditions_of(cluster.data("one")))
    crew.give(order, "two")
    wait_for(lambda: began(team), "the submission to start")
    cluster.kill_worker("two")
    cluster.start_worker("two")
    end = ends_of(crew, 1)["team"]
    assert (end.outcome, end.status) == (Outcome.RAN, RunStatus.INTERRUPTED)
    assert end.recovered
    assert end.valid_fields == 1
    assert RunDirectory(tmp_path / f"runs/team/{order.run_id}").read_record().reason == end.reason


def test_scheduler_that_is_killed_and_started_again(
    cluster: Cluster, crew: DaskCrew, tmp_path: Path
) -> None:
    """The run goes on meanwhile; it is made once, and its result comes home."""
    team = tmp_path / "team"
    order = order_of("team", gated_method(team), conditions_of(cluster.data("one")))
    crew.give(order, "three")
    wait_for(lambda: began(team), "the submission to start")
    cluster.kill_scheduler()
    (team / "gate").touch()
    made = cluster.work("three") / f"attempts/team/{order.run_id}/end.json"
    wait_for(made.exists, "the run to end without a scheduler")
    assert [report for report in crew.poll(0.1) if isinstance(report, Ended)] == []
    cluster.start_scheduler()
    end = ends_of(crew, 1)["team"]
    assert (end.outcome, end.status, end.recovered) == (Outcome.RAN, RunStatus.SUCCEEDED, False)
    assert began(team) == 1
    assert [path.name for path in (tmp_path / "runs/team").iterdir()] == [order.run_id]
    places_of(crew, *NAMES)


@pytest.mark.parametrize("for_ever", [False, True])
def test_how_long_a_worker_and_the_scheduler_are_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, *, for_ever: bool
) -> None:
    """``for_ever`` as with --watch: far longer than the patience, saying once what is missing."""
    patience = Patience(scheduler_s=1.0, worker_s=30.0, for_ever=for_ever)
    team = tmp_path / "team"
    with Cluster(folder=tmp_path) as cluster:
        cluster.start()
        with closing(cluster.crew(tmp_path / "runs", patience)) as crew:
            if for_ever:
                later = threading.Timer(2.0, cluster.start_worker, ("one",))
                later.start()
                assert [place.name for place in crew.places()] == ["one"]
                later.join()
            else:
                with pytest.raises(MachineError, match="no worker that can be used for 1 s"):
                    crew.places()
                return
            order = order_of("team", gated_method(team), conditions_of(cluster.data("one")))
            crew.give(order, "one")
            wait_for(lambda: began(team), "the submission to start")
            cluster.kill_scheduler()
            (team / "gate").touch()
            time.sleep(4.0)
            assert [one for one in crew.poll(0.1) if isinstance(one, Ended)] == []
            cluster.start_scheduler()
            assert ends_of(crew, 1)["team"].status is RunStatus.SUCCEEDED
    for what in ("no worker is there; waiting for one", "lost; waiting for it", "is there again"):
        assert caplog.text.count(what) == 1, caplog.text


def test_conductor_that_is_killed(cluster: Cluster, tmp_path: Path) -> None:
    """The next one takes the run over; it is made once."""
    team = tmp_path / "team"
    conditions = conditions_of(cluster.data("one"))
    order = order_of("team", gated_method(team), conditions)
    first = subprocess.Popen(
        [sys.executable, "-m", "tests.cluster_parts", cluster.address, tmp_path / "runs"],
        stdin=subprocess.PIPE,
    )
    assert first.stdin is not None
    first.stdin.write(order.model_dump_json().encode())
    first.stdin.close()
    wait_for(lambda: began(team), "the submission to start")
    first.kill()
    first.wait()
    crew = cluster.crew(tmp_path / "runs")
    wait_for(lambda: {place.name for place in crew.places()} == {"two", "three"}, "the others")
    assert not crew.resume(order, "two")
    assert not crew.resume(order.model_copy(update={"run_id": "20260101-000009"}), "one")
    assert crew.resume(order, "one")
    (team / "gate").touch()
    end = ends_of(crew, 1)["team"]
    assert (end.outcome, end.status) == (Outcome.RAN, RunStatus.SUCCEEDED)
    assert began(team) == 1
    crew.close()


def test_upload_that_no_worker_can_read_is_sent(
    cluster: Cluster, crew: DaskCrew, tmp_path: Path
) -> None:
    """A zip of fields, by a path that leads nowhere on a worker. It is larger than one chunk."""
    zip_path = tmp_path / "fields.zip"
    with zipfile.ZipFile(zip_path, "w") as packed:
        for name in ("task_01/disp_0001_0001.npz", "task_01/disp_0002_0002.npz"):
            content = io.BytesIO()
            np.savez_compressed(content, np.zeros((3, 8, 6, 10), np.float16))
            packed.writestr(name, content.getvalue())
        packed.writestr("readme.txt", random.Random(1).randbytes(CHUNK_BYTES + 1000))
    source = Source(
        kind=UploadKind.FIELDS,
        sha256=sha256_of(zip_path),
        entry="fields.zip",
        path=Path(os.path.relpath(zip_path)),
    )
    order = order_of("team", source, conditions_of(cluster.data("one")))
    crew.give(order, "one")
    end = ends_of(crew, 1)["team"]
    assert (end.outcome, end.valid_fields) == (Outcome.FIELDS, 2), end
    kept = cluster.work("one") / "uploads" / source.sha256.removeprefix("sha256:")
    assert sha256_of(kept) == source.sha256
    older = kept.with_name("0" * 64)
    older.touch()
    os.truncate(older, 200 << 30)  # no bytes on the disk, but more than a worker keeps
    os.utime(older, (0, 0))
    with zipfile.ZipFile(zip_path, "a") as packed:
        packed.writestr("more.txt", b"so it is another")
    source = source.model_copy(update={"sha256": sha256_of(zip_path)})
    crew.give(order_of("team", source, order.conditions), "one")
    assert ends_of(crew, 1)["team"].outcome is Outcome.FIELDS
    assert (kept.exists(), older.exists()) == (True, False)
    assert (tmp_path / f"runs/team/{order.run_id}/fields.json").exists()


def test_other_data_is_told_and_not_run(cluster: Cluster, crew: DaskCrew, tmp_path: Path) -> None:
    conditions = conditions_of(cluster.data("one"))
    write_image(cluster.data("two") / "task_01/img0001.nii.gz", seed=99)
    theirs = conditions_of(cluster.data("two")).data_digest
    crew.give(order_of("team", method_source(tmp_path / "team"), conditions), "two")
    end = ends_of(crew, 1)["team"]
    assert (end.outcome, end.blame) == (Outcome.FAILED, Blame.CONFIGURATION)
    assert conditions.data_digest in end.reason
    assert theirs in end.reason
    write_image(cluster.data("two") / "task_01/img0001.nii.gz", seed=1)


def test_worker_of_another_version(
    cluster: Cluster, crew: DaskCrew, caplog: pytest.LogCaptureFixture
) -> None:
    """Named, once, and not used."""
    cluster.start_worker("old", version="0.0.1")
    wait_for(lambda: "worker old is not used" in caplog.text, "a warning")
    expected = f"worker old is not used: has harness 0.0.1, expected {__version__}"
    assert caplog.text.count(expected) == 1
    places_of(crew, *NAMES)
    cluster.kill_worker("old")


def test_job_whose_process_breaks_is_one_attempt(
    cluster: Cluster, crew: DaskCrew, tmp_path: Path
) -> None:
    """The worker lives on."""
    team = tmp_path / "team"
    conditions = conditions_of(cluster.data("one"))
    crew.give(order_of("team", gated_method(team), conditions), "one")
    wait_for(lambda: began(team), "the submission to start")
    worker = psutil.Process(cluster.workers["one"].pid)
    (job,) = worker.children()
    job.send_signal(signal.SIGSEGV)
    end = ends_of(crew, 1)["team"]
    assert (end.outcome, end.status) == (Outcome.RAN, RunStatus.INTERRUPTED)
    assert end.recovered
    crew.give(order_of("other", method_source(tmp_path / "other"), conditions), "one")
    assert ends_of(crew, 1)["other"].status is RunStatus.SUCCEEDED


class _Unportable(Images):
    """Of a conductor's machine on which no image can be made of an upload."""

    def __init__(self, folder: Path, error: HarnessError) -> None:
        super().__init__(folder)
        self._error = error

    def portable(self, order: JobOrder, tell: Callable[[str], None]) -> Source:
        del order, tell
        raise self._error


@pytest.mark.parametrize(
    ("error", "outcome", "blame"),
    [
        (BuildError("RUN false: exit code 1"), Outcome.REFUSED, Blame.SUBMISSION),
        (OptionError("no engine here"), Outcome.FAILED, Blame.CONFIGURATION),
    ],
    ids=["it does not build", "no engine"],
)
def test_an_upload_that_cannot_be_sent_is_its_own_end_alone(
    cluster: Cluster, tmp_path: Path, error: HarnessError, outcome: Outcome, blame: Blame
) -> None:
    """It stopped the campaign, and all other teams with it."""
    address = scheduler_address(cluster.address, None)
    images = _Unportable(tmp_path / "images", error)
    conditions = conditions_of(cluster.data("one"))
    broken = order_of("broken", method_source(tmp_path / "broken"), conditions)
    crew = DaskCrew(address, None, tmp_path / "runs", images=images, patience=HASTE)
    with closing(crew):
        places_of(crew, *NAMES)
        crew.give(broken, "one")
        end = ends_of(crew, 1)["broken"]
    assert (end.outcome, end.blame, end.exit_code) == (outcome, blame, error.exit_code)
    directory = RunDirectory(tmp_path / "runs" / "broken" / broken.run_id)
    assert directory.refused_path.exists() is (outcome is Outcome.REFUSED)
