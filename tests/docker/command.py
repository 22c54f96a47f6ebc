"""The ``harness`` command in a process of its own, as a user starts it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from harness.store import LOCAL_SUBMISSION, RunDirectory

if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping
    from types import TracebackType

    from harness.engine.base import Image

REPOSITORY = Path(__file__).parents[2]
_PATIENCE_S = 60.0


class Command:
    """``harness run IMAGE`` in ``folder``, where ``tiny.yaml`` and ``test/`` are."""

    def __init__(
        self,
        folder: Path,
        image: Image,
        *options: str,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = folder
        self._told = folder / f"told-{time.monotonic_ns()}"
        arguments = ["run", image.id, "--challenge", "tiny.yaml", "--engine", "docker", *options]
        with self._told.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "harness", *arguments],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY), **(environment or {})},
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    @property
    def told(self) -> str:
        """All that it has printed."""
        return self._told.read_bytes().decode("utf-8", "replace")

    def await_first_field(self) -> None:
        """Until it has told of one field."""
        until = time.monotonic() + _PATIENCE_S
        while "1/4" not in self.told:
            assert time.monotonic() < until, self.told
            assert self._process.poll() is None, self.told
            time.sleep(0.05)

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self, timeout_s: float = _PATIENCE_S) -> int:
        """Its exit code."""
        return self._process.wait(timeout_s)

    @staticmethod
    def runs(folder: Path) -> list[RunDirectory]:
        """The run directories in ``folder``, the oldest first."""
        return [RunDirectory(path) for path in sorted((folder / LOCAL_SUBMISSION).iterdir())]
