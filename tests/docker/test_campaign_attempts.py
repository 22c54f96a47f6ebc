"""Attempts of a campaign with real images: what a team hands in, and what came of it."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import docker.errors
import numpy as np
import pytest

from harness.campaign.aftermath import find_out
from harness.campaign.job import perform
from harness.campaign.order import JobEnd, KnownRun, Outcome, Place, Source
from harness.campaign.site import Site
from harness.campaign.upload import UploadKind
from harness.errors import Blame
from harness.store import RunDirectory, RunStatus
from tests.tiny import write_data
from tests.unit.test_campaign_job import data_digest, fields_zip, order

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from docker import DockerClient

    from harness.engine.base import Engine, EngineName
    from harness.engine.docker import DockerEngine

pytestmark = pytest.mark.docker

REPOSITORY = Path(__file__).parents[2]
REGISTER = r"""
register() {
  cat /l2r/test/$1/img$2.nii.gz /l2r/test/$1/img$3.nii.gz > /dev/null
  sleep 0.2
  cp /zero.npz /l2r/submission/$1/.part
  mv /l2r/submission/$1/.part /l2r/submission/$1/disp_$2_$3.npz
}
register task_01 0001 0001
"""
REST = "register task_01 0002 0002; register task_02 0007 0008; register task_02 0008 0009"
GOOD = f"{REGISTER}{REST}"
CRASH = f"{REGISTER}exit 7"
HANGS = f"{REGISTER}sleep 600"


@pytest.fixture
def site(tmp_path: Path, engine: DockerEngine) -> Site:
    write_data(tmp_path / "test")
    return Site(
        place=Place(name="here", machine="here"),
        runs_dir=tmp_path / "runs",
        data_dir=tmp_path / "test",
        engine=engine,
        data_digest=data_digest,
        lock_dir=tmp_path / "locks",
    )


@pytest.fixture
def upload(tmp_path: Path, client: DockerClient, base: str) -> Iterator[Callable[..., Source]]:
    """``upload(script, kind)``: what a team hands in; no two images are the same."""
    labels: list[str] = []

    def make(script: str, kind: UploadKind = UploadKind.FOLDER, *lines: str) -> Source:
        folder = tmp_path / f"upload{len(labels)}"
        folder.mkdir()
        np.savez_compressed(folder / "zero.npz", np.zeros((3, 8, 6, 10), np.float16))
        label = uuid.uuid4().hex
        labels.append(label)
        entry = json.dumps(["sh", "-c", script])
        content = [f"FROM {base}", "COPY zero.npz /", f"LABEL unique={label}", *lines]
        (folder / "Dockerfile").write_text("\n".join([*content, f"ENTRYPOINT {entry}"]) + "\n")
        digest = f"sha256:{hashlib.sha256(label.encode()).hexdigest()}"
        source = Source(kind=UploadKind.FOLDER, sha256=digest, entry="team", path=folder)
        if kind is UploadKind.FOLDER:
            return source
        tag = f"l2r-harness-test:{label}"
        image, _ = client.images.build(path=str(folder), tag=tag, rm=True)
        if kind is UploadKind.IMAGE:
            return Source(kind=kind, sha256=str(image.id), entry=tag, reference=tag)
        path = tmp_path / f"{label}.tar"
        with path.open("wb") as file:
            file.writelines(client.api.get_image(tag))
        client.images.remove(tag, force=True)
        with path.open("rb") as file:
            digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        return Source(kind=kind, sha256=digest, entry="team.tar", path=path)

    yield make
    for label in labels:  # whatever names the harness gave them
        for image in client.images.list(filters={"label": f"unique={label}"}):
            with suppress(docker.errors.NotFound):
                client.images.remove(str(image.id), force=True)


def assert_good(end: JobEnd) -> None:
    assert (end.outcome, end.status) == (Outcome.RAN, RunStatus.SUCCEEDED), end.reason
    assert (end.exit_code, end.valid_fields, end.expected_fields) == (0, 4, 4)
    assert len(end.runtimes_s) == 4
    assert all(0.2 <= runtime_s < 10 for runtime_s in end.runtimes_s.values())


@pytest.mark.parametrize("kind", [UploadKind.ARCHIVE, UploadKind.IMAGE, UploadKind.FOLDER])
def test_good_image_however_it_is_handed_in(
    site: Site, upload: Callable[..., Source], kind: UploadKind, nothing_left: None
) -> None:
    source = upload(GOOD, kind)
    end = perform(order(site, source), site)
    assert_good(end)
    assert end.image_id is not None
    known = (KnownRun(image_id=end.image_id, run_id="20260101-000000"),)
    again = perform(order(site, source, run_id="again", known=known), site)
    assert (again.outcome, again.same_as) == (Outcome.SAME, "20260101-000000")
    assert [path.name for path in (site.runs_dir / "team").iterdir()] == ["20260101-000000"]


def test_name_that_means_another_image_now(
    site: Site, upload: Callable[..., Source], client: DockerClient
) -> None:
    """What runs is what was taken up."""
    first, second = upload(GOOD, UploadKind.IMAGE), upload(CRASH, UploadKind.IMAGE)
    client.images.get(first.sha256).tag("l2r-harness-test", tag=f"kept-{uuid.uuid4().hex}")
    name, _, tag = first.entry.partition(":")
    client.images.get(second.sha256).tag(name, tag=tag)
    end = perform(order(site, first), site)
    assert end.image_id == first.sha256
    assert_good(end)


def test_crash(site: Site, upload: Callable[..., Source], nothing_left: None) -> None:
    end = perform(order(site, upload(CRASH)), site)
    assert (end.outcome, end.status) == (Outcome.RAN, RunStatus.CRASHED)
    assert (end.blame, end.exit_code, end.valid_fields) == (Blame.SUBMISSION, 41, 1)


def test_file_that_is_no_image(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "team.tar"
    path.write_bytes(b"not an image" * 1000)
    digest = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    source = Source(kind=UploadKind.ARCHIVE, sha256=digest, entry="team.tar", path=path)
    end = perform(order(site, source), site)
    assert (end.outcome, end.blame, end.exit_code) == (Outcome.REFUSED, Blame.SUBMISSION, 24)
    record = RunDirectory(site.runs_dir / "team/20260101-000000").read_refusal()
    assert record.error == "ImportRejected"
    assert len(record.findings) == 1
    path.unlink()
    end = perform(order(site, source, run_id="gone"), site)
    assert (end.outcome, end.blame) == (Outcome.FAILED, Blame.MACHINE)
    assert not (site.runs_dir / "team/gone").exists()


def test_build_that_fails_tells_its_last_lines(site: Site, upload: Callable[..., Source]) -> None:
    source = upload(GOOD, UploadKind.FOLDER, "RUN echo what it said; exit 3")
    end = perform(order(site, source), site)
    assert (end.outcome, end.exit_code) == (Outcome.REFUSED, 22)
    record = RunDirectory(site.runs_dir / "team/20260101-000000").read_refusal()
    assert any("what it said" in line for line in record.log_tail)


def test_image_that_gets_around_the_limits_is_refused(
    site: Site, upload: Callable[..., Source], nothing_left: None
) -> None:
    """Told when its container is made, when the run directory has begun."""
    source = upload(GOOD, UploadKind.IMAGE, "VOLUME /l2r/submission/task_01")
    end = perform(order(site, source), site)
    assert (end.outcome, end.blame) == (Outcome.REFUSED, Blame.SUBMISSION), end.reason
    run_dir = RunDirectory(site.runs_dir / "team/20260101-000000")
    assert [path.name for path in run_dir.path.iterdir()] == ["refused.json"]


def test_fields_need_no_engine(site: Site, tmp_path: Path) -> None:
    end = perform(order(site, fields_zip(tmp_path / "up.zip")), site)
    assert (end.outcome, end.valid_fields) == (Outcome.FIELDS, 4)


MAKER = """
import sys
from pathlib import Path
from harness.campaign.job import perform
from harness.campaign.order import JobOrder, Place
from harness.campaign.site import Site
from harness.engine.docker import DockerEngine
from tests.unit.test_campaign_job import data_digest
top = Path(sys.argv[1])
site = Site(place=Place(name="here", machine="here"), runs_dir=top / "runs",
            data_dir=top / "test", engine=DockerEngine.connect(), data_digest=data_digest,
            lock_dir=top / "locks")
order = JobOrder.model_validate_json((top / "order.json").read_text())
perform(order, site, lambda seen: print(seen.progress and seen.progress.step, flush=True))
"""


def test_killed_in_the_middle_and_made_again(
    site: Site, engine: DockerEngine, upload: Callable[..., Source], nothing_left: None
) -> None:
    """The next attempt takes the lock once the container that was left is gone."""
    top = site.runs_dir.parent
    asked = order(site, upload(HANGS))
    (top / "order.json").write_text(asked.model_dump_json(by_alias=True))
    process = subprocess.Popen(
        [sys.executable, "-c", MAKER, str(top)], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == "field_written":
            break
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()

    def engine_of(_: EngineName) -> Engine:
        return engine

    end = find_out(RunDirectory(site.runs_dir / "team/20260101-000000"), engine_of)
    assert (end.outcome, end.status, end.recovered) == (Outcome.RAN, RunStatus.INTERRUPTED, True)
    assert (end.valid_fields, end.is_timed) == (1, False)
    assert_good(perform(order(site, upload(GOOD), run_id="again"), site))
