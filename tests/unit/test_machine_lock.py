"""The machine's lock: real files, real processes, one of them killed."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psutil
import pytest

from harness.campaign.lock_file import shared_folder
from harness.campaign.machine_lock import LOCK_DIR_VARIABLE, MachineLock
from harness.campaign.policy import Exclusive
from harness.errors import EngineError, MachineBusy, OutputError
from tests.tiny import ZERO, write_challenge, write_data, write_method

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.engine.owner import Owner

HOLDER = """
import sys, time
from pathlib import Path
from harness.campaign.machine_lock import MachineLock
from harness.campaign.policy import Exclusive
lock = MachineLock(Path(sys.argv[1]), clean_after=lambda _: None)
gpu = sys.argv[2] or None
with lock.timed("a campaign's timed run, of red",
                exclusive=Exclusive.GPU if gpu else Exclusive.MACHINE, gpu=gpu):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "locks"


def lock_in(folder: Path, cleaned: list[Owner | None] | None = None) -> MachineLock:
    return MachineLock(folder, clean_after=(cleaned if cleaned is not None else []).append)


@contextmanager
def other_harness(folder: Path, gpu: str = "") -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), gpu], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def is_busy(lock: MachineLock) -> str | None:
    try:
        with lock.heavy("a look", patience_s=0.0):
            return None
    except MachineBusy as error:
        return str(error)


def test_one_at_a_time_and_who_it_is(folder: Path) -> None:
    told: list[str] = []
    with other_harness(folder) as process:
        started_s = time.monotonic()
        with (
            pytest.raises(MachineBusy, match=rf"of red \(process {process.pid}, since 20"),
            lock_in(folder).heavy("scoring", patience_s=0.5, on_wait=told.append),
        ):
            pytest.fail("two have the machine")
        assert 0.5 <= time.monotonic() - started_s < 5
    assert told == [f"waiting for {told[0].removeprefix('waiting for ')}"]
    assert "of red" in told[0]


def test_what_a_holder_that_died_left_is_seen_to_first(folder: Path) -> None:
    cleaned: list[Owner | None] = []
    with other_harness(folder) as process:
        pid = process.pid
    lock = lock_in(folder, cleaned)
    for _ in range(2):
        with lock.heavy("importing"):
            pass
    assert [None if one is None else one.pid for one in cleaned] == [str(pid)]


def test_who_cannot_clean_up_does_not_get_it(folder: Path) -> None:
    def refuse(owner: Owner | None) -> None:
        raise EngineError(f"a container of {owner and owner.pid} is left")

    with other_harness(folder) as process:
        pid = process.pid
    for _ in range(2):
        with (
            pytest.raises(EngineError, match=f"of {pid}"),
            MachineLock(folder, clean_after=refuse).heavy("importing"),
        ):
            pytest.fail("beside a container that runs")


@pytest.mark.parametrize("gpu", ["GPU-1", "GPU-1/../../x"])
def test_gpus_of_one_machine(folder: Path, gpu: str) -> None:
    """Each for itself, and nothing heavy beside them."""
    cleaned: list[Owner | None] = []
    lock = lock_in(folder, cleaned)
    with other_harness(folder, gpu) as process:
        pid = process.pid
        with lock.timed("run", exclusive=Exclusive.GPU, gpu="GPU-2", patience_s=5.0):
            assert "of red" in str(is_busy(lock))
        with (
            pytest.raises(MachineBusy, match="of red"),
            lock.timed("run", exclusive=Exclusive.GPU, gpu=gpu, patience_s=0.0),
        ):
            pytest.fail("two have the GPU")
        assert cleaned == []
    with lock.timed("run", exclusive=Exclusive.GPU, gpu="GPU-2", patience_s=5.0):
        assert cleaned == []  # of another GPU, whose next holder sees to it
    with lock.heavy("importing"):
        assert [None if one is None else one.pid for one in cleaned] == [str(pid)]
    assert {path.parent for path in folder.rglob("*")} == {folder}


WAITER = """
import sys
from pathlib import Path
from harness.campaign.machine_lock import MachineLock
lock = MachineLock(Path(sys.argv[1]), clean_after=lambda _: None)
with lock.heavy("importing", on_wait=lambda text: print(text, flush=True)):
    pass
"""


@contextmanager
def waiting_for_the_machine(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Who ends as soon as it had it."""
    process = subprocess.Popen(
        [sys.executable, "-c", WAITER, str(folder)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("waiting for ")
        yield process
    except BaseException:
        process.kill()
        process.communicate()
        raise


def test_who_waits_for_the_whole_machine_gets_it(folder: Path) -> None:
    """Runs on GPUs that follow each other without a gap would keep it waiting for ever."""
    lock = lock_in(folder)
    with (
        lock.timed("one", exclusive=Exclusive.GPU, gpu="GPU-1"),
        waiting_for_the_machine(folder) as process,
        pytest.raises(MachineBusy, match="one"),
        lock.timed("two", exclusive=Exclusive.GPU, gpu="GPU-2", patience_s=0.3),
    ):
        pytest.fail("it went ahead of the one that waits")
    process.communicate(timeout=10)
    assert process.returncode == 0


def test_killed_while_it_waits(folder: Path) -> None:
    """Nobody is held off by it, nor told of it."""
    lock = lock_in(folder)
    with lock.heavy("scoring blue"), waiting_for_the_machine(folder) as process:
        process.kill()
        process.communicate()
        assert "scoring blue" in str(is_busy(lock))
    assert is_busy(lock) is None
    with lock.unless_taken():
        pass


def test_what_a_holder_started_does_not_keep_the_lock(folder: Path) -> None:
    """A program that gets all that is open, and lives on when its harness is killed."""
    child = HOLDER.replace("import sys, time", "import subprocess, sys, time").replace(
        '    print("held", flush=True)',
        '    left = subprocess.Popen(["sleep", "600"], close_fds=False)\n'
        "    print(left.pid, flush=True)",
    )
    process = subprocess.Popen(
        [sys.executable, "-c", child, str(folder), ""], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    left = psutil.Process(int(process.stdout.readline()))
    try:
        process.kill()
        process.wait()
        assert left.is_running()
        assert is_busy(lock_in(folder)) is None
    finally:
        left.kill()
        process.stdout.close()


@pytest.mark.parametrize("gpu", ["", "GPU-1"])
def test_the_dead_are_not_named_as_who_has_it(folder: Path, gpu: str) -> None:
    """Their record stays until somebody cleans up, and a dry run does not."""
    with other_harness(folder, gpu):
        pass
    lock = lock_in(folder)
    with lock.unless_taken():
        told = str(is_busy(lock))
    assert "of red" not in told
    assert "another harness" in told


def test_lock_that_was_removed_while_somebody_waited(folder: Path) -> None:
    """By what clears folders of temporary files: the one who waited for the old file would have
    the machine beside one who came later and made a new one."""
    lock = lock_in(folder)
    with lock.heavy("scoring blue"), waiting_for_the_machine(folder) as process:
        (folder / "machine.lock").unlink()
        later = MachineLock(folder, clean_after=lambda _: None)
        (folder / "gate.lock").unlink()
        held = later.heavy("scoring green", patience_s=5.0)
        held.__enter__()
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.0)
    finally:
        held.__exit__(None, None, None)
    process.communicate(timeout=10)
    assert process.returncode == 0


def test_lock_in_use_does_not_look_old(folder: Path) -> None:
    """What clears folders of temporary files goes by a file's times."""
    lock = lock_in(folder)
    with lock.timed("run", exclusive=Exclusive.GPU, gpu="GPU-1"):
        pass
    names = ("gate.lock", "machine.lock", "gpu-GPU-1.lock")
    for name in names:
        os.utime(folder / name, (0, 0))
    with lock.timed("run", exclusive=Exclusive.GPU, gpu="GPU-1"):
        assert [name for name in names if (folder / name).stat().st_mtime < 1] == []


def test_all_users_take_the_same_folder(tmp_path: Path) -> None:
    """Root may write where others may not: it had a folder, and so a lock, of its own."""
    locks, for_all = tmp_path / "locks", tmp_path / "tmp"
    locks.mkdir(mode=0o755)
    assert shared_folder(locks / "ours", for_all) == for_all / "ours"
    locks.chmod(0o1777)
    assert shared_folder(locks / "ours", for_all) == locks / "ours"
    locks.chmod(0o755)
    (locks / "ours").mkdir()  # by the administrator
    assert shared_folder(locks / "ours", for_all) == locks / "ours"
    assert shared_folder(tmp_path / "none/ours", for_all) == for_all / "ours"


FULL = """
import resource, signal, sys
from pathlib import Path
from harness.campaign.machine_lock import MachineLock
from harness.errors import OutputError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
lock = MachineLock(Path(sys.argv[1]), clean_after=lambda _: None)
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
try:
    with lock.heavy("importing"):
        print("held without a record")
except OutputError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
with lock.heavy("importing", patience_s=0.0):
    print("held")
"""


def test_record_that_cannot_be_written(folder: Path) -> None:
    """As on a full disk: no lock without a record, and none that is kept."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(folder)], capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == [f"{folder}/gate.lock: File too large", "held"], done


def test_folder_that_cannot_be_written(nobody_s_folder: Path) -> None:
    folder = nobody_s_folder / "locks"
    folder.mkdir(mode=0o555)
    with (
        pytest.raises(OutputError, match=f"Permission denied.*{LOCK_DIR_VARIABLE}"),
        lock_in(folder).heavy("importing"),
    ):
        pytest.fail("locked")


def test_two_parts_of_one_process_hold_each_other_off(folder: Path) -> None:
    lock = lock_in(folder)
    with lock.heavy("building the image of red"):
        assert "building the image of red" in str(is_busy(lock))
    assert is_busy(lock) is None


def test_all_users_share_it(folder: Path) -> None:
    before = os.umask(0o077)
    try:
        with lock_in(folder).timed("run", exclusive=Exclusive.GPU, gpu="GPU-1"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o1777
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == dict.fromkeys(("gate.lock", "machine.lock", "gpu-GPU-1.lock"), 0o666)


@pytest.mark.parametrize("kind", ["link", "second name", "folder", "pipe"])
def test_what_somebody_put_in_its_place(folder: Path, tmp_path: Path, kind: str) -> None:
    folder.mkdir()
    place, secret = folder / "machine.lock", tmp_path / "secret"
    secret.write_text("not yours")
    if kind == "link":
        place.symlink_to(secret)
    elif kind == "second name":  # its bytes would be taken for a dead holder's, and cleared away
        place.hardlink_to(secret)
    elif kind == "folder":
        place.mkdir()
    else:
        os.mkfifo(place)
    with pytest.raises(OutputError, match=r"machine\.lock"), lock_in(folder).heavy("importing"):
        pytest.fail("locked")
    assert secret.read_text() == "not yours"


def test_folder_that_is_a_link(folder: Path, tmp_path: Path) -> None:
    folder.symlink_to(tmp_path)
    with pytest.raises(OutputError, match="found a link"), lock_in(folder).heavy("importing"):
        pytest.fail("locked")


def test_record_that_is_damaged_is_somebody_s(folder: Path) -> None:
    with lock_in(folder).heavy("importing"):
        pass
    (folder / "machine.lock").write_text('{"owner": {"pid"')
    cleaned: list[Owner | None] = []
    with lock_in(folder, cleaned).heavy("importing"):
        assert cleaned == [None]


def test_folder_is_named_by_a_variable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOCK_DIR_VARIABLE, str(folder))
    with MachineLock(clean_after=lambda _: None).heavy("importing"):
        assert (folder / "machine.lock").stat().st_size > 0
    assert (folder / "machine.lock").stat().st_size == 0


def test_dry_runs_are_made_beside_each_other_and_not_beside_a_campaign(folder: Path) -> None:
    lock = lock_in(folder)
    with lock.unless_taken(), lock.unless_taken():
        assert is_busy(lock) is not None, "a campaign waits for them"
    with (
        other_harness(folder),
        pytest.raises(MachineBusy, match="a campaign's timed run, of red"),
        lock.unless_taken(),
    ):
        pytest.fail("beside a timed run")


def test_dry_runs_without_a_gap_do_not_keep_a_campaign_waiting(folder: Path) -> None:
    lock = lock_in(folder)
    with lock.unless_taken(), waiting_for_the_machine(folder) as process:
        for _ in range(2):
            with pytest.raises(MachineBusy, match="importing"), lock.unless_taken():
                pytest.fail("it went ahead of the campaign that waits")
    process.communicate(timeout=10)
    assert process.returncode == 0


def test_harness_run_is_refused_while_a_campaign_has_the_machine(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LOCK_DIR_VARIABLE, str(folder))
    write_data(tmp_path / "test")
    write_method(tmp_path / "team", ZERO)
    write_challenge(tmp_path / "tiny.yaml")
    line = [sys.executable, "-m", "harness", "run", "team", "--engine", "process"]
    with lock_in(folder).heavy("preparing red"):
        done = subprocess.run(
            [*line, "--challenge", "tiny.yaml"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 36, done.stderr
    assert "preparing red" in done.stderr
    assert not list((tmp_path / "runs").rglob("run.json"))


def test_harness_run_builds_nothing_beside_a_campaign(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was built first, beside a timed run, and only then was the lock looked at."""
    monkeypatch.setenv(LOCK_DIR_VARIABLE, str(folder))
    write_data(tmp_path / "test")
    write_challenge(tmp_path / "tiny.yaml")
    (tmp_path / "nothing").mkdir()  # which is what would be said, were it looked at
    line = [sys.executable, "-m", "harness", "run", "nothing", "--engine", "process"]
    with lock_in(folder).heavy("preparing red"):
        done = subprocess.run(
            [*line, "--challenge", "tiny.yaml"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.returncode, "preparing red" in done.stderr) == (36, True), done.stderr


def test_user_after_user(nobody_s_folder: Path) -> None:
    """Where the kernel protects files in folders of all users, even root may not open another's
    with O_CREAT (fs.protected_regular)."""
    if os.getuid() != 0:
        pytest.skip("needs root's rights to be two users")
    lock = lock_in(nobody_s_folder / "locks")
    with lock.heavy("importing"):
        assert (nobody_s_folder / "locks/machine.lock").stat().st_uid == os.geteuid() != 0
    before = os.geteuid()
    os.seteuid(0)
    try:
        with lock.heavy("importing"):
            assert is_busy(lock) is not None
    finally:
        os.seteuid(before)
    with lock.timed("run", exclusive=Exclusive.GPU, gpu="GPU-1"):
        pass
