"""A scheduler and workers on loopback, each a process of its own with its own folder."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from harness import __version__
from harness.campaign.conditions import Conditions
from harness.campaign.content import Contents
from harness.campaign.crew import Ended
from harness.campaign.machine_lock import LOCK_DIR_VARIABLE
from harness.campaign.order import AttemptKind, JobOrder, Source
from harness.campaign.upload import UploadKind
from harness.challenge.pairs import read_pairs
from harness.cluster.crew import DaskCrew
from harness.cluster.errand import Patience
from harness.cluster.security import scheduler_address
from harness.engine.base import EngineName
from harness.engine.process import method_digest
from tests.tiny import YAML, ZERO, tiny_challenge, write_data, write_method

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.campaign.order import JobEnd
    from harness.cluster.security import Tls

CHALLENGE = tiny_challenge()
HASTE = Patience(scheduler_s=30.0, worker_s=6.0)
_NUMBERS = itertools.count()
WAIT_S = 40.0  # far more than anything takes, even on a busy machine


def wait_for(what: Callable[[], object], said: str, timeout_s: float = WAIT_S) -> None:
    until_s = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < until_s, f"waited in vain: {said}"
        time.sleep(0.05)


@dataclass(kw_only=True)
class Cluster:
    """``folder``: of everything. A context manager that ends every process it has started."""

    folder: Path
    tls: Tls | None = None
    engine: EngineName = EngineName.PROCESS
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    scheduler: subprocess.Popen[bytes] | None = None
    address: str = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self.workers):
            self.stop(self.workers.pop(name))
        if self.scheduler is not None:
            self.stop(self.scheduler)

    def start(self, *names: str) -> Self:
        self.start_scheduler()
        for name in names:
            self.start_worker(name)
        return self

    def start_scheduler(self) -> None:
        """Again where it was before, if there was one."""
        file = self.folder / "address"
        port = self.address.rpartition(":")[2] or "0"
        file.unlink(missing_ok=True)
        self.scheduler = self._run(
            "scheduler", "scheduler", "--port", port, "--address-file", str(file)
        )
        wait_for(file.exists, f"the scheduler: {self.said('scheduler')}")
        self.address = file.read_text().strip()

    def start_worker(self, name: str, *, version: str = __version__) -> None:
        data = self.data(name)
        if not data.exists():
            write_data(data)
        arguments = ["--data", str(data), "--work", str(self.work(name)), "--machine", name]
        self.workers[name] = self._run(
            name,
            "worker",
            self.address,
            *arguments,
            "--engine",
            self.engine.value,
            version=version,
        )

    def kill_worker(self, name: str) -> None:
        process = self.workers.pop(name)
        process.kill()
        process.wait()

    def kill_scheduler(self) -> None:
        assert self.scheduler is not None
        self.scheduler.kill()
        self.scheduler.wait()

    def work(self, name: str) -> Path:
        return self.folder / name / "work"

    def said(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def data(self, name: str) -> Path:
        return self.folder / name / "data"

    def crew(self, runs_dir: Path, patience: Patience = HASTE) -> DaskCrew:
        return DaskCrew(
            scheduler_address(self.address, self.tls), self.tls, runs_dir, patience=patience
        )

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _run(
        self, name: str, *arguments: str, version: str = __version__
    ) -> subprocess.Popen[bytes]:
        tls = self.tls
        secured = (
            ()
            if tls is None
            else ("--tls-ca", tls.ca, "--tls-cert", tls.cert, "--tls-key", tls.key)
        )
        # As on machines of their own: a lock that all of them shared would let one run at a time.
        environment = {LOCK_DIR_VARIABLE: str(self.folder / f"locks-{name}")}
        (self.folder / name).mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [*command(version), "cluster", *arguments, *map(str, secured)],
                cwd=self.folder / name,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )


def command(version: str) -> list[str]:
    """The harness, which thinks that it is of this version."""
    if version == __version__:
        return [sys.executable, "-m", "harness"]
    code = f"import harness; harness.__version__ = {version!r}; import harness.cli as c; c.main()"
    return [sys.executable, "-c", code]


def places_of(crew: DaskCrew, *names: str) -> None:
    """Wait until these, and no others, are there."""
    wait_for(
        lambda: {place.name for place in crew.places()} == set(names), f"workers {', '.join(names)}"
    )


def ends_of(crew: DaskCrew, count: int, timeout_s: float = WAIT_S) -> dict[str, JobEnd]:
    """The next ends, by team."""
    ends: dict[str, JobEnd] = {}
    until_s = time.monotonic() + timeout_s
    while len(ends) < count:
        assert time.monotonic() < until_s, f"{len(ends)} of {count} attempts ended: {ends}"
        for report in crew.poll(0.2):
            if isinstance(report, Ended):
                ends[report.team] = report.end
    return ends


def conditions_of(data_dir: Path, engine: EngineName = EngineName.PROCESS) -> Conditions:
    return Conditions(
        harness_version=__version__,
        challenge=CHALLENGE.name,
        challenge_digest=CHALLENGE.digest,
        limits=CHALLENGE.limits,
        data_digest=Contents(None).data_digest(data_dir, read_pairs(CHALLENGE, data_dir)),
        engine=engine,
    )


def order_of(team: str, source: Source, conditions: Conditions) -> JobOrder:
    """Of a run that no worker has made before."""
    return JobOrder(
        kind=AttemptKind.SUBMISSION,
        team=team,
        run_id=f"20260101-{next(_NUMBERS):06d}",
        source=source,
        conditions=conditions,
        challenge=CHALLENGE,
        challenge_text=YAML,
    )


def gated_method(folder: Path) -> Source:
    """A method that notes in ``began`` each time it starts, and waits in its second pair until
    there is a file ``gate``."""
    body = f"""
if pair.fixed_id == 2:
    open({str(folder / "began")!r}, 'a').write('x')
    while not os.path.exists({str(folder / "gate")!r}):
        time.sleep(0.02)
{ZERO}"""
    return method_source(folder, body)


def method_source(folder: Path, body: str = ZERO) -> Source:
    path = write_method(folder / "upload", body)
    digest = method_digest(path / "method")
    return Source(kind=UploadKind.FOLDER, sha256=digest, entry=folder.name, path=path)


def began(folder: Path) -> int:
    """How often the gated method started."""
    path = folder / "began"
    return len(path.read_text()) if path.exists() else 0


def files_below(folder: Path) -> Sequence[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def _conduct_for_ever() -> None:
    """A conductor to be killed: give the order on stdin to worker one, and wait."""
    order = JobOrder.model_validate_json(sys.stdin.buffer.read())
    crew = DaskCrew(sys.argv[1], None, Path(sys.argv[2]), patience=HASTE)
    wait_for(lambda: "one" in {place.name for place in crew.places()}, "worker one")
    crew.give(order, "one")
    while True:
        crew.poll(1.0)


if __name__ == "__main__":
    _conduct_for_ever()
