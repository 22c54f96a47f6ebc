"""The recipe of docs/slurm.md, on a Slurm with two nodes on this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from harness.campaign.machine_lock import LOCK_DIR_VARIABLE
from harness.campaign.order import Outcome
from harness.cluster.errand import Patience
from harness.errors import Blame
from harness.store import RunStatus
from tests.cluster_parts import (
    Cluster,
    began,
    conditions_of,
    ends_of,
    gated_method,
    method_source,
    order_of,
    places_of,
    wait_for,
)
from tests.docker.conftest import REPOSITORY
from tests.tiny import write_data

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HERE = REPOSITORY / "scripts/slurm-here"
BATCH_FILE = REPOSITORY / "examples/slurm/workers.sbatch"
NODES = ("gpu1", "gpu2")
PATIENCE = Patience(scheduler_s=30.0, worker_s=30.0)


def why_none() -> str | None:
    if os.geteuid() != 0:
        return "Slurm's daemons need root here"
    lacking = [name for name in ("munged", "slurmctld", "slurmd") if shutil.which(name) is None]
    if lacking:
        return f"no {', '.join(lacking)}: install slurmctld, slurmd, slurm-client and munge"
    return None


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[Slurm]:
    if (why := why_none()) is not None:
        pytest.skip(why)
    with Slurm(tmp_path / "slurm", tmp_path) as running:
        yield running


class Slurm:
    """``site``: the folder that all nodes share. Each node's workers get a folder of locks of their
    own, as on machines of their own."""

    def __init__(self, folder: Path, site: Path) -> None:
        self._folder, self.site = folder, site
        self._harness = site / "harness"
        self._harness.write_text(
            f"#!/bin/sh\nexport {LOCK_DIR_VARIABLE}={site}/locks-$SLURMD_NODENAME\n"
            f'exec {sys.executable} -m harness "$@"\n'
        )
        self._harness.chmod(0o755)

    def __enter__(self) -> Slurm:
        subprocess.run([HERE, "start", self._folder, str(len(NODES))], check=True)
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run([HERE, "stop", self._folder], check=True)

    def call(self, *command: str | Path) -> str:
        environment = {
            **os.environ,
            "SLURM_CONF": str(self._folder / "slurm.conf"),
            "HARNESS": str(self._harness),
            "TMPDIR": str(self.site),
            "PYTHONPATH": str(REPOSITORY),
        }
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, cwd=self.site, env=environment
        )
        return done.stdout

    def start_workers(self, count: int) -> None:
        self.call("sbatch", f"--array=1-{count}", BATCH_FILE, self.site, "--engine=process")

    def job_on(self, node: str) -> str:
        return self.call("squeue", "--noheader", f"--nodelist={node}", "--format=%A").strip()

    def has_jobs(self) -> bool:
        return bool(self.call("squeue", "--noheader"))


def test_a_job_is_a_place_and_the_next_on_its_node_brings_what_it_left(slurm: Slurm) -> None:
    site = slurm.site
    write_data(site / "data")
    with Cluster(folder=site) as cluster:
        cluster.start_scheduler()
        (site / "scheduler.address").write_text(cluster.address)
        slurm.start_workers(2)
        crew = cluster.crew(site / "runs", PATIENCE)
        places_of(crew, *NODES)
        conditions = conditions_of(site / "data")
        alpha = order_of("alpha", gated_method(site / "alpha"), conditions)
        crew.give(alpha, "gpu1")
        crew.give(order_of("beta", method_source(site / "beta"), conditions), "gpu2")
        assert ends_of(crew, 1)["beta"].status is RunStatus.SUCCEEDED

        wait_for(lambda: began(site / "alpha"), "the submission to start")
        slurm.call("scancel", "--batch", "--signal=TERM", slurm.job_on("gpu1"))
        slurm.start_workers(1)
        end = ends_of(crew, 1)["alpha"]
        assert (end.status, end.blame) == (RunStatus.INTERRUPTED, Blame.MACHINE), end
        assert (site / "runs/alpha" / alpha.run_id / "run.json").is_file()

        (site / "alpha/gate").touch()
        places_of(crew, *NODES)
        crew.give(alpha.model_copy(update={"run_id": "20260101-000001"}), "gpu1")
        end = ends_of(crew, 1)["alpha"]
        assert (end.outcome, end.status) == (Outcome.RAN, RunStatus.SUCCEEDED), end
        crew.close()
        slurm.call("scancel", "--batch", "--signal=TERM", "--name=harness-worker")
        wait_for(lambda: not slurm.has_jobs(), "the workers to end")
    assert not list(site.glob("harness-data-*"))
