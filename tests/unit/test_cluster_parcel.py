"""A run directory sent from one machine to another, and what must not come of a list that lies."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import pytest

from harness.cluster.parcel import (
    Incoming,
    Manifest,
    PackedFile,
    check_manifest,
    is_complete,
    make_manifest,
    read_parcel,
)
from harness.cluster.uploads import Uploads
from harness.errors import MachineError, OutputError

if TYPE_CHECKING:
    from pathlib import Path

FILES = {"run.json": b"{}" * 30, "fields/task_01/disp.npz": bytes(range(256)), "log.txt": b""}


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "there/20260101-000000"
    for name, content in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def send(run_dir: Path, target: Path, length: int) -> Manifest:
    manifest = make_manifest(run_dir)
    with Incoming(target, manifest) as incoming:
        while incoming.received_bytes < manifest.size_bytes:
            incoming.add(read_parcel(run_dir, manifest, incoming.received_bytes, length))
        incoming.accept()
    return manifest


def receive(target: Path, manifest: Manifest, content: bytes) -> None:
    with Incoming(target, manifest) as incoming:
        incoming.add(content)
        incoming.accept()


def content_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("length", [1, 7, 60, 61, 1 << 20])
def test_all_of_it_arrives(run_dir: Path, tmp_path: Path, length: int) -> None:
    """Whatever a chunk begins or ends with, the edge of a file included."""
    target = tmp_path / "here/team/20260101-000000"
    manifest = send(run_dir, target, length)
    assert content_of(target) == FILES
    assert is_complete(target, manifest)
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    assert target.stat().st_mode & 0o777 == 0o700


def test_run_without_a_byte(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/log.txt").touch()
    send(tmp_path / "empty", tmp_path / "here", 10)
    assert content_of(tmp_path / "here") == {"log.txt": b""}


def test_wrong_bytes_leave_nothing(run_dir: Path, tmp_path: Path) -> None:
    manifest = make_manifest(run_dir)
    content = bytearray(read_parcel(run_dir, manifest, 0, manifest.size_bytes))
    content[100] ^= 1
    target = tmp_path / "here/run"
    with pytest.raises(MachineError, match=r"disp\.npz did not come as it was sent"):
        receive(target, manifest, bytes(content))
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize(("cut", "message"), [(-1, "fewer bytes"), (1, "more bytes")])
def test_other_length_leaves_nothing(run_dir: Path, tmp_path: Path, cut: int, message: str) -> None:
    manifest = make_manifest(run_dir)
    content = read_parcel(run_dir, manifest, 0, manifest.size_bytes)
    target = tmp_path / "here/run"
    with pytest.raises(MachineError, match=message):
        receive(target, manifest, content[:-1] if cut < 0 else content + b"x")
    assert list(target.parent.iterdir()) == []


def test_transfer_that_was_cut_short_starts_again(run_dir: Path, tmp_path: Path) -> None:
    """A conductor that was killed leaves a folder, whatever is in it."""
    left = tmp_path / "here/.incoming-run"
    left.mkdir(parents=True)
    (left / "run.json").write_bytes(b"half")
    send(run_dir, tmp_path / "here/run", 50)
    assert content_of(tmp_path / "here/run") == FILES
    assert not left.exists()


@pytest.mark.parametrize(
    "name",
    [
        *("../run.json", "/etc/passwd", "a/../../b", "a//b", "./a", "", ".", "a/", "a\\b", "a\nb"),
        *("a\x00b", "x" * 2000),
    ],
)
def test_names_that_lead_elsewhere(tmp_path: Path, name: str) -> None:
    file = PackedFile(name=name, size_bytes=1, sha256=sha256(b"x"))
    with pytest.raises(MachineError, match="cannot be of a run directory"):
        Incoming(tmp_path / "here/run", Manifest(files=(file,)))
    assert list(tmp_path.iterdir()) == []


def test_names_that_are_there_twice() -> None:
    def listed(*names: str) -> Manifest:
        files = (PackedFile(name=name, size_bytes=0, sha256=sha256(b"")) for name in names)
        return Manifest(files=tuple(files))

    check_manifest(listed("a", "b/a", "b/c"))
    for names in (("a", "a"), ("a", "a/b"), ("a/b", "a")):
        with pytest.raises(MachineError, match="cannot be of a run directory"):
            check_manifest(listed(*names))


def test_links_and_uncollected_output_are_not_sent(run_dir: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (run_dir / "link").symlink_to(secret)
    (run_dir / "output").mkdir()
    (run_dir / "output/link").symlink_to(secret)
    manifest = send(run_dir, tmp_path / "here", 100)
    assert manifest.left_out == ("link", "output")
    assert content_of(tmp_path / "here") == FILES


def test_no_room(run_dir: Path, tmp_path: Path) -> None:
    manifest = make_manifest(run_dir)
    huge = manifest.files[0].model_copy(update={"size_bytes": 1 << 60})
    with pytest.raises(OutputError, match="make room"):
        receive(tmp_path / "here/run", Manifest(files=(huge,)), b"")


def test_upload_is_kept_by_its_digest(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path / "uploads")
    content = b"0123456789"
    digest = sha256(content)
    assert uploads.find(digest, None) is None
    uploads.add(digest, 0, content[:6])
    assert uploads.received_bytes(digest) == 6
    uploads.add(digest, 4, content[4:])  # the last chunk came again
    path = uploads.accept(digest)
    assert path is not None
    assert path.read_bytes() == content
    assert Uploads(tmp_path / "uploads").find(digest, None) == path
    assert uploads.received_bytes(digest) == 0


def test_upload_with_other_bytes_is_not_kept(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path / "uploads")
    digest = sha256(b"right")
    uploads.add(digest, 0, b"wrong")
    assert uploads.accept(digest) is None
    assert uploads.find(digest, None) is None
    assert uploads.received_bytes(digest) == 0


def test_shared_file_is_used_where_it_lies_if_it_is_the_one(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path / "uploads")
    (tmp_path / "shared").write_bytes(b"content")
    assert uploads.find(sha256(b"content"), tmp_path / "shared") == tmp_path / "shared"
    assert uploads.find(sha256(b"other"), tmp_path / "shared") is None
    assert uploads.find(sha256(b"content"), tmp_path / "nowhere") is None


def keep(uploads: Uploads, content: bytes, *, used_s: float) -> str:
    """An upload that came, and was used last at that time; its digest."""
    digest = sha256(content)
    uploads.add(digest, 0, content)
    path = uploads.accept(digest)
    assert path is not None
    uploads.begin(digest)
    uploads.done(digest)
    os.utime(path, (used_s, used_s))
    return digest


def kept(uploads: Uploads, *digests: str) -> list[bool]:
    return [uploads.path_of(digest).exists() for digest in digests]


def test_longest_unused_makes_room(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path / "uploads", kept_bytes=30)
    one, two, three = (keep(uploads, bytes([n]) * 10, used_s=1000 + n) for n in range(3))
    (tmp_path / "uploads/notes.txt").write_text("of somebody else's")
    assert uploads.find(one, None) is not None  # used again, so not the first to go
    uploads.begin(one)
    uploads.done(one)
    uploads.make_room(sha256(b"next"), 10)
    assert kept(uploads, one, two, three) == [True, False, True]
    uploads.make_room(sha256(b"huge"), 1000)  # larger than all that may be kept: it comes anyway
    assert kept(uploads, one, two, three) == [False, False, False]
    assert [path.name for path in (tmp_path / "uploads").iterdir()] == ["notes.txt"]


def test_what_an_attempt_needs_is_never_removed(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path / "uploads", kept_bytes=10)
    used, idle, told = (keep(uploads, bytes([n]) * 10, used_s=1000 + n) for n in range(3))
    uploads.begin(used)
    uploads.begin(used)
    uploads.done(used)  # another attempt of it goes on
    assert uploads.find(told, None) is not None  # and its order comes next
    uploads.make_room(sha256(b"next"), 10)
    assert kept(uploads, used, idle, told) == [True, False, True]
    uploads.done(used)
    uploads.make_room(sha256(b"next"), 10)
    assert kept(uploads, used, idle, told) == [False, False, True]


def test_rest_of_a_transfer_that_never_went_on_is_removed_as_well(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path / "uploads", kept_bytes=10)
    uploads.add(sha256(b"given up"), 0, b"given")
    uploads.add(sha256(b"goes on"), 0, b"goes")
    uploads.make_room(sha256(b"goes on"), 7)
    assert uploads.received_bytes(sha256(b"given up")) == 0
    assert uploads.received_bytes(sha256(b"goes on")) == 4


def test_what_is_no_digest_is_no_name_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no SHA-256"):
        Uploads(tmp_path).add("sha256:../../x", 0, b"x")
