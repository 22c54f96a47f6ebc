"""The faults of ``docs/faults.md`` that a broken or hostile image makes, with real containers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.challenge.pairs import read_pairs
from harness.execute import execute
from harness.plan import Plan
from harness.store import RunDirectory, RunRecord
from tests.docker.fault_check import check
from tests.docker.fault_lists import INSIDE
from tests.tiny import tiny_challenge, write_challenge, write_data

if TYPE_CHECKING:
    from harness.engine.base import Image
    from harness.engine.docker import DockerEngine
    from tests.docker.conftest import MakeImage
    from tests.docker.fault import Fault

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("nothing_left")]

UNPICKLED = Path("/tmp/harness-unpickled-a-field")  # who unpickles the pickled field makes this


def _contents(folder: Path) -> dict[Path, tuple[bytes, int]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path: (path.read_bytes(), path.stat().st_mode) for path in files}


@pytest.mark.parametrize("fault", INSIDE, ids=lambda fault: fault.name)
def test_fault(fault: Fault, engine: DockerEngine, fault_image: MakeImage, tmp_path: Path) -> None:
    data_dir = write_data(tmp_path / "test")
    before = _contents(data_dir)
    record, run_dir = _run(fault, engine, fault_image(fault), tmp_path)
    check(fault, record, run_dir)
    assert _contents(data_dir) == before
    assert not UNPICKLED.exists()


def _run(
    fault: Fault, engine: DockerEngine, image: Image, tmp_path: Path
) -> tuple[RunRecord, RunDirectory]:
    challenge = tiny_challenge()
    limits = challenge.limits.model_copy(update=dict(fault.limits))
    challenge = challenge.model_copy(update={"limits": limits})
    data_dir = tmp_path / "test"
    plan = Plan(
        challenge=challenge,
        challenge_file=write_challenge(tmp_path / "tiny.yaml"),
        data_dir=data_dir,
        tasks=read_pairs(challenge, data_dir),
        image=image,
        submission="team",
    )
    run_dir = RunDirectory.create(tmp_path / "runs", "team")
    return execute(plan, engine, run_dir), run_dir
