"""Campaigns over real containers: of known work, here and on workers that share this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median
from typing import TYPE_CHECKING

import docker.errors
from docker import DockerClient

from bench.support.campaign_command import Stopwatch
from bench.support.image import ROOT, build_reference_image
from harness.campaign.events import AttemptStarted
from harness.campaign.folder import CampaignFolder
from harness.campaign.journal import read_journal
from harness.campaign.machine_lock import LOCK_DIR_VARIABLE
from harness.challenge.model import load_challenge
from harness.challenge.pairs import check_data
from harness.engine.base import EngineName
from harness.engine.docker import DockerEngine
from harness.execute import execute
from harness.plan import Plan
from harness.store import RunDirectory, RunStatus
from tests.cluster_parts import Cluster
from tests.docker.campaign_uploads import EXACT, Behaviour, Folder, ImageMaker, root_layer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_ENGINE_S = 120


@contextmanager
def campaign_folder(path: Path, teams: int, sleep_s: float) -> Iterator[list[str]]:
    """``teams`` uploads of 4 MB, each an image of its own whose run takes as long as its sleep and
    three short pairs. The engine has them all already, by these IDs, and none when this is left."""
    client = DockerClient.from_env(timeout=_ENGINE_S)
    label = f"l2r-harness-bench-{uuid.uuid4().hex}"
    path.mkdir(parents=True, exist_ok=True)
    folder = Folder(path, ImageMaker(root=root_layer(client, _base()), label=label))
    folder.write_policy(suspect_reruns=0, calibration={"source": None})
    image_ids: list[str] = []
    try:
        for number in range(teams):
            upload = folder.add_image(f"team{number:02d}.tar", _sleeping(number, sleep_s))
            image_ids += [str(one.id) for one in client.images.load(upload.read_bytes())]
        folder.settle()
        yield image_ids
    finally:
        for image in client.images.list(all=True, filters={"label": label}):
            with suppress(docker.errors.APIError):
                client.images.remove(str(image.id), force=True)
        client.close()


def _base() -> str:
    if (named := os.environ.get("BASE_IMAGE")) is not None:
        return named
    engine = DockerEngine.connect()
    try:
        return build_reference_image(engine).reference
    finally:
        engine.close()


def _sleeping(number: int, sleep_s: float) -> Behaviour:
    return Behaviour(
        what="good, after a while",
        program=f"# team {number}\nsleep {sleep_s:g}\n{EXACT.program}",
        status=RunStatus.SUCCEEDED,
        reason="",
        states=EXACT.states,
        blame=None,
    )


# What a run costs that is part of a campaign.


@dataclass(frozen=True, kw_only=True)
class Overhead:
    """Seconds a run, but for ``fixed_s``, of the command when nothing is outstanding. ``bare_s``:
    ``execute`` alone, of the same images; ``inside_s``: the same in the campaign. ``other_s``: all
    that the campaign takes besides that, scoring and preparing the image, which are work of their
    own. ``beyond_s``: what the target is of. ``cluster_s``: a whole run by a scheduler and one
    worker, scoring left out; None where it was not measured. Medians where there are several."""

    teams: int
    fixed_s: float
    bare_s: float
    inside_s: float
    preparing_s: float
    scoring_s: float
    other_s: float
    cluster_s: float | None

    @property
    def beyond_s(self) -> float:
        return self.inside_s - self.bare_s + self.other_s

    @property
    def cluster_beyond_s(self) -> float | None:
        """The attempt's own process, and all that is sent."""
        if self.cluster_s is None:
            return None
        return self.cluster_s - self.bare_s - self.preparing_s


def measure_overhead(path: Path, teams: int) -> Overhead:
    with campaign_folder(path, teams, 0.0) as image_ids:
        bare = _bare(path, image_ids)
        watch = _watched(path, "local", "runs")
        fixed_s = _watched(path, "local", "runs").wall_s
        cluster_s = _on_one_worker(path, watch)
    runs = len(watch.bare_s)
    if watch.code != 0 or runs != teams:
        raise RuntimeError(f"{runs} of {teams} runs, exit code {watch.code}")
    known_s = sum(watch.bare_s) + sum(watch.preparing_s) + sum(watch.scoring_s)
    return Overhead(
        teams=teams,
        fixed_s=fixed_s,
        bare_s=median(bare),
        inside_s=median(watch.bare_s),
        preparing_s=fmean(watch.preparing_s),
        scoring_s=fmean(watch.scoring_s),
        other_s=(watch.wall_s - fixed_s - known_s) / teams,
        cluster_s=cluster_s,
    )


def _bare(path: Path, image_ids: list[str]) -> list[float]:
    """``execute`` of each image, as `harness run` calls it."""
    challenge = load_challenge(str(path / "tiny.yaml"))
    data = path / "test"
    tasks = check_data(challenge, data)
    engine = DockerEngine.connect()
    seconds: list[float] = []
    try:
        for number, image_id in enumerate(image_ids):
            name = f"team{number:02d}"
            plan = Plan(
                challenge=challenge,
                challenge_file=path / "tiny.yaml",
                data_dir=data,
                tasks=tasks,
                image=engine.find(image_id),
                submission=name,
            )
            directory = RunDirectory.make(path / "bare", name, "20260101-000000")
            begin_s = time.perf_counter()
            record = execute(plan, engine, directory)
            seconds.append(time.perf_counter() - begin_s)
            if record.status is not RunStatus.SUCCEEDED:
                raise RuntimeError(f"{name}: {record.status}, {record.reason}")
    finally:
        engine.close()
    return seconds


def _watched(path: Path, how: str, runs: str, address: str = "-") -> Stopwatch:
    command = [sys.executable, "-m", "bench.support.campaign_command", str(path), runs, address]
    environment = {**os.environ, LOCK_DIR_VARIABLE: str(path / f"locks-{how}")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with (path / f"{how}.log").open("a") as log:
        done = subprocess.run(
            command,
            cwd=ROOT,
            check=False,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
        )
    if done.returncode != 0:
        raise RuntimeError((path / f"{how}.log").read_text()[-2000:])
    return Stopwatch(**json.loads(done.stdout.splitlines()[-1]))


def _on_one_worker(path: Path, local: Stopwatch) -> float:
    """The conductor scores while the worker has the next run, but for the first and the last: so
    scoring is left out by what it took beyond that."""
    with _cluster(path / "cluster", path / "test", "one") as cluster:
        watch = _watched(path, "cluster", "runs-cluster", cluster.address)
        fixed_s = _watched(path, "cluster", "runs-cluster", cluster.address).wall_s
    runs = len(watch.scoring_s)
    if watch.code != 0 or runs != len(local.scoring_s):
        raise RuntimeError(f"{runs} runs on the worker, exit code {watch.code}")
    return (watch.wall_s - fixed_s - sum(watch.scoring_s)) / runs


@contextmanager
def _cluster(folder: Path, data: Path, *names: str) -> Iterator[Cluster]:
    folder.mkdir()
    with Cluster(folder=folder, engine=EngineName.DOCKER) as cluster:
        for name in names:
            shutil.copytree(data, cluster.data(name))
        yield cluster.start(*names)


# How busy several places are.


@dataclass(frozen=True, kw_only=True)
class Busy:
    """``ratio``: of a place's time from the start of its first container to that of its last one,
    how much there was one. ``gap_s``: from the end of one container to the start of the next of the
    same place, ``worst_gap_s`` the longest."""

    places: int
    runs: int
    sleep_s: float
    ratio: float
    gap_s: float
    worst_gap_s: float
    wall_s: float


def measure_busy(path: Path, places: int, runs_each: int, sleep_s: float) -> Busy:
    names = [f"place{number}" for number in range(places)]
    teams = places * runs_each
    with (
        campaign_folder(path, teams, sleep_s),
        _cluster(path / "cluster", path / "test", *names) as cluster,
        _events(path / "events") as events,
    ):
        watch = _watched(path, "cluster", "runs", cluster.address)
    if watch.code != 0:
        raise RuntimeError(f"exit code {watch.code}: {(path / 'cluster.log').read_text()[-2000:]}")
    spans = _spans(events.read_text())
    gaps: list[float] = []
    had_s = whole_s = 0.0
    for attempts in _by_place(path / "runs").values():
        own = sorted(_span_of(spans, name) for name in attempts)
        gaps += [later[0] - one[1] for one, later in pairwise(own)]
        had_s += sum(end - begin for begin, end in own[:-1])
        whole_s += own[-1][0] - own[0][0]
    return Busy(
        places=places,
        runs=len(spans),
        sleep_s=sleep_s,
        ratio=had_s / whole_s,
        gap_s=median(gaps),
        worst_gap_s=max(gaps),
        wall_s=watch.wall_s,
    )


def _by_place(runs: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in read_journal(CampaignFolder(runs).journal_path):
        if isinstance(line.event, AttemptStarted):
            name = f"-{line.event.team}-{line.event.run_id}-"  # a part of its container's name
            found.setdefault(line.event.place.name, []).append(name)
    return found


def _span_of(spans: dict[str, tuple[float, float]], part: str) -> tuple[float, float]:
    (span,) = (found for name, found in spans.items() if part in name)
    return span


@contextmanager
def _events(path: Path) -> Iterator[Path]:
    """The engine's own word, with its nanoseconds, of when containers start and end."""
    form = '{"name": {{json .Actor.Attributes.name}}, "what": "{{.Action}}", "ns": {{.TimeNano}}}'
    command = ["docker", "events", "--format", form]
    for what in ("type=container", "event=start", "event=die"):
        command += ["--filter", what]
    with path.open("wb") as file:
        process = subprocess.Popen(command, stdout=file)
    try:
        yield path
    finally:
        process.terminate()
        process.wait()


def _spans(told: str) -> dict[str, tuple[float, float]]:
    """By the container's name, begin and end."""
    begun: dict[str, float] = {}
    spans: dict[str, tuple[float, float]] = {}
    for line in told.splitlines():
        one = json.loads(line)
        name, at_s = one["name"], one["ns"] / 1e9
        if one["what"] == "start":
            begun[name] = at_s
        elif name in begun:
            spans[name] = (begun.pop(name), at_s)
    return spans
