"""Dask's scheduler with many workers: how it fares with as many machines as nobody here has.

A worker here is Dask's own, with its own connection, heartbeat and thread, but shares a process
with others; ``processes`` equal to ``workers`` gives each a process of its own, as it has in a
cluster. What the harness's worker does besides is not in this.

``python -m bench.support.dask_farm ADDRESS FIRST COUNT FOLDER`` is one of the processes.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import psutil

from bench.support.image import ROOT
from bench.support.results import percentile
from harness.cluster.settings import configure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import Client

_START_S = 300.0
_ROUND_TRIPS = 200
_LOOKS = 20
_RESOURCE = "PLACE"
_SCHEDULER = """
import asyncio, sys
from harness.cluster.settings import configure
configure()
from distributed import Scheduler
async def main():
    async with Scheduler(host="127.0.0.1", port=0, dashboard_address=None) as scheduler:
        print(scheduler.address, flush=True)
        await asyncio.to_thread(sys.stdin.read)
asyncio.run(main())
"""


@dataclass(frozen=True, kw_only=True)
class Farm:
    """``joined_s``: until all workers were there, Python's start included. ``idle_cpu_ratio``: of one
    CPU, what the scheduler used while nothing was done. ``given_s``, ``ended_s``: of one wave, a
    task for every worker: until all are handed over, and how long after its sleep the last one's
    end was known. ``trip_s``: of one empty task to a worker and back. ``look_s``: of asking for all
    workers and what each says of itself, as the conductor does twice a second."""

    workers: int
    processes: int
    joined_s: float
    idle_cpu_ratio: float
    look_s: float
    look_bytes: int
    trip_s: float
    trip_p99_s: float
    given_s: float
    ended_s: float
    scheduler_bytes: int
    worker_bytes: int


def measure_farm(workers: int, processes: int, folder: Path, *, sleep_s: float) -> Farm:
    configure()
    with ExitStack() as stack:
        scheduler, address = stack.enter_context(_scheduler())
        begin_s = time.perf_counter()
        farms = stack.enter_context(_workers(address, workers, processes, folder))
        client = stack.enter_context(_client(address))
        client.wait_for_workers(workers, timeout=_START_S)
        joined_s = time.perf_counter() - begin_s
        addresses = list(client.scheduler_info(n_workers=-1)["workers"])
        idle_cpu_ratio = _cpu_ratio(scheduler, 10.0)
        looks, look_bytes = _looks(client)
        trips = [_trip(client, addresses[n % workers]) for n in range(_ROUND_TRIPS)]
        given_s, ended_s = _wave(client, addresses, sleep_s)
        return Farm(
            workers=workers,
            processes=processes,
            joined_s=joined_s,
            idle_cpu_ratio=idle_cpu_ratio,
            look_s=median(looks),
            look_bytes=look_bytes,
            trip_s=median(trips),
            trip_p99_s=percentile(trips, 99),
            given_s=given_s,
            ended_s=ended_s,
            scheduler_bytes=scheduler.memory_info().rss,
            worker_bytes=sum(farm.memory_info().rss for farm in farms) // workers,
        )


def _looks(client: Client) -> tuple[list[float], int]:
    seconds: list[float] = []
    told: object = None
    for _ in range(_LOOKS):
        begin_s = time.perf_counter()
        assert client.scheduler is not None
        told = client.sync(client.scheduler.identity, n_workers=-1)
        seconds.append(time.perf_counter() - begin_s)
    return seconds, len(json.dumps(told, default=str))


def _trip(client: Client, address: str) -> float:
    begin_s = time.perf_counter()
    client.submit(time.sleep, 0, pure=False, workers=[address], resources={_RESOURCE: 1}).result()
    return time.perf_counter() - begin_s


def _wave(client: Client, addresses: list[str], sleep_s: float) -> tuple[float, float]:
    begin_s = time.perf_counter()
    futures = [
        client.submit(time.sleep, sleep_s, pure=False, workers=[address], resources={_RESOURCE: 1})
        for address in addresses
    ]
    given_s = time.perf_counter() - begin_s
    client.gather(futures)
    return given_s, time.perf_counter() - begin_s - sleep_s


def _cpu_ratio(process: psutil.Process, seconds: float) -> float:
    before = process.cpu_times()
    time.sleep(seconds)
    after = process.cpu_times()
    return (after.user + after.system - before.user - before.system) / seconds


def _client(address: str) -> Client:
    from distributed import Client  # noqa: PLC0415 - after its settings

    return Client(address, set_as_default=False)


@contextmanager
def _scheduler() -> Iterator[tuple[psutil.Process, str]]:
    with _child("-c", _SCHEDULER) as process:
        yield psutil.Process(process.pid), _first_line(process)


@contextmanager
def _workers(
    address: str, workers: int, processes: int, folder: Path
) -> Iterator[list[psutil.Process]]:
    shares = [workers // processes + (n < workers % processes) for n in range(processes)]
    with ExitStack() as stack:
        farms = [
            stack.enter_context(
                _child(
                    *("-m", "bench.support.dask_farm"),
                    *(address, str(sum(shares[:n])), str(share), str(folder / f"farm{n}")),
                )
            )
            for n, share in enumerate(shares)
        ]
        for farm in farms:
            _first_line(farm)
        yield [psutil.Process(farm.pid) for farm in farms]


@contextmanager
def _child(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process that ends when its input does."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield process
    finally:
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _first_line(process: subprocess.Popen[str]) -> str:
    timer = threading.Timer(_START_S, process.kill)
    timer.start()
    try:
        line = process.stdout.readline() if process.stdout is not None else ""
    finally:
        timer.cancel()
    if not line:
        raise RuntimeError("a process of Dask's ended before it was ready")
    return line.strip()


async def _serve(address: str, first: int, count: int, folder: Path) -> None:
    configure()
    from distributed import Worker  # noqa: PLC0415 - after its settings

    workers: list[Any] = [
        Worker(
            address,
            nthreads=1,
            name=f"sim{number}",
            host="127.0.0.1",
            resources={_RESOURCE: 1},
            local_directory=str(folder),
            dashboard=False,
        )
        for number in range(first, first + count)
    ]
    await asyncio.gather(*workers)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await asyncio.gather(*(worker.close(timeout=5) for worker in workers))


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])))
