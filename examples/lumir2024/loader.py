"""PyTorch's DataLoader where there is PyTorch, else a stand-in that prefetches just as it does:
forked workers, two items ahead for each, arrays handed over in shared memory, in order."""

from __future__ import annotations

import multiprocessing
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

try:
    from torch.utils.data import DataLoader
except ImportError:
    DataLoader = None

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.context import ForkContext

PREFETCH_FACTOR = 2  # of torch.utils.data.DataLoader


def make_loader(dataset: Sequence[Any], *, num_workers: int) -> tuple[str, Iterator[Any]]:
    """Which loader it is, and its items in order."""
    if DataLoader is None:
        return "stand-in", _prefetch(dataset, num_workers)
    return "torch", iter(DataLoader(dataset, batch_size=1, shuffle=False, num_workers=num_workers))


def _prefetch(dataset: Sequence[Any], num_workers: int) -> Iterator[Any]:
    """Worker w of n reads the items w, w + n, ... and waits while its slots are full."""
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as shared:
        workers = [_Worker(context, dataset, n, num_workers, shared) for n in range(num_workers)]
        for index in range(len(dataset)):
            yield workers[index % num_workers].next_item()


class _Worker:
    def __init__(
        self, context: ForkContext, dataset: Sequence[Any], first: int, step: int, shared: str
    ) -> None:
        self._done = context.Queue()
        self._slots = context.Semaphore(PREFETCH_FACTOR)
        self._mine = range(first, len(dataset), step)
        self._folder = Path(shared)
        self._process = context.Process(target=self._work, args=(dataset,), daemon=True)
        self._process.start()

    def _work(self, dataset: Sequence[Any]) -> None:
        for index in self._mine:
            self._slots.acquire()
            paths = []
            for n, array in enumerate(dataset[index]):
                paths.append(self._folder / f"{index}_{n}.npy")
                np.save(paths[-1], array)
            self._done.put(paths)

    def next_item(self) -> tuple[np.ndarray, ...]:
        while self._done.empty() and self._process.is_alive():
            self._process.join(0.005)
        if self._done.empty():
            raise SystemExit(f"a worker ended with {self._process.exitcode}; is /dev/shm full?")
        paths = self._done.get()
        self._slots.release()
        arrays = tuple(np.load(path) for path in paths)
        for path in paths:
            path.unlink()
        return arrays
