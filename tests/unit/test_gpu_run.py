"""A whole dry run on a machine with GPUs, as far as NVIDIA's library is concerned: one that replays
stands in for it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from harness.gpu_figures import EnergySource, GpuFigures
from harness.machine.contamination import MachineVerdict
from harness.sampler.samples import read_samples
from harness.store import RunDirectory, RunRecord
from tests.conftest import lacks
from tests.nvml.library import UUIDS, build, compiler, replay
from tests.tiny import ZERO, write_challenge, write_data, write_method

if TYPE_CHECKING:
    from pathlib import Path

PAIR_S = 0.4
RUN = ("run", "--engine", "process", "--challenge", "tiny.yaml")
WATTS, BUSY = 71.25, 0.73  # what the recording has
PRINTING = f"""
print("GPUs:", os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
{ZERO}
"""
SLEEPING = f"""
pair.fixed.array, pair.moving.array
time.sleep({PAIR_S})
{PRINTING}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if compiler() is None:
        lacks("no C compiler here to build the library that replays")
    return build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def team(tmp_path: Path) -> Path:
    write_method(tmp_path, SLEEPING)
    write_data(tmp_path / "test")
    write_challenge(tmp_path / "tiny.yaml")
    return tmp_path


def run(
    team: Path, library: Path | None, *options: str, changes: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*RUN, *options),
        cwd=team,
        env=environment_of(team, library, changes or {}),
        capture_output=True,
        text=True,
        check=False,
    )


def environment_of(team: Path, library: Path | None, changes: dict[str, str]) -> dict[str, str]:
    environment = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
    if library is not None:
        answers = team / "gpus.replay"
        answers.write_text(replay(changes))
        environment |= {"NVML_REPLAY": str(answers), "LD_LIBRARY_PATH": str(library)}
    return environment


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "harness", *arguments]


def directory(team: Path) -> RunDirectory:
    (path,) = (team / "runs/local").iterdir()
    return RunDirectory(path)


def record_of(team: Path) -> RunRecord:
    return directory(team).read_record()


def figures_of(record: RunRecord) -> list[GpuFigures]:
    return [pair.gpu.gpus[0] for pair in record.pairs if pair.gpu is not None]


def test_each_pair_has_the_figures_that_were_replayed(team: Path, library: Path) -> None:
    done = run(team, library, "--gpus", "1")
    assert done.returncode == 0, done.stderr
    record = record_of(team)
    assert record.gpu == UUIDS[1]
    assert f"NVIDIA Example B ({UUIDS[1]})" in done.stderr
    assert f"GPUs: {UUIDS[1]}" in directory(team).log_path.read_text()
    found = figures_of(record)
    assert len(found) == len(record.pairs) == 4
    for pair, one in zip(record.pairs, found, strict=True):
        assert pair.runtime_s is not None
        assert one.busy_ratio == pytest.approx(BUSY)
        assert one.busy_s == pytest.approx(BUSY * pair.runtime_s, rel=0.01)
        assert one.energy_source is EnergySource.COUNTER
        assert one.energy_j is not None
        assert one.energy_uncertainty_j is not None
        assert abs(one.energy_j - WATTS * pair.runtime_s) <= one.energy_uncertainty_j
        assert (one.mean_sm_clock_mhz, one.highest_temperature_c) == (1695, 54)
        assert (one.device_peak_bytes, one.peak_memory_bytes) == (600 << 20, 0)
        assert (one.throttled_s, one.absent) == (0, {})
        assert one.power_cap_s == pytest.approx(pair.runtime_s, rel=0.01)
    gpus = record.gpus
    assert gpus is not None
    assert gpus.run is not None
    assert (gpus.problem, gpus.foreign, gpus.devices[0].index) == (None, (), 1)
    assert gpus.run.energy_j == pytest.approx(WATTS * record.duration_s, rel=0.1)
    assert read_samples(directory(team).samples_path).end is not None
    assert not directory(team).growing_samples.exists()
    assert "GPU busy" in done.stdout
    assert "73 ± " in done.stdout


def test_strangers_and_heat_are_told_of(team: Path, library: Path) -> None:
    """Process 1 is on the GPU all the while, which is no process of ours; and it gets too hot."""
    changes = {
        "nvmlDeviceGetComputeRunningProcesses": f"1={3 << 30}",
        "nvmlDeviceGetCurrentClocksEventReasons": "64",
    }
    done = run(team, library, "--gpus", "0", changes=changes)
    record = record_of(team)
    (warning,) = [text for text in record.warnings if "slowed down" in text]
    assert warning.startswith("GPU 0 (NVIDIA Example A) was slowed down for ")
    assert "(up to 54 °C)" in warning
    assert "and 1 more pairs" in warning
    assert "slowed down" in done.stderr
    assert record.gpus is not None
    foreign = [(one.pid, one.gpu, one.memory_bytes) for one in record.gpus.foreign]
    if not foreign:  # in a PID namespace of its own the sampler cannot tell whose 1 is
        assert figures_of(record)[0].peak_memory_bytes is None
        return
    assert foreign == [(1, 0, 3 << 30)]
    assert record.contamination.verdict is MachineVerdict.SUSPECT
    assert "another process computes on GPU 0 (pid 1, 3 GiB)" in done.stderr
    assert figures_of(record)[0].peak_memory_bytes == 0


@pytest.mark.parametrize("end", ["hang", "segv"])
def test_a_driver_that_breaks_costs_figures_and_no_run(team: Path, library: Path, end: str) -> None:
    """After some 15 looks, that is. The pairs' runtimes are what the method took."""
    answers = " ".join(["71250"] * 15 + [end])
    done = run(team, library, "--gpus", "0", changes={"nvmlDeviceGetPowerUsage": answers})
    assert done.returncode == 0, done.stderr
    record = record_of(team)
    for pair in record.pairs:
        assert pair.runtime_s == pytest.approx(PAIR_S, abs=0.3)
    assert record.witness.complete
    assert record.gpus is not None
    assert record.gpus.problem is not None
    assert f"figures of the GPU are missing, or not of the whole run: {record.gpus.problem}" in (
        " ".join(done.stderr.split())
    )
    last = figures_of(record)[-1]
    assert (last.busy_s, last.energy_j, last.peak_memory_bytes) == (None, None, None)
    assert last.absent["busy_s"].startswith("nothing was told for")


def test_what_was_sampled_outlives_a_harness_that_is_killed(team: Path, library: Path) -> None:
    """It is killed in the second pair, and another one finishes the run from what is there."""
    write_method(team, f"if pair.fixed_id == 2: time.sleep(300)\n{SLEEPING.strip()}")
    environment = environment_of(team, library, {})
    with subprocess.Popen(
        command(*RUN, "--gpus", "2"), cwd=team, env=environment, stderr=subprocess.DEVNULL
    ) as process:
        until_s = time.monotonic() + 30
        while not list(team.glob("runs/local/*/output/task_01/disp_0001*")):
            assert time.monotonic() < until_s
            time.sleep(0.05)
        time.sleep(0.5)
        process.kill()
    done = subprocess.run(
        command("recover"), cwd=team, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    record = record_of(team)
    assert record.gpu == UUIDS[2]
    (figures,) = figures_of(record)
    assert figures.busy_ratio == pytest.approx(BUSY)
    assert figures.energy_j is not None
    assert not directory(team).growing_samples.exists()
    assert read_samples(directory(team).samples_path).samples


def test_all_gpus_are_given_where_nobody_says(team: Path, library: Path) -> None:
    run(team, library)
    record = record_of(team)
    assert record.gpus is not None
    assert tuple(one.uuid for one in record.gpus.devices) == UUIDS
    pair = record.pairs[0].gpu
    assert pair is not None
    assert pair.busy_ratio == pytest.approx(BUSY)
    assert pair.energy_j == pytest.approx(3 * WATTS * pair.duration_s, rel=0.3)
    assert f"GPUs: {','.join(UUIDS)}" in directory(team).log_path.read_text()


def test_none_are_given_where_none_are_asked_for(team: Path, library: Path) -> None:
    write_method(team, PRINTING)
    done = run(team, library, "--gpus", "none")
    record = record_of(team)
    assert record.gpus is not None
    assert (record.gpu, record.gpus.devices, record.pairs[0].gpu) == (None, (), None)
    assert "GPUs: \n" in directory(team).log_path.read_text()
    assert "GPU busy" not in done.stdout
    assert not directory(team).samples_path.exists()


def test_a_wrong_gpu_is_refused_before_anything_is_made(team: Path, library: Path) -> None:
    done = run(team, library, "--gpus", "GPU-99999999")
    assert done.returncode == 14
    assert f"0: {UUIDS[0]} (NVIDIA Example A)" in " ".join(done.stderr.split())
    assert not (team / "runs/local").exists()


def test_a_machine_without_gpus_says_so_once(team: Path) -> None:
    write_method(team, PRINTING)
    done = run(team, None)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("no GPU here: ") == (1 if record_of(team).gpu is None else 0)
