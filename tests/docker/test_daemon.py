"""An engine that goes away, comes back, hangs, or never answers, under a run of its own.

The engine is one started for these tests alone, beside the machine's own, which is left in peace:
in a network of its own, for a second engine without a bridge removes that of the first.
"""

from __future__ import annotations

import dataclasses
import gc
import shutil
import signal
import socket
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import harness.engine.connection as connection_module
import harness.engine.container as container_module
import harness.engine.helper as helper_module
import harness.engine.removal as removal_module
from harness.engine.base import HelperSpec
from harness.engine.docker import DockerEngine
from harness.errors import EngineError, EngineUnreachable
from tests.conftest import lacks
from tests.docker import private_engine
from tests.docker.conftest import shell_spec
from tests.docker.private_engine import PrivateEngine
from tests.docker.test_docker_engine import wait_for_log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.engine.base import Image
    from harness.engine.container import ContainerExecution

pytestmark = [
    pytest.mark.docker,
    # The SDK leaves a socket open that could not be connected.
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
    ),
]


def hurry(monkeypatch: pytest.MonkeyPatch, *, removal_s: float, **deadlines_s: float) -> None:
    """Shorter deadlines of an execution (names in its module, in small letters), and of removals,
    which the last request of each may overrun."""
    for name, value_s in deadlines_s.items():
        monkeypatch.setattr(container_module, f"_{name.upper()}", value_s)
    monkeypatch.setattr(removal_module, "_ASK_S", 1.0)
    monkeypatch.setattr(removal_module, "_REMOVE_DEADLINE_S", removal_s)


def interfaces() -> set[str]:
    return {name for _, name in socket.if_nameindex() if not name.startswith("veth")}


@pytest.fixture(scope="module")
def daemon(engine: DockerEngine, base: str) -> Iterator[PrivateEngine]:
    before = interfaces()
    with tempfile.TemporaryDirectory(prefix="harness-dockerd-") as name:
        if (why := private_engine.why_none(Path(name))) is not None:
            lacks(why)
        with PrivateEngine(Path(name)) as daemon:
            daemon.load(engine, engine.find(base))
            yield daemon
    assert before <= interfaces(), "the machine's own engine has lost its bridge"


@pytest.fixture
def theirs(daemon: PrivateEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[DockerEngine]:
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


def started_again(daemon: PrivateEngine, after_s: float) -> threading.Timer:
    timer = threading.Timer(after_s, daemon.start)
    timer.start()
    return timer


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_restarted_while_a_submission_runs(
    daemon: PrivateEngine, theirs: DockerEngine, image: Image, folder: Path, number: signal.Signals
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
    daemon: PrivateEngine, theirs: DockerEngine, image: Image, folder: Path
) -> None:
    with running(theirs, image, folder) as execution:
        daemon.end(signal.SIGTERM)
        daemon.start()
        with pytest.raises(EngineError, match="engine"):
            execution.wait(20)
    assert daemon.containers() == []


def test_stopped_by_somebody(
    daemon: PrivateEngine, theirs: DockerEngine, image: Image, folder: Path
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
    daemon: PrivateEngine,
    theirs: DockerEngine,
    image: Image,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is ended all the same, and its container is gone once the engine answers again."""
    hurry(monkeypatch, removal_s=2.0, ask_s=1.0, log_drain_s=1.0)
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
    daemon: PrivateEngine,
    theirs: DockerEngine,
    image: Image,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hurry(monkeypatch, removal_s=2.0, ask_s=1.0, untold_s=2.0)
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
    daemon: PrivateEngine,
    theirs: DockerEngine,
    image: Image,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The container that it makes when it goes on does not stay."""
    hurry(monkeypatch, removal_s=2.0, create_s=1.0, ask_s=1.0, half_made_deadline_s=1.0)
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
    daemon: PrivateEngine, theirs: DockerEngine, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left of it is gone once the engine answers again."""
    for name in ("_CREATE_S", "_ASK_S", "_KILL_S"):
        monkeypatch.setattr(helper_module, name, 1.0)
    hurry(monkeypatch, removal_s=1.0)
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
    """It accepts connections, as a daemon does whose disk hangs. Two seconds stand for ten."""
    place = Path(tempfile.mkdtemp(prefix="harness-silent-")) / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(place))
        server.listen()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{place}")
        monkeypatch.setattr(connection_module, "CONNECT_TIMEOUT_S", 2)
        start_s = time.monotonic()
        with pytest.raises(EngineUnreachable):
            DockerEngine.connect()
        assert 2 <= time.monotonic() - start_s < 15
    shutil.rmtree(place.parent)
