"""A worker: it registers with the scheduler as one place, and again whenever the scheduler was
lost. Its bench goes on meanwhile."""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import TYPE_CHECKING

from distributed import Worker
from distributed.core import Status

from harness.cluster.facts import FACTS, NEWS
from harness.cluster.security import LOOPBACK, host_of, is_loopback, security_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.cluster.bench import Bench
    from harness.cluster.facts import WorkerFacts
    from harness.cluster.security import Tls

_log = logging.getLogger(__name__)

BOX, GPU = "BOX", "GPU"  # names of Dask's resources
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_CLOSE_S = 10.0


class BenchWorker(Worker):
    """One thread, one place. Dask gives it no second task while it has one."""

    bench: Bench


class WorkerLoop:
    """``host``: the address others reach this worker at; None for the one that leads to the
    scheduler."""

    def __init__(
        self,
        bench: Bench,
        facts: WorkerFacts,
        address: str,
        tls: Tls | None,
        host: str | None,
        on_registered: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_registered = on_registered
        self._bench = bench
        self._facts = facts
        self._address = address
        self._tls = tls
        self._host = host or (LOOPBACK if is_loopback(host_of(address)) else None)
        self._is_asked_to_end = asyncio.Event()

    async def run(self) -> None:
        """Until SIGTERM or Ctrl-C; an attempt under way is then ended and kept."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._is_asked_to_end.set)
        ended = asyncio.create_task(self._is_asked_to_end.wait())
        pause_s = _FIRST_PAUSE_S
        while not ended.done():
            started_s = loop.time()
            try:
                await self._serve(ended)
            except (OSError, TimeoutError, ValueError, RuntimeError) as error:
                _log.warning("scheduler %s: %s", self._address, _short(error))
            if ended.done():
                break
            if loop.time() - started_s > _LONGEST_PAUSE_S:  # it was there for a while
                pause_s = _FIRST_PAUSE_S
            _log.warning("scheduler %s: lost; trying again in %.1f s", self._address, pause_s)
            await asyncio.wait({ended}, timeout=pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        await asyncio.to_thread(self._bench.close)

    async def _serve(self, ended: asyncio.Task[bool]) -> None:
        """Registered with the scheduler, until it is lost or we are asked to end."""
        worker = BenchWorker(
            self._address,
            nthreads=1,
            name=self._facts.place.name,
            resources={BOX: 1} if self._facts.place.gpu is None else {BOX: 1, GPU: 1},
            security=security_of(self._tls),
            host=self._host,
            dashboard=False,
            dashboard_address=f"{LOOPBACK}:0",
            memory_limit=0,
            local_directory=str(self._bench.settings.work_dir / "dask"),
            startup_information={FACTS: lambda _: self._facts.model_dump_json()},
            metrics={NEWS: lambda _: self._bench.news().model_dump_json()},
        )
        worker.bench = self._bench
        starting = asyncio.ensure_future(_started(worker))
        try:
            await asyncio.wait({starting, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                return
            await starting
            self._on_registered()
            finished = asyncio.ensure_future(_finished(worker))
            await asyncio.wait({finished, ended}, return_when=asyncio.FIRST_COMPLETED)
            finished.cancel()
        finally:
            starting.cancel()
            if worker.status is not Status.closed:
                await worker.close(timeout=_CLOSE_S, nanny=False, reason="the harness ends it")


async def _started(worker: BenchWorker) -> None:
    await worker


async def _finished(worker: BenchWorker) -> None:
    await worker.finished()  # type: ignore[no-untyped-call]  # of a base class of Dask's


def _short(error: BaseException) -> str:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return " ".join(str(cause).split())[:300] or type(cause).__name__
