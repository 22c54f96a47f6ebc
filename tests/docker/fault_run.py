"""A run of a fault's image, and whether it ended as the table of faults says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.challenge.pairs import read_pairs
from harness.execute import execute
from harness.plan import Plan
from harness.store import RunDirectory, RunRecord
from tests.docker.fault_check import check
from tests.tiny import tiny_challenge, write_challenge, write_data

if TYPE_CHECKING:
    from harness.engine.base import Image
    from harness.engine.docker import DockerEngine
    from tests.docker.fault import Fault

UNPICKLED = Path("/tmp/harness-unpickled-a-field")  # who unpickles the pickled field makes this


def check_run(fault: Fault, engine: DockerEngine, image: Image, folder: Path) -> None:
    """That it ends as told, and changes nothing outside its run directory."""
    data_dir = write_data(folder / "test")
    before = _contents(data_dir)
    record, run_dir = _run(fault, engine, image, folder)
    check(fault, record, run_dir)
    assert _contents(data_dir) == before
    assert not UNPICKLED.exists()


def _contents(folder: Path) -> dict[Path, tuple[bytes, int]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path: (path.read_bytes(), path.stat().st_mode) for path in files}


def _run(
    fault: Fault, engine: DockerEngine, image: Image, folder: Path
) -> tuple[RunRecord, RunDirectory]:
    challenge = tiny_challenge()
    limits = challenge.limits.model_copy(update=dict(fault.limits))
    challenge = challenge.model_copy(update={"limits": limits})
    data_dir = folder / "test"
    plan = Plan(
        challenge=challenge,
        challenge_file=write_challenge(folder / "tiny.yaml"),
        data_dir=data_dir,
        tasks=read_pairs(challenge, data_dir),
        image=image,
        submission="team",
    )
    run_dir = RunDirectory.create(folder / "runs", "team")
    return execute(plan, engine, run_dir), run_dir
