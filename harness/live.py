"""What is shown while something goes on: a build, a run."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Self

from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)

from harness.console import err, note, seconds
from harness.execute import Progress as RunProgress
from harness.execute import Step

if TYPE_CHECKING:
    from types import TracebackType


# Of the builder's own, and the bars of pip's downloads.
_NOISE = ("--->", "Removing intermediate", "Successfully", "\N{BOX DRAWINGS HEAVY HORIZONTAL}")


class BuildLog:
    """Shows a build's output, without the steps that a cache answers."""

    def __init__(self) -> None:
        self._step: str | None = None

    def add(self, line: str) -> None:
        text = line.strip()
        if text.startswith("Step "):
            self._step = text
        elif text.startswith("---> Running in") and self._step is not None:
            note(f"  build: {self._step}")
        elif text and not text.startswith(_NOISE):
            note(f"  build: {text}")


class Counter(AbstractContextManager["Counter"]):
    """A bar for long work that says nothing else; only where there is a terminal."""

    def __init__(self, doing: str, total: int, *, in_bytes: bool = False) -> None:
        amount = DownloadColumn() if in_bytes else MofNCompleteColumn()
        self._bar = Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=30),
            amount,
            TimeElapsedColumn(),
            console=err,
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task(escape(doing), total=total)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def step(self, _what: str = "") -> None:
        self._bar.advance(self._task)

    def reach(self, amount: int) -> None:
        self._bar.update(self._task, completed=amount)


class RunView(Counter):
    """Live progress of one run: a bar where there is a terminal, a line a pair in any case."""

    def __init__(self, pairs: int) -> None:
        super().__init__("preparing", pairs)
        self._total = pairs

    def update(self, progress: RunProgress) -> None:
        match progress.step:
            case Step.WARMING:
                self._say("reading the inputs once, so that every pair starts from a warm cache")
            case Step.COOLING:
                self._say("dropping the inputs from the page cache, so that each is read anew")
            case Step.STARTED:
                self._say("started")
                self._bar.update(self._task, description="registering")
            case Step.FIELD_WRITTEN:
                runtime = seconds(progress.runtime_s)
                self._say(f"{progress.done}/{self._total}  {progress.pair}  {runtime}")
                self.reach(progress.done)
            case Step.COLLECTING:
                self._say("collecting and checking the fields")
                self._bar.update(self._task, description="checking")

    def _say(self, text: str) -> None:
        with suppress(OSError):  # a terminal that is gone: no reason to lose a run
            self._bar.console.print(f"  {escape(text)}")
