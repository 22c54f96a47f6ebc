"""One submission in one container: its arguments, its life, its end.

The log is read from the container's own output (attach) and the daemon keeps none: its log drivers
write every line to the daemon's disk, which costs the submission ten times as much time a line
printed and loses lines when they rotate.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import docker.errors
from docker.types import LogConfig, Mount, Ulimit

from harness.engine.api import API_FAILURES, engine_errors, reason
from harness.engine.base import ExitState, ScratchUse, Usage
from harness.engine.cgroup import cpu_seconds, cpu_usage_file
from harness.engine.log import CappedLog, LogPump
from harness.engine.owner import LABEL_PREFIX, OWNER_LABEL, Owner
from harness.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from docker import DockerClient
    from docker.models.containers import Container

    from harness.engine.base import RunSpec

_log = logging.getLogger(__name__)

RUN_LABEL = LABEL_PREFIX + "run"
NAME_PREFIX = "l2r-"

_KILL_DEADLINE_S = 60.0  # from SIGKILL until the engine says it is gone; a GPU can take its time
_REMOVE_DEADLINE_S = 60.0
_HALF_MADE_DEADLINE_S = 5.0  # an engine whose create request was cut off finishes it regardless
_LOG_DRAIN_S = 10.0
_POLL_S = 0.2

_VANISHED = ExitState(exit_code=None, out_of_memory=False)


def unique_name(spec: RunSpec) -> str:
    """A container name that is not taken: the run's, as far as the engine allows its letters."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "-" for c in spec.name)
    return f"{NAME_PREFIX}{plain[:60]}-{uuid.uuid4().hex[:8]}"


def container_arguments(spec: RunSpec, *, name: str, owner: Owner) -> dict[str, Any]:
    """Keyword arguments of ``docker.containers.create`` for a run. Pure.

    Nothing in it comes from the submission but the image. The output folder must be one that
    anybody may write to: root in the container has no capabilities, so it is anybody.
    """
    limits = spec.limits
    return {
        "image": spec.image.id,
        "command": list(spec.arguments),
        "name": name,
        "labels": {OWNER_LABEL: owner.text, RUN_LABEL: spec.name},
        "environment": dict(spec.environment),
        "mounts": [
            Mount(
                target=mount.target,
                source=str(mount.source),
                type="bind",
                read_only=mount.read_only,
            )
            for mount in spec.mounts
        ],
        "network_mode": "none",
        "ipc_mode": "private",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "privileged": False,
        "mem_limit": limits.memory_bytes,
        "memswap_limit": limits.memory_bytes,  # memory and swap together: no swap
        "shm_size": limits.shared_memory_bytes,
        "pids_limit": limits.processes,
        "cpuset_cpus": None if spec.cpuset is None else ",".join(map(str, spec.cpuset)),
        "ulimits": [Ulimit(name="core", soft=0, hard=0)],  # core dumps would fill the disk
        # An init reaps what a submission leaves behind, and lets SIGTERM end one that has a shell
        # for its main process.
        "init": True,
        "healthcheck": {"test": ["NONE"]},  # an image's own would run beside what is timed
        "log_config": LogConfig(type="none"),
        "tty": False,
        "stdin_open": False,
        "detach": True,
    }


class ContainerExecution:
    """See :class:`harness.engine.base.Execution`."""

    def __init__(self, client: DockerClient, spec: RunSpec) -> None:
        self._client = client
        self._spec = spec
        self.container_name = unique_name(spec)
        self._arguments = container_arguments(spec, name=self.container_name, owner=Owner.current())
        self._container: Container | None = None
        self._pump: LogPump | None = None
        self._waiter: _Waiter | None = None
        self._looked_for_cpu_file = False
        self._cpu_file: Path | None = None

    def __enter__(self) -> Self:
        try:
            with engine_errors(f"creating the container of {self._spec.name}"):
                self._container = self._client.containers.create(**self._arguments)
        except BaseException as error:  # Ctrl-C as well
            refused = isinstance(error.__cause__, docker.errors.APIError)
            self._clean_up(absent_for_s=0.0 if refused else _HALF_MADE_DEADLINE_S)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._clean_up()
        except KeyboardInterrupt:  # a second Ctrl-C must not leave the container behind
            self._clean_up()
            raise

    def start(self) -> None:
        container = self._created()
        log = CappedLog(self._spec.log_path, self._spec.limits.log_bytes)
        try:
            with engine_errors(f"starting the container of {self._spec.name}"):
                # Attached before it starts, so that not a byte is missed.
                output = _Output(container)
                self._pump = LogPump(output, log, output.close)
                container.start()
        except BaseException:
            if self._pump is None:
                log.close()
            raise
        self._waiter = _Waiter(self._client, container)

    def wait(self, timeout_s: float) -> ExitState | None:
        if self._waiter is None:
            raise EngineError(f"{self._spec.name}: wait was called before start")
        if not self._waiter.ended_within(timeout_s):
            return None
        if self._pump is not None:
            self._pump.finish(_LOG_DRAIN_S)
        return self._waiter.state(self._spec.name)

    def stop(self, grace_s: float = 5.0) -> ExitState:
        if self._waiter is None:  # never started
            return _VANISHED
        for signal, patience_s in (("SIGTERM", grace_s), ("SIGKILL", _KILL_DEADLINE_S)):
            state = self.wait(0.0)
            if state is None:
                self._signal(signal)
                state = self.wait(patience_s)
            if state is not None:
                return state
        raise EngineError(
            f"the container {self.container_name} still runs {_KILL_DEADLINE_S:.0f} s after it was "
            "killed; is a device or a network disk hanging? Look at it with `docker inspect`"
        )

    def usage(self) -> Usage:
        if self._waiter is None or self._waiter.ended_within(0.0):
            return Usage()
        if self._cpu_file is None and not self._looked_for_cpu_file:
            self._looked_for_cpu_file = True
            self._cpu_file = self._find_cpu_file()
        return Usage(cpu_s=None if self._cpu_file is None else cpu_seconds(self._cpu_file))

    def scratch(self) -> ScratchUse | None:
        return None

    def _find_cpu_file(self) -> Path | None:
        container = self._created()
        try:
            container.reload()
            pid = container.attrs["State"]["Pid"]
            groups = Path(f"/proc/{pid}/cgroup").read_text("utf-8", "replace")
        except (*API_FAILURES, OSError) as error:  # it has ended, or runs on another machine
            _log.debug("no CPU time of %s: %s", self.container_name, reason(error))
            return None
        return cpu_usage_file(groups, str(container.id))

    def _created(self) -> Container:
        if self._container is None:
            raise EngineError(f"{self._spec.name}: start was called outside its with block")
        return self._container

    def _signal(self, signal: str) -> None:
        try:
            self._created().kill(signal=signal)
        except API_FAILURES as error:  # mostly: it has just ended; waiting tells
            _log.debug("%s to %s: %s", signal, self.container_name, reason(error))

    def _clean_up(self, absent_for_s: float = 0.0) -> None:
        remove_container(self._client, self.container_name, absent_for_s=absent_for_s)
        if self._pump is not None:
            self._pump.finish(_LOG_DRAIN_S)


def _exit_state(state: dict[str, Any]) -> ExitState:
    """From what the engine says of a container that has ended; "State" in its inspection."""
    if state["Status"] in {"removing", "dead"}:  # not by us: we are still looking at it
        return _VANISHED
    return ExitState(exit_code=state["ExitCode"], out_of_memory=bool(state["OOMKilled"]))


class _Output:
    """What a container prints, in chunks, until it ends or this is closed."""

    def __init__(self, container: Container) -> None:
        self._stream: Any = container.attach(stdout=True, stderr=True, stream=True, logs=False)

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._stream
        finally:
            self._stream._response.close()  # the SDK's stream leaves its connection open

    def close(self) -> None:
        """Shut the connection down, which wakes the thread that reads from it."""
        with suppress(OSError):
            self._stream.close()


class _Waiter:
    """Waits for the end of a container in a thread of its own: one request, however often asked."""

    def __init__(self, client: DockerClient, container: Container) -> None:
        self._client = client
        self._container = container
        self._failure: Exception | None = None
        self._ended = threading.Event()
        self._state: ExitState | None = None
        threading.Thread(target=self._wait, name="harness-wait", daemon=True).start()

    def _wait(self) -> None:
        try:
            self._client.api.wait(str(self._container.id), timeout=None)
            self._container.reload()
            self._state = _exit_state(self._container.attrs["State"])
        except docker.errors.NotFound:
            self._state = _VANISHED
        except API_FAILURES as error:
            self._failure = error
        finally:
            self._ended.set()

    def ended_within(self, timeout_s: float) -> bool:
        return self._ended.wait(timeout_s)

    def state(self, name: str) -> ExitState:
        if self._state is None:
            raise EngineError(
                f"waiting for {name}: the container engine failed: {self._failure}"
            ) from self._failure
        return self._state


def remove_container(client: DockerClient, name: str, *, absent_for_s: float = 0.0) -> bool:
    """Remove a container by force and see it gone; False when it could not be removed.

    Never raises for the engine's failures: it runs while other errors are on their way.
    ``absent_for_s``: how long a container must stay away before it counts as gone.
    """
    start_s = time.monotonic()
    while True:
        try:
            client.api.remove_container(name, force=True, v=True)
        except docker.errors.NotFound:
            if time.monotonic() - start_s >= absent_for_s:
                return True
        except API_FAILURES as error:  # 409: its removal is under way
            if time.monotonic() - start_s > _REMOVE_DEADLINE_S:
                _log.warning(
                    "the container %s could not be removed (%s); try `docker rm -f %s`",
                    name,
                    reason(error),
                    name,
                )
                return False
        else:
            return True
        time.sleep(_POLL_S)
