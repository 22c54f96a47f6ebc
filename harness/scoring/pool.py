"""Worker processes that score cases. One that dies loses nothing but its own case, and that only
when it dies a second time."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections import deque
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import TYPE_CHECKING

from harness.errors import Interrupted, MachineError
from harness.evaluate.record import CaseRecord, CaseState
from harness.scoring.job import Compiling, Outcome
from harness.scoring.worker import work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess
    from types import TracebackType
    from typing import Self

    from harness.scoring.job import Job

_END_TIMEOUT_S = 2.0


@dataclass(kw_only=True)
class _Worker:
    process: SpawnProcess
    connection: Connection
    job: Job | None = None

    @property
    def ending(self) -> str:
        """How it ended, once it has."""
        code = self.process.exitcode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            hint = ": out of memory, perhaps" if -code == signal.SIGKILL else ""
            return f"ended by {name}{hint}"
        return f"ended with exit code {code}"


class Pool:
    """``workers`` processes at most, started as there is work for them, kept until the end.

    ``on_compilation`` is called once, when the first of them has code to compile. One thread at a
    time uses it; :meth:`stop` is for any other.
    """

    def __init__(self, workers: int, on_compilation: Callable[[], None] = lambda: None) -> None:
        self._limit = workers
        self._on_compilation: Callable[[], None] | None = on_compilation
        self._workers: list[_Worker] = []
        self._stopped = threading.Event()
        # Not fork: what this process has loaded and locked is not copied into the workers.
        self._context = multiprocessing.get_context("spawn")
        self._stopped_for_waiting, self._waker = self._context.Pipe(duplex=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """No process of it is left; it is of no more use."""
        self.stop()
        for worker in self._workers:
            worker.connection.close()
            if worker.job is not None:  # nobody waits for it any more
                worker.process.terminate()
        for worker in self._workers:
            worker.process.join(_END_TIMEOUT_S)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self._workers = []

    def stop(self) -> None:
        """Whoever is in :meth:`run`, in another thread, gets Interrupted; nothing is recorded of
        the cases that were under way, and the pool is of no more use."""
        if not self._stopped.is_set():
            self._stopped.set()
            self._waker.send_bytes(b"stop")

    @property
    def process_ids(self) -> tuple[int, ...]:
        return tuple(w.process.pid for w in self._workers if w.process.pid is not None)

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Outcome]]:
        """Every job with its outcome, as they come.

        A job whose worker dies is done again when all others are, alone: another worker's memory
        may have been what was too much. Raises Interrupted when the pool is stopped.
        """
        died: deque[tuple[Job, str]] = deque()
        for job, outcome in self._run(deque(jobs), self._limit):
            if isinstance(outcome, Outcome):
                yield job, outcome
            else:
                died.append((job, outcome))
        for job, _ in died:
            for _, outcome in self._run(deque([job]), 1):
                yield job, outcome if isinstance(outcome, Outcome) else _lost(job, outcome)

    def _run(self, jobs: deque[Job], limit: int) -> Iterator[tuple[Job, Outcome | str]]:
        """Outcomes, or how the worker ended."""
        while jobs or any(worker.job is not None for worker in self._workers):
            self._raise_if_stopped()
            while jobs and (worker := self._idle(limit)) is not None:
                worker.job = jobs.popleft()
                try:
                    worker.connection.send(worker.job)
                except (BrokenPipeError, ConnectionResetError):
                    yield worker.job, self._bury(worker)
            busy = {worker.connection: worker for worker in self._workers if worker.job is not None}
            found = wait([*busy, self._stopped_for_waiting]) if busy else []
            self._raise_if_stopped()
            for ready in found:
                worker = next(one for one in busy.values() if one.connection is ready)
                job, outcome = worker.job, self._receive(worker)
                if job is not None and outcome is not None:
                    yield job, outcome

    def _raise_if_stopped(self) -> None:
        if self._stopped.is_set():
            raise Interrupted("the scoring was stopped")

    def _receive(self, worker: _Worker) -> Outcome | str | None:
        """None where it goes on with its job."""
        try:
            answer: Outcome | Compiling = worker.connection.recv()
        except (EOFError, ConnectionResetError):
            return self._bury(worker)
        if isinstance(answer, Compiling):
            tell, self._on_compilation = self._on_compilation, None
            if tell is not None:
                tell()
            return None
        worker.job = None
        return answer

    def _idle(self, limit: int) -> _Worker | None:
        """A worker without a job, a new one where there may be one more; None if all are busy."""
        for worker in [one for one in self._workers if one.job is None]:
            if not worker.process.is_alive():  # ended while it had nothing to do
                self._bury(worker)
        busy = sum(worker.job is not None for worker in self._workers)
        if busy >= limit:
            return None
        for worker in self._workers:
            if worker.job is None:
                return worker
        worker = self._start()
        self._workers.append(worker)
        return worker

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=work, args=(theirs,), daemon=True)
        # Ctrl-C reaches the whole process group; what it ends, this process decides. The mask is
        # inherited, so that not even a worker that is just starting dies of it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        return _Worker(process=process, connection=ours)

    def _bury(self, worker: _Worker) -> str:
        self._workers.remove(worker)
        worker.connection.close()
        worker.process.join()
        return worker.ending


def _lost(job: Job, ending: str) -> Outcome:
    name = None if job.field is None else str(job.field.name)
    record = CaseRecord(
        key=job.case.key,
        state=CaseState.NOT_EVALUATED,
        reason=f"the worker that evaluated it died twice, the second time alone ({ending})",
        field=name,
    )
    return Outcome(record=record, exit_code=MachineError.exit_code)
