"""Starts that an engine refuses, by a server that speaks as much of its API as a start takes.

Podman's runtime makes the container when it is attached to, so that there what Docker says of a
start comes a request earlier. The refusals are worded as runc's, and are not recordings.
"""

from __future__ import annotations

import dataclasses
import json
import socketserver
import threading
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

import docker
import pytest

from harness.engine.base import BindMount, ExitState, Image, RunSpec
from harness.engine.container import ContainerExecution
from harness.errors import BuildError, EngineError, HarnessError
from tests.unit.test_engine_spec import spec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOT_A_FOLDER = (
    'runc create failed: unable to start container process: error mounting "/data" to rootfs at '
    '"/l2r/test": not a directory: OCI runtime error'
)
NO_RIGHT = "runc create failed: error setting rlimit type 7: operation not permitted: OCI runtime"


class Server(socketserver.ThreadingUnixStreamServer):
    """Refuses to attach with ``refusals``, one after the other; ``created``: what it was asked for
    each container, ``there``: is it there now? ``starts``: answers to requests to start.
    ``broken``: an image that it makes no container of."""

    daemon_threads = True

    def __init__(self, place: str, refusals: list[str]) -> None:
        super().__init__(place, Handler)
        self.refusals = refusals
        self.starts: list[int] = []
        self.broken: str | None = None
        self.created: list[dict[str, Any]] = []
        self.there = False


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        state = {"Status": "created", "ExitCode": 0, "OOMKilled": False}
        self._answer(200, {"Id": "c", "State": state, "Config": {"Tty": False}})

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "/containers/create" in self.path:
            self.server.created.append(json.loads(content))
            if self.server.broken == self.server.created[-1]["Image"]:
                self._answer(500, {"message": "/merged/f/x: not a directory"})
                return
            self.server.there = True
            self._answer(201, {"Id": "c", "Warnings": []})
        elif "/start" in self.path:
            code = self.server.starts.pop(0)
            self._answer(code, None if code < 400 else {"message": "no space left on device"})
        else:
            assert "/attach" in self.path, self.path
            self._answer(409, {"message": self.server.refusals.pop(0)})

    def do_DELETE(self) -> None:
        code = 204 if self.server.there else 404
        self.server.there = False
        self._answer(code, None)

    def _answer(self, code: int, content: dict[str, Any] | None) -> None:
        body = b"" if content is None else json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "a socket file"

    def log_message(self, *_: object) -> None:
        """Not on the tests' stderr."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(str(tmp_path / "s"), []) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def client(server: Server) -> Iterator[docker.DockerClient]:
    client = docker.DockerClient(base_url=f"unix://{server.server_address!s}", version="1.41")
    yield client
    client.close()


@pytest.fixture
def given(tmp_path: Path) -> RunSpec:
    mount = BindMount(source=tmp_path, target="/l2r/test", read_only=True)
    return spec(mounts=(mount,), log_path=tmp_path / "log.txt")


def test_an_image_at_fault_is_told_when_it_is_attached_to(
    server: Server, client: docker.DockerClient, given: RunSpec
) -> None:
    server.refusals = [NOT_A_FOLDER]
    with ContainerExecution(client, given) as execution:
        execution.start()
        assert execution.wait(1) == ExitState(exit_code=126, out_of_memory=False)
    assert "not a directory" in given.log_path.read_text()
    assert not server.there


def test_without_the_right_to_raise_a_limit_another_is_made_without_it(
    server: Server, client: docker.DockerClient, given: RunSpec
) -> None:
    server.refusals = [NO_RIGHT, NOT_A_FOLDER]
    with ContainerExecution(client, given) as execution:
        execution.start()
    first, second = (
        {limit["Name"] for limit in asked["HostConfig"]["Ulimits"]} for asked in server.created
    )
    assert first - second == {"nofile"}
    assert not server.there


def test_any_other_refusal_is_the_engines(
    server: Server, client: docker.DockerClient, given: RunSpec
) -> None:
    server.refusals = ["no space left on device"]
    with (
        pytest.raises(EngineError, match="no space left on device"),
        ContainerExecution(client, given) as execution,
    ):
        execution.start()
    assert not server.there


ODD = "mkdir /merged/sys/test: read-only file system: OCI runtime error: docker-init"


def test_an_image_is_at_fault_where_another_starts(
    server: Server, client: docker.DockerClient, given: RunSpec
) -> None:
    """Links in an image made its own fault look like the machine's, in words that nobody knew."""
    other = Image(id="sha256:" + "c" * 64, reference="own")
    server.refusals, server.starts = [ODD, ODD], [204]
    with ContainerExecution(client, given, lambda: other) as execution:
        execution.start()
        assert execution.wait(1) == ExitState(exit_code=126, out_of_memory=False)
    assert "read-only file system" in given.log_path.read_text()
    first, tried, again = server.created
    ids = [one["Image"] for one in server.created]
    assert ids == [given.image.id, other.id, given.image.id]
    assert again["HostConfig"] == first["HostConfig"]
    assert tried["HostConfig"] | {"Ulimits": []} == first["HostConfig"] | {"Ulimits": []}
    assert tried["Entrypoint"] == ["true"]
    assert not tried["Cmd"]
    assert not server.there


@pytest.mark.parametrize(("code", "blamed"), [(204, BuildError), (500, EngineError)])
def test_an_image_that_no_container_can_be_made_of(
    server: Server,
    client: docker.DockerClient,
    given: RunSpec,
    code: int,
    blamed: type[HarnessError],
) -> None:
    """With a volume in a file, which not every builder refuses."""
    other = Image(id="sha256:" + "c" * 64, reference="own")
    server.broken, server.starts = given.image.id, [code]
    with (
        pytest.raises(blamed, match="not a directory"),
        ContainerExecution(client, given, lambda: other),
    ):
        pass
    assert not server.there


def test_the_machine_is_at_fault_where_no_image_starts(
    server: Server, client: docker.DockerClient, given: RunSpec
) -> None:
    other = Image(id="sha256:" + "c" * 64, reference="own")
    server.refusals, server.starts = [ODD], [500]
    with (
        pytest.raises(EngineError, match="read-only file system"),
        ContainerExecution(client, given, lambda: other) as execution,
    ):
        execution.start()
    assert not server.there


def test_a_folder_that_is_gone_is_not_made_by_the_engine(
    server: Server, client: docker.DockerClient, given: RunSpec, tmp_path: Path
) -> None:
    gone = BindMount(source=tmp_path / "gone", target="/l2r/test", read_only=True)
    with (
        pytest.raises(EngineError, match=r"/gone: to be mounted at /l2r/test"),
        ContainerExecution(client, dataclasses.replace(given, mounts=(gone,))),
    ):
        pass
    assert server.created == []
