"""Whose processes are on a GPU, as the sampler tells those of a real container from others."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from harness.sampler.client import Sampler
from harness.sampler.spec import OwnContainer, SampleSpec
from tests.conftest import lacks
from tests.nvml.library import UUIDS, build, compiler, replay

if TYPE_CHECKING:
    from pathlib import Path

    from docker import DockerClient

    from harness.engine.base import Image

pytestmark = pytest.mark.docker

DEADLINE_S = 30.0


def test_processes_of_a_container_are_its_own(
    client: DockerClient, shell_image: Image, tmp_path: Path
) -> None:
    if compiler() is None:
        lacks("there is no C compiler (Debian's packages gcc and libc6-dev)")
    container = client.containers.run(
        shell_image.id, entrypoint=["sleep", "100"], network_mode="none", detach=True
    )
    try:
        container.reload()
        inside, outside = int(container.attrs["State"]["Pid"]), os.getpid()
        said, file = tmp_path / "replay", tmp_path / "gpu.jsonl"
        said.write_text(replay({"nvmlDeviceGetComputeRunningProcesses": f"{inside}=5,{outside}=6"}))
        with Sampler(
            SampleSpec(uuids=UUIDS[:1], file=file),
            environment={
                "LD_LIBRARY_PATH": str(build(tmp_path / "library")),
                "NVML_REPLAY": str(said),
            },
        ) as sampler:
            sampler.own(OwnContainer(container=str(container.id)))
            deadline_s = time.monotonic() + DEADLINE_S
            while file.read_bytes().count(b"\n") < 20 and time.monotonic() < deadline_s:
                time.sleep(0.02)
            found = sampler.finish()
    finally:
        container.remove(force=True)
    assert found.problem is None
    assert {one.pid: one.own for one in found.samples[-1].processes or ()} == {
        inside: True,
        outside: False,
    }
