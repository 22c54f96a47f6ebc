"""What decides whether a test may run here.

A marked test (``docker``, ...) is skipped with a reason where its real part is missing; the switch
``HARNESS_REQUIRE_DOCKER=1`` makes that skip a failure, for machines that must have it. A test
without the mark cannot reach a container engine: it is given an address where none answers.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from harness.campaign.machine_lock import LOCK_DIR_VARIABLE
from harness.engine.docker import DockerEngine
from harness.errors import EngineError, ImageMissing
from harness.scoring.pool import Pool
from tests.side_by_side import SideBySide

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdist.remote import Producer
    from xdist.scheduler import Scheduling

REQUIRE_DOCKER = "HARNESS_REQUIRE_DOCKER"
_NOBODY = 65534  # the user without rights, by custom
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


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    return SideBySide(config, log)


def pytest_make_parametrize_id(val: object) -> str | None:
    """All processes must find tests of the same names, and gzip writes the time into its header."""
    return "gzip" if isinstance(val, bytes) and val.startswith(b"\x1f\x8b") else None


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("docker") is None:
        return
    problem = _docker_problem()
    if problem is not None:
        lacks(problem)


def lacks(problem: str) -> NoReturn:
    """Skip a test with real containers, or fail it where it must run."""
    if os.environ.get(REQUIRE_DOCKER) == "1":
        pytest.fail(f"{REQUIRE_DOCKER}=1, but {problem}", pytrace=False)
    pytest.skip(problem)


@pytest.fixture(autouse=True)
def _no_engine_without_mark(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if request.node.get_closest_marker("docker") is None:
        monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/this-test-lacks-the-docker-mark")


@pytest.fixture(autouse=True)
def _own_machine_lock(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A campaign on this machine neither waits for a test nor refuses it."""
    monkeypatch.setenv(LOCK_DIR_VARIABLE, str(tmp_path_factory.getbasetemp() / "locks"))


@pytest.fixture
def nobody_s_folder() -> Iterator[Path]:
    """A folder of a user other than root, which no mode keeps out; the test runs as that user."""
    user = os.geteuid() or _NOBODY
    with tempfile.TemporaryDirectory(prefix="harness-test-") as name:
        os.chown(name, user, -1)
        before = os.geteuid()
        os.seteuid(user)
        try:
            yield Path(name)
        finally:
            os.seteuid(before)


@pytest.fixture(scope="session")
def pool() -> Iterator[Pool]:
    """One for all tests: its workers have imported what they need, which takes them a second."""
    with Pool(1) as pool:
        yield pool


@pytest.fixture
def running_workers(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """`harness evaluate` in this process takes those, in place of new ones each time."""
    monkeypatch.setattr("harness.evaluation.Pool", lambda *_: nullcontext(pool))
