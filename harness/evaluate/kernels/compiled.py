"""Compiling a function once for this machine, and keeping what was compiled where we may write."""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numba
from numba.core import event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

F = TypeVar("F", bound="Callable[..., object]")

_TURN_TIMEOUT_S = 60.0  # longer than all of it takes
_POLL_S = 0.02


def compiled(function: F) -> F:
    """The function, compiled at its first call; the next process finds it on disk.

    Numba keeps it beside the module, else in the user's cache folder. Where neither can be written
    (an unprivileged user in a container), a folder of this user's own holds it; what lies there is
    executed, so nobody else may write to it. Arithmetic is IEEE 754: nothing is reordered.

    Of several processes that want the same code at once, one compiles it and the others wait.
    """
    try:
        return _compile(function)
    except RuntimeError:  # no place to keep it
        numba.config.CACHE_DIR = str(private_folder())  # type: ignore[attr-defined]
        return _compile(function)


def _compile(function: F) -> F:
    dispatcher: Any = numba.njit(cache=True, error_model="numpy")(function)
    compile_now = dispatcher.compile

    def compile_in_turn(signature: object) -> object:
        with _turn.taken():
            result: object = compile_now(signature)
            return result

    dispatcher.compile = compile_in_turn
    return cast("F", dispatcher)


class _Turn:
    """Whose turn it is to look into the cache, and to compile what is not in it.

    A lock on this file, which all processes that run this code have, and which goes when its holder
    does. Who does not get it in time, or not at all (some network file systems), compiles as well:
    the result is the same.
    """

    def __init__(self) -> None:
        self._mine = threading.RLock()
        self._depth = 0  # one function's compilation asks for those it calls

    @contextmanager
    def taken(self) -> Iterator[None]:
        with self._mine:
            if self._depth:
                yield
                return
            self._depth += 1
            try:
                with Path(__file__).open("rb") as file:
                    _lock(file.fileno())
                    yield
            finally:
                self._depth -= 1


_turn = _Turn()


def _lock(descriptor: int) -> None:
    deadline_s = time.monotonic() + _TURN_TIMEOUT_S
    while time.monotonic() < deadline_s:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_POLL_S)
        except OSError:
            return
        else:
            return


class _FirstCompilation(event.Listener):
    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell: Callable[[], None] | None = tell

    def on_start(self, event: object) -> None:  # noqa: ARG002
        tell, self._tell = self._tell, None
        if tell is not None:
            tell()

    def on_end(self, event: object) -> None:
        """Of no interest."""


@contextmanager
def on_compilation(tell: Callable[[], None]) -> Iterator[None]:
    """Call ``tell`` once if anything has to be compiled; never where all of it is found on disk."""
    listener = _FirstCompilation(tell)
    event.register("numba:compile", listener)  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        event.unregister("numba:compile", listener)  # type: ignore[no-untyped-call]


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
