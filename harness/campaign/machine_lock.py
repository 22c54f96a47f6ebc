"""One at a time on a machine: a lock of it, and one of each GPU, which survive crashes.

A lock is a file that is locked with flock(2), so it dies with its holder's process, but what the
holder started may outlive it. So each holder leaves a record in the file and removes it when it
goes: a record that is found in a free lock tells of one that did not come to that, and whoever
takes the lock next sees to what it left first.

Heavy work (importing, building, scoring) takes the machine for itself. So does a timed run, or it
shares the machine with others and takes its own GPU. Whoever waits for the whole machine lets no
more in to share it (the gate), so that none waits for ever.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import stat
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from harness.engine.owner import Owner
from harness.errors import MachineBusy, OutputError
from harness.text import harmless_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.campaign.policy import Exclusive

    # What is left of a holder that did not say goodbye is removed; None: nobody knows whose it is.
    CleanAfter = Callable[[Owner | None], None]

_log = logging.getLogger(__name__)

LOCK_DIR_VARIABLE = "HARNESS_LOCK_DIR"
_LOCK_DIR = Path("/run/lock/l2r-harness")
_POLL_S = 0.2
_MAX_RECORD_BYTES = 4096
_MACHINE, _GATE, _GPU = "machine.lock", "gate.lock", "gpu-{}.lock"
_OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, kw_only=True)
class HolderRecord:
    """Who holds a lock. ``since``: UTC, ISO 8601. Anybody on the machine may have written it."""

    owner: Owner | None
    doing: str
    since: str

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self | None:
        """None for what is no such record."""
        try:
            told = json.loads(raw)
            owner = Owner.from_text(json.dumps(told["owner"]))
            return cls(owner=owner, doing=str(told["doing"]), since=str(told["since"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            return None

    @property
    def text(self) -> str:
        return json.dumps(asdict(self))

    def __str__(self) -> str:
        pid = "?" if self.owner is None else harmless_line(self.owner.pid, 20)
        since = harmless_line(self.since, 30)
        return f"{harmless_line(self.doing, 200)} (process {pid}, since {since})"


class MachineLock:
    """``folder`` None: of HARNESS_LOCK_DIR, else ``/run/lock/l2r-harness``, else in the folder for
    temporary files. Several users of one machine share it. ``clean_after``: see above; what it
    raises, the lock is not taken, and the next one is asked for the same.

    Everything raises OutputError where no lock can be had, MachineBusy when somebody still holds
    it after ``patience_s`` (None: waits for ever).
    """

    def __init__(self, folder: Path | None = None, *, clean_after: CleanAfter) -> None:
        self._folder = folder
        self._clean_after = clean_after

    @contextmanager
    def heavy(
        self,
        doing: str,
        *,
        patience_s: float | None = None,
        on_wait: Callable[[str], None] = lambda _: None,
    ) -> Iterator[None]:
        """The whole machine. ``on_wait`` is told, once, who has it."""
        with ExitStack() as held:
            self._take_machine(held, doing, patience_s, on_wait, shared=False)
            yield

    @contextmanager
    def timed(
        self,
        doing: str,
        *,
        exclusive: Exclusive,
        gpu: str | None = None,
        patience_s: float | None = None,
        on_wait: Callable[[str], None] = lambda _: None,
    ) -> Iterator[None]:
        """The whole machine, or with Exclusive.GPU the GPU of this UUID on a machine on which
        nothing heavy goes on meanwhile."""
        shared = exclusive == "gpu" and gpu is not None  # its module takes time to import
        with ExitStack() as held:
            self._take_machine(held, doing, patience_s, on_wait, shared=shared)
            if shared and gpu is not None:
                lock = held.enter_context(_LockFile(self._place(), _GPU.format(_plain(gpu))))
                lock.take(fcntl.LOCK_EX, patience_s, on_wait)
                self._hold(held, lock, doing)
            yield

    @contextmanager
    def unless_taken(self) -> Iterator[None]:
        """For a dry run: beside others of its kind, and not while a campaign has the machine.
        Raises MachineBusy at once when it has."""
        with _LockFile(self._place(), _MACHINE) as machine:
            machine.take(fcntl.LOCK_SH, 0.0, lambda _: None)
            yield

    def _take_machine(
        self,
        held: ExitStack,
        doing: str,
        patience_s: float | None,
        on_wait: Callable[[str], None],
        *,
        shared: bool,
    ) -> None:
        folder = self._place()
        machine = held.enter_context(_LockFile(folder, _MACHINE))
        with _LockFile(folder, _GATE) as gate:
            gate.take(fcntl.LOCK_EX, patience_s, on_wait, holders=(machine,))
            kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
            machine.take(kind, patience_s, on_wait, holders=self._gpu_locks(folder))
        if shared:
            self._clean(machine)
            return
        for name in self._gpu_locks(folder):
            with _LockFile(folder, name) as gpu:
                self._clean(gpu)
        self._hold(held, machine, doing)

    def _hold(self, held: ExitStack, lock: _LockFile, doing: str) -> None:
        self._clean(lock)
        lock.write(doing)
        held.callback(lock.say_goodbye)

    def _clean(self, lock: _LockFile) -> None:
        """After a holder that is gone and did not say goodbye."""
        if not lock.has_record():
            return
        record = lock.read()
        _log.warning("%s: its last holder died: %s", lock.path, record or "nobody knows who")
        self._clean_after(None if record is None else record.owner)
        lock.say_goodbye()

    def _gpu_locks(self, folder: Path) -> tuple[str, ...]:
        return tuple(sorted(path.name for path in folder.glob(_GPU.format("*"))))

    def _place(self) -> Path:
        named = os.environ.get(LOCK_DIR_VARIABLE)
        if self._folder is not None or named:
            folder = self._folder or Path(str(named))
            _make_folder(folder)
            return folder
        try:
            _make_folder(_LOCK_DIR)
        except OutputError as error:
            folder = Path(tempfile.gettempdir()) / _LOCK_DIR.name
            _log.debug("%s; locks are in %s", error, folder)
            _make_folder(folder)
            return folder
        return _LOCK_DIR


class _LockFile:
    """One file, open. The kernel keeps a lock for one opening of a file, so two parts of a process
    hold each other off, too."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / name
        self._file = _open(self.path)

    def __enter__(self) -> _LockFile:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)  # which gives the lock back

    def take(
        self,
        kind: int,
        patience_s: float | None,
        on_wait: Callable[[str], None],
        *,
        holders: tuple[_LockFile | str, ...] = (),
    ) -> None:
        """``holders``: files that may name who is in the way, when this one does not."""
        until_s = None if patience_s is None else time.monotonic() + patience_s
        told = False
        while not self._try(kind):
            if until_s is not None and time.monotonic() >= until_s:
                raise MachineBusy(
                    f"this machine is not free: {self._in_the_way(holders)}; wait until that has "
                    f"ended (the lock is {self.path})"
                )
            if not told:
                told = True
                on_wait(f"waiting for {self._in_the_way(holders)}")
            time.sleep(_POLL_S)

    def _try(self, kind: int) -> bool:
        try:
            fcntl.flock(self._file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be locked ({error.strerror})") from error
        return True

    def _in_the_way(self, holders: tuple[_LockFile | str, ...]) -> str:
        told = [self.read()]
        for holder in holders:
            if isinstance(holder, _LockFile):
                told.append(holder.read())
            else:
                with _LockFile(self.path.parent, holder) as other:
                    told.append(other.read())
        return next((str(one) for one in told if one is not None), "another harness")

    def has_record(self) -> bool:
        return os.fstat(self._file).st_size > 0

    def read(self) -> HolderRecord | None:
        """None when there is none, or not one that can be read."""
        return HolderRecord.from_bytes(os.pread(self._file, _MAX_RECORD_BYTES, 0))

    def write(self, doing: str) -> None:
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        record = HolderRecord(owner=Owner.current(), doing=doing, since=since)
        try:
            os.pwrite(self._file, record.text.encode(), 0)
        except OSError as error:
            raise OutputError(f"{self.path}: {error.strerror}") from error

    def say_goodbye(self) -> None:
        os.ftruncate(self._file, 0)


def _make_folder(folder: Path) -> None:
    """For all users, in which nobody takes another's file away. Raises OutputError."""
    try:
        try:
            folder.mkdir()
        except FileExistsError:
            pass
        else:
            folder.chmod(0o1777)
        if not stat.S_ISDIR(folder.lstat().st_mode):
            raise OutputError(
                f"{folder}: expected a folder for the machine's locks, found a link or a file; "
                f"remove it, or name another with {LOCK_DIR_VARIABLE}"
            )
    except OSError as error:
        raise OutputError(
            f"{folder}: no folder for the machine's locks can be made ({error.strerror}); name "
            f"another with {LOCK_DIR_VARIABLE}"
        ) from error


def _open(path: Path) -> int:
    """A regular file that all users may lock, reached without links. Made by itself: where the
    kernel protects such folders (fs.protected_regular), opening one of another user's with O_CREAT
    is refused."""
    try:
        try:
            file = os.open(path, _OPEN)
        except FileNotFoundError:
            file = _create(path)
    except OSError as error:
        raise OutputError(
            f"{path}: the machine's lock cannot be opened ({error.strerror}); name another folder "
            f"for it with {LOCK_DIR_VARIABLE}"
        ) from error
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OutputError(f"{path}: expected a regular file for the machine's lock; remove it")
    return file


def _create(path: Path) -> int:
    try:
        file = os.open(path, _OPEN | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:  # another harness was quicker
        return os.open(path, _OPEN)
    os.fchmod(file, 0o666)  # whatever the umask
    return file


def _plain(uuid: str) -> str:
    return re.sub("[^A-Za-z0-9-]", "-", uuid)[:100]
