"""Two runs side by side: the figures, and every reason not to compare them."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from harness.cache import CacheMode, CacheRecord, CacheState
from harness.challenge.field_file import FieldState
from harness.compare import compare
from harness.errors import OutputError
from harness.gpu_figures import GpuDevice, GpusRecord
from harness.machine.contamination import Contamination, MachineVerdict
from harness.probe.realtime import Precision
from harness.store import RunDirectory, RunRecord, RunStatus, WitnessRecord
from tests.unit.test_store import MACHINE, RECORD

if TYPE_CHECKING:
    from pathlib import Path

PAIRS = tuple(
    RECORD.pairs[0].model_copy(update={"key": f"task_01/{n}", "runtime_s": float(n)})
    for n in (1, 2, 4)
)
CLEAN = RECORD.model_copy(
    update={
        "status": RunStatus.SUCCEEDED,
        "witness": WitnessRecord(precision=Precision.FIFO, complete=True),
        "contamination": Contamination(verdict=MachineVerdict.CLEAN),
        "pairs": PAIRS,
    }
)
OTHER_MACHINE = MACHINE.model_copy(update={"cpu_model": "Another", "kernel": "0.1"})


def test_figures() -> None:
    slower = tuple(pair.model_copy(update={"runtime_s": 3.0}) for pair in PAIRS)
    found = compare(CLEAN, CLEAN.model_copy(update={"pairs": slower}))
    assert [pair.ratio for pair in found.pairs] == [3.0, 1.5, 0.75]
    assert found.median_ratio == 1.5
    assert found.differences == ()
    assert found.doubts == ()


def test_pairs_of_one_run_only_and_fields_that_do_not_count() -> None:
    invalid = PAIRS[1].model_copy(update={"field_state": FieldState.INVALID})
    found = compare(CLEAN, CLEAN.model_copy(update={"pairs": (PAIRS[0], invalid)}))
    assert [pair.second_s for pair in found.pairs] == [1.0, None, None]
    assert [pair.ratio for pair in found.pairs] == [1.0, None, None]
    assert found.median_ratio == 1.0
    nothing = compare(CLEAN.model_copy(update={"pairs": ()}), CLEAN)
    assert [pair.first_s for pair in nothing.pairs] == [None] * 3
    assert nothing.median_ratio is None


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        ({"challenge_digest": "sha256:0123456789abcdef"}, ["challenge: "]),
        (
            {"machine": OTHER_MACHINE, "machine_digest": OTHER_MACHINE.digest},
            ["CPU: ", "kernel: "],
        ),
        (
            {"cache": CacheRecord(asked=CacheMode.WARM, applied=CacheState.WARM)},
            ["cache: partial | warm"],
        ),
        ({"image_id": "sha256:1"}, ["image: a folder called é 0 | a folder called é 1"]),
        ({"harness_version": "1.2.4"}, ["harness: 1.2.3 | 1.2.4"]),
        (
            {"witness": WitnessRecord(precision=Precision.PLAIN, complete=True)},
            ["witness: fifo | plain"],
        ),
    ],
)
def test_each_difference_is_named(change: dict[str, object], lines: list[str]) -> None:
    found = compare(CLEAN, CLEAN.model_copy(update=change))
    assert len(found.differences) == len(lines)
    for text, start in zip(found.differences, lines, strict=True):
        assert text.startswith(start)
    assert found.doubts == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"status": RunStatus.TIMED_OUT, "reason": "late"}, "timed out: late"),
        ({"witness": RECORD.witness.model_copy(update={"precision": Precision.FIFO})}, "overflow"),
        (
            {"contamination": Contamination(verdict=MachineVerdict.SUSPECT, evidence=("a", "b"))},
            "not the submission's alone: a; b",
        ),
    ],
)
def test_each_doubt_names_its_run(change: dict[str, object], words: str) -> None:
    doubtful = CLEAN.model_copy(update=change)
    for which, found in (
        ("first", compare(doubtful, CLEAN)),
        ("second", compare(CLEAN, doubtful)),
    ):
        (line,) = found.doubts
        assert line.startswith(f"the {which} run: ")
        assert words in line


def test_command(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    first, second = RunDirectory.create(runs, "local"), RunDirectory.create(runs, "local")
    first.write_record(CLEAN)
    second.write_record(CLEAN.model_copy(update={"machine_digest": "x", "machine": OTHER_MACHINE}))
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", "compare", first.run_id, str(second.path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[1] == ["task_01/1", "1.000", "s", "1.000", "s", "1.000"]
    assert rows[-1] == ["median", "ratio", "1.000"]
    assert "warning: not comparable, different CPU: " in done.stderr


def test_run_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no run nonsense"):
        RunDirectory.find("nonsense", tmp_path)


def test_gpus_that_the_runs_were_given() -> None:
    """Of one machine: its fingerprint names all of its GPUs, and says not which a run had."""

    def given(*names: str) -> RunRecord:
        devices = tuple(GpuDevice(uuid=name, index=0, name=name) for name in names)
        return CLEAN.model_copy(update={"gpus": GpusRecord(devices=devices)})

    assert compare(given("A", "B"), given("B", "A")).differences == ()
    assert compare(given("A"), given("B")).differences == ("GPUs of the run: A | B",)
    assert compare(given("A"), given("A", "A")).differences == ("GPUs of the run: A | A, A",)
    assert compare(given("A"), CLEAN).differences == ("GPUs of the run: A | none",)
    assert compare(given(), CLEAN).differences == ()
