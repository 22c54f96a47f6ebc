"""The faults of ``docs/faults.md`` that come from outside: whole commands, with real containers."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from harness.engine.arguments import RUN_LABEL
from harness.engine.owner import OWNER_LABEL, Owner
from tests.conftest import lacks
from tests.docker import private_engine
from tests.docker.command import Command
from tests.docker.fault_check import AFTER_LIMIT_S, check
from tests.docker.fault_lists import OF_INTENT, OUTSIDE
from tests.docker.leftovers import LABEL, Leftovers
from tests.docker.private_engine import PrivateEngine
from tests.tiny import write_challenge, write_data

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from docker import DockerClient
    from docker.models.containers import Container

    from harness.engine.base import Image
    from harness.engine.docker import DockerEngine
    from tests.docker.conftest import MakeImage
    from tests.docker.fault import Fault

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("nothing_left")]


def fault(name: str) -> Fault:
    return next(fault for fault in OUTSIDE if fault.name == name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_data(tmp_path / "test")
    write_challenge(tmp_path / "tiny.yaml")
    return tmp_path


def check_only_run(name: str, folder: Path, command: Command) -> None:
    """That a command's one run and its exit code are as the table says."""
    exit_code = command.end()
    (run_dir,) = Command.runs(folder)
    record = run_dir.read_record()
    check(fault(name), record, run_dir)
    assert exit_code == record.status.exit_code, command.told
    assert record.reason in " ".join(command.told.split()), command.told


def our_container(client: DockerClient) -> Container:
    (container,) = client.containers.list(filters={"label": LABEL})
    return container


def test_container_removed(client: DockerClient, fault_image: MakeImage, folder: Path) -> None:
    with Command(folder, fault_image(fault("container_removed"))) as command:
        command.await_first_field()
        our_container(client).remove(force=True)
        check_only_run("container_removed", folder / "runs", command)


def test_container_stopped(client: DockerClient, fault_image: MakeImage, folder: Path) -> None:
    with Command(folder, fault_image(fault("container_stopped"))) as command:
        command.await_first_field()
        our_container(client).stop(timeout=2)
        check_only_run("container_stopped", folder / "runs", command)


def test_interrupted(fault_image: MakeImage, folder: Path) -> None:
    with Command(folder, fault_image(fault("interrupted"))) as command:
        command.await_first_field()
        command.signal(signal.SIGINT)
        check_only_run("interrupted", folder / "runs", command)


def test_interrupted_twice(fault_image: MakeImage, folder: Path) -> None:
    """The second Ctrl-C waits: what the first one ended is being stored."""
    with Command(folder, fault_image(fault("interrupted_twice"))) as command:
        command.await_first_field()
        command.signal(signal.SIGINT)
        first_s = time.monotonic()
        time.sleep(1.0)
        command.signal(signal.SIGINT)
        check_only_run("interrupted_twice", folder / "runs", command)
    assert time.monotonic() - first_s < AFTER_LIMIT_S


def test_harness_killed(client: DockerClient, fault_image: MakeImage, folder: Path) -> None:
    """The next run removes its container, and no other, and stores what it had finished."""
    image = fault_image(fault("harness_killed"))
    with bystanders(client, image) as others, Command(folder, image) as killed:
        killed.await_first_field()
        killed.signal(signal.SIGKILL)
        assert killed.end() == -signal.SIGKILL
        assert len(client.containers.list(filters={"label": LABEL})) == len(others) + 1
        with Command(folder, fault_image(fault("after_a_killed_harness"))) as again:
            assert again.end() == 0, again.told
        left = client.containers.list(filters={"label": LABEL})
        assert {container.id for container in left} == {container.id for container in others}
    first, second = Command.runs(folder / "runs")
    check(fault("harness_killed"), first.read_record(), first)
    check(fault("after_a_killed_harness"), second.read_record(), second)


@pytest.mark.parametrize("name", ["odd_names", "fake_verdict"])
def test_terminal_obeys_nothing(name: str, fault_image: MakeImage, folder: Path) -> None:
    """Of what a submission prints or calls its files, only its verdict's own line is the harness's
    word, and nothing is a command to the terminal."""
    shown = next(fault for fault in OF_INTENT if fault.name == name)
    with Command(folder, fault_image(shown)) as command:
        assert command.end() == shown.status.exit_code
    assert shown.reason in command.told
    controls = {char for char in command.told if not char.isprintable()} - {"\n", "\t"}
    assert controls == set()


def test_what_is_left_is_found(client: DockerClient, fault_image: MakeImage, folder: Path) -> None:
    """The check after each test here sees a container, its volumes and processes."""
    leftovers = Leftovers(client, folder)
    volumes = next(fault for fault in OF_INTENT if fault.name == "volumes")
    container = client.containers.run(
        fault_image(volumes).id, entrypoint=["sleep", "100"], network_mode="none", detach=True
    )
    with subprocess.Popen(["sleep", "100"]) as process:
        left = leftovers.found()
        process.kill()
    container.remove(force=True, v=True)
    kinds = [line.split()[0] for line in left]
    assert kinds.count("container") == 1
    assert kinds.count("volume") == 3
    assert any(str(process.pid) in line for line in left if line.startswith("process"))
    assert any("containerd-shim" in line for line in left)
    assert leftovers.found() == []


@contextmanager
def bystanders(client: DockerClient, image: Image) -> Iterator[list[Container]]:
    """Containers that are nobody's, of an owner who lives, and with a dead owner's label alone."""
    dead = replace(Owner.current(), pid="1", start="1")
    containers: list[Container] = []
    try:
        for labels in ({}, _ours(Owner.current()), {OWNER_LABEL: dead.text}):
            containers.append(
                client.containers.run(
                    image.id,
                    entrypoint=["sleep", "100"],
                    labels=labels,
                    network_mode="none",
                    detach=True,
                )
            )
        yield containers
    finally:
        for container in containers:
            container.remove(force=True)


def _ours(owner: Owner) -> dict[str, str]:
    return {OWNER_LABEL: owner.text, RUN_LABEL: "another run"}


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    """A folder on a file system of its own, of 64 MiB in memory."""
    if os.geteuid() != 0:
        lacks("a file system of its own needs root")
    place = folder / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def test_disk_full(fault_image: MakeImage, folder: Path, small_disk: Path) -> None:
    """The run directory's disk is so small that a submission within its limits fills it."""
    image = fault_image(fault("disk_full"))
    with Command(folder, image, "--runs", str(small_disk)) as command:
        check_only_run("disk_full", small_disk, command)


def test_hidden_files(fault_image: MakeImage, folder: Path, small_disk: Path) -> None:
    """It is to blame for a disk that it filled unseen, not the machine."""
    image = fault_image(fault("hides_files"))
    options = ("--runs", str(small_disk), "--limit", "scratch_size=16MiB")
    with Command(folder, image, *options) as command:
        check_only_run("hides_files", small_disk, command)


def test_engine_restarted(
    engine: DockerEngine,
    fault_image: MakeImage,
    tmp_path_factory: pytest.TempPathFactory,
    folder: Path,
) -> None:
    own = tmp_path_factory.mktemp("engine")
    if (why := private_engine.why_none(own)) is not None:
        lacks(why)
    image = fault_image(fault("engine_restarted"))
    with PrivateEngine(own) as private, closing(private.client()) as client:
        private.load(engine, image)
        leftovers = Leftovers(client, folder)
        with Command(folder, image, environment={"DOCKER_HOST": private.host}) as command:
            command.await_first_field()
            private.end()
            private.start()
            check_only_run("engine_restarted", folder / "runs", command)
        assert leftovers.found(apart_from=private.pid) == []
