"""A file that is locked with flock(2), so that the lock dies with its holder, and says who has it.

Anybody may have put anything into a folder of all users: nothing in it is believed, and nothing is
reached through a link.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import stat
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Self

from harness.engine.owner import Owner
from harness.errors import MachineBusy, OutputError
from harness.text import harmless_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_log = logging.getLogger(__name__)

LOCK_DIR_VARIABLE = "HARNESS_LOCK_DIR"
_POLL_S = 0.2
_MAX_RECORD_BYTES = 4096
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

    @property
    def is_dead(self) -> bool:
        """Is the holder certainly gone?"""
        return self.owner is not None and self.owner.is_dead()

    def __str__(self) -> str:
        pid = "?" if self.owner is None else harmless_line(self.owner.pid, 20)
        since = harmless_line(self.since, 30)
        return f"{harmless_line(self.doing, 200)} (process {pid}, since {since})"


class LockFile:
    """One file, open. The kernel keeps a lock for one opening of a file, so two parts of a process
    hold each other off, too."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / name
        self._file = _open(self.path)

    def __enter__(self) -> LockFile:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)  # which gives the lock back

    def take(
        self,
        kind: int,
        patience_s: float | None,
        on_wait: Callable[[str], None],
        *,
        holders: tuple[LockFile | str, ...] = (),
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
            while not self._is_in_place():
                again = _open(self.path)
                os.close(self._file)
                self._file = again
                fcntl.flock(self._file, kind | fcntl.LOCK_NB)
            os.utime(self._file)  # nothing old, for what clears folders of temporary files
        except BlockingIOError:
            return False
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be locked ({error.strerror})") from error
        return True

    def _is_in_place(self) -> bool:
        """Else it was removed since it was opened, and the others have a new one."""
        try:
            there = self.path.lstat()
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(self._file))

    def _in_the_way(self, holders: tuple[LockFile | str, ...]) -> str:
        """What the dead have left of themselves tells of nobody who is."""
        told = []
        for holder in (*holders, self):
            if isinstance(holder, LockFile):
                told.append(holder.read())
            else:
                with LockFile(self.path.parent, holder) as other:
                    told.append(other.read())
        return next((str(one) for one in told if one and not one.is_dead), "another harness")

    def has_record(self) -> bool:
        return os.fstat(self._file).st_size > 0

    def read(self) -> HolderRecord | None:
        """None when there is none, or not one that can be read."""
        return HolderRecord.from_bytes(os.pread(self._file, _MAX_RECORD_BYTES, 0))

    @contextmanager
    def told(self, doing: str) -> Iterator[None]:
        """Within, the file says who has it. Raises OutputError."""
        try:
            self._write(doing)  # within: Ctrl-C may come as soon as it is written
            yield
        finally:
            self.say_goodbye()

    def _write(self, doing: str) -> None:
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        record = HolderRecord(owner=Owner.current(), doing=doing, since=since)
        try:
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, record.text.encode(), 0)
        except OSError as error:
            raise OutputError(f"{self.path}: {error.strerror}") from error

    def say_goodbye(self) -> None:
        try:
            os.ftruncate(self._file, 0)
        except OSError as error:  # the next one is warned of us, and no more than that
            _log.warning("%s: %s", self.path, error.strerror)


def shared_folder(first: Path, for_all: Path) -> Path:
    """``first`` where it is there or any user may make it, else one of its name in ``for_all``. The
    same for every user, root too: where each took what it may write, they would not meet."""
    try:
        anybody_may = bool(first.parent.stat().st_mode & stat.S_IWOTH)
    except OSError:
        anybody_may = False
    return first if anybody_may or first.is_dir() else for_all / first.name


def make_folder(folder: Path) -> None:
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
    found = os.fstat(file)
    if (
        not stat.S_ISREG(found.st_mode) or found.st_nlink > 1
    ):  # of a second name, much would be lost
        os.close(file)
        raise OutputError(
            f"{path}: expected a regular file of this name alone for the machine's lock; remove it"
        )
    return file


def _create(path: Path) -> int:
    try:
        file = os.open(path, _OPEN | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:  # another harness was quicker
        return os.open(path, _OPEN)
    os.fchmod(file, 0o666)  # whatever the umask
    return file
