"""Folders to check: what is in them was put there by somebody else."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import pytest

from harness.challenge.field_file import read_field
from harness.check.source import FolderSource, open_source
from harness.errors import DataError, FieldError
from tests.tiny import dig, tiny_challenge

FIELD = PurePosixPath("task_01/disp_0001_0002.npz")


def write(folder: Path, content: bytes = b"field") -> Path:
    path = folder / FIELD
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_files_and_links_are_listed_folders_are_not(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert list(map(str, FolderSource(tmp_path).names)) == ["link", "pipe", str(FIELD)]


def test_paths_longer_than_any_call_takes(tmp_path: Path) -> None:
    """Folders with names of 255 letters ended the check in a traceback."""
    dig(tmp_path, 20, name="d" * 255, content=b"x")
    source = FolderSource(tmp_path)
    (name,) = source.names
    assert len(name.parts) == 21
    with source.file(name) as file:
        assert file.read_bytes() == b"x"


def test_folders_too_deep(tmp_path: Path) -> None:
    dig(tmp_path, 40)
    with pytest.raises(DataError, match="32 folders down"):
        FolderSource(tmp_path)


@pytest.mark.parametrize("mode", [0o300, 0o400, 0o000], ids=oct)
def test_a_folder_closed_to_us_is_told(nobody_s_folder: Path, mode: int) -> None:
    """It was passed over, fields and all, or ended the check in a traceback."""
    closed = write(nobody_s_folder).parent
    closed.chmod(mode)
    try:
        with pytest.raises(DataError, match=r"task_01.*, which cannot \(Permission denied\)"):
            FolderSource(nobody_s_folder)
    finally:
        closed.chmod(0o700)


def test_a_place_that_cannot_be_asked_about(nobody_s_folder: Path) -> None:
    closed = write(nobody_s_folder).parent
    closed.chmod(0)
    try:
        for place in (closed / "fields", nobody_s_folder / ("x" * 300)):
            with (
                pytest.raises(DataError, match="cannot be looked at"),
                open_source(place, nobody_s_folder, ()),
            ):
                pass
    finally:
        closed.chmod(0o700)


def test_empty_folders_count(tmp_path: Path) -> None:
    """Two hundred thousand of them took 20 s and no entry of the limit."""
    for i in range(10):
        (tmp_path / str(i)).mkdir()
    assert FolderSource(tmp_path, max_entries=10).names == ()
    with pytest.raises(DataError, match="more than 9 files and folders"):
        FolderSource(tmp_path, max_entries=9)


def test_a_folder_that_became_a_link_after_it_was_listed(tmp_path: Path) -> None:
    """Another team's field was read in place of one's own."""
    folder = tmp_path / "submission"
    write(folder)
    write(tmp_path / "other", b"secret")
    source = FolderSource(folder)
    with source.file(FIELD) as file:
        assert file.read_bytes() == b"field"
        assert file.name == FIELD.name
    (folder / "task_01").rename(folder / "moved")
    (folder / "task_01").symlink_to(tmp_path / "other/task_01")
    with pytest.raises(FieldError, match="reached without links"), source.file(FIELD):
        pass


def test_a_folder_swapped_while_its_file_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "submission"
    write(folder)
    write(tmp_path / "other", b"secret")
    with FolderSource(folder).file(FIELD) as file:
        (folder / "task_01").rename(folder / "moved")
        (folder / "task_01").symlink_to(tmp_path / "other/task_01")
        assert file.read_bytes() == b"field"


def test_files_leave_no_descriptor_open(tmp_path: Path) -> None:
    write(tmp_path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    source = FolderSource(tmp_path)
    with source.file(FIELD):
        pass
    with pytest.raises(FieldError), source.file(PurePosixPath("none/a.npz")):
        pass
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_folder_named_like_a_field_is_listed(tmp_path: Path) -> None:
    """A run says of it that it is a folder, so the check should, rather than that it is missing."""
    (tmp_path / FIELD).mkdir(parents=True)
    source = FolderSource(tmp_path)
    assert source.names == (FIELD,)
    spec = tiny_challenge().task("task_01").field
    with source.file(FIELD) as file, pytest.raises(FieldError, match="found a folder"):
        read_field(file, spec)
