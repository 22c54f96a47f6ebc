"""Fields are taken out of a folder that a submission filled as it liked."""

from __future__ import annotations

import hashlib
import os
import subprocess
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
import pytest

from harness.beneath import walk
from harness.challenge.field import write_field
from harness.challenge.field_file import FieldState, max_file_bytes
from harness.challenge.model import FieldSpec, Layout
from harness.collect import (
    CollectedField,
    TreeUse,
    collect_field,
    publish_fields,
    read_small_file,
    tree_use,
)
from tests.tiny import HALF, dig, tiny_challenge

if TYPE_CHECKING:
    from collections.abc import Iterator

SPEC = tiny_challenge().task("task_01").field
NAME = PurePosixPath("task_01/disp_0001_0002.npz")


class Folders:
    """An output folder as a submission sees it, and where its field is copied to."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.output = root / "output"
        self.field = self.output / NAME
        self.copy = root / "fields" / NAME
        self.field.parent.mkdir(parents=True)

    def write(self, value: float = 1.0, path: Path | None = None) -> bytes:
        target = path or self.field
        target.parent.mkdir(parents=True, exist_ok=True)
        write_field(np.full(SPEC.shape, value, np.float16), target)
        return target.read_bytes()

    def collect(self) -> CollectedField:
        return collect_field(self.output, [NAME], self.root / "fields", SPEC)

    def refused(self) -> str:
        """The problem of a field that was not even copied."""
        found = self.collect()
        assert found.state is FieldState.INVALID
        assert found.sha256 is None
        assert not self.copy.exists()
        return found.problem or ""


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path)


# --- One field ----------------------------------------------------------------------------------


def test_regular_field(folders: Folders) -> None:
    raw = folders.write()
    os.utime(folders.field, ns=(1, 1_700_000_000_123_456_789))
    assert folders.collect() == CollectedField(
        state=FieldState.VALID,
        path=NAME,
        sha256=hashlib.sha256(raw).hexdigest(),
        modified_ns=1_700_000_000_123_456_789,
    )
    assert folders.copy.read_bytes() == raw
    assert not folders.field.exists()  # its room is wanted for the next


def test_of_several_names_the_first_counts_and_the_rest_is_left(folders: Folders) -> None:
    long = PurePosixPath("task_01/disp_0001_0000_0002_0001.npz")
    raw = folders.write(2.0, folders.output / long)
    names = [NAME, long]
    found = collect_field(folders.output, names, folders.root / "fields", SPEC)
    assert (found.state, found.path) == (FieldState.VALID, long)
    assert (folders.root / "fields" / long).read_bytes() == raw
    folders.write(1.0)
    found = collect_field(folders.output, names, folders.root / "fields", SPEC)
    assert (found.state, found.path) == (FieldState.VALID, NAME)


def test_missing_field(folders: Folders) -> None:
    missing = CollectedField(state=FieldState.MISSING, problem="no file was written")
    assert folders.collect() == missing
    folders.field.parent.rmdir()
    assert folders.collect() == missing


def test_invalid_field_is_kept_as_it_is(folders: Folders) -> None:
    """So that a team can be shown what it wrote."""
    folders.field.write_bytes(b"not a field")
    modified_ns = folders.field.stat().st_mtime_ns
    found = folders.collect()
    assert found.state is FieldState.INVALID
    assert "damaged or truncated" in (found.problem or "")
    assert found.sha256 == hashlib.sha256(b"not a field").hexdigest()
    assert found.modified_ns == modified_ns
    assert folders.copy.read_bytes() == b"not a field"


def test_empty_field(folders: Folders) -> None:
    folders.field.touch()
    found = folders.collect()
    assert found.state is FieldState.INVALID
    assert found.sha256 == hashlib.sha256(b"").hexdigest()


@pytest.mark.parametrize("target", ["valid", "nowhere", "/dev/zero", "itself"])
def test_linked_field(folders: Folders, target: str) -> None:
    valid = folders.field.with_name("other.npz")
    folders.write(path=valid)
    places = {"valid": valid, "itself": folders.field}
    folders.field.symlink_to(places.get(target, Path(target)))
    assert "reached without links" in folders.refused()


def test_linked_task_folder(folders: Folders) -> None:
    """Somebody else's fields lie outside, and stay there."""
    outside = folders.root / "another_run"
    folders.write(path=outside / NAME.name)
    folders.field.parent.rmdir()
    folders.field.parent.symlink_to(outside)
    assert "reached without links" in folders.refused()


def test_link_within_the_output_folder(folders: Folders) -> None:
    folders.write(path=folders.output / "elsewhere" / NAME.name)
    folders.field.parent.rmdir()
    folders.field.parent.symlink_to("elsewhere")
    assert "reached without links" in folders.refused()


def test_linked_output_folder(folders: Folders) -> None:
    folders.write()
    folders.output.rename(folders.root / "moved")
    folders.output.symlink_to("moved")
    assert "reached without links" in folders.refused()


def test_file_in_place_of_the_task_folder(folders: Folders) -> None:
    folders.field.parent.rmdir()
    folders.field.parent.touch()
    assert "reached without links" in folders.refused()


def test_pipe_does_not_block(folders: Folders) -> None:
    os.mkfifo(folders.field)
    assert "found a folder, pipe or device" in folders.refused()


def test_folder_in_place_of_a_field(folders: Folders) -> None:
    folders.field.mkdir()
    assert "found a folder, pipe or device" in folders.refused()


def test_hard_link_is_a_file_like_any_other(folders: Folders) -> None:
    raw = folders.write(path=folders.root / "first.npz")
    os.link(folders.root / "first.npz", folders.field)
    assert folders.collect().sha256 == hashlib.sha256(raw).hexdigest()


def test_oversize_field_is_not_copied(folders: Folders) -> None:
    with folders.field.open("wb") as file:
        file.truncate(1 << 40)
    problem = folders.refused()
    assert problem == f"expected at most {max_file_bytes(SPEC)} bytes, found {1 << 40}"


def test_oversize_field_says_why(folders: Folders) -> None:
    """Double precision, at full resolution: too large to be copied, and told all the same."""
    with folders.field.open("wb") as file:
        np.savez(file, np.zeros((3, *(8 * n for n in HALF))))
    assert folders.field.stat().st_size > max_file_bytes(SPEC)
    assert "expected dtype float16" in folders.refused()


def test_the_copy_does_not_change_with_its_source(folders: Folders) -> None:
    """A submission's process that was left behind could still write."""
    raw = folders.write()
    with folders.field.open("r+b") as file:
        folders.collect()
        file.write(b"changed")
    assert folders.copy.read_bytes() == raw


class Astonishing(FieldSpec):
    """A contract that the reader of fields trips over, as it did over files nobody had thought of.

    ``layout_of`` is the first that it asks, of any shape.
    """

    def layout_of(self, shape: tuple[int, ...]) -> Layout | None:
        raise RecursionError(f"nobody had thought of {shape}")


@pytest.mark.parametrize("is_large", [False, True])
def test_what_nobody_had_thought_of_costs_one_field(
    folders: Folders, caplog: pytest.LogCaptureFixture, is_large: bool
) -> None:
    """A header of one array ended in a ValueError of Python's own, and with it the run: no record,
    and none of the other fields, of a submission that had run for hours."""
    folders.write()
    if is_large:
        with folders.field.open("wb") as file:
            np.savez(file, np.zeros((3, *(8 * n for n in HALF))))
    spec = Astonishing.model_validate(SPEC.model_dump())
    modified_ns = folders.field.stat().st_mtime_ns
    found = collect_field(folders.output, [NAME], folders.root / "fields", spec)
    assert found.state is FieldState.INVALID
    assert "could not be examined (RecursionError)" in (found.problem or "")
    assert found.modified_ns == modified_ns
    (logged,) = caplog.records
    assert logged.levelname == "WARNING"
    assert logged.exc_info is not None
    assert str(NAME) in logged.getMessage()


def test_our_own_full_disk_is_not_the_field_s_fault(folders: Folders) -> None:
    folders.write()
    (folders.root / "fields").touch()  # nothing can be written below it
    with pytest.raises(OSError, match="fields"):
        folders.collect()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Folders]:
    """A megabyte in fifty files, in memory."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=50", "tmpfs", disk],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.decode()}")
    try:
        yield Folders(disk)
    finally:
        subprocess.run(["umount", disk], check=True)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass


def test_field_on_a_full_disk_is_moved(small_disk: Folders) -> None:
    """Nothing is lost, and nothing is called invalid for the machine's want of room."""
    raw = small_disk.write()
    small_disk.copy.parent.mkdir(parents=True)
    modified_ns = small_disk.field.stat().st_mtime_ns
    fill(small_disk.root / "junk")
    found = small_disk.collect()
    assert (found.state, found.modified_ns) == (FieldState.VALID, modified_ns)
    assert found.sha256 == hashlib.sha256(raw).hexdigest()
    assert small_disk.copy.read_bytes() == raw
    assert list(small_disk.copy.parent.iterdir()) == [small_disk.copy]


def test_field_that_can_be_neither_copied_nor_moved_is_not_judged(small_disk: Folders) -> None:
    """Not even a folder can be made for it."""
    raw = small_disk.write()
    with suppress(OSError):
        for number in range(1000):
            (small_disk.root / str(number)).touch()
    found = small_disk.collect()
    assert found.state is FieldState.UNCOLLECTED
    assert "No space left on device" in (found.problem or "")
    assert small_disk.field.read_bytes() == raw


def test_field_that_was_collected_before_is_found_again(folders: Folders) -> None:
    """The harness was killed on the way, and started again."""
    folders.write()
    first = folders.collect()
    assert not folders.field.exists()
    assert folders.collect() == first


def test_refusals_leave_no_descriptor_open(folders: Folders) -> None:
    folders.field.mkdir()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        folders.refused()
        read_small_file(folders.output, NAME, 100)
        collect_field(folders.output, [PurePosixPath("a/b/c/d.npz")], folders.copy, SPEC)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# --- A small file -------------------------------------------------------------------------------


def test_small_file(folders: Folders) -> None:
    folders.field.write_bytes(b"12345")
    assert read_small_file(folders.output, NAME, 5) == b"12345"
    assert read_small_file(folders.output, NAME, 4) is None


@pytest.mark.parametrize("kind", ["missing", "link", "pipe", "folder", "linked_folder"])
def test_no_small_file(folders: Folders, kind: str) -> None:
    secret = folders.root / "secret" / NAME.name
    secret.parent.mkdir()
    secret.write_bytes(b"secret")
    match kind:
        case "link":
            folders.field.symlink_to(secret)
        case "pipe":
            os.mkfifo(folders.field)
        case "folder":
            folders.field.mkdir()
        case "linked_folder":
            folders.field.parent.rmdir()
            folders.field.parent.symlink_to(secret.parent)
    assert read_small_file(folders.output, NAME, 100) is None


# --- The size of a folder -----------------------------------------------------------------------


def test_use_of_a_folder_is_what_lies_on_the_disk(tmp_path: Path) -> None:
    assert tree_use(tmp_path, 100) == TreeUse(used_bytes=0, entries=0, unseen=None)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "file").write_bytes(bytes(100_000))
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    use = tree_use(tmp_path, 100)
    assert 100_000 <= use.used_bytes < 200_000
    assert use.entries == 4
    assert use.unseen is None


def test_use_of_a_folder_follows_no_link(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    (outside / "big").write_bytes(bytes(1_000_000))
    (inside / "folder").symlink_to(outside)
    (inside / "file").symlink_to(outside / "big")
    (inside / "loop").symlink_to(inside)
    os.mkfifo(inside / "pipe")
    use = tree_use(inside, 100)
    assert use.used_bytes < 100_000
    assert use.entries == 4


def test_use_of_nothing(tmp_path: Path) -> None:
    nothing = TreeUse(used_bytes=0, entries=0, unseen=None)
    assert tree_use(tmp_path / "none", 100) == nothing


def test_counting_ends_past_the_limit(tmp_path: Path) -> None:
    """Half a million empty files took no byte of the limit, and seconds of each look."""
    for index in range(50):
        (tmp_path / f"folder{index}").mkdir()
    assert tree_use(tmp_path, 20).entries == 21


def test_what_lies_too_deep_to_be_seen_is_said(tmp_path: Path) -> None:
    """Below a path of 4096 characters a submission filled the disk unseen."""
    dig(tmp_path, 40)
    assert "32 folders down" in (tree_use(tmp_path, 10_000).unseen or "")


def test_no_path_is_too_long_to_be_seen(tmp_path: Path) -> None:
    """Twenty folders with names of 255 letters hid 300 MB: the path was longer than any call takes,
    which counted as gone."""
    dig(tmp_path, 20, name="d" * 255, content=bytes(1_000_000))
    use = tree_use(tmp_path, 10_000)
    assert use.used_bytes >= 1_000_000
    assert (use.entries, use.unseen) == (21, None)


@pytest.mark.parametrize("mode", [0o300, 0o400, 0o000], ids=oct)
def test_a_folder_closed_to_us_is_not_an_empty_one(nobody_s_folder: Path, mode: int) -> None:
    """Whoever ran the harness without being root did not see what lay in a folder of mode 0300."""
    closed = nobody_s_folder / "hid\x1b[2Jden"
    closed.mkdir()
    (closed / "big").write_bytes(bytes(1_000_000))
    closed.chmod(mode)
    try:
        assert "hid\ufffd[2Jden" in (tree_use(nobody_s_folder, 100).unseen or "")
    finally:
        closed.chmod(0o700)


@pytest.mark.parametrize("change", ["removed", "file", "link"])
def test_what_changes_between_two_looks_is_left_out(tmp_path: Path, change: str) -> None:
    """Folders come and go while a submission works; that is no reason to end it."""
    (tmp_path / "folder" / "sub").mkdir(parents=True)
    everything = walk(tmp_path)
    assert next(everything).path == PurePosixPath("folder")
    (tmp_path / "folder" / "sub").rmdir()
    (tmp_path / "folder").rmdir()
    if change == "file":
        (tmp_path / "folder").touch()
    elif change == "link":
        (tmp_path / "folder").symlink_to(tmp_path)
    assert list(everything) == []


def test_looking_leaves_no_descriptor_open(tmp_path: Path) -> None:
    dig(tmp_path, 40)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for limit in (3, 100):
        tree_use(tmp_path, limit)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# --- The submission folder ----------------------------------------------------------------------


class Desk:
    """A submission folder, and runs whose fields went or go there."""

    def __init__(self, root: Path) -> None:
        self.submission = root / "submission"
        self.runs = root / "runs" / "local"
        self.kept = root / "kept"
        self.submission.mkdir()
        self.put(self.submission / "README.md", "a folder for fields")

    def put(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def run(self, name: str, fields: dict[str, str]) -> Path:
        folder = self.runs / name / "fields"
        folder.mkdir(parents=True)
        for field, text in fields.items():
            self.put(folder / field, text)
        return folder

    @staticmethod
    def content(folder: Path) -> dict[str, str]:
        files = (path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): path.read_text() for path in files}

    @property
    def fields(self) -> dict[str, str]:
        """What lies in the submission folder beside its README."""
        content = self.content(self.submission)
        assert content.pop("README.md") == "a folder for fields"
        return content


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


FIRST, SECOND, THIRD = (f"task_01/disp_000{i}_000{i}.npz" for i in (1, 2, 3))


def test_fields_are_published(desk: Desk) -> None:
    fields = desk.run("1", {FIRST: "one", SECOND: "two"})
    assert publish_fields(fields, desk.submission, desk.kept) == 0
    assert desk.fields == {FIRST: "one", SECOND: "two"}
    assert not desk.kept.exists()


def test_fields_of_an_earlier_run_are_replaced_or_removed(desk: Desk) -> None:
    earlier = desk.run("1", {FIRST: "old", SECOND: "old"})
    publish_fields(earlier, desk.submission, desk.kept)
    later = desk.run("2", {SECOND: "new", THIRD: "new"})
    assert publish_fields(later, desk.submission, desk.kept) == 0
    assert desk.fields == {SECOND: "new", THIRD: "new"}
    assert not desk.kept.exists()


def test_publishing_twice_changes_nothing(desk: Desk) -> None:
    fields = desk.run("1", {FIRST: "one"})
    for _ in range(2):
        assert publish_fields(fields, desk.submission, desk.kept) == 0
        assert desk.fields == {FIRST: "one"}


def test_fields_of_somebody_else_are_moved_aside(desk: Desk) -> None:
    """They may be hours of work of the bare docker line."""
    for name in (FIRST, SECOND):
        desk.put(desk.submission / name, "by hand")
    fields = desk.run("1", {FIRST: "run", THIRD: "run"})
    assert publish_fields(fields, desk.submission, desk.kept) == 2
    assert desk.fields == {FIRST: "run", THIRD: "run"}
    assert desk.content(desk.kept) == {FIRST: "by hand", SECOND: "by hand"}


def test_a_run_without_fields_changes_nothing(desk: Desk) -> None:
    earlier = desk.run("1", {FIRST: "old"})
    publish_fields(earlier, desk.submission, desk.kept)
    before = desk.fields
    assert publish_fields(desk.run("2", {}), desk.submission, desk.kept) == 0
    assert desk.fields == before != {}


def test_a_run_that_collected_nothing_has_no_fields_folder(desk: Desk) -> None:
    fields = desk.run("1", {})
    fields.rmdir()
    assert publish_fields(fields, desk.submission, desk.kept) == 0


def test_other_files_stay(desk: Desk) -> None:
    desk.put(desk.submission / "task_01" / "notes.txt", "mine")
    publish_fields(desk.run("1", {FIRST: "one"}), desk.submission, desk.kept)
    assert desk.fields == {FIRST: "one", "task_01/notes.txt": "mine"}


def test_a_folder_named_like_a_field(desk: Desk) -> None:
    """A backup somebody made is no field, and what lies in it is not this run's business."""
    desk.put(desk.submission / "disp_backup" / "disp_0001_0001.npz", "mine")
    desk.put(desk.submission / "disp_backup" / "notes.txt", "mine")
    publish_fields(desk.run("1", {FIRST: "one"}), desk.submission, desk.kept)
    assert desk.fields[FIRST] == "one"
    everything = {**desk.content(desk.submission), **desk.content(desk.kept)}
    assert list(everything.values()).count("mine") == 2


def test_a_folder_in_place_of_a_field(desk: Desk) -> None:
    desk.put(desk.submission / FIRST / "inside.txt", "mine")
    assert publish_fields(desk.run("1", {FIRST: "one"}), desk.submission, desk.kept) == 1
    assert desk.fields == {FIRST: "one"}
    assert desk.content(desk.kept) == {f"{FIRST}/inside.txt": "mine"}


def test_a_linked_field_is_not_written_through(desk: Desk, tmp_path: Path) -> None:
    desk.put(tmp_path / "precious", "precious")
    link = desk.submission / FIRST
    link.parent.mkdir()
    link.symlink_to(tmp_path / "precious")
    publish_fields(desk.run("1", {FIRST: "one"}), desk.submission, desk.kept)
    assert desk.fields == {FIRST: "one"}
    assert not link.is_symlink()
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_run_that_is_a_stray_file_does_no_harm(desk: Desk) -> None:
    fields = desk.run("1", {FIRST: "one"})
    desk.put(desk.runs / ".DS_Store", "")
    publish_fields(fields, desk.submission, desk.kept)
    assert desk.fields == {FIRST: "one"}
