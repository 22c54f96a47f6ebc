"""Digests change with the content, with nothing else, and cost nothing the second time."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.campaign.content import Contents
from harness.campaign.tree import Sort, Stamp, read_tree
from harness.challenge.model import load_challenge
from harness.challenge.pairs import read_pairs
from harness.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def later() -> float:
    """A clock that takes every file here for an old one."""
    return time.time() + 60


def contents(tmp_path: Path) -> Contents:
    return Contents(tmp_path / "_campaign" / "contents.json", later)


def of_file(known: Contents, path: Path) -> str | None:
    return known.of_file(path.parent, PurePosixPath(path.name), Stamp.of(path.lstat()))


def of_tree(folder: Path, known: Contents | None = None) -> str | None:
    tree = read_tree(folder.parent, PurePosixPath(folder.name))
    return (known or Contents(None)).of_tree(folder.parent, PurePosixPath(folder.name), tree)


class Openings:
    """Names of the files that this process opens, as the interpreter's audit tells them."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.is_on = True  # an audit hook cannot be taken off
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.is_on and event == "open":
            self.names.append(os.path.basename(str(arguments[0])))  # noqa: PTH119


@pytest.fixture
def openings() -> Iterator[Openings]:
    heard = Openings()
    yield heard
    heard.is_on = False


def test_a_file_is_read_once(tmp_path: Path, openings: Openings) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"abc")
    first = contents(tmp_path)
    digest = of_file(first, path)
    assert digest == "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    first.save()
    assert openings.names.count("a.tar") == 2  # one of them is the test's own
    second = contents(tmp_path)
    assert second.known(path, str(Stamp.of(path.lstat()))) == digest
    assert of_file(second, path) == digest
    assert openings.names.count("a.tar") == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(b"abd"),
        lambda path: os.utime(path, (1, 1)),
        lambda path: path.chmod(0o600),
        lambda path: shutil.copy(path.rename(path.with_suffix(".x")), path),
    ],
    ids=["content", "times", "mode", "inode"],
)
def test_any_change_makes_it_read_again(tmp_path: Path, change: Callable[[Path], object]) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"abc")
    known = contents(tmp_path)
    of_file(known, path)
    time.sleep(0.02)  # a tick of the file system's clock
    change(path)
    assert known.known(path, str(Stamp.of(path.lstat()))) is None


def test_a_file_changed_just_now_is_not_remembered(tmp_path: Path) -> None:
    """It may change once more within one tick of the clock, and keep its times and size."""
    path = tmp_path / "a.tar"
    path.write_bytes(b"abc")
    known = Contents(None)
    assert of_file(known, path) is not None
    assert known.known(path, str(Stamp.of(path.lstat()))) is None


def test_a_file_that_is_not_what_it_was_has_no_digest(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"abc")
    stamp = Stamp.of(path.lstat())
    with path.open("ab") as file:
        file.write(b"d")
    assert contents(tmp_path).of_file(tmp_path, PurePosixPath("a.tar"), stamp) is None


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"abc")
    (tmp_path / "a.tar").symlink_to(secret)
    with pytest.raises(OSError, match="symbolic link"):
        contents(tmp_path).of_file(tmp_path, PurePosixPath("a.tar"), Stamp.of(secret.stat()))


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"\xff\xfe", b"[]", b'{"contents": {"/a": 1}}', b"[" * 100_000]
)
def test_a_damaged_file_is_computed_anew(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"abc")
    known = contents(tmp_path)
    digest = of_file(known, path)
    known.save()
    (tmp_path / "_campaign" / "contents.json").write_bytes(damage)
    again = contents(tmp_path)
    assert of_file(again, path) == digest
    again.save()
    assert json.loads((tmp_path / "_campaign" / "contents.json").read_text())["contents"]


def test_what_is_gone_is_forgotten_and_any_name_is_kept(tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n.tar"))
    gone = tmp_path / "gone.tar"
    for path in (odd, gone):
        path.write_bytes(b"abc")
    known = contents(tmp_path)
    of_file(known, odd)
    of_file(known, gone)
    known.save()
    gone.unlink()
    again = contents(tmp_path)
    new = tmp_path / "new.tar"
    new.write_bytes(b"x")
    of_file(again, new)
    again.save()
    last = contents(tmp_path)
    assert last.known(odd, str(Stamp.of(odd.lstat()))) is not None
    kept = json.loads((tmp_path / "_campaign" / "contents.json").read_text())["contents"]
    assert set(kept) == {str(odd), str(new)}


def test_a_disk_that_takes_nothing_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"abc")
    known = Contents(path / "contents.json", later)  # a file is no folder
    assert of_file(known, path) is not None
    known.save()
    assert "not written" in caplog.text


_NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1)
_NAMES = _NAMES.filter(lambda name: name not in {".", ".."} and len(name.encode()) < 200)
_NODES = st.recursive(
    st.tuples(st.just("file"), st.binary(max_size=20), st.booleans())
    | st.tuples(st.just("link"), st.sampled_from(["a", "../b", "/c"])),
    lambda inner: st.dictionaries(_NAMES, inner, max_size=3),
    max_leaves=6,
)
_TREES = st.dictionaries(_NAMES, _NODES, max_size=4)


def make(folder: Path, tree: object) -> None:
    """A folder of nested dictionaries, files and links."""
    assert isinstance(tree, dict)
    folder.mkdir()
    for name, node in tree.items():
        if isinstance(node, dict):
            make(folder / name, node)
        elif node[0] == "link":
            (folder / name).symlink_to(node[1])
        else:
            (folder / name).write_bytes(node[1])
            (folder / name).chmod(0o755 if node[2] else 0o644)


@settings(max_examples=60, deadline=None)
@given(one=_TREES, other=_TREES)
def test_trees_have_equal_digests_when_they_are_equal(
    one: dict[str, object], other: dict[str, object]
) -> None:
    with tempfile.TemporaryDirectory() as place:
        folders = [Path(place, name) for name in ("first", "second", "third")]
        for folder, tree in zip(folders, (one, one, other), strict=True):
            make(folder, tree)
        first, second, third = map(of_tree, folders)
    assert first == second
    assert (first == third) == (one == other)


def test_a_folder_is_read_once(tmp_path: Path, openings: Openings) -> None:
    tree = {"Dockerfile": ("file", b"FROM x", False), "m": {"a.py": ("file", b"", True)}}
    make(tmp_path / "team", tree)
    known = contents(tmp_path)
    digest = of_tree(tmp_path / "team", known)
    known.save()
    before = openings.names.count("a.py")
    assert of_tree(tmp_path / "team", contents(tmp_path)) == digest
    assert openings.names.count("a.py") == before
    (tmp_path / "team" / "m" / "a.py").chmod(0o644)
    assert of_tree(tmp_path / "team", contents(tmp_path)) != digest
    assert openings.names.count("a.py") == before + 1


def test_a_tree_tells_what_is_in_it(tmp_path: Path) -> None:
    make(tmp_path / "t", {"b": ("link", "/etc/passwd"), "a": {"x": ("file", b"12", True)}})
    os.mkfifo(tmp_path / "t" / "pipe")
    tree = read_tree(tmp_path, PurePosixPath("t"))
    assert [(one.path, one.sort) for one in tree.members] == [
        ("a", Sort.FOLDER),
        ("a/x", Sort.FILE),
        ("b", Sort.LINK),
        ("pipe", Sort.OTHER),
    ]
    assert [one.path for one in tree.under("a").members] == ["x"]
    assert tree.size_bytes == 2
    pipe = tree.find("pipe")
    assert pipe is not None
    assert pipe.problem == "a pipe, a socket or a device"


def test_a_folder_without_end_is_cut(tmp_path: Path) -> None:
    make(tmp_path / "t", {str(n): ("file", b"", False) for n in range(9)})
    assert not read_tree(tmp_path, PurePosixPath("t"), 9).is_cut
    tree = read_tree(tmp_path, PurePosixPath("t"), 5)
    assert tree.is_cut
    assert len(tree.members) == 5


def test_a_folder_too_deep_is_told(tmp_path: Path) -> None:
    deep = tmp_path / "t"
    for _ in range(40):
        deep /= "d"
    deep.mkdir(parents=True)
    tree = read_tree(tmp_path, PurePosixPath("t"))
    assert [one.problem for one in tree.members if one.problem] == ["32 folders down"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Every file that the first task's only pair needs; no images, which nobody looks into."""
    challenge = load_challenge()
    task = challenge.tasks[0]
    folder = tmp_path / "data"
    assert task.images is not None
    for pattern in (task.images.fixed, task.images.moving):
        path = folder / pattern.format(fixed=12, moving=12)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(path.name.encode())
    (folder / task.pairs.path).write_text("fixed,moving\n12,12\n")
    return folder


def data_digest(folder: Path, known: Contents | None = None) -> str:
    tasks = read_pairs(load_challenge(), folder)
    return (known or Contents(None)).data_digest(folder, tasks)


def test_the_data_are_their_lists_and_inputs(data: Path, tmp_path: Path) -> None:
    before = data_digest(data)
    (data / "README").write_text("of no pair")
    assert data_digest(data) == before
    moved = tmp_path / "elsewhere"
    shutil.copytree(data, moved)
    assert data_digest(moved) == before
    image = next(data.rglob("*.nii.gz"))
    image.write_bytes(b"another")
    changed = data_digest(data)
    assert changed != before
    listed = next(data.rglob("*.csv"))
    listed.write_text("fixed,moving\n12,12\n\n")
    assert data_digest(data) not in {before, changed}


def test_the_data_are_read_once(data: Path, tmp_path: Path) -> None:
    before = data_digest(data, contents(tmp_path))
    for path in data.rglob("*.nii.gz"):
        path.chmod(0o644)
    again = contents(tmp_path)
    places = [path for path in data.rglob("*") if path.is_file()]
    known = [again.known(path, str(Stamp.of(path.stat()))) for path in places]
    assert sum(one is not None for one in known) >= 1  # the list, whose mode is as it was
    assert data_digest(data, again) == before


def test_the_truth_is_every_file_wherever_links_lead(tmp_path: Path) -> None:
    truth = tmp_path / "truth"
    make(truth, {"task_01": {"label.nii.gz": ("file", b"1", False)}})
    before = Contents(None).truth_digest(truth)
    elsewhere = tmp_path / "store"
    make(elsewhere, {"label.nii.gz": ("file", b"1", False)})
    shutil.rmtree(truth / "task_01")
    (truth / "task_01").symlink_to(elsewhere)
    (elsewhere / "loop").symlink_to(truth)
    assert Contents(None).truth_digest(truth) == before
    (elsewhere / "label.nii.gz").write_bytes(b"2")
    assert Contents(None).truth_digest(truth) != before


def test_a_truth_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a folder, found none"):
        Contents(None).truth_digest(tmp_path / "truth")
    make(tmp_path / "truth", {"a": ("link", "nowhere")})
    with pytest.raises(DataError, match="a: No such file"):
        Contents(None).truth_digest(tmp_path / "truth")
