"""Builds that would go on for ever, or take all memory, on a real engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.engine.base import BuildLimits
from harness.errors import BuildError

if TYPE_CHECKING:
    from pathlib import Path

    from harness.engine.docker import DockerEngine

pytestmark = pytest.mark.docker

SILENT = "sleep 300"
PRINTING = "while :; do echo more; sleep 0.2; done"
WITHOUT_LINES = "while :; do printf more; sleep 0.2; done"


def build(engine: DockerEngine, folder: Path, base: str, tag: str, limits: BuildLimits) -> None:
    engine.build(folder, tag=tag, base_image=base, limits=limits, on_output=lambda _: None)


def dockerfile(folder: Path, step: str) -> Path:
    (folder / "Dockerfile").write_text(f"ARG BASE_IMAGE\nFROM ${{BASE_IMAGE}}\nRUN {step}\n")
    return folder


@pytest.mark.parametrize("step", [SILENT, PRINTING, WITHOUT_LINES])
def test_a_build_that_does_not_end_is_ended_and_its_teams_fault(
    engine: DockerEngine, tmp_path: Path, base: str, tag: str, step: str
) -> None:
    folder = dockerfile(tmp_path, step)
    with pytest.raises(BuildError, match=r"at `RUN .*takes longer than 3 s"):
        build(engine, folder, base, tag, BuildLimits(time_s=3))


def test_a_step_that_takes_more_memory_than_it_may_fails(
    engine: DockerEngine, tmp_path: Path, base: str, tag: str
) -> None:
    folder = dockerfile(tmp_path, "python3 -c 'b = bytearray(256 << 20)'")
    with pytest.raises(BuildError, match="the build failed at `RUN python3"):
        build(engine, folder, base, tag, BuildLimits(memory_bytes=64 << 20))
    build(engine, folder, base, tag, BuildLimits(memory_bytes=1 << 30))


def test_a_line_without_an_end_does_not_fill_the_memory(
    engine: DockerEngine, tmp_path: Path, base: str, tag: str
) -> None:
    folder = dockerfile(tmp_path, "head -c 4000000 /dev/zero | tr '\\0' x; echo; echo last; exit 1")
    with pytest.raises(BuildError) as caught:
        build(engine, folder, base, tag, BuildLimits())
    assert len(str(caught.value)) < 100_000
    assert "last" in str(caught.value)
