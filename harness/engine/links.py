"""Where an image's WORKDIR and volumes lead, once the links in its file system are followed.

What they are called is looked at before the container is made (``check_image``). Only a container
that is made tells what its links are, and nothing in it runs yet.
"""

from __future__ import annotations

import base64
import json
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from harness.engine.api import engine_errors
from harness.engine.arguments import SYSTEM, is_below
from harness.engine.deadline import within
from harness.errors import BuildError

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container
    from requests import Response

    from harness.engine.base import RunSpec

_ASK_S = 20.0  # one look mounts the container's file system: 10 ms here
_STAT = "X-Docker-Container-Path-Stat"  # of the API's ``HEAD /containers/ID/archive``
_MAX_WORDS = 500
_MISSING, _REFUSED = 404, 400


def check_links(client: DockerClient, container: Container, spec: RunSpec) -> None:
    """Refuse links by which a WORKDIR or a VOLUME gets to where it may not be.

    Raises BuildError, and EngineError when the engine does not answer.
    """
    name, config = f"image {spec.image.reference}", container.attrs["Config"]
    workdir, volumes = config.get("WorkingDir") or "/", sorted(config.get("Volumes") or ())
    lead = _Paths(client, str(container.id), name)
    if is_below(place := lead.end_of(workdir), SYSTEM):
        raise BuildError(
            f"{name}: expected a WORKDIR of its own, found {workdir!r}, which leads to "
            f"{str(place)!r}, the system's; name another folder in its Dockerfile"
        )
    ours = {PurePosixPath(mount.target) for mount in spec.mounts}
    if not ours.issuperset(map(PurePosixPath, volumes)):
        _check_volumes(lead, name, volumes, ours)


def _check_volumes(lead: _Paths, name: str, volumes: list[str], ours: set[PurePosixPath]) -> None:
    mounted = (*ours, *(lead.end_of(str(target)) for target in ours))
    for volume in volumes:
        if PurePosixPath(volume) in ours:
            continue  # the mount is made in its place
        place = lead.end_of(volume)
        # One above a mount comes before it by its name; by a link it may come after it.
        hides = place != PurePosixPath(volume) and any(place in one.parents for one in mounted)
        if hides or is_below(place, (*mounted, *SYSTEM)):
            raise BuildError(
                f"{name}: it declares VOLUME {volume!r}, which leads to {str(place)!r} and would "
                "hide part of what is mounted there; remove that line from its Dockerfile"
            )


class _Paths:
    """Paths in a container that is made and has not been started."""

    def __init__(self, client: DockerClient, container_id: str, image: str) -> None:
        self._client = client
        self._id = container_id
        self._image = image

    def end_of(self, path: str) -> PurePosixPath:
        """Where it leads. What does not exist is taken as spelt."""
        end = PurePosixPath("/")
        for part in PurePosixPath("/", path).parts[1:]:
            end = end.parent if part == ".." else self._followed(end / part)
        return end

    def _followed(self, path: PurePosixPath) -> PurePosixPath:
        """The path, or if it is a link where that leads at last."""
        answer = self._ask("HEAD", path)
        if answer.status_code == _MISSING:
            return path
        if answer.status_code >= _REFUSED:
            words = self._ask("GET", path).text[:_MAX_WORDS].strip()  # only then has it a body
            raise BuildError(
                f"{self._image}: expected a WORKDIR and volumes in folders that may be written, "
                f"and the container engine cannot look at {str(path)!r} in it: {words}; is it a "
                "link to itself, or in a file?"
            )
        link = json.loads(base64.b64decode(answer.headers[_STAT])).get("linkTarget")
        return PurePosixPath("/", link) if link else path

    def _ask(self, method: str, path: PurePosixPath) -> Response:
        doing = f"following links in {self._image}"
        api = self._client.api
        url = f"{api.base_url}/v{api.api_version}/containers/{self._id}/archive"
        only = {"path": str(path)}
        with engine_errors(doing):
            return within(
                _ASK_S, doing, lambda: api.request(method, url, params=only, timeout=_ASK_S)
            )
