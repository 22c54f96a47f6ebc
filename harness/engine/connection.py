"""The connection to a container engine: where it listens, and why it cannot be had."""

from __future__ import annotations

import logging
import os
import socket
from typing import TYPE_CHECKING, Any

import docker
import docker.errors
from docker.context import ContextAPI
from docker.utils import parse_host

from harness.engine.api import API_FAILURES, CONNECT_TIMEOUT_S, REQUEST_TIMEOUT_S, reason
from harness.errors import EngineError, EngineMissing, EngineUnreachable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from docker import DockerClient

_log = logging.getLogger(__name__)

_UNIX = "http+unix://"  # as the SDK spells the address of a socket file
_LOST = (
    "without one there is no isolation, no memory limit that holds, and not the exact image that "
    "the organisers run"
)


def open_client() -> tuple[DockerClient, Mapping[str, Any]]:
    """A client, and what the engine says of itself and its machine (``docker info``).

    Raises EngineMissing when nothing is there, EngineUnreachable when it refuses us.
    """
    host = os.environ.get("DOCKER_HOST") or _context_host()
    try:
        _knock(host)
        client = (
            docker.DockerClient(base_url=host, timeout=CONNECT_TIMEOUT_S)
            if host and not os.environ.get("DOCKER_HOST")
            else docker.from_env(timeout=CONNECT_TIMEOUT_S)
        )
        facts = client.info()
    except (*API_FAILURES, OSError) as error:
        raise connect_error(error, host) from error
    client.api.timeout = REQUEST_TIMEOUT_S
    return client, facts


def _context_host() -> str | None:
    """Where the docker command looks when DOCKER_HOST is not set; None: the default socket.

    Rootless Docker and Docker Desktop listen where their *context* says, which the SDK ignores.
    """
    try:
        context = ContextAPI.get_current_context()
    except (docker.errors.DockerException, OSError, ValueError, KeyError) as error:
        _log.debug("the docker contexts cannot be read: %s", error)
        return None
    return None if context is None or context.Name == "default" else str(context.Host)


def _knock(host: str | None) -> None:
    """Try the socket ourselves: the system's own error is plainer than what the SDK makes of it."""
    address: str = parse_host(host)  # type: ignore[assignment]  # its stub says bytes
    if not address.startswith(_UNIX):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(CONNECT_TIMEOUT_S)
        connection.connect(address.removeprefix(_UNIX))


def connect_error(error: BaseException, host: str | None) -> EngineError:
    """``host`` is where the user told us to look, None for the default socket."""
    causes = list(_causes(error))
    place = host or "the default socket"
    if any(isinstance(cause, PermissionError) for cause in causes):
        return EngineUnreachable(
            f"a container engine is there, but this user may not speak to it at {place}: add "
            "yourself to its group (`sudo usermod -aG docker $USER`, then log in again), or run "
            "the command with sudo"
        )
    if host:
        return EngineUnreachable(
            f"no container engine answers at {host} ({reason(causes[-1])}): start it, or unset "
            "DOCKER_HOST (or `docker context use default`) to use this machine's own"
        )
    if any(isinstance(cause, FileNotFoundError | ConnectionRefusedError) for cause in causes):
        return EngineMissing(
            f"no container engine answers: {_LOST}; install Docker or Podman, or start it "
            "(`sudo systemctl start docker`)"
        )
    return EngineUnreachable(f"the container engine does not answer as expected: {reason(error)}")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from or for.

    Libraries wrap the system's errors several deep, by chaining and by passing them as arguments.
    """
    seen: set[int] = set()
    pending = [error]
    while pending:
        current = pending.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        inner = [current.__cause__, current.__context__, *current.args]
        pending += [item for item in inner if isinstance(item, BaseException)]
