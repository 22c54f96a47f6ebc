"""What a run must not leave behind: containers, volumes, mounts, processes."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import docker.errors
import psutil

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import ContainerCollection
    from docker.models.volumes import VolumeCollection

LABEL = f"org.learn2reg.test={uuid.uuid4().hex}"  # of the faults' images, and so containers
_PATIENCE_S = 5.0  # a process that was killed may need a moment to vanish


class Leftovers:
    """What runs of the faults' images, with data below ``folder``, made since this was built and
    has not gone."""

    def __init__(self, client: DockerClient, folder: Path) -> None:
        self._client = client
        self._folder = folder
        self._since = time.time()
        self._processes = set(psutil.pids())
        self._made: set[str] = set()
        self._volumes: set[str] = set()

    def look(self) -> None:
        """What was made so far. The engine forgets: call this every hundred of its events or so."""
        self._made |= self._containers_made()
        self._volumes |= self._volumes_of(self._made)

    def found(self, *, apart_from: int | None = None) -> list[str]:
        """Waits a moment for what is about to vanish. The process ``apart_from`` may stay."""
        if apart_from is not None:
            self._processes.add(apart_from)
        until = time.monotonic() + _PATIENCE_S
        while (left := self._left()) and time.monotonic() < until:
            time.sleep(0.1)
        return left

    def _left(self) -> list[str]:
        self.look()
        made = self._made
        containers = [name for name in made if self._is_there(self._client.containers, name)]
        volumes = [name for name in self._volumes if self._is_there(self._client.volumes, name)]
        return [
            *(f"container {name}" for name in containers),
            *(f"volume {name}" for name in volumes),
            *self._mounts(made),
            *self._running(made),
        ]

    def _events(self, filters: dict[str, str]) -> list[dict[str, Any]]:
        events = self._client.events(
            since=self._since,  # type: ignore[call-overload]  # its stub knows whole seconds only
            until=time.time(),
            filters=filters,
            decode=True,
        )
        try:
            return list(events)
        finally:
            events._response.close()  # the SDK's stream leaves its connection open

    def _containers_made(self) -> set[str]:
        found = self._events({"type": "container", "event": "create", "label": LABEL})
        return {event["Actor"]["ID"] for event in found}

    def _volumes_of(self, containers: set[str]) -> set[str]:
        return {
            event["Actor"]["ID"]
            for event in self._events({"type": "volume"})
            if event["Actor"]["Attributes"].get("container") in containers
        }

    def _mounts(self, containers: set[str]) -> list[str]:
        marks = (str(self._folder), *containers)
        lines = Path("/proc/self/mounts").read_text("utf-8").splitlines()
        return [f"mount {line}" for line in lines if any(mark in line for mark in marks)]

    def _running(self, containers: set[str]) -> list[str]:
        marks = (str(self._folder), *containers)
        found = []
        for process in psutil.process_iter():
            if process.pid in self._processes:
                continue
            try:
                line = " ".join(process.cmdline())
                ours = process.ppid() == psutil.Process().pid
            except psutil.Error:
                continue
            if ours or any(mark in line for mark in marks):
                found.append(f"process {process.pid} {line}")
        return found

    @staticmethod
    def _is_there(collection: ContainerCollection | VolumeCollection, name: str) -> bool:
        try:
            collection.get(name)
        except docker.errors.NotFound:
            return False
        return True
