"""Whom the runner becomes, with real users and folders. In a process of its own: it is for good."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
UNPRIVILEGED = 10001

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="changes users: needs root on Linux"
)

PROGRAM = """
import json, os, sys
from pathlib import Path
given = json.loads(sys.argv[1])
sys.path.insert(0, given["repository"])
from harness.runner.privileges import drop_privileges
if given["uid"]:
    os.setuid(given["uid"])
output, data = Path(given["output"]), Path(given["data"])
note = drop_privileges(output, given["tasks"], data, given["environment"])
try:
    (output / "task_01").mkdir(exist_ok=True)
    (output / "task_01" / "field").write_text("")
    wrote = True
except OSError:
    wrote = False
try:
    os.setuid(0)
    back = os.geteuid() == 0
except PermissionError:
    back = False
print(json.dumps({"note": note, "uid": os.geteuid(), "gid": os.getegid(), "home":
    os.environ.get("HOME"), "groups": os.getgroups(), "wrote": wrote, "back": back}))
"""


@dataclass(frozen=True, kw_only=True)
class Result:
    note: str | None
    uid: int
    gid: int
    home: str
    groups: list[int]
    wrote: bool
    back: bool


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Folders that a user without rights may pass through on the way to data and output."""
    parents = [tmp_path, *tmp_path.parents]
    for parent in parents[: next(i for i, p in enumerate(parents) if p.stat().st_mode & 0o1000)]:
        parent.chmod(0o755)
    (tmp_path / "data" / "task_01").mkdir(parents=True)
    (tmp_path / "data" / "task_01" / "img.nii.gz").write_text("")
    (tmp_path / "out").mkdir(mode=0o755)
    return tmp_path


def drop(folder: Path, *, uid: int = 0, in_image: bool = True, **changes: object) -> Result:
    given = {
        "repository": str(REPOSITORY),
        "uid": uid,
        "output": str(folder / "out"),
        "data": str(folder / "data"),
        "tasks": ["task_01"],
        "environment": {"HARNESS_UNPRIVILEGED_UID": str(UNPRIVILEGED)} if in_image else {},
        **changes,
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(given)],
        check=True,
        capture_output=True,
        text=True,
    )
    return Result(**json.loads(done.stdout))


def test_it_becomes_the_owner_of_the_output(folder: Path) -> None:
    os.chown(folder / "out", 1000, 1007)
    found = drop(folder)
    assert (found.uid, found.gid, found.groups) == (1000, 1007, [])
    assert found.note is not None
    assert "1000:1007" in found.note
    assert found.wrote
    assert (folder / "out" / "task_01" / "field").stat().st_uid == 1000


def test_there_is_no_way_back(folder: Path) -> None:
    os.chown(folder / "out", 1000, 1000)
    found = drop(folder)
    assert not found.back
    assert found.home == "/tmp"


@pytest.mark.parametrize("mode", [0o755, 0o777])
def test_roots_output_goes_to_the_unprivileged_user(folder: Path, mode: int) -> None:
    (folder / "out").chmod(mode)
    found = drop(folder)
    assert found.uid == UNPRIVILEGED
    assert found.wrote
    assert (folder / "out" / "task_01").stat().st_uid == UNPRIVILEGED
    assert (folder / "out").stat().st_uid == 0


def test_a_task_folder_of_an_earlier_run_is_given_away(folder: Path) -> None:
    (folder / "out" / "task_01").mkdir()
    assert drop(folder).wrote


def test_only_the_folders_of_the_given_tasks_are_made(folder: Path) -> None:
    drop(folder)
    assert [path.name for path in (folder / "out").iterdir()] == ["task_01"]


def test_a_link_in_the_output_is_not_followed(folder: Path) -> None:
    (folder / "elsewhere").mkdir()
    (folder / "out" / "task_01").symlink_to(folder / "elsewhere")
    drop(folder)
    assert (folder / "elsewhere").stat().st_uid == 0


class TestItStaysRoot:
    def test_outside_the_image(self, folder: Path) -> None:
        """The process engine runs the same runner as whoever started the harness."""
        found = drop(folder, in_image=False)
        assert (found.uid, found.note) == (0, None)
        assert (folder / "out" / "task_01").stat().st_uid == 0

    def test_when_the_data_are_roots_alone(self, folder: Path) -> None:
        """A checkout made with umask 077 must still run."""
        (folder / "data" / "task_01" / "img.nii.gz").chmod(0o600)
        found = drop(folder)
        assert found.uid == 0
        assert found.note is not None
        assert "could not read the data" in found.note
        assert found.wrote

    def test_when_a_data_folder_is_roots_alone(self, folder: Path) -> None:
        (folder / "data" / "task_01").chmod(0o700)
        assert drop(folder).uid == 0

    def test_when_the_output_is_roots_alone(self, folder: Path) -> None:
        (folder / "out").chmod(0o700)
        found = drop(folder)
        assert found.uid == 0
        assert found.wrote


def test_another_user_stays_who_they_are(folder: Path) -> None:
    """`docker run --user 1234`"""
    found = drop(folder, uid=1234)
    assert (found.uid, found.note) == (1234, None)
    assert not found.wrote
