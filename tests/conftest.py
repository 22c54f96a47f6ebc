"""What decides whether a test may run here.

A marked test (``docker``, ...) is skipped with a reason where its real part is missing; the switch
``HARNESS_REQUIRE_DOCKER=1`` makes that skip a failure, for machines that must have it. A test
without the mark cannot reach a container engine: it is given an address where none answers.
"""

from __future__ import annotations

import os
from functools import cache

import pytest

from harness.engine.docker import DockerEngine
from harness.errors import EngineError, ImageMissing

REQUIRE_DOCKER = "HARNESS_REQUIRE_DOCKER"
BASES = ("l2r-base:latest", "python:3.11-slim-bookworm")


@cache
def _docker_problem() -> str | None:
    """Why no test with real containers can run, None when they can."""
    try:
        return None if local_base() else f"none of {', '.join(BASES)} here: run `make base-image`"
    except EngineError as error:
        return str(error)


@cache
def local_base() -> str | None:
    """An image that test images can be built from."""
    engine = DockerEngine.connect()
    try:
        return next((name for name in BASES if _has(engine, name)), None)
    finally:
        engine.close()


def _has(engine: DockerEngine, reference: str) -> bool:
    try:
        engine.find(reference)
    except ImageMissing:
        return False
    return True


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("docker") is None:
        return
    problem = _docker_problem()
    if problem is None:
        return
    if os.environ.get(REQUIRE_DOCKER) == "1":
        pytest.fail(f"{REQUIRE_DOCKER}=1, but {problem}", pytrace=False)
    pytest.skip(problem)


@pytest.fixture(autouse=True)
def _no_engine_without_mark(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if request.node.get_closest_marker("docker") is None:
        monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/this-test-lacks-the-docker-mark")
