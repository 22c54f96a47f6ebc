"""Speaking to the engine's API: the deadlines, and what its failures become here."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import docker.errors
import requests.exceptions
import urllib3.exceptions

from harness.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterator

CONNECT_TIMEOUT_S = 10
# One request. Creating a container on a slow disk takes seconds; a daemon silent for longer is ill.
REQUEST_TIMEOUT_S = 120
# The longest a build may print nothing: compilers and downloads can be quiet for long.
BUILD_SILENCE_S = 3600

API_FAILURES = (
    docker.errors.DockerException,
    requests.exceptions.RequestException,
    urllib3.exceptions.HTTPError,
)


def reason(error: BaseException) -> str:
    """The engine's own words for a failure, on one line."""
    text = error.explanation if isinstance(error, docker.errors.APIError) else None
    return " ".join(str(text or error or type(error).__name__).split())


@contextmanager
def engine_errors(doing: str) -> Iterator[None]:
    """Turn whatever the engine's API raises into an EngineError that says what was being done."""
    try:
        yield
    except API_FAILURES as error:
        raise EngineError(f"{doing}: the container engine failed: {reason(error)}") from error
