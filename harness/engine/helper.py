"""A container of the harness's own beside a submission's: a program spoken to through its streams.

It has no network, no capabilities and nothing of the engine's, only what its spec mounts. It ends
when its stdin is closed, which the engine does as well when the harness dies.
"""

from __future__ import annotations

import logging
import os
import struct
import uuid
from contextlib import suppress
from socket import SHUT_RDWR
from typing import TYPE_CHECKING, Any

import docker.errors
from docker.types import LogConfig, Ulimit

from harness.engine.api import API_FAILURES, engine_errors, reason
from harness.engine.arguments import HELPER_LABEL, NAME_PREFIX, RUN_LABEL, bind
from harness.engine.deadline import Request, within
from harness.engine.owner import OWNER_LABEL, Owner
from harness.engine.removal import remove_container
from harness.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from socket import socket

    from docker import DockerClient
    from docker.models.containers import Container

    from harness.engine.base import HelperSpec

_log = logging.getLogger(__name__)

_FRAME = struct.Struct(">BxxxL")  # which stream, length: how the engine's API mixes the two
_STDOUT = 1
_MEMORY_BYTES = 256 << 20
_PROCESSES = 32
_RT_PRIORITY = 50
# Kernels that share out real-time scheduling by control group (RT_GROUP_SCHED, control groups of
# version 1) give a container none unless it asks, and refuse when its parent group has none either.
# The period is short, as a program that has used up its runtime stands still until the next.
_RT_PERIOD_US, _RT_RUNTIME_US = 100_000, 50_000
_COMPLAINT_BYTES = 4096
# Deadlines of one request each, and from a kill until it is gone.
_CREATE_S = 60.0
_START_S = 60.0
_ASK_S = 10.0
_KILL_S = 10.0


def privileges(spec: HelperSpec) -> Iterator[dict[str, Any]]:
    """What to ask the engine for, from most to least.

    The right to real-time scheduling comes by limit, or, where the engine itself may not raise
    limits, by capability, which only root has the use of.
    """
    if spec.realtime:
        by_limit = {
            "ulimits": [
                Ulimit(name="rtprio", soft=_RT_PRIORITY, hard=_RT_PRIORITY),
                Ulimit(name="memlock", soft=-1, hard=-1),
            ]
        }
        by_capability = {"cap_add": ["SYS_NICE"]}
        budget = {"cpu_rt_period": _RT_PERIOD_US, "cpu_rt_runtime": _RT_RUNTIME_US}
        yield {**by_limit, **budget}
        yield {**by_capability, **budget}
        yield by_limit
        yield by_capability
    yield {}


def helper_arguments(spec: HelperSpec, *, name: str, owner: Owner) -> dict[str, Any]:
    """Keyword arguments of ``docker.containers.create`` for a helper. Pure but for the user's ID.

    It runs as the user of the harness, who may read what is mounted: without capabilities root may
    no more than anybody.
    """
    return {
        "image": spec.image.id,
        "entrypoint": list(spec.command),
        "command": [],
        "name": name,
        "user": f"{os.getuid()}:{os.getgid()}",
        "labels": {OWNER_LABEL: owner.text, RUN_LABEL: spec.name, HELPER_LABEL: ""},
        "mounts": [bind(mount) for mount in spec.mounts],
        "network_mode": "none",
        "ipc_mode": "private",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "read_only": True,
        "mem_limit": _MEMORY_BYTES,
        "memswap_limit": _MEMORY_BYTES,
        "pids_limit": _PROCESSES,
        "healthcheck": {"test": ["NONE"]},
        "log_config": LogConfig(type="none"),
        "tty": False,
        # Attached, not detached: the engine then closes stdin when its only client goes away.
        "stdin_open": True,
        "detach": False,
    }


class HelperContainer:
    """See :class:`harness.engine.base.Helper`."""

    def __init__(self, client: DockerClient, spec: HelperSpec) -> None:
        self._client = client
        self._spec = spec
        self._container: Container | None = None
        self._name: str | None = None
        self._streams: _Streams | None = None

    def start(self) -> None:
        asked = list(privileges(self._spec))
        for granted in asked:
            try:
                self._start(granted)
            except docker.errors.APIError as error:
                self._remove()
                if granted is asked[-1]:
                    raise self._failure("starting", error) from error
                _log.debug("%s is refused %s: %s", self._spec.name, granted, reason(error))
            except API_FAILURES as error:
                self._remove()
                raise self._failure("starting", error) from error
            except BaseException:
                self._remove()
                raise
            else:
                return

    def _start(self, granted: dict[str, Any]) -> None:
        self._name = f"{NAME_PREFIX}{self._spec.name}-{uuid.uuid4().hex[:8]}"
        arguments = helper_arguments(self._spec, name=self._name, owner=Owner.current())
        name, doing = self._name, f"starting {self._spec.name}"
        creating = Request(
            lambda: self._client.containers.create(**arguments, **granted),
            when_late=lambda _: remove_container(self._client, name),
        )
        self._container = container = creating.answer(_CREATE_S, doing)
        attaching = Request(lambda: _Streams(container), when_late=_Streams.close)
        self._streams = attaching.answer(_ASK_S, doing)
        within(_START_S, doing, container.start)

    def send(self, line: bytes) -> None:
        self._open_streams().send(line)

    def read_line(self, timeout_s: float) -> bytes:
        return self._open_streams().read_line(timeout_s)

    @property
    def complaint(self) -> str:
        return "" if self._streams is None else self._streams.complaint

    def end(self, timeout_s: float) -> int | None:
        container, self._container = self._container, None
        if container is None:
            return None
        try:
            if self._streams is not None:
                self._streams.close()
            doing = f"ending {self._spec.name}"
            with engine_errors(doing):
                waiting = Request(lambda: container.wait(timeout=None))
                if not waiting.is_over(timeout_s):
                    with suppress(docker.errors.APIError):  # it has just ended
                        within(_ASK_S, doing, container.kill)
                ended = waiting.answer(_KILL_S, doing)
            code = int(ended["StatusCode"])
            return 128 - code if code > 128 else code
        finally:
            self._remove()

    def _remove(self) -> None:
        if self._streams is not None:
            self._streams.close()
        if self._name is not None:
            remove_container(self._client, self._name)
        self._container = self._name = None

    def _open_streams(self) -> _Streams:
        if self._streams is None:
            raise EngineError(f"{self._spec.name} does not run")
        return self._streams

    def _failure(self, doing: str, error: BaseException) -> EngineError:
        return EngineError(
            f"{doing} {self._spec.name}: the container engine failed: {reason(error)}"
        )


class _Streams:
    """The three streams of a container over one connection."""

    def __init__(self, container: Container) -> None:
        parameters = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
        self._wrapper: Any = container.attach_socket(params=parameters)
        # A socket's file object where the engine listens on a socket file, a socket elsewhere.
        bare: Any = getattr(self._wrapper, "_sock", self._wrapper)
        self._socket: socket = bare
        self._raw = b""
        self._stdout = b""
        self._stderr = b""
        self._closed = False

    def send(self, line: bytes) -> None:
        self._socket.sendall(line)

    def read_line(self, timeout_s: float) -> bytes:
        self._socket.settimeout(timeout_s)
        while b"\n" not in self._stdout:
            chunk = self._socket.recv(1 << 16)
            if not chunk:
                break
            self._raw += chunk
            self._take_frames()
        line, newline, self._stdout = self._stdout.partition(b"\n")
        return line + newline

    @property
    def complaint(self) -> str:
        return self._stderr.decode(errors="replace").strip()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            with suppress(OSError):  # the other side has left already
                self._socket.shutdown(SHUT_RDWR)
            self._wrapper._response.close()

    def _take_frames(self) -> None:
        while len(self._raw) >= _FRAME.size:
            stream, length = _FRAME.unpack_from(self._raw)
            end = _FRAME.size + length
            if len(self._raw) < end:
                return
            content, self._raw = self._raw[_FRAME.size : end], self._raw[end:]
            if stream == _STDOUT:
                self._stdout += content
            else:
                self._stderr = (self._stderr + content)[-_COMPLAINT_BYTES:]
