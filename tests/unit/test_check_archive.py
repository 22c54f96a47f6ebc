"""An uploaded zip is checked like a folder, and what is wrong with the zip is told as well."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest

from harness.challenge.field_file import FieldState
from harness.challenge.pairs import read_pairs
from harness.check.check import check_fields
from harness.check.findings import FindingKind, Severity
from harness.check.source import open_source
from harness.errors import DataError
from tests.tiny import HALF, tiny_challenge, write_data

if TYPE_CHECKING:
    from pathlib import Path

    from harness.check.report import CheckReport

CHALLENGE = tiny_challenge()
ZERO = np.zeros((3, *HALF), np.float16)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    write_data(folder)
    return folder


def check(path: Path, data: Path) -> CheckReport:
    tasks = read_pairs(CHALLENGE, data)
    with open_source(path, data / "no_runs", tasks) as source:
        assert source.is_upload
        return check_fields(CHALLENGE, tasks, source, data_dir=None)


def write_zip(
    path: Path, arrays: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.floating]]]
) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(name, "w") as member:
                np.savez_compressed(member, array)
    return path


def test_honest_zip(tmp_path: Path, data: Path) -> None:
    names = ("task_01/disp_0001_0001.npz", "task_01/disp_0002_0002.npz")
    report = check(write_zip(tmp_path / "a.zip", dict.fromkeys(names, ZERO)), data)
    assert [pair.state for pair in report.pairs if pair.task == "task_01"] == [FieldState.VALID] * 2
    assert not report.errors


def test_a_field_in_it_is_read(tmp_path: Path, data: Path) -> None:
    names = ("task_01/disp_0001_0001.npz", "task_01/disp_0002_0002.npz")
    wrong = np.moveaxis(ZERO, 0, -1)
    report = check(write_zip(tmp_path / "a.zip", {names[0]: ZERO, names[1]: wrong}), data)
    (finding,) = report.findings
    assert (finding.kind, finding.pair) == (FindingKind.WRONG_SHAPE, "task_01/0002_0002")
    assert finding.fix == "components come first: np.moveaxis(field, -1, 0)"


def test_zip_in_a_folder_of_its_own(tmp_path: Path, data: Path) -> None:
    names = ("my/task_01/disp_0001_0001.npz", "my/task_01/disp_0002_0002.npz", "__MACOSX/._my")
    report = check(write_zip(tmp_path / "a.zip", dict.fromkeys(names, ZERO)), data)
    assert [pair.state for pair in report.pairs if pair.task == "task_01"] == [FieldState.VALID] * 2
    junk, top = sorted(report.findings, key=lambda finding: finding.severity, reverse=True)
    assert (top.kind, top.severity) == (FindingKind.ARCHIVE, Severity.ERROR)
    assert (junk.kind, junk.severity) == (FindingKind.ARCHIVE, Severity.WARNING)


def test_what_is_no_zip(tmp_path: Path, data: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(b"hello")
    (finding,) = check(path, data).findings
    assert (finding.kind, finding.found) == (FindingKind.ARCHIVE, "not a zip at all")
    (tmp_path / "link.zip").symlink_to("a.zip")
    with pytest.raises(DataError, match="symbolic link"):
        check(tmp_path / "link.zip", data)


def test_refused_members_are_not_missing_too(tmp_path: Path, data: Path) -> None:
    """PowerShell's backslashes were once an error a member, a missing field a pair, and a dummy."""
    names = ("task_01\\disp_0001_0001.npz", "task_01\\disp_0002_0002.npz")
    report = check(write_zip(tmp_path / "a.zip", dict.fromkeys(names, ZERO)), data)
    assert {finding.kind for finding in report.findings} == {FindingKind.ARCHIVE}
    states = [pair.state for pair in report.pairs if pair.task == "task_01"]
    assert states == [FieldState.INVALID] * 2
    names = ("/task_01/disp_0001_0001.npz", "task_01/disp_0002_0002.npz")
    report = check(write_zip(tmp_path / "b.zip", dict.fromkeys(names, ZERO)), data)
    (finding,) = report.findings
    assert finding.found == "an absolute path: '/task_01/disp_0001_0001.npz'"
    states = [pair.state for pair in report.pairs if pair.task == "task_01"]
    assert states == [FieldState.INVALID, FieldState.VALID]


def test_a_zip_of_which_nothing_can_be_used(tmp_path: Path, data: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("fields.tar.gz", b"x")
    (finding,) = check(tmp_path / "a.zip", data).findings
    assert finding.found == "an archive in the archive: 'fields.tar.gz'"


def test_an_empty_zip_has_no_fields(tmp_path: Path, data: Path) -> None:
    (finding,) = check(write_zip(tmp_path / "a.zip", {}), data).findings
    assert finding.kind is FindingKind.NOTHING
