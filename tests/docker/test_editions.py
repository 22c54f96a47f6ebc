"""Images in the later editions' own style, that know nothing of the harness, run end to end."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from harness.challenge.field_file import FieldState
from harness.challenge.pairs import read_pairs
from harness.execute import execute
from harness.outline import docker_line
from harness.plan import Plan, WitnessChoice
from harness.probe.trace import Placement
from harness.store import RunDirectory, RunRecord, RunStatus
from harness.timing import Flag
from tests.editions import NAMES, tiny_edition, tiny_text, write_edition

if TYPE_CHECKING:
    from pathlib import Path

    from harness.engine.base import Image
    from harness.engine.docker import DockerEngine

pytestmark = pytest.mark.docker


def run(
    engine: DockerEngine,
    image: Image,
    tmp_path: Path,
    name: str,
    *changes: tuple[str, str],
    pairs: int = 2,
    aside: Image | None = None,
) -> tuple[RunRecord, RunDirectory]:
    """A run on the tiny grid; ``aside``: with the witness in a container of this image."""
    write_edition(tmp_path / "test", name, pairs=pairs)
    (tmp_path / "tiny.yaml").write_text(tiny_text(name, *changes))
    challenge = tiny_edition(name, *changes)
    plan = Plan(
        challenge=challenge,
        challenge_file=tmp_path / "tiny.yaml",
        data_dir=tmp_path / "test",
        tasks=read_pairs(challenge, tmp_path / "test"),
        image=image,
        submission="team",
        witness=WitnessChoice.AUTO if aside is None else WitnessChoice.SIDECAR,
        witness_image=None if aside is None else aside.reference,
    )
    run_dir = RunDirectory.create(tmp_path / "runs", "team")
    return execute(plan, engine, run_dir), run_dir


def check(record: RunRecord, run_dir: RunDirectory) -> None:
    assert record.status is RunStatus.SUCCEEDED, (record.reason, run_dir.log_path.read_text())
    assert record.witness.complete
    for pair in record.pairs:
        assert pair.field_state is FieldState.VALID, pair.field_problem
        assert pair.runtime_s is not None
        assert pair.runtime_s > 0


@pytest.mark.parametrize("name", NAMES)
def test_plugin_in_the_reference_image(
    engine: DockerEngine, reference_image: Image, tmp_path: Path, name: str
) -> None:
    """The default method, told the edition by the environment; the argument is not for it."""
    record, run_dir = run(engine, reference_image, tmp_path, name)
    check(record, run_dir)
    for pair in record.pairs:
        assert pair.runtime_s is not None
        assert pair.inside_runtime_s == pytest.approx(pair.runtime_s, abs=0.05)


@pytest.mark.parametrize("name", NAMES)
def test_witness_in_a_container_sees_the_top_folder_and_the_single_file(
    engine: DockerEngine,
    edition_images: dict[str, Image],
    reference_image: Image,
    tmp_path: Path,
    name: str,
) -> None:
    record, run_dir = run(engine, edition_images[name], tmp_path, name, aside=reference_image)
    check(record, run_dir)
    assert record.witness.placement is Placement.SIDECAR


@pytest.mark.parametrize("long_names", [False, True])
def test_submission_of_2022(
    engine: DockerEngine, edition_images: dict[str, Image], tmp_path: Path, long_names: bool
) -> None:
    argument = "[/l2r/data/NLST_dataset.json]"
    changes = ((argument, argument.replace("]", ", --long]")),) if long_names else ()
    record, run_dir = run(
        engine, edition_images["learn2reg2022"], tmp_path, "learn2reg2022", *changes
    )
    check(record, run_dir)
    part = "_0000_{0}_0001" if long_names else "_{0}"
    assert [pair.field_path for pair in record.pairs] == [
        f"disp_{case}{part.format(case)}.nii.gz" for case in ("0111", "0112")
    ]
    assert all(pair.flags == () for pair in record.pairs)


def test_submission_of_lumir_prefetches_and_is_told_so(
    engine: DockerEngine, edition_images: dict[str, Image], tmp_path: Path
) -> None:
    """Two workers hold two pairs each, so pairs are opened before their turn: on a machine that
    does other work, too, most of them."""
    record, run_dir = run(engine, edition_images["lumir2024"], tmp_path, "lumir2024", pairs=6)
    check(record, run_dir)
    assert "loader: " in run_dir.log_path.read_text()
    early = {Flag.OVERLAPPED, Flag.PRELOADED}
    assert sum(bool(early & set(pair.flags)) for pair in record.pairs[1:]) >= 3
    (task,) = record.tasks
    assert task.overlap_ratio is not None
    assert task.overlap_ratio > 1.2


def test_too_little_shared_memory_is_the_submissions_end(
    engine: DockerEngine, edition_images: dict[str, Image], tmp_path: Path
) -> None:
    """Workers hand images of 16 KiB over in /dev/shm, of which their queues take 32 KiB."""
    limit = ("shared_memory: 8GiB", "shared_memory: 48KiB")
    record, run_dir = run(engine, edition_images["lumir2024"], tmp_path, "lumir2024", limit)
    assert record.status is RunStatus.CRASHED
    assert "is /dev/shm full?" in run_dir.log_path.read_text()


@pytest.mark.parametrize("name", NAMES)
def test_docker_line_works_as_it_is_shown(
    reference_image: Image, tmp_path: Path, name: str
) -> None:
    """With what docs/challenges.md adds for the plugin under a file of one's own."""
    write_edition(tmp_path / "test", name)
    (tmp_path / "submission").mkdir()
    (tmp_path / "mine.yaml").write_text(tiny_text(name))
    line = docker_line(tiny_edition(name), image=reference_image.reference).replace(
        "docker run ",
        'docker run --mount type=bind,src="$(pwd)/mine.yaml",target=/l2r/challenge.yaml,readonly '
        "--env HARNESS_CHALLENGE=/l2r/challenge.yaml ",
    )
    done = subprocess.run(
        line, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    fields = {path.name for path in (tmp_path / "submission").glob("disp_*.nii.gz")}
    assert len(fields) == 2
    assert done.stdout.count(" s\n") >= 2  # the runtimes that the runner saw
