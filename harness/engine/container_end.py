"""How a container ended, by what the engine says of it and by who asked for it."""

from __future__ import annotations

import signal
import threading
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import docker.errors

from harness.engine.api import API_FAILURES, reason
from harness.engine.base import ExitState
from harness.engine.deadline import within
from harness.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from docker import DockerClient
    from docker.models.containers import Container

VANISHED = ExitState(exit_code=None, out_of_memory=False)

_ASK_S = 10.0
# What a shell gives for a program that cannot be run, and for one that is not there; the engine
# keeps to that for what it is told by the kernel.
_NOT_EXECUTABLE, _NOT_FOUND = 126, 127
_INIT = "docker-init"  # the engine's own program, not the image's
# What the engine says of images whose configuration contradicts their content.
_OF_THE_IMAGE = (
    "unable to find user",
    "unable to find group",
    "no matching entries in passwd file",
    "no matching entries in group file",
    "error during container init: mkdir",  # a WORKDIR where nothing can be written
    "chdir to cwd",
    "not a directory",  # a file where a folder is to be mounted
    "cannot be mounted because it is inside",  # a link to /proc where something is mounted
    "exec format error",
)
_REMOVAL_S = 1.0  # from a kill by `docker rm -f` until the container is gone
_POLL_S = 0.1
_BY_FORCE = {128 + signal.SIGTERM, 128 + signal.SIGKILL}


def failed_start(
    message: str, state: Mapping[str, Any], *, suspected: bool = False
) -> ExitState | None:
    """The exit of a container that the engine could not start, None when the image is not why.

    ``state``: "State" in its inspection. A user that its /etc/passwd lacks, a file where a folder
    is to be mounted, a program that is none: whoever made the image has to act. ``suspected``:
    another image was started just so.
    """
    if _INIT in message and not suspected:
        return None
    code = state.get("ExitCode")
    if code in {_NOT_EXECUTABLE, _NOT_FOUND}:
        return ExitState(exit_code=code, out_of_memory=False)
    if suspected or any(text in message for text in _OF_THE_IMAGE):
        return ExitState(exit_code=_NOT_EXECUTABLE, out_of_memory=False)
    return None


def _exit_state(state: Mapping[str, Any]) -> ExitState:
    """From what the engine says of a container that has ended; "State" in its inspection."""
    if state["Status"] in {"removing", "dead"}:  # not by us: we are still looking at it
        return VANISHED
    return ExitState(exit_code=state["ExitCode"], out_of_memory=bool(state["OOMKilled"]))


class Waiter:
    """Waits for the end of a container in a thread of its own: one request, however often asked."""

    def __init__(self, client: DockerClient, container: Container) -> None:
        self._client = client
        self._container = container
        self._failure: Exception | None = None
        self._ended = threading.Event()
        self._state: ExitState | None = None
        self._signalled = False
        threading.Thread(target=self._wait, name="harness-wait", daemon=True).start()

    def expect_a_signal(self) -> None:
        """From now on the harness itself ends it."""
        self._signalled = True

    def ended_within(self, timeout_s: float) -> bool:
        return self._ended.wait(timeout_s)

    def state(self, name: str) -> ExitState:
        if isinstance(self._failure, EngineError):  # its own words are plain enough
            raise EngineError(str(self._failure)) from self._failure
        if self._state is None:
            raise EngineError(
                f"waiting for {name}: the container engine failed: {self._failure}"
            ) from self._failure
        return self._state

    def _wait(self) -> None:
        try:
            self._client.api.wait(str(self._container.id), timeout=None)
            within(_ASK_S, "looking at how it ended", self._container.reload)
            state = self._container.attrs["State"]
            ended = _exit_state(state)
            if ended.exit_code in _BY_FORCE and not (ended.out_of_memory or self._signalled):
                self._refuse_a_strangers_kill(str(state["FinishedAt"]))
            self._state = ended
        except docker.errors.NotFound:
            self._state = VANISHED
        except (*API_FAILURES, EngineError) as error:
            self._failure = error
        finally:
            self._ended.set()

    def _refuse_a_strangers_kill(self, finished: str) -> None:
        """A submission may kill itself. An engine that is shut down kills it, too, and so does
        somebody with ``docker stop``: the engine's journal of events has only those kills."""
        ended = int(datetime.fromisoformat(finished[:19] + "+00:00").timestamp())
        only = {"container": str(self._container.id), "event": "kill"}
        doing = "asking who killed it"
        try:
            kills = within(
                _ASK_S,
                doing,
                lambda: list(
                    self._client.api.events(since=1, until=ended + 1, filters=only, decode=True)
                ),
            )
        except API_FAILURES as error:
            raise EngineError(
                f"the engine went away while the submission ran ({reason(error)})"
            ) from error
        if kills:
            self._see_whether_it_stays()
            raise EngineError(
                "the container was ended from outside: somebody used `docker stop` or "
                "`docker kill`, or the engine was shut down"
            )

    def _see_whether_it_stays(self) -> None:
        """Raises NotFound when it was killed only to be removed."""
        deadline_s = time.monotonic() + _REMOVAL_S
        while time.monotonic() < deadline_s:
            time.sleep(_POLL_S)
            within(_ASK_S, "looking at how it ended", self._container.reload)
