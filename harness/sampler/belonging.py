"""Whose a process on a GPU is: of the submission, of somebody else, or not to be told.

The driver names processes by their number on the host. In a PID namespace of its own the sampler
takes a number for one that it knows only where that process has a GPU open: the same number may be
another process on the host, and some drivers translate it and some do not.
"""

from __future__ import annotations

import os
from pathlib import Path

from harness.sampler.spec import Own, OwnContainer, OwnTree

_PROC = Path("/proc")
_INITIAL_PID_NAMESPACE = "pid:[4026531836]"  # PROC_PID_INIT_INO, include/linux/proc_ns.h
_DEVICE = "/dev/nvidia"
_LONGEST_LINE = 1000  # of ancestors


class Belonging:
    """Remembers what it found of a process as long as the driver goes on to name it: one whose
    parent ended descends from nobody any more, and looking costs some 50 us."""

    def __init__(
        self,
        *,
        proc: Path = _PROC,
        device: str = _DEVICE,
        numbers_are_ours: bool | None = None,
    ) -> None:
        """``numbers_are_ours``: are the driver's numbers those of ``proc``? None to find out."""
        self._proc = proc
        self._device = device
        self._ours = _in_initial_namespace(proc) if numbers_are_ours is None else numbers_are_ours
        self._own: Own | None = None
        self._known: dict[int, bool] = {}

    def set_own(self, own: Own) -> None:
        self._own = own
        self._known.clear()

    def keep(self, pids: set[int]) -> None:
        """Forget all others: their numbers may be somebody else's next."""
        self._known = {pid: own for pid, own in self._known.items() if pid in pids}

    def is_own(self, pid: int) -> bool | None:
        if self._own is None:
            return None
        if pid not in self._known:
            found = self._look(pid, self._own)
            if found is None:
                return None
            self._known[pid] = found
        return self._known[pid]

    def _look(self, pid: int, own: Own) -> bool | None:
        try:
            if not self._ours and not self._has_gpu_open(pid):
                return None
            if isinstance(own, OwnContainer):
                text = (self._proc / str(pid) / "cgroup").read_text("utf-8", "replace")
                return in_container(text, own.container)
            return self._in_tree(pid, own)
        except (OSError, ValueError):  # it has ended, or is hidden from us
            return None

    def _has_gpu_open(self, pid: int) -> bool:
        descriptors = self._proc / str(pid) / "fd"
        return any(
            str(descriptor.readlink()).startswith(self._device)
            for descriptor in descriptors.iterdir()
        )

    def _in_tree(self, pid: int, own: OwnTree) -> bool | None:
        parent, group = self._parent_and_group(pid)
        if own.root in {pid, group} or self._descends(parent, own.root):
            return True
        try:
            environment = (self._proc / str(pid) / "environ").read_bytes()
        except PermissionError:
            # What another user runs is not ours. One of our own user's can forbid us to look.
            return None if self._user(pid) == os.getuid() else False
        return own.mark.encode() in environment.split(b"\0")

    def _descends(self, pid: int, root: int) -> bool:
        for _ in range(_LONGEST_LINE):
            if pid == root:
                return True
            if pid <= 1:
                return False
            try:
                pid, _ = self._parent_and_group(pid)
            except OSError:
                return False  # a parent ended while we looked
        return False

    def _parent_and_group(self, pid: int) -> tuple[int, int]:
        text = (self._proc / str(pid) / "stat").read_text("utf-8", "replace")
        fields = text.rpartition(")")[2].split()  # a name may hold blanks and brackets
        return int(fields[1]), int(fields[2])

    def _user(self, pid: int) -> int | None:
        """The real one; the folder's owner is root where the process forbids to look."""
        for line in (self._proc / str(pid) / "status").read_text("utf-8", "replace").splitlines():
            if line.startswith("Uid:"):
                return int(line.split()[1])
        return None


def in_container(cgroup_text: str, container: str) -> bool:
    """From a ``/proc/<pid>/cgroup``. The group of a container is called by its ID
    (``/docker/ID``, of cgroupfs) or has it in its name (``docker-ID.scope`` of systemd,
    ``libpod-ID.scope`` of Podman); below it the container may have groups of its own."""
    for line in cgroup_text.splitlines():
        group = line.split(":", 2)[-1].removesuffix(" (deleted)")
        for name in group.split("/"):
            if name.removesuffix(".scope").rpartition("-")[2] == container:
                return True
    return False


def _in_initial_namespace(proc: Path) -> bool:
    try:
        return str((proc / "self/ns/pid").readlink()) == _INITIAL_PID_NAMESPACE
    except OSError:
        return False
