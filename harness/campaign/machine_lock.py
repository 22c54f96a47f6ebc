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
import logging
import os
import re
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from harness.campaign.lock_file import LOCK_DIR_VARIABLE, LockFile, make_folder, shared_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.campaign.policy import Exclusive
    from harness.engine.owner import Owner

    # What is left of a holder that did not say goodbye is removed; None: nobody knows whose it is.
    CleanAfter = Callable[[Owner | None], None]

__all__ = ["LOCK_DIR_VARIABLE", "MachineLock"]

_log = logging.getLogger(__name__)

_LOCK_DIR = Path("/run/lock/l2r-harness")
_FOR_ALL = Path("/tmp")  # not the user's own: two folders would be two locks
_MOMENT_S = 1.0  # in which whoever only passes the gate is through
_MACHINE, _GATE, _GPU = "machine.lock", "gate.lock", "gpu-{}.lock"


class MachineLock:
    """``folder`` None: of HARNESS_LOCK_DIR, else ``/run/lock/l2r-harness``, else in ``/tmp``, where
    not all may write below ``/run/lock``. Several users of one machine share it. ``clean_after``:
    see above; what it raises, the lock is not taken, and the next one is asked for the same.

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
                lock = held.enter_context(LockFile(self._place(), _GPU.format(_plain(gpu))))
                lock.take(fcntl.LOCK_EX, patience_s, on_wait)
                self._hold(held, lock, doing)
            yield

    @contextmanager
    def unless_taken(self) -> Iterator[None]:
        """For a dry run: beside others of its kind, and not while a campaign has the machine, or
        waits for it. Raises MachineBusy at once when it does."""
        folder = self._place()
        with LockFile(folder, _MACHINE) as machine:
            with LockFile(folder, _GATE) as gate:
                gate.take(fcntl.LOCK_SH, _MOMENT_S, lambda _: None, holders=(machine,))
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
        machine = held.enter_context(LockFile(folder, _MACHINE))
        with LockFile(folder, _GATE) as gate:
            others = self._gpu_locks(folder)
            gate.take(fcntl.LOCK_EX, patience_s, on_wait, holders=(machine, *others))
            kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
            with gate.told(doing):
                machine.take(kind, patience_s, on_wait, holders=others)
        if shared:
            self._clean(machine)
            return
        for name in self._gpu_locks(folder):
            with LockFile(folder, name) as gpu:
                self._clean(gpu)
        self._hold(held, machine, doing)

    def _hold(self, held: ExitStack, lock: LockFile, doing: str) -> None:
        self._clean(lock)
        held.enter_context(lock.told(doing))

    def _clean(self, lock: LockFile) -> None:
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
        folder = self._folder or (Path(named) if named else shared_folder(_LOCK_DIR, _FOR_ALL))
        make_folder(folder)
        return folder


def _plain(uuid: str) -> str:
    return re.sub("[^A-Za-z0-9-]", "-", uuid)[:100]
