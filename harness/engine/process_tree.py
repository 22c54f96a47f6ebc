"""All processes of one run, found again whatever they did to hide: seen, measured and ended.

A process belongs to the run when it descends from the first one, is in its process group, or
carries the run's mark in its environment. The last finds those that forked twice into a session of
their own. (One that also wipes its environment gets away: that takes intent, and for that there are
containers.)
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from harness.engine.owner import Owner

if TYPE_CHECKING:
    from collections.abc import Iterable

# Environment variables of the run's first process, which its descendants inherit.
RUN_MARK = "HARNESS_RUN"  # the run's unique name
OWNER_MARK = "HARNESS_OWNER"  # the harness process it belongs to

_KILL_DEADLINE_S = 10.0


@dataclass(frozen=True, kw_only=True)
class RunMarks:
    run: str
    owner: Owner


@dataclass(frozen=True, kw_only=True)
class TreeUse:
    """Memory shared by several processes counts once for each of them."""

    memory_bytes: int
    processes: int  # processes and threads


class ProcessTree:
    """The first process must not be reaped before :meth:`end`: until then its id, which is also its
    group's, is nobody else's."""

    def __init__(self, root_pid: int, mark: str) -> None:
        self._mark = mark
        self._known: set[psutil.Process] = set()
        self._group = root_pid
        self._root = psutil.Process(root_pid)

    def has_ended(self) -> bool:
        """Has the first process ended? (It is not reaped by asking.)"""
        return not _is_alive(self._root)

    def sample(self) -> TreeUse:
        """What the run uses now. Remembers every process it sees."""
        memory_bytes = processes = 0
        self._known.add(self._root)
        for process in list(self._known):
            self._known.update(_children(process))
        for process in list(self._known):
            try:
                memory_bytes += process.memory_info().rss
                processes += process.num_threads()
            except psutil.Error:
                self._known.discard(process)
        return TreeUse(memory_bytes=memory_bytes, processes=processes)

    def cpu_seconds(self) -> float:
        """CPU time of the processes that :meth:`sample` saw, and of those they waited for."""
        total_s = 0.0
        for process in {*self._known, self._root}:
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                total_s += times.user + times.system + times.children_user + times.children_system
        return total_s

    def end(self, grace_s: float) -> bool:
        """Ask the first process to end, kill all that is left after ``grace_s``; True when none is.

        Only the first is asked, as in a container: it knows in which order its children go.
        """
        if grace_s > 0:
            _signal(self._root, signal.SIGTERM)
            _wait_until_gone([self._root], grace_s)
        deadline_s = time.monotonic() + _KILL_DEADLINE_S
        while members := self.members():  # again and again: they may fork while we kill
            for process in members:
                _signal(process, signal.SIGKILL)
            _wait_until_gone(members, 0.5)
            if time.monotonic() > deadline_s:
                return False
        return True

    def members(self) -> set[psutil.Process]:
        """Every live process of the run, by all three signs."""
        found = {*self._known, self._root}
        found.update(process for process in psutil.process_iter() if self._bears_sign(process))
        for process in list(found):
            found.update(_children(process))
        return {process for process in found if _is_alive(process)}

    def _bears_sign(self, process: psutil.Process) -> bool:
        marks = run_marks(process)
        return _group(process) == self._group or (marks is not None and marks.run == self._mark)


def run_marks(process: psutil.Process) -> RunMarks | None:
    """What a process's environment says of the run it belongs to, if to any."""
    try:
        environment = process.environ()
        owner = Owner.from_text(environment[OWNER_MARK])
        return None if owner is None else RunMarks(run=environment[RUN_MARK], owner=owner)
    except (psutil.Error, OSError, KeyError):
        return None


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def _group(process: psutil.Process) -> int | None:
    try:
        return os.getpgid(process.pid)
    except OSError:
        return None


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.Error):
        process.send_signal(number)


def _wait_until_gone(processes: Iterable[psutil.Process], timeout_s: float) -> None:
    deadline_s = time.monotonic() + timeout_s
    while any(_is_alive(process) for process in processes) and time.monotonic() < deadline_s:
        time.sleep(0.02)
