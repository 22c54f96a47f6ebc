"""The command as a person meets it: help, tables, messages, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer.main

from harness import cli, console, errors
from harness.cli_run import _tag_of
from harness.probe.realtime import Precision
from harness.store import RunDirectory, RunStatus
from harness.timing import ADVICE, Flag
from tests.editions import write_edition
from tests.tiny import ZERO, write_challenge, write_data, write_image, write_method
from tests.unit.test_store import RECORD

REPOSITORY = Path(__file__).parents[2]
NO_ENGINE = "unix:///nonexistent/docker.sock"
COMMANDS = sorted(typer.main.get_command(cli.app).commands)  # type: ignore[attr-defined]


def harness(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "harness.cli", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "DOCKER_HOST": NO_ENGINE, "NO_COLOR": "1"},
    )


@pytest.fixture
def team(tmp_path: Path) -> Path:
    """A team's folder: method/, test/ and the tiny challenge's file."""
    write_method(tmp_path, ZERO)
    write_data(tmp_path / "test")
    write_challenge(tmp_path / "tiny.yaml")
    return tmp_path


def test_run_prints_plan_table_totals_and_places(team: Path) -> None:
    done = harness("run", "--challenge", "tiny.yaml", cwd=team)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    rows = [line.split() for line in lines if line.startswith("task_0") and "/" in line.split()[0]]
    assert [row[0] for row in rows] == [
        "task_01/0001_0001",
        "task_01/0002_0002",
        "task_02/0007_0008",
        "task_02/0008_0009",
    ]
    for row in rows:
        assert float(row[1]) > 0
        assert row[2] == "s"
        assert row[5] == "valid"
    assert [line for line in lines if line != line.rstrip()] == []
    assert "2/2 fields, median runtime" in done.stdout
    assert "succeeded: all 4 fields" in done.stdout
    assert "submission/" in done.stdout
    assert "no container engine" in done.stderr
    assert "4/4  task_02/0008_0009" in done.stderr
    assert len(list((team / "submission").rglob("disp_*.npz"))) == 4
    (record,) = (team / "runs/local").glob("*/run.json")
    assert json.loads(record.read_text())["status"] == "succeeded"


def test_run_for_machines(team: Path) -> None:
    done = harness("run", "--challenge", "tiny.yaml", "--json", cwd=team)
    record = json.loads(done.stdout)
    assert record["status"] == "succeeded"
    assert record["engine"] == "process"
    assert len(record["pairs"]) == 4
    assert record["accuracy"] == []


def test_flags_are_explained_once_however_many_pairs_have_them(team: Path) -> None:
    scan = (
        "import glob\n"
        "for name in glob.glob(os.environ['HARNESS_DATA_DIR'] + '/task_0?/img*'):\n"
        "    open(name).close()\n"
    )
    write_method(team, scan + ZERO)
    done = harness("run", "--challenge", "tiny.yaml", cwd=team)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("overlapped") == 3  # in the table
    assert done.stderr.count(ADVICE[Flag.OVERLAPPED]) == 1


def test_failed_run_says_why(team: Path) -> None:
    write_method(team, "raise RuntimeError('\\x1b[31mno [bold]weights')")
    done = harness("run", "--challenge", "tiny.yaml", cwd=team)
    assert done.returncode == RunStatus.INCOMPLETE.exit_code
    assert "incomplete: 4 of 4 fields missing" in done.stdout
    # with its place, once for all pairs that have it
    reason = (
        "the method failed: RuntimeError: \N{REPLACEMENT CHARACTER}[31mno [bold]weights (method.py:"
    )
    assert done.stdout.count(reason) == 1
    assert "task_01/0001_0001, task_01/0002_0002, task_02/0007_0008 and 1 more: no" in done.stdout
    assert "no [bold]weights" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def test_reader_that_leaves_costs_no_run(team: Path) -> None:
    """``harness run | head -3``: Rich would end the process at the first line nobody reads."""
    write_method(team, "time.sleep(0.2)\n" + ZERO)
    command = f"{sys.executable} -P -m harness run --challenge tiny.yaml 2>&1 | head -n 3"
    subprocess.run(
        ["bash", "-c", command],
        cwd=team,
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "DOCKER_HOST": NO_ENGINE, "PYTHONPATH": str(REPOSITORY)},
    )
    (record,) = (team / "runs/local").glob("*/run.json")
    assert json.loads(record.read_text())["status"] == "succeeded"
    assert len(list((team / "submission").rglob("disp_*.npz"))) == 4


@pytest.mark.parametrize("name", ["submission", "runs"])
def test_folder_that_cannot_be_written_is_said_before_the_run(team: Path, name: str) -> None:
    (team / name).write_text("a file where a folder should be")
    done = harness("run", "--challenge", "tiny.yaml", cwd=team)
    assert done.returncode == errors.OutputError.exit_code
    assert f"{name}: expected a folder to write to" in done.stderr


def test_run_without_fields_leaves_the_submission_alone(team: Path) -> None:
    assert harness("run", "--challenge", "tiny.yaml", cwd=team).returncode == 0
    write_method(team, "raise RuntimeError")
    done = harness("run", "--challenge", "tiny.yaml", cwd=team)
    assert "submission/ is as it was before this run" in done.stdout
    assert len(list((team / "submission").rglob("disp_*.npz"))) == 4


def test_folder_of_a_method_itself_is_run(team: Path) -> None:
    """As `harness run examples/zero` is: the plugin lies in the folder, not in method/ below it."""
    folder = REPOSITORY / "examples/zero"
    done = harness("run", folder, "--engine", "process", "--challenge", "tiny.yaml", cwd=team)
    assert done.returncode == 0, done.stderr
    fields = list((team / "submission").rglob("disp_*.npz"))
    assert len(fields) == 4
    assert not any(np.load(field)["arr_0"].any() for field in fields)


def test_broken_method_is_said_before_any_pair(team: Path) -> None:
    (team / "method/method.py").write_text("import not_there\n")
    done = harness("run", "--challenge", "tiny.yaml", cwd=team)
    assert done.returncode == RunStatus.CRASHED.exit_code
    assert "No module named 'not_there'" in done.stderr


def test_broken_data_is_listed_before_anything_runs(team: Path) -> None:
    write_image(team / "test/task_01/img0001.nii.gz", (16, 12, 21))
    (team / "test/task_02/img0008.nii.gz").write_bytes(b"not an image")
    done = harness("run", "--challenge", "tiny.yaml", cwd=team)
    assert done.returncode == errors.DataError.exit_code
    assert ": 2 findings\n" in done.stderr
    assert "expected grid (16, 12, 20) for task_01, found (16, 12, 21)" in done.stderr
    assert "task_02/img0008.nii.gz: unreadable or truncated" in done.stderr
    assert not (team / "runs").exists()


def test_old_fields_are_replaced_and_foreign_ones_kept(team: Path) -> None:
    foreign = team / "submission/task_01/disp_0001_0001.npz"
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"from another program")
    assert harness("run", "--challenge", "tiny.yaml", cwd=team).returncode == 0
    (kept,) = (team / "runs/local").glob("*/replaced/task_01/disp_0001_0001.npz")
    assert kept.read_bytes() == b"from another program"
    first = foreign.read_bytes()
    write_method(team, ZERO.replace("zeros", "ones"))
    assert harness("run", "--challenge", "tiny.yaml", cwd=team).returncode == 0
    assert foreign.read_bytes() != first
    assert len(list((team / "runs/local").glob("*/replaced"))) == 1


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (("--data", "nowhere"), errors.DataError.exit_code, "expected a folder, found none"),
        (("--challenge", "learn2reg1999"), errors.ChallengeError.exit_code, "learn2reg2021"),
        (("--engine", "docker"), errors.EngineUnreachable.exit_code, "DOCKER_HOST"),
        (("some-image",), errors.EngineUnreachable.exit_code, "no container engine answers"),
        (("some-image", "--engine", "process"), errors.ImageMissing.exit_code, "some-image"),
        (("gone.tar.gz",), errors.ImageMissing.exit_code, "docker save"),
        (("./gone",), errors.ImageMissing.exit_code, "is the path right?"),
        (("",), errors.ImageMissing.exit_code, "''"),
        (("--engine", "podman"), 2, "Invalid value"),
    ],
)
def test_what_cannot_begin(
    team: Path, arguments: tuple[str, ...], exit_code: int, message: str
) -> None:
    known = () if "--challenge" in arguments else ("--challenge", "tiny.yaml")
    done = harness("run", *arguments, *known, cwd=team)
    assert done.returncode == exit_code
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("option", [("--read-only-root",), ("--runtime", "runsc")])
def test_what_the_engine_cannot_do_costs_nothing(team: Path, option: tuple[str, ...]) -> None:
    done = harness("run", "--challenge", "tiny.yaml", *option, cwd=team)
    assert done.returncode == errors.OptionError.exit_code, done.stderr
    assert f"{' '.join(option)}: expected containers, and the process engine" in done.stderr
    assert list((team / "runs").glob("*/*")) == []


def test_a_truth_folder_that_was_named_must_be_there(team: Path) -> None:
    done = harness("run", "--challenge", "tiny.yaml", "--truth", "nope", cwd=team)
    assert done.returncode == errors.DataError.exit_code
    assert "truth folder nope: expected a folder, found none" in done.stderr
    assert not (team / "runs").exists()


@pytest.mark.parametrize("option", ["--truth", "--runs", "--submission"])
def test_nothing_of_ours_may_lie_in_the_data_folder(team: Path, option: str) -> None:
    done = harness("run", "--challenge", "tiny.yaml", option, "test/inside", cwd=team)
    assert done.returncode == errors.DataError.exit_code
    assert "which the submission sees" in done.stderr


def test_interrupted_run_says_so_and_what_comes_next(team: Path) -> None:
    write_method(team, "time.sleep(60)\n" + ZERO)
    running = subprocess.Popen(
        [sys.executable, "-m", "harness.cli", "run", "--challenge", "tiny.yaml"],
        cwd=team,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "DOCKER_HOST": NO_ENGINE},
    )
    assert running.stderr is not None
    for line in running.stderr:
        if line.strip() == "started":
            break
    running.send_signal(signal.SIGINT)
    printed, said = running.communicate()
    assert running.returncode == RunStatus.INTERRUPTED.exit_code
    assert "ending the submission; what it has finished is kept" in said.splitlines()
    assert printed.splitlines()[-1] == "  next    run it again"


def test_build_without_an_engine_is_no_error(team: Path) -> None:
    done = harness("build", cwd=team)
    assert done.returncode == 0
    assert "no container engine" in done.stderr
    assert "no image was built" in done.stderr
    assert harness("build", "--engine", "docker", cwd=team).returncode == 32


def test_doctor_names_what_is_missing(team: Path) -> None:
    done = harness("doctor", cwd=team)
    assert done.returncode == 0
    assert "warning  container engine" in done.stdout
    assert "file watching" in done.stdout


def test_phantom_leaves_data_alone(team: Path) -> None:
    done = harness("phantom", "--if-empty", cwd=team)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (team / "truth").exists()


def test_exit_codes_are_distinct_and_documented() -> None:
    classes = [errors.HarnessError]
    for one in classes:
        classes += one.__subclasses__()
    codes = {one.__name__: one.exit_code for one in classes if one.__module__ == errors.__name__}
    codes |= {status.name: status.exit_code for status in RunStatus if status.exit_code != 130}
    assert len(set(codes.values())) == len(codes)
    page = (REPOSITORY / "docs/exit-codes.md").read_text()
    for name, code in codes.items():
        if name not in ("HarnessError", "ConfigurationError", "SubmissionError", "MachineError"):
            assert f"| {code} |" in page, f"{name} ({code}) is not in docs/exit-codes.md"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_a_line_in_the_documents(command: str, tmp_path: Path) -> None:
    done = harness(command, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "<bool>" not in done.stdout  # flags take no value
    pages = [REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")]
    assert any(f"harness {command}" in page.read_text() for page in pages)


def test_make_help_lists_every_command() -> None:
    done = subprocess.run(
        ["make", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    for command in ("help", "build", "run", "test", "lint", "data", "doctor", "clean"):
        assert any(line.split()[0] == command for line in done.stdout.splitlines())


@pytest.mark.parametrize("precision", list(Precision))
def test_every_precision_of_the_witness_is_told(
    precision: Precision, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run whose witness had a CPU of its own ended in a KeyError, before its fields were copied:
    every run on several CPUs by a user without real-time scheduling."""
    witness = RECORD.witness.model_copy(update={"precision": precision})
    record = RECORD.model_copy(update={"witness": witness})
    console.show_ending(record, [], RunDirectory(tmp_path), to_stderr=False)
    text = " ".join(capsys.readouterr().out.split())
    assert f"{precision.worst_error_s * 1000:.0f} ms off" in text


def test_phantom_of_an_edition_leaves_data_that_is_there_alone(tmp_path: Path) -> None:
    """What counts is the edition's own data, not another's in the same folder."""
    write_edition(tmp_path / "test", "learn2reg2022")
    before = sorted(tmp_path.rglob("*"))
    done = harness("phantom", "--if-empty", "--challenge", "learn2reg2022", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    done = harness("phantom", "--challenge", "learn2reg2022", cwd=tmp_path)
    assert done.returncode == errors.DataError.exit_code
    assert "test/NLST_dataset.json is there already" in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_phantom_keeps_out_of_another_challenges_data(tmp_path: Path) -> None:
    """LUMIR's files once joined those of 2021 in test/, and every later check saw both."""
    write_data(tmp_path / "test")
    before = sorted(tmp_path.rglob("*"))
    done = harness("phantom", "--if-empty", "--challenge", "lumir2024", cwd=tmp_path)
    assert done.returncode == errors.DataError.exit_code
    assert "data folder test: task_01 of learn2reg2021 is there; give lumir2024" in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_phantom_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    done = harness("phantom", "--data", "file/test", "--truth", "truth", cwd=tmp_path)
    assert done.returncode == errors.OutputError.exit_code
    assert done.stderr.startswith("error: file/test")
    assert "making phantom data" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_phantom_of_ones_own_challenge_cannot_be_made(team: Path) -> None:
    done = harness("phantom", "--challenge", "tiny.yaml", "--data", "other/test", cwd=team)
    assert done.returncode == errors.DataError.exit_code
    assert "none can be made for challenge tiny.yaml, only for learn2reg2021" in done.stderr


def test_another_folder_does_not_get_the_name_of_ones_own_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A team's folder that was run took the name that helpers with more rights ran from."""
    monkeypatch.chdir(tmp_path)
    assert _tag_of(Path()) == "l2r_submission"
    assert _tag_of(tmp_path) == "l2r_submission"
    assert _tag_of(tmp_path / "Team_B (v2)") == "l2r-run/team-b-v2"
    assert _tag_of(tmp_path / "\u00e9") == "l2r-run/folder"
