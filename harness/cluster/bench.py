"""Where a worker makes attempts: one at a time, each in a process of its own, which goes on
whatever becomes of the connection. What was made is kept until the conductor says that it has it.

::

    work/
      worker.lock                  held by the worker that uses this folder
      runs/<team>/<run id>/        the run directories
      attempts/<team>/<run id>/
        order.json                 on the disk before the attempt begins
        end.json                   what came of it: an attempt without is under way, or was cut off
      job.log                      what the last process printed, which is nothing unless it broke
      uploads/                     images and zips by their digest
"""

from __future__ import annotations

import fcntl
import logging
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.campaign.order import JobEnd, JobOrder, Outcome, Place
from harness.cluster.facts import AttemptNews, Stage, WorkerNews
from harness.cluster.uploads import KEPT_BYTES, Uploads
from harness.engine import leash
from harness.engine.base import EngineName
from harness.errors import Blame, OutputError
from harness.store import write_json

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger(__name__)

_NAME = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$")
_END_S = 120.0  # a submission is stopped, and what it left collected
_LOG_CHARACTERS = 400

AttemptKey = tuple[str, str]  # team and run id


class JobSettings(BaseModel):
    """What the process of an attempt must know of its worker. ``engine``: that of its runs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    work_dir: Path
    data_dir: Path
    engine: EngineName
    place: Place

    @property
    def runs_dir(self) -> Path:
        return self.work_dir / "runs"

    @property
    def log_path(self) -> Path:
        return self.work_dir / "job.log"


class AttemptFolder:
    """Raises OutputError for a name that could lead out of the work folder."""

    def __init__(self, settings: JobSettings, key: AttemptKey) -> None:
        for name in key:
            if not _NAME.match(name):
                raise OutputError(f"{name!r} is no name of a team or a run")
        self.key = key
        self.path = settings.work_dir / "attempts" / key[0] / key[1]
        self.run_dir = settings.runs_dir / key[0] / key[1]

    @property
    def order_path(self) -> Path:
        return self.path / "order.json"

    @property
    def end_path(self) -> Path:
        return self.path / "end.json"

    def read_order(self) -> JobOrder:
        return JobOrder.model_validate_json(self.order_path.read_bytes())

    def read_end(self) -> JobEnd | None:
        """None as long as there is none, or none that can be read."""
        try:
            return JobEnd.model_validate_json(self.end_path.read_bytes())
        except (OSError, ValidationError):
            return None


class Bench:
    """``finish_dead``: what came of an attempt whose process died. Raises OutputError when another
    worker uses the folder, or it cannot be written."""

    def __init__(
        self,
        settings: JobSettings,
        finish_dead: Callable[[JobOrder, JobSettings, str], JobEnd],
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        self.settings = settings
        self.uploads = Uploads(settings.work_dir / "uploads", kept_bytes)
        self._finish_dead = finish_dead
        self._lock = _lock_folder(settings.work_dir)
        self._changed = threading.Condition()
        self._known: dict[AttemptKey, AttemptNews] = {}
        self._ends: dict[AttemptKey, JobEnd] = {}
        self._orders: queue.SimpleQueue[JobOrder | None] = queue.SimpleQueue()
        self._child: subprocess.Popen[bytes] | None = None
        self._is_closing = False
        self._take_stock()
        self._maker = threading.Thread(target=self._make_all, name="bench", daemon=True)
        self._maker.start()

    def begin(self, order: JobOrder) -> None:
        """See to it that the attempt is made, once. Returns when its order is on the disk."""
        folder = AttemptFolder(self.settings, (order.team, order.run_id))
        with self._changed:
            if folder.key in self._known or self._is_closing:
                return
            _write_order(folder, order)
            self.uploads.begin(order.source.sha256)
            self._known[folder.key] = AttemptNews(
                team=order.team, run_id=order.run_id, stage=Stage.UNDER_WAY
            )
        self._orders.put(order)

    def knows(self, key: AttemptKey) -> bool:
        with self._changed:
            return key in self._known

    def wait(self, key: AttemptKey, timeout_s: float) -> JobEnd | None:
        with self._changed:
            self._changed.wait_for(lambda: key in self._ends, timeout_s)
            return self._ends.get(key)

    def news(self) -> WorkerNews:
        with self._changed:
            return WorkerNews(attempts=tuple(self._known.values()))

    def forget(self, key: AttemptKey) -> None:
        """The conductor has it: remove it here. An attempt under way stays."""
        folder = AttemptFolder(self.settings, key)
        with self._changed:
            if key not in self._ends:
                return
            del self._ends[key], self._known[key]
        shutil.rmtree(folder.run_dir, ignore_errors=True)
        shutil.rmtree(folder.path, ignore_errors=True)

    def close(self) -> None:
        """End the attempt under way as Ctrl-C does, and keep what it left."""
        with self._changed:
            self._is_closing = True
            child = self._child
        self._orders.put(None)
        if child is not None:
            child.send_signal(signal.SIGTERM)
        self._maker.join(_END_S)
        if child is not None:
            with child:  # one that never got an order
                pass
        os.close(self._lock)

    def _take_stock(self) -> None:
        """What an earlier worker made in this folder; what it left unfinished is finished now."""
        for order_path in sorted(self.settings.work_dir.glob("attempts/*/*/order.json")):
            key = (order_path.parent.parent.name, order_path.parent.name)
            folder = AttemptFolder(self.settings, key)
            end = folder.read_end()
            if end is None:
                order = folder.read_order()
                _log.warning("%s/%s: its worker died, and it is finished now", *key)
                end = self._settle(folder, order, "the worker died while it was made")
            self._ends[key] = end
            self._known[key] = AttemptNews(team=key[0], run_id=key[1], stage=Stage.MADE)

    def _make_all(self) -> None:
        """In a thread that never ends: the kernel ends a child with the *thread* that started it
        (prctl(2)). A process is started ahead of the order that it gets, as it takes a second to
        import what it needs, but never beside an attempt."""
        while True:
            with self._changed:
                self._child = None if self._is_closing else self._start()
            order = self._orders.get()
            if order is None or self._child is None:
                return
            folder = AttemptFolder(self.settings, (order.team, order.run_id))
            try:
                end = self._make(folder, order, self._child)
            except OSError as error:
                end = failed(f"the attempt's process could not be used: {error}")
            self.uploads.done(order.source.sha256)
            with self._changed:
                self._ends[folder.key] = end
                self._known[folder.key] = AttemptNews(
                    team=order.team, run_id=order.run_id, stage=Stage.MADE
                )
                self._changed.notify_all()

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "harness.cluster.job", self.settings.model_dump_json()]
        held = [sys.executable, leash.__file__, str(os.getpid()), leash.ALL_CPUS, *command]
        with self.settings.log_path.open("wb") as log:
            # A session of its own: Ctrl-C in a terminal is the worker's to pass on.
            return subprocess.Popen(
                held,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )

    def _make(
        self, folder: AttemptFolder, order: JobOrder, child: subprocess.Popen[bytes]
    ) -> JobEnd:
        with child:
            if child.stdin is not None and child.stdout is not None:
                with suppress(BrokenPipeError):  # it broke before: told below
                    child.stdin.write(f"{folder.path}\n".encode())
                    child.stdin.close()
                for line in child.stdout:
                    self._note(folder.key, line)
            code = child.wait()
        end = folder.read_end()
        if end is not None:
            return end
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return self._settle(folder, order, f"the attempt's process broke ({how}){self._tail()}")

    def _note(self, key: AttemptKey, line: bytes) -> None:
        try:
            news = AttemptNews.model_validate_json(line)
        except ValidationError:
            return
        with self._changed:
            if news.key == key:
                self._known[key] = news

    def _tail(self) -> str:
        try:
            text = self.settings.log_path.read_text("utf-8", "replace").strip()
        except OSError:
            return ""
        return f": {text[-_LOG_CHARACTERS:]}" if text else ""

    def _settle(self, folder: AttemptFolder, order: JobOrder, how: str) -> JobEnd:
        end = self._finish_dead(order, self.settings, how)
        try:
            write_json(folder.end_path, end)
        except OSError as error:
            _log.warning("%s: %s", folder.end_path, error.strerror)
        return end


def failed(reason: str, blame: Blame = Blame.MACHINE, exit_code: int | None = None) -> JobEnd:
    """Nothing came of an attempt, and not by its submission."""
    code = exit_code if exit_code is not None else 29
    return JobEnd(outcome=Outcome.FAILED, reason=reason, blame=blame, exit_code=code)


def _write_order(folder: AttemptFolder, order: JobOrder) -> None:
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        write_json(folder.order_path, order)
    except OSError as error:
        raise OutputError(f"{folder.path}: {error.strerror}; make room there") from error


def _lock_folder(work_dir: Path) -> int:
    try:
        work_dir.mkdir(parents=True, exist_ok=True)
        lock = os.open(work_dir / "worker.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise OutputError(f"{work_dir}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise OutputError(
            f"{work_dir}: another worker uses this folder; give each its own, with --work"
        ) from None
    return lock
