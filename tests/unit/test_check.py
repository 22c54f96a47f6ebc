"""`harness check`, `pack` and `zero` on real files: folders, runs, zips."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from harness.challenge.field import write_field
from harness.cli import app
from harness.errors import ChallengeError, DataError, FieldError, HarnessError, OutputError
from harness.store import RunDirectory
from tests.tiny import YAML, write_data
from tests.unit.test_store import RECORD

FIELDS = (
    "task_01/disp_0001_0001.npz",
    "task_01/disp_0002_0002.npz",
    "task_02/disp_0007_0008.npz",
    "task_02/disp_0008_0009.npz",
)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A team's folder with the tiny challenge, whose site wants a dummy file, and its data."""
    write_data(tmp_path / "test")
    text = YAML.replace("limits:", "upload: {dummy_file: dummy.txt}\nlimits:")
    (tmp_path / "tiny.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def harness(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--challenge", "tiny.yaml"])


def zero(folder: str = "submission") -> Path:
    assert harness("zero", folder).exit_code == 0
    return Path(folder)


def kinds(*arguments: str) -> list[tuple[str | None, str]]:
    """Pair and kind of every finding."""
    done = harness("check", "--json", "--format-only", *arguments)
    report = json.loads(done.stdout)
    assert report["schema_version"] == 1
    has_errors = any(finding["severity"] == "error" for finding in report["findings"])
    assert done.exit_code == (21 if has_errors else 0)
    return [(finding["pair"], finding["kind"]) for finding in report["findings"]]


def overwrite(field: str, array: np.ndarray) -> None:
    np.savez_compressed(Path("submission", field), array)


def test_zero_writes_what_check_accepts(site: Path) -> None:
    folder = zero()
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.npz")) == list(FIELDS)
    with np.load(folder / FIELDS[0]) as content:
        (array,) = content.values()
    assert (array.shape, array.dtype, array.any()) == ((3, 8, 6, 10), np.float16, np.False_)
    assert kinds() == []
    done = harness("check", "--format-only")
    assert "task_01: 2 pairs, 2 valid" in done.stdout
    assert "nothing to object to" in done.stdout


def test_zero_overwrites_nothing_unasked(site: Path) -> None:
    folder = zero()
    write_field(np.ones((3, 8, 6, 10), np.float16), folder / FIELDS[0])
    before = (folder / FIELDS[0]).read_bytes()
    done = harness("zero", "submission")
    assert isinstance(done.exception, OutputError)
    assert "is there already" in str(done.exception)
    assert (folder / FIELDS[0]).read_bytes() == before
    assert harness("zero", "submission", "--force").exit_code == 0
    assert (folder / FIELDS[0]).read_bytes() != before


def test_every_finding_in_one_pass(site: Path) -> None:
    folder = zero()
    overwrite(FIELDS[0], np.zeros((3, 8, 6, 10), np.float32))
    overwrite(FIELDS[1], np.zeros((8, 6, 10, 3), np.float16))
    overwrite(FIELDS[2], np.full((3, 8, 6, 10), np.nan, np.float16))
    (folder / FIELDS[3]).write_bytes((folder / FIELDS[3]).read_bytes()[:100])
    assert kinds() == [
        ("task_01/0001_0001", "wrong_dtype"),
        ("task_01/0002_0002", "wrong_shape"),
        ("task_02/0007_0008", "not_finite"),
        ("task_02/0008_0009", "unreadable"),
    ]
    done = harness("check", "--format-only")
    for word in ("float32", "components come first", "NaN", "damaged or truncated", "4 errors"):
        assert word in done.stdout, word


def test_an_empty_file_and_a_link(site: Path) -> None:
    folder = zero()
    (folder / FIELDS[0]).write_bytes(b"")
    target = (folder / FIELDS[1]).rename(site / "elsewhere.npz")
    (folder / FIELDS[1]).symlink_to(target)
    assert kinds() == [
        ("task_01/0001_0001", "unreadable"),
        ("task_01/0002_0002", "unreadable"),
    ]


def test_a_folder_in_the_place_of_a_field(site: Path) -> None:
    """It was once told as missing."""
    folder = zero()
    for name in FIELDS[:2]:
        (folder / name).unlink()
        (folder / name).mkdir()
    (folder / FIELDS[0] / "arr_0.npy").write_bytes(b"")
    assert kinds() == [
        ("task_01/0001_0001", "unreadable"),
        ("task_01/0002_0002", "unreadable"),
    ]
    done = harness("check", "--format-only")
    assert "found     a folder" in done.stdout
    done = harness("pack", "--force")
    assert isinstance(done.exception, FieldError)
    assert not Path("submission.zip").exists()


def test_a_run_directory_and_the_id_of_a_run(site: Path) -> None:
    run = site / "runs/local/20261124-120000"
    zero(str(run / "fields"))
    assert kinds(str(run / "fields")) == []
    RunDirectory(run).write_record(RECORD)
    assert kinds(str(run)) == []
    assert kinds("20261124-120000") == []


@pytest.mark.parametrize("trick", ["no record", "linked record", "linked fields", "large record"])
def test_a_folder_that_only_says_it_is_a_run(site: Path, trick: str) -> None:
    """With an empty run.json and a link called fields, another team's fields were checked, and
    would have been packed, in place of what the folder holds."""
    zero(str(site / "other/fields"))
    RunDirectory(site / "other").write_record(RECORD)
    folder = zero()
    overwrite(FIELDS[0], np.zeros((3, 8, 6, 10), np.float32))
    match trick:
        case "no record":
            zero(str(folder / "fields"))
            (folder / "run.json").write_text("{}")
        case "linked record":
            zero(str(folder / "fields"))
            (folder / "run.json").symlink_to(site / "other/run.json")
        case "linked fields":
            (folder / "fields").symlink_to(site / "other/fields")
            RunDirectory(folder).write_record(RECORD)
        case "large record":
            zero(str(folder / "fields"))
            with (folder / "run.json").open("wb") as file:
                file.truncate(1 << 40)
    assert ("task_01/0001_0001", "wrong_dtype") in kinds("submission")


@pytest.mark.parametrize("path", ["nothing", "/nonexist"])
def test_what_is_not_there(site: Path, path: str) -> None:
    done = harness("check", path)
    assert isinstance(done.exception, DataError)
    assert str(done.exception) == (
        f"{path}: expected a folder of fields, a run or a zip, found no such file or folder, nor a "
        "run in runs/local/"
    )


def test_a_file_that_is_no_zip(site: Path) -> None:
    done = harness("check", "tiny.yaml", "--format-only")
    assert done.exit_code == 21
    assert "archive" in done.stdout
    assert "expected  a zip" in done.stdout
    assert "found     not a zip at all" in done.stdout
    assert "not attempted" not in done.stdout
    assert "would be rejected: 1 error, no warnings" in done.stdout


def test_a_zip_is_checked_as_its_folder_is(site: Path) -> None:
    zero()
    assert harness("pack").exit_code == 0
    assert kinds("submission.zip") == []
    overwrite(FIELDS[0], np.zeros((3, 8, 6, 10), np.float32))
    Path("submission", FIELDS[3]).unlink()
    assert harness("pack", "--force").exit_code == 0
    assert kinds("submission.zip") == kinds("submission") != []


def test_a_zip_without_a_file_at_its_top(site: Path) -> None:
    folder = zero()
    with zipfile.ZipFile("bare.zip", "w") as archive:
        for name in FIELDS:
            archive.write(folder / name, name)
    assert kinds("bare.zip") == [(None, "no_dummy")]
    assert "harness pack" in harness("check", "bare.zip", "--format-only").stdout
    with zipfile.ZipFile("bare.zip", "a") as archive:
        archive.writestr("anything", b"")
    assert kinds("bare.zip") == []


def test_junk_alone_is_no_reason_for_doubt(site: Path) -> None:
    folder = zero()
    (folder / ".DS_Store").write_bytes(b"")
    done = harness("check", "--format-only")
    assert done.exit_code == 0
    assert "would be accepted: 1 warning" in done.stdout
    assert "probably" not in done.stdout


def test_no_data_no_check(site: Path) -> None:
    zero()
    assert isinstance(harness("check", "--data", "nowhere").exception, DataError)


def test_pack_makes_the_same_bytes_again(site: Path) -> None:
    zero()
    Path("submission/notes.txt").write_text("not part of it")
    assert harness("pack").exit_code == 0
    first = hashlib.sha256(Path("submission.zip").read_bytes()).hexdigest()
    for path in Path("submission").rglob("*.npz"):
        path.touch()
    assert harness("pack", "--output", "again.zip").exit_code == 0
    assert hashlib.sha256(Path("again.zip").read_bytes()).hexdigest() == first
    with zipfile.ZipFile("submission.zip") as archive:
        assert archive.namelist() == ["dummy.txt", *FIELDS]
        assert archive.testzip() is None
        for name in FIELDS:
            assert archive.read(name) == Path("submission", name).read_bytes()
    assert sorted(path.name for path in site.glob("*.zip*")) == ["again.zip", "submission.zip"]


def test_pack_refuses_errors_unless_told_otherwise(site: Path) -> None:
    zero()
    overwrite(FIELDS[0], np.zeros((3, 8, 6, 10), np.float64))
    Path("submission", FIELDS[3]).unlink()
    done = harness("pack")
    assert done.exit_code == 21
    assert "missing" in done.stdout
    assert not Path("submission.zip").exists()
    assert harness("pack", "--force").exit_code == 0
    with zipfile.ZipFile("submission.zip") as archive:
        assert archive.namelist() == ["dummy.txt", *FIELDS[:3]]


def test_pack_does_not_overwrite(site: Path) -> None:
    zero()
    Path("submission.zip").write_bytes(b"precious")
    done = harness("pack")
    assert isinstance(done.exception, OutputError)
    assert Path("submission.zip").read_bytes() == b"precious"


def test_pack_says_how_many_fields_are_not_valid(site: Path) -> None:
    zero()
    overwrite(FIELDS[0], np.zeros((3, 8, 6, 10), np.float64))
    assert "(4 fields, 1 of them not valid, " in harness("pack", "--force").stdout


def test_pack_follows_no_link_and_opens_no_pipe(site: Path) -> None:
    """With --force a link to a file of the host was packed with that file's content, and a pipe
    held the command up for ever."""
    folder = zero()
    (site / "secret").write_text("SECRET")
    for make in (lambda path: path.symlink_to(site / "secret"), os.mkfifo):
        (folder / FIELDS[0]).unlink()
        make(folder / FIELDS[0])
        done = harness("pack", "--force")
        assert isinstance(done.exception, FieldError)
        assert f"{FIELDS[0]}: cannot be packed" in str(done.exception)
        assert not Path("submission.zip").exists()


def test_pack_mends_a_zip_that_lacks_its_dummy(site: Path) -> None:
    folder = zero()
    with zipfile.ZipFile("bare.zip", "w") as archive:
        for name in FIELDS:
            archive.write(folder / name, name)
    assert harness("pack", "bare.zip").exit_code == 0
    assert kinds("submission.zip") == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("zero", "test"), "lies in the data folder"),
        (("pack", "-o", "test/a.zip"), "lies in the data folder"),
        (("pack", "-o", "nowhere/a.zip"), "expected its folder to be there"),
        (("pack", "-o", "test"), "expected the name of a file to write"),
        (("export", "any", "-o", "nowhere/a.tar.gz"), "expected its folder to be there"),
        (("export", "any", "-o", "tiny.yaml/a.tar.gz"), "expected its folder to be there"),
    ],
)
def test_places_that_cannot_be_written(
    site: Path, arguments: tuple[str, ...], message: str
) -> None:
    if arguments[0] == "export":
        done = CliRunner().invoke(app, [*arguments])
    else:
        done = harness(*arguments)
    assert isinstance(done.exception, OutputError)
    assert message in str(done.exception)


def test_a_run_is_checked_under_its_own_challenge(site: Path) -> None:
    run = site / "runs/local/mine"
    zero(str(run / "fields"))
    RunDirectory(run).write_record(RECORD.model_copy(update={"challenge": "tiny"}))
    done = CliRunner().invoke(app, ["check", "mine", "--format-only"])
    assert isinstance(done.exception, ChallengeError)
    assert "under the challenge tiny, which is not built in" in str(done.exception)
    RunDirectory(run).write_record(RECORD.model_copy(update={"challenge": "lumir2024"}))
    done = CliRunner().invoke(app, ["check", "mine", "--format-only"])
    assert "LUMIR_dataset.json" in str(done.exception)


def test_a_pipe_called_run_json_is_no_record(site: Path) -> None:
    """To learn the run's challenge the record was read before anything was known of it: a pipe, or
    a link to a device, held the check of a hostile folder up for ever."""
    folder = zero()
    os.mkfifo(folder / "run.json")
    (folder / "fields").mkdir()
    done = CliRunner().invoke(app, ["check", str(folder), "--format-only"])
    assert isinstance(done.exception, DataError)  # the default challenge's, whose data is not here
    assert "task_01" in str(done.exception)


def test_hints_name_the_options_that_were_given(site: Path) -> None:
    (site / "test").rename(site / "data")
    done = harness("zero", "z", "--data", "data")
    assert "`harness pack z --challenge tiny.yaml --data data`" in done.stderr


def test_pack_without_any_field(site: Path) -> None:
    Path("submission").mkdir()
    assert harness("pack").exit_code == 21
    done = harness("pack", "--force")
    assert isinstance(done.exception, HarnessError)
    assert not Path("submission.zip").exists()


def test_paths_in_a_report_are_those_in_the_folder(site: Path) -> None:
    zero()
    report = json.loads(harness("check", "--json", "--format-only").stdout)
    assert [PurePosixPath(pair["path"]) for pair in report["pairs"]] == [
        PurePosixPath(name) for name in FIELDS
    ]
    assert {pair["state"] for pair in report["pairs"]} == {"valid"}
    assert report["meaning_checked"] is False
