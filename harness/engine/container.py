"""One submission in one container: its life, its end.

The log is read from the container's own output (attach) and the daemon keeps none: its log drivers
write every line to the daemon's disk, which costs the submission ten times as much time a line
printed and loses lines when they rotate.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self
from weakref import WeakKeyDictionary

import docker.errors

from harness.engine.api import API_FAILURES, engine_errors, reason
from harness.engine.arguments import (
    HELPER_LABEL,
    OPEN_FILES,
    RUN_LABEL,
    check_sources,
    container_arguments,
    unique_name,
)
from harness.engine.attached import AttachedOutput, discard
from harness.engine.base import ExitState, ScratchUse, Usage
from harness.engine.cgroup import ControlGroup
from harness.engine.container_end import VANISHED, Waiter, failed_start
from harness.engine.deadline import Request, within
from harness.engine.disk import deleted_bytes, tree_bytes
from harness.engine.kernel import open_files_limit
from harness.engine.links import check_links
from harness.engine.log import CappedLog, LogPump
from harness.engine.owner import Owner
from harness.engine.removal import remove_container
from harness.engine.second_start import starts_with
from harness.errors import BuildError, EngineError
from harness.sampler.spec import OwnContainer

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from docker import DockerClient
    from docker.models.containers import Container

    from harness.engine.base import Image, RunSpec

_log = logging.getLogger(__name__)

# The fewest open files that an engine has refused to allow: it gives fewer by itself.
_refused_files: WeakKeyDictionary[DockerClient, int] = WeakKeyDictionary()
# Deadlines of one request each. Creating copies what an image has in its volumes.
_CREATE_S = 120.0
_START_S = 60.0
_ASK_S = 10.0
_SIZE_S = 20.0
_OTHERS_S = 2.0  # a disk is filling up meanwhile
_GONE = 404  # its image, removed by somebody
_KILL_DEADLINE_S = 60.0  # from SIGKILL until the engine says it is gone; a GPU can take its time
_HALF_MADE_DEADLINE_S = 5.0  # an engine whose create request was cut off finishes it regardless
_UNTOLD_S = 30.0  # from the end of the last process until the engine must have told of it
_GONE_S = 10.0  # from the engine's word that it has ended until its processes are gone
_NO_RIGHT_TO_RAISE = "error setting rlimit type 7"  # RLIMIT_NOFILE, as runc says it
_LOG_DRAIN_S = 5.0
_NO_LOG_S = 0.5
_SAMPLE_S = 0.25  # a look at its control group takes 0.1 ms
_POLL_S = 0.2


class ContainerExecution:
    """See :class:`harness.engine.base.Execution`."""

    def __init__(
        self,
        client: DockerClient,
        spec: RunSpec,
        find_other: Callable[[], Image | None] = lambda: None,
    ) -> None:
        """``find_other``: an image that is known to start, to tell a broken image from a broken
        machine with."""
        self._client = client
        self._find_other = find_other
        self._suspected = False
        self._spec = spec
        self.container_name = unique_name(spec)
        self._arguments = container_arguments(spec, name=self.container_name, owner=Owner.current())
        if spec.limits.open_files >= _refused_files.get(client, sys.maxsize):
            self._drop_open_files()
        self._container: Container | None = None
        self._pump: LogPump | None = None
        self._waiter: Waiter | None = None
        self._group: ControlGroup | None = None
        self._usage = Usage()
        self._next_sample_s = 0.0
        self._empty_since_s: float | None = None
        self._stillborn: ExitState | None = None
        self._refusal: str | None = None
        self._half_made_s = 0.0

    def __enter__(self) -> Self:
        check_sources(self._spec.mounts)
        try:
            self._create_or_refuse(f"creating the container of {self._spec.name}")
            check_links(self._client, self._created(), self._spec)
        except BaseException:  # Ctrl-C as well
            self._clean_up(absent_for_s=self._half_made_s)
            raise
        return self

    def _create_or_refuse(self, doing: str) -> None:
        """Raises BuildError where no container can be made of this image, and of another one can,
        as of one with a volume in a file."""
        try:
            self._create(doing)
        except EngineError as error:
            said = error.__cause__
            if not isinstance(said, docker.errors.APIError) or said.status_code == _GONE:
                raise
            if not self._is_suspect():
                raise
        else:
            return
        try:
            self._create(doing)  # a machine that was ill for a moment makes it now
        except EngineError as error:
            raise BuildError(
                f"image {self._spec.image.reference}: the container engine cannot make a container "
                f"of it, and can of another image: {error}"
            ) from error

    def _create(self, doing: str) -> None:
        self._half_made_s = _HALF_MADE_DEADLINE_S  # an interrupt may come before the next line ends
        creation = Request(
            lambda: self._client.containers.create(**self._arguments),
            when_late=lambda _: remove_container(self._client, self.container_name),
        )
        try:
            with engine_errors(doing):
                self._container = creation.answer(_CREATE_S, doing)
        finally:
            if creation.is_over(_HALF_MADE_DEADLINE_S):
                self._half_made_s = 0.0

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
        """An image that cannot be started is the submission's end, told by :meth:`wait`."""
        self._created()
        doing = f"starting the container of {self._spec.name}"
        log = CappedLog(self._spec.log_path, self._spec.limits.log_bytes)
        try:
            with engine_errors(doing):
                # Attached before it starts, so that not a byte is missed.
                output = self._attach_and_start(doing)
                if output is None:  # refused before it could print anything
                    self._pump = LogPump((), log, lambda: None)
                else:
                    self._pump = LogPump(output, log, output.close)
        finally:
            if self._pump is None:
                log.close()
        if self._refusal is not None:
            words = f"the container could not be started: {self._refusal}"
            self._pump.finish(_NO_LOG_S, last_words=words)
        else:
            self._waiter = Waiter(self._client, self._created())
            self._group = self._find_group(self._created())

    def _attach_and_start(self, doing: str) -> AttachedOutput | None:
        """None where the image is why it could not even be attached to. Podman's runtime makes the
        container on attaching, so there that request is refused where Docker refuses the start."""
        container = self._created()
        output: AttachedOutput | None = None
        try:
            attaching = Request(lambda: AttachedOutput(container), when_late=AttachedOutput.discard)
            output = attaching.answer(_ASK_S, doing)
            within(_START_S, doing, container.start)
        except docker.errors.APIError as error:
            if _NO_RIGHT_TO_RAISE in reason(error) and self._drop_open_files():
                discard(output)
                remove_container(self._client, self.container_name)
                self._create(doing)
                return self._attach_and_start(doing)
            within(_ASK_S, doing, container.reload)
            state = container.attrs["State"]
            self._stillborn = failed_start(reason(error), state, suspected=self._suspected)
            if self._stillborn is None:
                discard(output)
                if not self._is_suspect():
                    raise
                remove_container(self._client, self.container_name)
                self._create(doing)  # a machine that was ill for a moment starts it now
                return self._attach_and_start(doing)
            self._refusal = reason(error)
        except BaseException:  # Ctrl-C, or no answer in time
            discard(output)
            raise
        return output

    def _is_suspect(self) -> bool:
        """Would another image start, where this one did not?"""
        other = self._find_other()
        self._suspected = other is not None and starts_with(other, self._client, self._arguments)
        return self._suspected

    def _drop_open_files(self) -> bool:
        """An engine without the right to raise limits gives its own, which is lower, then."""
        _refused_files[self._client] = self._spec.limits.open_files
        kept = [limit for limit in self._arguments["ulimits"] if limit.name != OPEN_FILES]
        dropped = len(kept) < len(self._arguments["ulimits"])
        self._arguments = {**self._arguments, "ulimits": kept}
        return dropped

    def wait(self, timeout_s: float) -> ExitState | None:
        if self._stillborn is not None:
            return self._stillborn
        if self._waiter is None:
            raise EngineError(f"{self._spec.name}: wait was called before start")
        if not self._waiter.ended_within(timeout_s):
            self._sample()
            return None
        if self._pump is not None:
            self._pump.finish(_LOG_DRAIN_S)
        return self._waiter.state(self._spec.name)

    def stop(self, grace_s: float = 5.0) -> ExitState:
        if self._waiter is None:  # never started
            return self._stillborn or VANISHED
        for name, patience_s in (("SIGTERM", grace_s), ("SIGKILL", _KILL_DEADLINE_S)):
            state = self.wait(0.0)
            if state is None:
                self._waiter.expect_a_signal()
                self._signal(name)
                state = self.wait(patience_s)
            if state is not None:
                self._see_it_gone()
                return state
        raise EngineError(
            f"the container {self.container_name} still runs {_KILL_DEADLINE_S:.0f} s after it was "
            "killed; is a device or a network disk hanging? Look at it with `docker inspect`"
        )

    def usage(self) -> Usage:
        self._next_sample_s = 0.0
        self._sample()
        printed_bytes = None if self._pump is None else self._pump.total_bytes
        return dataclasses.replace(self._usage, printed_bytes=printed_bytes)

    def scratch(self) -> ScratchUse | None:
        if self._waiter is None:
            return None
        written = self._written_bytes()
        if written is None:
            return None
        if self._waiter.ended_within(0.0):
            deleted: int | None = 0  # nothing of it is open any more
        else:
            deleted = None if self._group is None else deleted_bytes(self._group.threads())
        return ScratchUse(used_bytes=written + (deleted or 0), deleted_bytes=deleted)

    def own(self) -> OwnContainer | None:
        known = None if self._container is None else self._container.id
        return None if known is None else OwnContainer(container=known)

    def is_alone(self) -> bool:
        """One that has ended and is not removed yet still has its files."""
        doing = "looking for other submissions"
        only = {"label": RUN_LABEL}
        try:
            there = within(
                _OTHERS_S, doing, lambda: self._client.api.containers(all=True, filters=only)
            )
        except (*API_FAILURES, EngineError) as error:
            _log.debug("%s: %s", doing, reason(error))
            return False
        submissions = [found for found in there if HELPER_LABEL not in found["Labels"]]
        return all(found["Labels"][RUN_LABEL] == self._spec.name for found in submissions)

    def _written_bytes(self) -> int | None:
        """In the container's layer, its volumes and the files that the engine keeps for it
        (``/etc/hosts`` and the like, which root in it may write), which the engine alone cannot all
        tell."""
        inspection = self._created().attrs
        kept = [Path(hosts).parent] if (hosts := inspection.get("HostsPath")) else []
        layer = ((inspection.get("GraphDriver") or {}).get("Data") or {}).get("UpperDir")
        mounts = inspection.get("Mounts") or ()
        volumes = [Path(mount["Source"]) for mount in mounts if mount.get("Type") == "volume"]
        if layer and (found := tree_bytes([Path(layer), *kept, *volumes])) is not None:
            return found
        return None if volumes else self._layer_size()

    def _layer_size(self) -> int | None:
        """What the engine says, which takes it as long as counting the files does."""
        doing = f"measuring the container of {self._spec.name}"
        only = {"id": str(self._created().id)}
        try:
            [told] = within(
                _SIZE_S,
                doing,
                lambda: self._client.api.containers(all=True, size=True, filters=only),
            )
            return int(told.get("SizeRw") or 0)
        except (*API_FAILURES, EngineError, ValueError) as error:
            _log.debug("%s: %s", doing, reason(error))
            return None

    def _sample(self) -> None:
        """Remember what it has used: with its last process its control group goes."""
        now_s = time.monotonic()
        if self._group is None or now_s < self._next_sample_s:
            return
        self._next_sample_s = now_s + _SAMPLE_S
        seen = dataclasses.asdict(self._group.usage())
        told = {name: value for name, value in seen.items() if value is not None}
        self._usage = dataclasses.replace(self._usage, **told)
        self._see_that_the_engine_lives(self._group, now_s)

    def _see_that_the_engine_lives(self, group: ControlGroup, now_s: float) -> None:
        ended = self._waiter is None or self._waiter.ended_within(0.0)
        if ended or group.processes():
            self._empty_since_s = None
        elif self._empty_since_s is None:
            self._empty_since_s = now_s
        elif now_s - self._empty_since_s > _UNTOLD_S:
            raise EngineError(
                f"the container {self.container_name} ended {_UNTOLD_S:.0f} s ago, and the "
                "container engine does not say so; does `docker ps` answer?"
            )

    def _find_group(self, container: Container) -> ControlGroup | None:
        try:
            within(_ASK_S, "looking for its control group", container.reload)
            pid = container.attrs["State"]["Pid"]
            groups = Path(f"/proc/{pid}/cgroup").read_text("utf-8", "replace")
        except (*API_FAILURES, EngineError, OSError) as error:  # ended, or on another machine
            _log.debug("no control group of %s: %s", self.container_name, reason(error))
            return None
        group = ControlGroup.of(groups, str(container.id))
        if group is not None:  # then the process is one of this machine's
            self._usage = dataclasses.replace(self._usage, open_files=open_files_limit(pid))
        return group

    def _created(self) -> Container:
        if self._container is None:
            raise EngineError(f"{self._spec.name}: start was called outside its with block")
        return self._container

    def _signal(self, name: str) -> None:
        container = self._created()
        doing = f"{name} to the container of {self._spec.name}"
        try:
            within(_ASK_S, doing, lambda: container.kill(signal=name))
        except API_FAILURES as error:  # mostly: it has just ended; waiting tells
            _log.debug("%s: %s", doing, reason(error))
        except EngineError:
            self._kill_directly()
            raise

    def _see_it_gone(self) -> None:
        """The engine's word for it is checked where its processes can be seen."""
        deadline_s = time.monotonic() + _GONE_S
        while self._group is not None and (left := self._group.processes()):
            if time.monotonic() > deadline_s:
                raise EngineError(
                    f"the container {self.container_name} has ended, says the engine, and of its "
                    f"processes {', '.join(map(str, left))} still run"
                )
            self._kill_directly()
            time.sleep(_POLL_S)

    def _kill_directly(self) -> None:
        """Past an engine that does not answer, where we have the right."""
        for pid in () if self._group is None else self._group.processes():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)

    def _clean_up(self, absent_for_s: float = 0.0) -> None:
        if not remove_container(self._client, self.container_name, absent_for_s=absent_for_s):
            self._kill_directly()
        if self._pump is not None:
            self._pump.finish(_LOG_DRAIN_S)
