"""The conductor's connection to the scheduler: taken up again when it is lost, for a while."""

from __future__ import annotations

import logging
import math
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from distributed import CancelledError, Client, fire_and_forget
from distributed.comm.core import CommClosedError
from distributed.scheduler import KilledWorker

from harness.cluster.facts import FACTS, NEWS, WorkerFacts, read_facts, read_news
from harness.cluster.security import security_of
from harness.cluster.tasks import LetGo
from harness.cluster.worker import BOX, GPU
from harness.errors import MachineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.cluster.facts import Versions, WorkerNews
    from harness.cluster.security import Tls

_log = logging.getLogger(__name__)

_P = ParamSpec("_P")
_T = TypeVar("_T")

_CONNECT_S = 10.0
_ANSWER_S = 20.0
_CLOSE_S = 3.0
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 10.0
_LOOK_S = 1.0

# What a call comes to when the scheduler, the worker or the way to them is lost.
_LOST = (CancelledError, KilledWorker, CommClosedError, LetGo, TimeoutError, OSError)


class Lost(Exception):
    """The connection, or the worker, is gone: nobody knows whether the task was done."""


@dataclass(frozen=True, kw_only=True)
class SeenWorker:
    """``facts``: the versions alone where no more can be read; None for a stranger."""

    name: str
    address: str
    facts: WorkerFacts | Versions | None
    news: WorkerNews


class Link:
    """Safe to use from several threads. ``patience_s``: how long a lost scheduler is waited for,
    which may be for ever (inf); the first time it must be there at once.

    Raises MachineError when none answers.
    """

    def __init__(self, address: str, tls: Tls | None, *, patience_s: float) -> None:
        self._address = address
        self._tls = tls
        self._patience_s = patience_s
        self._connecting = threading.Lock()
        self._closed = threading.Event()
        self._client: Client | None = self._connect(min(patience_s, _CONNECT_S))

    def workers(self) -> dict[str, SeenWorker]:
        """Those that the scheduler knows now, by name. Raises Lost."""
        client = self._current()
        scheduler = client.scheduler
        if scheduler is None:
            raise Lost(f"scheduler {self._address}: no connection")
        try:
            told = client.sync(scheduler.identity, n_workers=-1, callback_timeout=_ANSWER_S)
        except (*_LOST, RuntimeError, AttributeError) as error:  # a client that is being closed
            raise Lost(str(error)) from error
        return {
            str(one["name"]): SeenWorker(
                name=str(one["name"]),
                address=address,
                facts=read_facts(one.get(FACTS)),
                news=read_news((one.get("metrics") or {}).get(NEWS)),
            )
            for address, one in told["workers"].items()
        }

    def call(
        self,
        worker: SeenWorker,
        task: Callable[_P, _T],
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _T:
        """The result of a task on this worker and no other, however long it takes. Raises Lost,
        and whatever the task raises."""
        client = self._current()
        try:
            future = client.submit(
                task,
                *args,
                **kwargs,
                pure=False,
                workers=[worker.address],
                allow_other_workers=False,
                retries=0,
                resources=_resources(worker),
            )
            while True:
                try:
                    result: _T = future.result(timeout=_LOOK_S)
                except TimeoutError:
                    if future.done() or self._closed.is_set() or client.status != "running":
                        raise
                else:
                    return result
        except _LOST as error:
            raise Lost(str(error)) from error
        except RuntimeError as error:  # a client that is being closed
            if client.status == "running":
                raise
            raise Lost(str(error)) from error

    def send(
        self, worker: SeenWorker, task: Callable[_P, None], *args: _P.args, **kwargs: _P.kwargs
    ) -> None:
        """A task that nobody waits for, and that may be lost."""
        with suppress(Lost, *_LOST, RuntimeError):
            fire_and_forget(
                self._current().submit(
                    task,
                    *args,
                    **kwargs,
                    pure=False,
                    workers=[worker.address],
                    allow_other_workers=False,
                    retries=0,
                    resources=_resources(worker),
                )
            )

    def reconnect(self) -> None:
        """Raises MachineError when there is no scheduler for ``patience_s``."""
        with self._connecting:
            client = self._client
            if self._closed.is_set() or (client is not None and client.status == "running"):
                return
            self._client = None
            _close(client)
            limit = "" if math.isinf(self._patience_s) else f" for {self._patience_s:.0f} s"
            _log.warning("scheduler %s: lost; waiting for it%s", self._address, limit)
            self._client = self._connect(self._patience_s)
            _log.warning("scheduler %s: is there again", self._address)

    def pause(self, pause_s: float) -> None:
        """Raises Lost when this is closed meanwhile."""
        if self._closed.wait(pause_s):
            raise Lost("closed")

    @property
    def is_closed(self) -> bool:
        return self._closed.is_set()

    def close(self) -> None:
        self._closed.set()
        with self._connecting:
            client, self._client = self._client, None
            _close(client)

    def _current(self) -> Client:
        client = self._client
        if client is None or client.status != "running" or self._closed.is_set():
            raise Lost(f"scheduler {self._address}: no connection")
        return client

    def _connect(self, patience_s: float) -> Client | None:
        until_s = time.monotonic() + patience_s
        pause_s = _FIRST_PAUSE_S
        while not self._closed.is_set():
            try:
                return Client(
                    self._address,
                    timeout=min(max(patience_s, 1.0), _CONNECT_S),
                    security=security_of(self._tls),
                    set_as_default=False,
                    name="harness",
                )
            except (OSError, TimeoutError) as error:
                if time.monotonic() + pause_s > until_s:
                    raise MachineError(
                        f"scheduler {self._address}: no answer ({_cause(error)}); is `harness "
                        "cluster scheduler` running there, with certificates of the same "
                        "authority? The same command goes on once it is"
                    ) from error
            self._closed.wait(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        return None


def _resources(worker: SeenWorker) -> dict[str, float]:
    has_gpu = isinstance(worker.facts, WorkerFacts) and worker.facts.place.gpu is not None
    return {BOX: 1, GPU: 1} if has_gpu else {BOX: 1}


def _close(client: Client | None) -> None:
    if client is not None:
        with suppress(*_LOST, RuntimeError):
            client.close(timeout=_CLOSE_S)


def _cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:200] or type(error).__name__
