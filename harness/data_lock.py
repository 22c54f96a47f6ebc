"""Nobody else opens the data while a run goes on: every opening would count as the run's.

A run locks its data folder for itself (flock(2)), and whatever else of the harness opens the data
locks it with the others that only read. The kernel keeps such a lock for one opening of the folder,
so two parts of one process hold each other off too, and drops it when a process dies.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from harness.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_log = logging.getLogger(__name__)

_PATIENCE_S = 5.0  # for those who check the data: they are done in seconds, a run is not
_POLL_S = 0.1
_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR})


@contextmanager
def shared(data_dir: Path) -> Iterator[None]:
    """The data, to look at, as long as no run reads it. Raises DataError at once when one does.

    A folder that is not there is for others to complain of.
    """
    with _locked(data_dir, fcntl.LOCK_SH, patience_s=0.0, who="a run is"):
        yield


@contextmanager
def exclusive(data_dir: Path, *, patience_s: float = _PATIENCE_S) -> Iterator[None]:
    """The data for a run alone. Raises DataError when others still read it after ``patience_s``."""
    with _locked(
        data_dir, fcntl.LOCK_EX, patience_s=patience_s, who="another run, or `harness check`, is"
    ):
        yield


@contextmanager
def _locked(data_dir: Path, kind: int, *, patience_s: float, who: str) -> Iterator[None]:
    folder = _open(data_dir)
    try:
        if folder is not None and not _lock(data_dir, folder, kind, patience_s):
            raise DataError(
                f"data folder {data_dir}: {who} reading it, and whoever opens a file meanwhile "
                "counts; wait until it has ended, or use a copy of the data"
            )
        yield
    finally:
        if folder is not None:
            os.close(folder)


def _open(data_dir: Path) -> int | None:
    try:
        return os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in _NOT_THERE:
            _tell(data_dir, error)
        return None


def _lock(data_dir: Path, folder: int, kind: int, patience_s: float) -> bool:
    """False when others kept it; where there are no locks, everybody has it."""
    until_s = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(folder, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until_s:
                return False
            time.sleep(_POLL_S)
        except OSError as error:  # no locks on this file system, or none of a folder (some NFS)
            _tell(data_dir, error)
            return True
        else:
            return True


def _tell(data_dir: Path, error: OSError) -> None:
    _log.warning(
        "data folder %s: it cannot be locked (%s), so see to it yourself that nobody else opens "
        "the data while a run goes on",
        data_dir,
        error.strerror,
    )
