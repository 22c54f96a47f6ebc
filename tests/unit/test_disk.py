"""What lies on the disk: counted by files, nameless ones included, and made this user's own."""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.disk import Fall, FreeSpace
from harness.engine import handover
from harness.engine.base import Image
from harness.engine.disk import ENTRY_BYTES, deleted_bytes, tree_bytes
from harness.engine.owner import Owner

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 2**20
pytestmark = pytest.mark.skipif(
    shutil.which("find") is None or not Path("/proc/self/fd").exists(), reason="for Linux"
)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 64 MiB in memory."""
    if os.geteuid() != 0:
        pytest.skip("a file system of its own needs root")
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


class TestFreeSpace:
    def test_full_and_what_comes_back(self, small_disk: Path) -> None:
        disk = FreeSpace(small_disk)
        (small_disk / "others").write_bytes(bytes(20 * MIB))
        disk.look()
        assert not disk.is_full()
        (small_disk / "hidden").write_bytes(bytes(40 * MIB))
        assert disk.look() == 4 * MIB
        assert disk.is_full()
        assert disk.lowest_bytes == 4 * MIB < disk.floor_bytes
        assert disk.came_back_bytes() == 0
        (small_disk / "hidden").unlink()
        assert disk.came_back_bytes() == 40 * MIB

    def test_no_more_comes_back_than_was_lost(self, small_disk: Path) -> None:
        (small_disk / "old").write_bytes(bytes(50 * MIB))
        disk = FreeSpace(small_disk)
        (small_disk / "new").write_bytes(bytes(10 * MIB))
        disk.look()
        for path in small_disk.iterdir():
            path.unlink()
        assert disk.came_back_bytes() == 10 * MIB

    def test_a_disk_that_was_nearly_full_before(self, small_disk: Path) -> None:
        (small_disk / "old").write_bytes(bytes(60 * MIB))
        disk = FreeSpace(small_disk)
        disk.look()
        assert not disk.is_full()
        (small_disk / "new").write_bytes(bytes(MIB))
        disk.look()
        assert disk.is_full()

    def test_fall_since_a_mark(self, small_disk: Path) -> None:
        disk = FreeSpace(small_disk)
        fall = Fall((disk,))
        (small_disk / "new").write_bytes(bytes(10 * MIB))
        assert fall.fallen_bytes() == 0, "not looked at"
        disk.look()
        assert fall.fallen_bytes() == 10 * MIB
        fall.mark()
        assert fall.fallen_bytes() == 0
        (small_disk / "new").unlink()
        disk.look()
        assert fall.fallen_bytes() == 0


class TestTree:
    def test_each_file_once_and_no_link_followed(self, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "a\nb c").write_bytes(bytes(3 * MIB))
        os.link(tmp_path / "in" / "a\nb c", tmp_path / "again")
        (tmp_path / "all").symlink_to("/usr")
        found = tree_bytes([tmp_path])
        assert found is not None
        assert 3 * MIB <= found <= 3 * MIB + 4 * ENTRY_BYTES

    def test_holes_take_nothing(self, tmp_path: Path) -> None:
        os.truncate(os.open(tmp_path / "sparse", os.O_CREAT | os.O_RDWR), 1 << 40)
        assert tree_bytes([tmp_path]) == ENTRY_BYTES

    def test_deeper_than_any_path(self, tmp_path: Path) -> None:
        code = "import os\nfor _ in range(3000):\n os.mkdir('d' * 9); os.chdir('d' * 9)\n"
        subprocess.run(
            ["python3", "-c", code + "open('f', 'w').write('x')"], cwd=tmp_path, check=True
        )
        assert tree_bytes([tmp_path]) == 3001 * ENTRY_BYTES
        subprocess.run(["rm", "-rf", *tmp_path.iterdir()], check=True)

    def test_of_several_folders_and_of_none(self, tmp_path: Path) -> None:
        for name in "ab":
            (tmp_path / name).mkdir()
            (tmp_path / name / "f").touch()
        assert tree_bytes([tmp_path / "a", tmp_path / "b"]) == 2 * ENTRY_BYTES
        assert tree_bytes([]) == 0

    def test_what_cannot_be_looked_into(self, nobody_s_folder: Path) -> None:
        (nobody_s_folder / "closed").mkdir(mode=0)
        assert tree_bytes([nobody_s_folder / "closed"]) is None
        assert tree_bytes([nobody_s_folder / "absent"]) is None

    def test_when_time_is_up_what_was_counted(self, tmp_path: Path) -> None:
        (tmp_path / "f").write_bytes(b"x")
        assert tree_bytes([tmp_path], timeout_s=0.0) == 0


class TestDeletedFiles:
    @pytest.fixture
    def nameless(self, tmp_path: Path) -> Iterator[int]:
        path = tmp_path / "gone"
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR)
        path.unlink()
        os.write(descriptor, bytes(2 * MIB))
        yield descriptor
        os.close(descriptor)

    def test_once_though_open_twice_and_mapped(self, nameless: int) -> None:
        before = deleted_bytes([os.getpid()])
        again = os.dup(nameless)
        with mmap.mmap(nameless, MIB):
            assert deleted_bytes([os.getpid(), os.getpid()]) == before
        os.close(again)
        assert before is not None
        assert before >= 2 * MIB

    def test_one_with_a_name_does_not_count(self, nameless: int, tmp_path: Path) -> None:
        before = deleted_bytes([os.getpid()])
        with (tmp_path / "named").open("wb") as file:
            file.write(bytes(MIB))
            file.flush()
            assert deleted_bytes([os.getpid()]) == before
        assert os.fstat(nameless).st_nlink == 0

    def test_nor_does_memory(self) -> None:
        before = deleted_bytes([os.getpid()])
        descriptor = os.memfd_create("x")
        os.write(descriptor, bytes(MIB))
        assert deleted_bytes([os.getpid()]) == before
        os.close(descriptor)

    def test_processes_that_have_ended(self) -> None:
        assert deleted_bytes([2**22 + 1]) == 0

    def test_of_another_users_process_nothing_is_known(self, nobody_s_folder: Path) -> None:
        """It was once told as zero."""
        assert nobody_s_folder.is_dir()
        assert deleted_bytes([1]) is None


class TestHandover:
    def test_what_is_ours_already(self, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "f").touch()
        assert handover.is_ours(tmp_path)

    @pytest.mark.parametrize(("name", "mode"), [("d", 0o500), ("f", 0o200), ("f", 0o4755)])
    def test_what_is_not_becomes_ours(self, tmp_path: Path, name: str, mode: int) -> None:
        (tmp_path / "d").mkdir()
        (tmp_path / "f").touch()
        (tmp_path / name).chmod(mode)
        assert not handover.is_ours(tmp_path)
        handover.make_ours(tmp_path)
        assert handover.is_ours(tmp_path)

    @pytest.mark.skipif(os.geteuid() != 0, reason="gives files away: needs root")
    def test_links_are_not_followed(self, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        outside.touch(mode=0o600)
        os.chown(outside, 12345, 12345)
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "link").symlink_to(outside)
        os.chown(tmp_path / "out" / "link", 12345, 12345, follow_symlinks=False)
        handover.make_ours(tmp_path / "out")
        assert outside.stat().st_uid == 12345
        assert (tmp_path / "out" / "link").lstat().st_uid == 0

    @pytest.mark.parametrize("rootless", [False, True])
    def test_the_container_for_it(self, rootless: bool) -> None:
        image = Image(id="sha256:" + "b" * 64, reference="ours")
        found = handover.handover_arguments(
            image, Path("/runs/out"), owner=Owner.current(), rootless=rootless
        )
        (mount,) = found["mounts"]
        assert (mount["Source"], mount["ReadOnly"]) == ("/runs/out", False)
        assert found["cap_drop"] == ["ALL"]
        assert sorted(found["cap_add"]) == ["CHOWN", "DAC_OVERRIDE", "FOWNER"]
        assert found["network_mode"] == "none"
        assert found["read_only"] is True
        user = "0:0" if rootless else f"{os.geteuid()}:{os.getegid()}"
        assert found["command"] == [user, mount["Target"]]
