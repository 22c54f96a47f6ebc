"""``docker load`` from chunks, with deadlines of our own: a hung engine must not hang us."""

from __future__ import annotations

import json
import queue
import re
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any

import docker.errors
import requests.exceptions

from harness.engine.api import API_FAILURES, reason
from harness.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from docker import APIClient

# An engine that writes a layer to a slow disk says so every second; longer silence is illness.
SILENCE_S = 300.0
_CLOSING_S = 10.0  # until a load that was given up has let go of its stream
_LOADED_ID = re.compile(r"Loaded image(?: ID)?: (sha256:[0-9a-f]{64})")
_MAX_TEXT = 1 << 20  # of the engine's answer that is kept, in characters


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """``image_id``: as the engine named it, None when it did not. ``refusal``: its own words."""

    image_id: str | None
    refusal: str | None


@dataclass
class _Load:
    """One load in a thread: every sign of life puts True into ``signs``, its end False."""

    api: Any  # an APIClient, whose private methods its types do not have
    chunks: Iterable[bytes]
    silence_s: float
    signs: queue.SimpleQueue[bool] = field(default_factory=queue.SimpleQueue)
    given_up: threading.Event = field(default_factory=threading.Event)
    lines: list[str] = field(default_factory=list)
    failure: BaseException | None = None

    def run(self) -> None:
        try:
            # Not the SDK's load_image: it hides the connection, and its timeout is the client's.
            url = self.api._url("/images/load")
            answer = self.api._post(
                url, data=self._body(), params={"quiet": False}, stream=True, timeout=self.silence_s
            )
            with answer:
                self.api._raise_for_status(answer)
                for line in answer.iter_lines(chunk_size=1 << 12):
                    self._alive()
                    if b'"progress"' not in line and sum(map(len, self.lines)) < _MAX_TEXT:
                        self.lines.append(line.decode("utf-8", "replace"))
        except BaseException as error:
            self.failure = error
        finally:
            self.signs.put(False)

    def _body(self) -> Iterator[bytes]:
        for chunk in self.chunks:
            self._alive()
            if chunk:  # an empty one would end the request
                yield chunk

    def _alive(self) -> None:
        if self.given_up.is_set():
            raise EngineError("loading the image was given up")
        self.signs.put(True)


def load_image(
    api: APIClient, chunks: Iterable[bytes], *, deadline_s: float, silence_s: float = SILENCE_S
) -> Loaded:
    """Send the chunks and wait for the engine's answer.

    Raises EngineError when the engine fails, is silent for ``silence_s`` or has not done it in
    ``deadline_s``, and whatever reading ``chunks`` raises.
    """
    load = _Load(api, chunks, silence_s)
    thread = threading.Thread(target=load.run, name="harness-load", daemon=True)
    end_s = monotonic() + deadline_s
    thread.start()
    try:
        while load.signs.get(timeout=max(min(silence_s, end_s - monotonic()), 0.001)):
            if monotonic() >= end_s:
                raise queue.Empty  # noqa: TRY301 - the same as silence
    except queue.Empty:
        raise _silent(silence_s if monotonic() < end_s else deadline_s) from None
    finally:
        load.given_up.set()
        thread.join(_CLOSING_S)
    if isinstance(load.failure, API_FAILURES):
        return _failed(load.failure, silence_s)
    if load.failure is not None:
        raise load.failure
    return _told(load.lines)


def _silent(waited_s: float) -> EngineError:
    return EngineError(
        f"loading the image: the container engine did not finish within {waited_s:.0f} s; is its "
        "disk slow or full? `docker info` shows whether it answers at all"
    )


def _failed(error: Exception, silence_s: float) -> Loaded:
    """What the engine said against the image. One that is silent, or gone, said nothing: that is
    its own failure, and not the image's."""
    if isinstance(error, requests.exceptions.Timeout):
        raise _silent(silence_s) from error
    cause: BaseException | None = error
    while cause is not None:  # the library wraps what our own stream raised
        if isinstance(cause, ValueError | EngineError):
            raise cause
        cause = cause.__cause__ or cause.__context__
    if not isinstance(error, docker.errors.APIError):
        raise EngineError(f"loading the image: the container engine failed: {reason(error)}")
    return Loaded(image_id=None, refusal=reason(error))


def _told(lines: Iterable[str]) -> Loaded:
    image_id, refusal = None, None
    for line in lines:
        event: Any = None
        with suppress(ValueError):
            event = json.loads(line)
        if not isinstance(event, dict):
            continue
        if "error" in event:
            refusal = " ".join(str(event["error"]).split())
        if match := _LOADED_ID.search(str(event.get("stream", ""))):
            image_id = match[1]
    return Loaded(image_id=image_id, refusal=refusal)
