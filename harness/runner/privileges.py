"""Run the method as an ordinary user who can still write the output folder, whoever owns it.

The two plain docker lines of the challenge mount ``submission/`` as it is on the host and name no
user. A ``USER`` in the Dockerfile could not write a folder of somebody else's; root can, but leaves
files behind that the participant can neither delete nor overwrite. So the image starts as root, and
the runner becomes

- the owner of the output folder, when that is not root: the fields then belong to them;
- else the unprivileged user named by ``HARNESS_UNPRIVILEGED_UID`` (the Dockerfile sets it), who is
  given the folders of the tasks.

It stays what it is where that makes no sense: not started as root (``docker run --user``), not in
the image (the variable is not set), root of a user namespace (rootless engines: that root is the
host's ordinary user already), capabilities dropped (``harness run`` does, and prepares a folder
that anybody may write), or data and output that the other user could not use.
"""

from __future__ import annotations

import ctypes
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

UID_VARIABLE = "HARNESS_UNPRIVILEGED_UID"

_WHOLE_ID_RANGE = ["0", "0", "4294967295"]  # user_namespaces(7): the initial namespace
_PR_SET_NO_NEW_PRIVS = 38  # linux/prctl.h

_OK, _REFUSED, _NO_ACCESS = 0, 1, 2  # exit codes of the trial


def drop_privileges(
    output_dir: Path,
    task_names: Sequence[str],
    data_dir: Path | None = None,
    environment: Mapping[str, str] = os.environ,
) -> str | None:
    """Become the user the fields should belong to; a line for people, None when nothing was to do.

    Makes the folders of the given tasks in ``output_dir`` when they must be given away. Call it
    before any thread is started.
    """
    if os.geteuid() != 0 or UID_VARIABLE not in environment or not _is_host_root():
        return None
    try:
        uid, gid = _wanted_user(output_dir, int(environment[UID_VARIABLE]), task_names)
    except PermissionError:
        return _staying("its container may not change the user")
    except OSError as error:
        return _staying(f"{error.filename or output_dir}: {error.strerror}")
    match _try_out(uid, gid, _writable(output_dir, task_names), data_dir):
        case 0:
            _become(uid, gid)
            os.environ["HOME"] = "/tmp"
            return f"running as user {uid}:{gid}, to whom the fields will belong"
        case 1:
            return _staying("its container may not change the user")
        case _:
            return _staying(f"user {uid} could not read the data or write the output")


def _staying(why: str) -> str:
    return f"running as root: {why}"


def _is_host_root() -> bool:
    try:
        return Path("/proc/self/uid_map").read_text("ascii").split() == _WHOLE_ID_RANGE
    except OSError:
        return False


def _wanted_user(output_dir: Path, unprivileged: int, task_names: Sequence[str]) -> tuple[int, int]:
    owner = output_dir.stat()
    if owner.st_uid != 0:
        return owner.st_uid, owner.st_gid
    for name in task_names:
        _give_away(output_dir / name, unprivileged)
    return unprivileged, unprivileged


def _give_away(folder: Path, uid: int) -> None:
    """Make the folder the user's; its content stays: fields are replaced, not opened."""
    folder.mkdir(exist_ok=True)
    if stat.S_ISDIR(folder.lstat().st_mode):  # never what a link left there points to
        os.chown(folder, uid, uid, follow_symlinks=False)


def _writable(output_dir: Path, task_names: Sequence[str]) -> list[Path]:
    """What the user must be able to write: the tasks' folders, or where they will be made."""
    folders = [output_dir / name for name in task_names]
    return [folder if folder.is_dir() else output_dir for folder in folders]


def _try_out(uid: int, gid: int, writable: Sequence[Path], data_dir: Path | None) -> int:
    """Could that user do the work? Asked in a child process, for there is no way back."""
    child = os.fork()
    if child == 0:
        verdict = _REFUSED
        try:
            _become(uid, gid)
            usable = all(os.access(path, os.W_OK | os.X_OK) for path in writable)
            verdict = _OK if usable and _all_readable(data_dir) else _NO_ACCESS
        finally:
            os._exit(verdict)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _all_readable(folder: Path | None) -> bool:
    """Asks the file system about every file below the folder; opens none, which would be timed."""
    if folder is None:
        return True
    unreadable: list[OSError] = []
    for parent, _, names in os.walk(folder, onerror=unreadable.append):
        if not all(os.access(Path(parent, name), os.R_OK) for name in names):
            return False
    return not unreadable


def _become(uid: int, gid: int) -> None:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    # From here on not even a set-uid program of the base image gives anything back.
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
