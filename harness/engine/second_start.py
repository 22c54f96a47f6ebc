"""Whose fault it is that a container could not be started: the same, with another image.

What engines say of an image that contradicts itself is worded in many ways, and whoever makes the
image has a say in it: a link to where the engine mounts something fails as a broken machine does.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from harness.engine.api import API_FAILURES
from harness.engine.arguments import NAME_PREFIX, OPEN_FILES
from harness.engine.deadline import Request, within
from harness.engine.removal import remove_container
from harness.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from docker import DockerClient

    from harness.engine.base import Image

_CREATE_S = 30.0
_START_S = 30.0
_PROGRAM = "true"  # of any image with a shell


def starts_with(image: Image, client: DockerClient, arguments: Mapping[str, Any]) -> bool:
    """Does a container with the same arguments start with ``image``? It does nothing, and is
    removed by its name. False as well when the engine does not answer in time."""
    name = f"{NAME_PREFIX}second-start-{uuid.uuid4().hex[:8]}"
    other = {
        **arguments,
        "image": image.id,
        "name": name,
        "entrypoint": [_PROGRAM],
        "command": [],
        # Whether the engine may raise that one is seen last: the first may have failed before.
        "ulimits": [limit for limit in arguments["ulimits"] if limit.name != OPEN_FILES],
    }
    doing = f"trying the same with {image.reference}"
    creating = Request(
        lambda: client.containers.create(**other),
        when_late=lambda _: remove_container(client, name),
    )
    try:
        within(_START_S, doing, creating.answer(_CREATE_S, doing).start)
    except (*API_FAILURES, EngineError):
        return False
    finally:
        remove_container(client, name)
    return True
