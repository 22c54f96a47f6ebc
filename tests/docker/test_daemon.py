"""An engine that goes away, comes back, hangs, or never answers, under a run of its own.

The engine is one started for these tests alone, beside the machine's own, which is left in peace:
in a network of its own, for a second engine without a bridge removes that of the first.
"""

from __future__ import annotations

import dataclasses
import gc
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import harness.engine.container as container_module
import harness.engine.helper as helper_module
import harness.engine.removal as removal_module
from harness.engine.base import HelperSpec
from harness.engine.docker import DockerEngine
from harness.errors import EngineError, EngineUnreachable
from tests.docker.conftest import shell_spec
from tests.docker.test_docker_engine import wait_for_log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.engine.base import Image
    from harness.engine.container import ContainerExecution

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(os.geteuid() != 0, reason="starts an engine of its own: needs root"),
    pytest.mark.skipif(
        shutil.which("dockerd") is None or shutil.which("unshare") is None,
        reason="no dockerd, or no unshare, on this machine",
    ),
    # The SDK leaves a socket open that could not be connected.
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
    ),
]


def removed_within(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Have a removal that does not succeed given up sooner."""
    monkeypatch.setattr(removal_module, "_ASK_S", 1.0)
    monkeypatch.setattr(removal_module, "_REMOVE_DEADLINE_S", seconds)


class Daemon:
    """A dockerd with everything of its own in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.host = f"unix://{folder}/d.sock"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        (self._folder / "pid").unlink(missing_ok=True)
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *("unshare", "--net", "--"),
                    *("dockerd", "-H", self.host, "--bridge=none", "--iptables=false"),
                    *(f"--data-root={self._folder}/data", f"--exec-root={self._folder}/exec"),
                    *(f"--pidfile={self._folder}/pid", "--containerd-namespace=l2r-test"),
                    "--containerd-plugins-namespace=l2r-test-plugins",
                ],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline_s = time.monotonic() + 30
        while self.docker("version").returncode:
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                pytest.skip("no second dockerd can be started: " + self._last_words())
            time.sleep(0.1)

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def end(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(30)

    def docker(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ("docker", "-H", self.host, *arguments), capture_output=True, text=True, check=False
        )

    def containers(self) -> list[str]:
        return self.docker("ps", "--all", "--quiet").stdout.split()

    def _last_words(self) -> str:
        return (self._folder / "log").read_text("utf-8", "replace").strip()[-300:]


def interfaces() -> set[str]:
    return {name for _, name in socket.if_nameindex() if not name.startswith("veth")}


@pytest.fixture(scope="module")
def daemon(base: str) -> Iterator[Daemon]:
    folder = Path(tempfile.mkdtemp(prefix="harness-dockerd-"))
    daemon = Daemon(folder)
    before = interfaces()
    try:
        daemon.start()
        with (folder / "image.tar").open("wb") as tar:
            subprocess.run(("docker", "save", base), stdout=tar, check=True)
        assert daemon.docker("load", "-i", str(folder / "image.tar")).returncode == 0
        yield daemon
        daemon.end(signal.SIGTERM)
        assert before <= interfaces(), "the machine's own engine has lost its bridge"
    finally:
        # A daemon mounts its folder on itself.
        subprocess.run(("umount", folder / "data"), check=False, capture_output=True)
        shutil.rmtree(folder)


@pytest.fixture
def theirs(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> Iterator[DockerEngine]:
    monkeypatch.setenv("DOCKER_HOST", daemon.host)
    engine = DockerEngine.connect()
    yield engine
    engine.close()
    gc.collect()  # those sockets, while it is known whose they are


@pytest.fixture
def image(theirs: DockerEngine, base: str) -> Image:
    return theirs.find(base)


@contextmanager
def running(
    engine: DockerEngine, image: Image, folder: Path, script: str = "echo up; sleep 300"
) -> Iterator[ContainerExecution]:
    spec = shell_spec(image, folder, "-c")
    # The base as it is has a Python for its program.
    spec = dataclasses.replace(spec, arguments=("sh", "-c", script))
    with engine.prepare(spec) as execution:
        execution.start()
        wait_for_log(folder, "up")
        yield execution


def wait_by_looks(execution: ContainerExecution) -> None:
    while execution.wait(0.1) is None:
        pass


def started_again(daemon: Daemon, after_s: float) -> threading.Timer:
    timer = threading.Timer(after_s, daemon.start)
    timer.start()
    return timer


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_restarted_while_a_submission_runs(
    daemon: Daemon, theirs: DockerEngine, image: Image, folder: Path, number: signal.Signals
) -> None:
    """Also where the engine, going, ends the container: that is no crash of the submission's."""
    timer = None
    try:
        with running(theirs, image, folder) as execution:
            daemon.end(number)
            start_s = time.monotonic()
            with pytest.raises(EngineError, match="engine"):
                execution.wait(20)
            assert time.monotonic() - start_s < 5
            timer = started_again(daemon, 3.0)
    finally:
        if timer is not None:
            timer.join()
    assert daemon.containers() == []


def test_restarted_while_a_submission_runs_at_once(
    daemon: Daemon, theirs: DockerEngine, image: Image, folder: Path
) -> None:
    with running(theirs, image, folder) as execution:
        daemon.end(signal.SIGTERM)
        daemon.start()
        with pytest.raises(EngineError, match="engine"):
            execution.wait(20)
    assert daemon.containers() == []


def test_stopped_by_somebody(
    daemon: Daemon, theirs: DockerEngine, image: Image, folder: Path
) -> None:
    with running(theirs, image, folder) as execution:
        daemon.docker("kill", execution.container_name)
        with pytest.raises(EngineError, match="from outside"):
            execution.wait(20)


def test_killed_by_itself(theirs: DockerEngine, image: Image, folder: Path) -> None:
    script = "echo up; sleep 1; kill -KILL $$"
    with running(theirs, image, folder, script) as execution:
        state = execution.wait(20)
    assert state is not None
    assert state.exit_code == 128 + signal.SIGKILL


def test_hangs_while_a_submission_runs(
    daemon: Daemon,
    theirs: DockerEngine,
    image: Image,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is ended all the same, and its container is gone once the engine answers again."""
    removed_within(monkeypatch, 2.0)
    for name, value_s in (("_ASK_S", 1.0), ("_LOG_DRAIN_S", 1.0)):
        monkeypatch.setattr(container_module, name, value_s)
    try:
        with running(theirs, image, folder) as execution:
            group = execution._group
            assert group is not None
            assert group.processes()
            daemon.send(signal.SIGSTOP)
            assert execution.wait(0.5) is None, "it goes on as long as it runs"
            start_s = time.monotonic()
            with pytest.raises(EngineError, match="did not answer within 1 s"):
                execution.stop(0.5)
            assert time.monotonic() - start_s < 5
            deadline_s = time.monotonic() + 5
            while group.processes():
                assert time.monotonic() < deadline_s, "it still runs"
                time.sleep(0.05)
        assert time.monotonic() - start_s < 10
    finally:
        daemon.send(signal.SIGCONT)
    deadline_s = time.monotonic() + 10
    while daemon.containers():
        assert time.monotonic() < deadline_s
        time.sleep(0.1)


def test_hangs_and_does_not_tell_of_the_end(
    daemon: Daemon,
    theirs: DockerEngine,
    image: Image,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    removed_within(monkeypatch, 2.0)
    for name, value_s in (("_ASK_S", 1.0), ("_UNTOLD_S", 2.0)):
        monkeypatch.setattr(container_module, name, value_s)
    try:
        with running(theirs, image, folder, "echo up; sleep 2") as execution:
            daemon.send(signal.SIGSTOP)
            start_s = time.monotonic()
            with pytest.raises(EngineError, match="does not say so"):
                wait_by_looks(execution)
            assert time.monotonic() - start_s < 15
            daemon.send(signal.SIGCONT)
    finally:
        daemon.send(signal.SIGCONT)
    assert daemon.containers() == []


def test_hangs_while_a_container_is_made(
    daemon: Daemon,
    theirs: DockerEngine,
    image: Image,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The container that it makes when it goes on does not stay."""
    removed_within(monkeypatch, 2.0)
    for name, value_s in (("_CREATE_S", 1.0), ("_ASK_S", 1.0), ("_HALF_MADE_DEADLINE_S", 1.0)):
        monkeypatch.setattr(container_module, name, value_s)
    execution = theirs.prepare(shell_spec(image, folder, "true"))
    daemon.send(signal.SIGSTOP)
    try:
        start_s = time.monotonic()
        with pytest.raises(EngineError, match=r"creating .* did not answer within 1 s"):
            execution.__enter__()
        assert time.monotonic() - start_s < 8
    finally:
        daemon.send(signal.SIGCONT)
    time.sleep(2)
    assert daemon.containers() == []


def test_hangs_while_a_helper_is_started_or_ended(
    daemon: Daemon, theirs: DockerEngine, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left of it is gone once the engine answers again."""
    for name in ("_CREATE_S", "_ASK_S", "_KILL_S"):
        monkeypatch.setattr(helper_module, name, 1.0)
    removed_within(monkeypatch, 1.0)
    spec = HelperSpec(image=image, name="hung", command=("sh", "-c", "echo up; cat"))
    started, not_started = theirs.helper(spec), theirs.helper(spec)
    started.start()
    assert started.read_line(10) == b"up\n"
    daemon.send(signal.SIGSTOP)
    actions: tuple[tuple[str, Callable[[], object]], ...] = (
        ("ending", lambda: started.end(0.5)),
        ("starting", not_started.start),
    )
    try:
        for doing, act in actions:
            start_s = time.monotonic()
            with pytest.raises(EngineError, match=rf"{doing} hung: .* did not answer within 1 s"):
                act()
            assert time.monotonic() - start_s < 8
    finally:
        daemon.send(signal.SIGCONT)
    deadline_s = time.monotonic() + 10
    while daemon.containers():
        assert time.monotonic() < deadline_s
        time.sleep(0.1)


def test_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """It accepts connections, as a daemon does whose disk hangs."""
    place = Path(tempfile.mkdtemp(prefix="harness-silent-")) / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(place))
        server.listen()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{place}")
        start_s = time.monotonic()
        with pytest.raises(EngineUnreachable):
            DockerEngine.connect()
        assert time.monotonic() - start_s < 25
    shutil.rmtree(place.parent)
