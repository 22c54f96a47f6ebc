"""Building an image with the engine's classic builder, and telling whose fault a failure is."""

from __future__ import annotations

import re
import time
from collections import deque
from contextlib import closing
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

from harness.engine.api import API_FAILURES, BUILD_SILENCE_S, reason
from harness.errors import BaseImageUnavailable, BuildError, EngineError, HarnessError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from pathlib import Path

    from docker import APIClient
    from docker.models.images import _ContainerLimits

    from harness.engine.base import BuildLimits

BASE_ARGUMENT = "BASE_IMAGE"
OFFLINE_BASE = "l2r-base:latest"  # what `make base-image` makes

_TAIL_LINES = 20
_MAX_LINE_CHARACTERS = 4096  # what a step prints without a line's end must not fill the memory
# Docker: "Step 2/3 : FROM $BASE"; Podman: "[1/2] STEP 2/3: FROM debian", its variables filled in.
_STEP = re.compile(
    r"(?:\[\d+/\d+\] )?step \d+(?:/\d+)? ?: (?P<instruction>\w+)\s+(?P<rest>.*)", re.IGNORECASE
)
_LAYER = re.compile(r" ---> [0-9a-f]{6,}")
_VARIABLE = re.compile(r"\$(?:(?P<plain>\w+)|\{(?P<braced>\w+)(?::-(?P<default>[^}]*))?\})")
_BASE_DEFAULT = re.compile(rf"^\s*ARG\s+{BASE_ARGUMENT}=(\S+)", re.IGNORECASE | re.MULTILINE)
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")
# What an engine says when it cannot get an image another image's files are copied from.
_PULL_FAILURE = re.compile(
    r"pull access denied|manifest (?:for|unknown)|no such host|dial tcp|i/o timeout|TLS handshake"
    r"|Client\.Timeout|connection refused|toomanyrequests|unauthorized|x509|no such image",
    re.IGNORECASE,
)
# How an engine's message begins when it could not give a step its container or that its network.
# The beginning counts: what a program ended with, and the names of files, come later in others.
_ENGINE_FAILURE = re.compile(
    r"(?:error response from daemon: )?(?:failed to create endpoint|failed to set up"
    r"|could not find bridge|driver failed programming|error creating overlay mount"
    r"|failed to create (?:network|nat chain))",
    re.IGNORECASE,
)


class BuildTranscript:
    """What a build's output says about where it stands. Fed line by line; pure.

    A base image is missing when the build fails in a ``FROM`` before that step names its layer:
    whatever the engine's words for it, there is nothing else a ``FROM`` does.

    ``base_default`` is what the Dockerfile says BASE_IMAGE is unless it is given: Podman's output
    has the images' names in place of the variables.
    """

    def __init__(self, arguments: Mapping[str, str], base_default: str | None = None) -> None:
        self._given = dict(arguments)
        self._base = self._given.get(BASE_ARGUMENT, base_default)
        self._arguments: dict[str, str] = {}
        self._instruction = ""
        self._rest = ""
        self._layer_made = False
        self.image_id: str | None = None
        self.tail: deque[str] = deque(maxlen=_TAIL_LINES)

    def line(self, text: str) -> None:
        self.tail.append(text)
        if step := _STEP.match(text):
            self._instruction = step["instruction"].upper()
            self._rest = step["rest"].strip()
            self._layer_made = False
            if self._instruction == "ARG":
                self._declare()
        elif _LAYER.match(text):
            self._layer_made = True

    def _declare(self) -> None:
        name, _, default = self._rest.partition("=")
        self._arguments[name] = self._given.get(name, default.strip("\"'"))

    @property
    def step(self) -> str:
        """The instruction the build is at, as the Dockerfile spells it."""
        return f"{self._instruction} {self._rest}".strip()

    @property
    def uses_base_argument(self) -> bool:
        """Is the step a ``FROM`` whose image the build argument BASE_IMAGE chooses?"""
        if self._instruction != "FROM":
            return False
        names = {m["plain"] or m["braced"] for m in _VARIABLE.finditer(self._rest)}
        return BASE_ARGUMENT in names or (
            self._base is not None and self._base in self._rest.split()
        )

    def unavailable_image(self, message: str) -> str | None:
        """The image that could not be had, when that is why the build failed with ``message``."""
        words = self._rest.split()
        if self._instruction == "FROM" and not self._layer_made:
            images = [word for word in words if not word.startswith("--")]
            return self._expand(images[0]) if images else None
        copied = [w.removeprefix("--from=") for w in words if w.startswith("--from=")]
        if self._instruction == "COPY" and copied and _PULL_FAILURE.search(message):
            return self._expand(copied[0])
        return None

    def engine_failed(self, message: str) -> bool:
        """Did the engine fail to give the step a container, before any of the step's program?"""
        return self._instruction == "RUN" and _ENGINE_FAILURE.match(message) is not None

    def _expand(self, text: str) -> str:
        def value(match: re.Match[str]) -> str:
            name = match["plain"] or match["braced"]
            return self._arguments.get(name) or match["default"] or match[0]

        return _VARIABLE.sub(value, text)


@dataclass(frozen=True, kw_only=True)
class ClassicBuild:
    """One build of ``folder`` with one set of build arguments."""

    api: APIClient
    folder: Path
    tag: str
    arguments: Mapping[str, str]
    limits: BuildLimits
    on_output: Callable[[str], None]

    def run(self) -> str:
        """The immutable ID of the image. Raises BuildError, BaseImageUnavailable or EngineError."""
        transcript = BuildTranscript(self.arguments, base_default(self.folder / "Dockerfile"))
        began_s = time.monotonic()
        try:
            with closing(self._events(transcript, began_s)) as events:
                for event in events:
                    self._take(event, transcript)
        except API_FAILURES as error:
            if self._is_late(began_s) and self._answers():
                raise self._too_long(transcript) from error
            raise self._refused(error) from error
        if transcript.image_id is None:
            raise EngineError(f"building {self.folder}: the container engine named no image")
        return transcript.image_id

    def _events(self, transcript: BuildTranscript, began_s: float) -> Generator[Mapping[str, Any]]:
        """The builder's messages; log text regrouped into one message a line. An engine ends a
        build that nobody listens to any more, so whoever has enough closes this.

        Raises BuildError when the build takes longer than it may.
        """
        limit_s, memory_bytes = self.limits.time_s, self.limits.memory_bytes
        memory: _ContainerLimits = {}
        if memory_bytes is not None:  # swap included, so none on top of it
            memory = {"memory": memory_bytes, "memswap": memory_bytes}
        stream: Generator[Mapping[str, Any]] = self.api.build(
            path=str(self.folder),
            tag=self.tag,
            buildargs=dict(self.arguments),
            rm=True,
            forcerm=True,
            decode=True,
            timeout=BUILD_SILENCE_S if limit_s is None else min(BUILD_SILENCE_S, ceil(limit_s)),
            container_limits=memory,
        )
        pending = ""
        with closing(stream):
            for event in stream:
                if self._is_late(began_s):
                    raise self._too_long(transcript)
                *lines, pending = (pending + event.get("stream", "")).split("\n")
                pending = pending[:_MAX_LINE_CHARACTERS]
                for line in lines:
                    yield {"stream": line[:_MAX_LINE_CHARACTERS]}
                if "stream" not in event:
                    if pending:
                        yield {"stream": pending}
                        pending = ""
                    yield event

    def _is_late(self, began_s: float) -> bool:
        limit_s = self.limits.time_s
        return limit_s is not None and time.monotonic() - began_s >= limit_s

    def _answers(self) -> bool:
        """Does the engine, so that it is the build that is silent?"""
        try:
            return bool(self.api.ping())
        except API_FAILURES:
            return False

    def _too_long(self, transcript: BuildTranscript) -> BuildError:
        return self._build_error(transcript, f"it takes longer than {self.limits.time_s:g} s")

    def _take(self, event: Mapping[str, Any], transcript: BuildTranscript) -> None:
        if "stream" in event:
            line = _CONTROL.sub("", event["stream"]).rstrip()
            transcript.line(line)
            self.on_output(line)
        elif "error" in event:
            raise self._failure(_CONTROL.sub("", event["error"]).strip(), transcript)
        elif "aux" in event:
            transcript.image_id = event["aux"].get("ID", transcript.image_id)
        elif event.get("status") and not event.get("progressDetail"):
            self.on_output(f"{event.get('id', '')} {event['status']}".strip())

    def _failure(self, message: str, transcript: BuildTranscript) -> HarnessError:
        if image := transcript.unavailable_image(message):
            return base_unavailable(image, message, is_argument=transcript.uses_base_argument)
        if not transcript.step:  # Docker refuses such a Dockerfile before it says anything
            return BuildError(f"{self.folder / 'Dockerfile'}: the build was refused: {message}")
        if transcript.engine_failed(message):
            return EngineError(
                f"building {self.folder}: the container engine failed at `{transcript.step}`: "
                f"{message}; restart it (`sudo systemctl restart docker`), `harness doctor` looks "
                "at it"
            )
        return self._build_error(transcript, message)

    def _build_error(self, transcript: BuildTranscript, message: str) -> BuildError:
        tail = "\n".join(f"    {line}" for line in transcript.tail if line)
        return BuildError(
            f"{self.folder}: the build failed at `{transcript.step}`: {message}\n"
            f"  its last lines were:\n{tail}"
        )

    def _refused(self, error: Exception) -> HarnessError:
        """The engine took no build at all: a Dockerfile it cannot read, or its own trouble."""
        text = reason(error)
        if "dockerfile" in text.lower() or "no build stage" in text.lower():
            return BuildError(f"{self.folder / 'Dockerfile'}: the build was refused: {text}")
        return EngineError(f"building {self.folder}: the container engine failed: {text}")


def base_default(dockerfile: Path) -> str | None:
    """The default that a Dockerfile gives its build argument BASE_IMAGE, None when it has none."""
    try:
        found = _BASE_DEFAULT.search(dockerfile.read_text("utf-8", "replace"))
    except OSError:  # the engine will say so
        return None
    return None if found is None else found[1].strip("\"'")


class BaseArgumentUnavailable(BaseImageUnavailable):
    """The missing base is the one that BASE_IMAGE chooses, so another can be given."""


def base_unavailable(image: str, message: str, *, is_argument: bool) -> BaseImageUnavailable:
    kind = BaseArgumentUnavailable if is_argument else BaseImageUnavailable
    remedy = (
        f"name one that is here with `make build {BASE_ARGUMENT}=<image>`, or make one from "
        "this machine's package archive with `make base-image` and build again"
    )
    if not is_argument:
        remedy = (
            f"the Dockerfile names it without the build argument {BASE_ARGUMENT}: write "
            f"`ARG {BASE_ARGUMENT}={image}` and `FROM ${{{BASE_ARGUMENT}}}`, then {remedy}"
        )
    return kind(
        f"the base image {image} is not on this machine and cannot be fetched: {message}\n"
        f"  {remedy}"
    )
