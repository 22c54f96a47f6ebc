"""Removing a container and seeing it gone."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import docker.errors

from harness.engine.api import API_FAILURES, reason
from harness.engine.deadline import within
from harness.errors import EngineError

if TYPE_CHECKING:
    from docker import DockerClient

_log = logging.getLogger(__name__)

_ASK_S = 10.0
_REMOVE_DEADLINE_S = 30.0  # an engine that is being restarted answers again after seconds
_POLL_S = 0.2


def remove_container(client: DockerClient, name: str, *, absent_for_s: float = 0.0) -> bool:
    """Remove a container and its volumes by force and see it gone; False when that failed.

    Never raises for the engine's failures: it runs while other errors are on their way, and an
    engine may be about to answer again. ``absent_for_s``: how long a container must stay away
    before it counts as gone.
    """
    start_s = time.monotonic()
    while True:
        try:
            within(
                _ASK_S,
                f"removing the container {name}",
                lambda: client.api.remove_container(name, force=True, v=True),
            )
        except docker.errors.NotFound:
            if time.monotonic() - start_s >= absent_for_s:
                return True
        except (*API_FAILURES, EngineError) as error:  # 409: its removal is under way
            if time.monotonic() - start_s > _REMOVE_DEADLINE_S:
                _log.warning(
                    "the container %s could not be removed (%s); the next run does so, or "
                    "`docker rm -f -v %s`",
                    name,
                    reason(error),
                    name,
                )
                return False
        else:
            return True
        time.sleep(_POLL_S)
