"""The later editions without containers: contracts, runs of a plugin, the shipped submissions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.challenge.field_file import FieldState, read_field
from harness.challenge.model import FieldDtype, Layout, load_challenge
from harness.challenge.pairs import read_pairs
from harness.engine.process import ProcessEngine
from harness.errors import ChallengeError
from harness.execute import Progress, Step, execute
from harness.plan import Plan
from harness.probe.client import Probe
from harness.probe.spec import WatchSpec
from harness.probe.trace import Placement, Trace
from harness.runner.settings import read_settings
from harness.store import RunDirectory, RunRecord, RunStatus
from harness.timing import Flag, time_pairs
from tests.editions import NAMES, tiny_edition, tiny_text, write_edition
from tests.tiny import write_method

EXAMPLES = Path(__file__).parents[2] / "examples"
FIELDS = {
    "learn2reg2022": ["disp_0111_0111.nii.gz", "disp_0112_0112.nii.gz"],
    "lumir2024": ["disp_3454_3455.nii.gz", "disp_3455_3456.nii.gz"],
}
ZERO = """
pair.fixed.array, pair.moving.array
return DisplacementField(array=np.zeros((3, *pair.task.image_grid), np.float32))
"""


def test_contract_of_2022() -> None:
    challenge = load_challenge("learn2reg2022")
    mounts = {(m.source, m.path, m.target) for m in challenge.container.mounts}
    assert mounts == {("data", ".", "/l2r/data"), ("output", ".", "/l2r/output")}
    assert challenge.container.arguments == ("/l2r/data/NLST_dataset.json",)
    field = challenge.task("NLST").field
    assert field.shape == (224, 192, 224, 3)
    assert field.dtypes == (FieldDtype.FLOAT32, FieldDtype.FLOAT64)


def test_contract_of_lumir() -> None:
    challenge = load_challenge("lumir2024")
    assert {(m.source, m.path, m.target) for m in challenge.container.mounts} == {
        ("data", "LUMIR_dataset.json", "/LUMIR_dataset.json"),
        ("data", ".", "/input"),
        ("output", ".", "/output"),
    }
    assert challenge.container.arguments == ()
    field = challenge.task("LUMIR").field
    assert field.shape == (160, 224, 192, 3)
    assert field.layouts == (Layout.CHANNELS_LAST, Layout.CHANNELS_FIRST)
    assert challenge.limits.memory_bytes == 16 << 30
    # Two workers hold two pairs each and one is handed over, in float64 at most.
    assert challenge.limits.shared_memory_bytes > 5 * 2 * 8 * 160 * 224 * 192


def run_plugin(
    name: str, tmp_path: Path, *changes: tuple[str, str]
) -> tuple[RunRecord, RunDirectory, list[Progress]]:
    """A run of the reference runner in the process engine."""
    write_edition(tmp_path / "test", name)
    (tmp_path / "tiny.yaml").write_text(tiny_text(name, *changes))
    challenge = tiny_edition(name, *changes)
    engine = ProcessEngine()
    plan = Plan(
        challenge=challenge,
        challenge_file=tmp_path / "tiny.yaml",
        data_dir=tmp_path / "test",
        tasks=read_pairs(challenge, tmp_path / "test"),
        image=engine.build(write_method(tmp_path / "team", ZERO), tag="team"),
        submission="team",
    )
    steps: list[Progress] = []
    run_dir = RunDirectory.create(tmp_path / "runs", "team")
    return execute(plan, engine, run_dir, steps.append), run_dir, steps


@pytest.mark.parametrize("name", NAMES)
def test_plugin_runs_under_each_edition(name: str, tmp_path: Path) -> None:
    record, run_dir, steps = run_plugin(name, tmp_path)
    assert record.status is RunStatus.SUCCEEDED, (record.reason, run_dir.log_path.read_text())
    assert record.witness.complete
    assert [pair.field_path for pair in record.pairs] == FIELDS[name]
    for pair in record.pairs:
        assert pair.field_state is FieldState.VALID
        assert pair.runtime_s is not None
        assert pair.inside_runtime_s == pytest.approx(pair.runtime_s, abs=0.1)
    live = [step.pair for step in steps if step.step is Step.FIELD_WRITTEN]
    assert live == [pair.key for pair in record.pairs]
    written = sorted(path.name for path in run_dir.fields_dir.iterdir())
    assert written == FIELDS[name]


def run_program(name: str, tmp_path: Path, program: str, *arguments: str) -> Trace:
    """A shipped submission in a working folder that looks like its container, witnessed."""
    data = write_edition(tmp_path / "data", name, pairs=6)
    (tmp_path / "input").symlink_to(data)
    if name == "lumir2024":
        (tmp_path / "LUMIR_dataset.json").symlink_to(data / "LUMIR_dataset.json")
    (tmp_path / "output").mkdir()
    (found,) = read_pairs(tiny_edition(name), data)
    watched = WatchSpec(
        placement=Placement.HOST,
        trace=tmp_path / "trace.jsonl",
        data_dir=data,
        output_dir=tmp_path / "output",
        inputs=tuple(path for pair in found.pairs for path in pair.inputs),
        fields=tuple(path for pair in found.pairs for path in pair.field_names),
    )
    with Probe(watched) as probe:
        subprocess.run(
            [sys.executable, EXAMPLES / name / program, *arguments],
            cwd=tmp_path,
            check=True,
            stdout=subprocess.DEVNULL,
            env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"},
        )
        return probe.finish()


@pytest.mark.parametrize(
    ("name", "program", "arguments"),
    [
        ("learn2reg2022", "zerofield.py", ("data/NLST_dataset.json",)),
        ("learn2reg2022", "zerofield.py", ("data/NLST_dataset.json", "--long")),
        ("lumir2024", "infer.py", ()),
    ],
)
def test_shipped_submissions_write_what_is_accepted(
    name: str, program: str, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    run_program(name, tmp_path, program, *arguments)
    output = tmp_path / "output"
    challenge = tiny_edition(name)
    (found,) = read_pairs(challenge, tmp_path / "data")
    expected = {pair.field_names["--long" in arguments].name for pair in found.pairs}
    assert {path.name for path in output.iterdir()} == expected
    for path in output.iterdir():
        assert not read_field(path, found.task.field).any()


def test_loader_of_lumir_is_seen_to_prefetch(tmp_path: Path) -> None:
    """PyTorch's own where it is installed, else the stand-in."""
    trace = run_program("lumir2024", tmp_path, "infer.py")
    (found,) = read_pairs(tiny_edition("lumir2024"), tmp_path / "data")
    timings = time_pairs(found.pairs, trace)
    assert trace.complete
    assert all(timing.runtime_s is not None for timing in timings)
    early = {Flag.OVERLAPPED, Flag.PRELOADED}
    assert sum(bool(early & timing.flags) for timing in timings[1:]) >= 3


def test_process_is_told_the_folder_that_holds_the_others(tmp_path: Path) -> None:
    """A part of the data that a contract mounts first is no data folder."""
    whole = "    - {source: data, target: /input}\n"
    part = "    - {source: data, path: imagesVal, target: /images}\n"
    record, run_dir, _ = run_plugin("lumir2024", tmp_path, (whole, part + whole))
    assert record.status is RunStatus.SUCCEEDED, (record.reason, run_dir.log_path.read_text())


def test_runner_says_which_mount_it_lacks(tmp_path: Path) -> None:
    text = tiny_text("learn2reg2022", ("target: /l2r/data}", "target: /l2r/data, path: imagesTr}"))
    (tmp_path / "mine.yaml").write_text(text)
    environment = {"HARNESS_CHALLENGE": str(tmp_path / "mine.yaml")}
    with pytest.raises(ChallengeError, match="expected a mount of the whole data folder"):
        read_settings(environment)
    settings = read_settings(environment | {"HARNESS_DATA_DIR": "/somewhere"})
    assert settings.data_dir == Path("/somewhere")
