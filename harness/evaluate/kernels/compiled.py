"""Compiling a function once for this machine, and keeping what was compiled where we may write."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import numba

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., object]")


def compiled(function: F) -> F:
    """The function, compiled at its first call; the next process finds it on disk.

    Numba keeps it beside the module, else in the user's cache folder. Where neither can be written
    (an unprivileged user in a container), a folder of this user's own holds it; what lies there is
    executed, so nobody else may write to it. Arithmetic is IEEE 754: nothing is reordered.
    """
    try:
        return _compile(function)
    except RuntimeError:  # no place to keep it
        numba.config.CACHE_DIR = str(private_folder())  # type: ignore[attr-defined]
        return _compile(function)


def _compile(function: F) -> F:
    return cast("F", numba.njit(cache=True, error_model="numpy")(function))


def private_folder() -> Path:
    """A folder for compiled code that only this user can write to: the same one next time, unless
    somebody was there first; made if absent."""
    folder = Path(tempfile.gettempdir()) / f"harness-kernels-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        found = folder.lstat()
        is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
        if not is_ours or found.st_mode & 0o077:
            return Path(tempfile.mkdtemp(prefix="harness-kernels-"))
    return folder
