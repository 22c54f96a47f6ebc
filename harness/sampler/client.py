"""Starting the sampler beside a submission, and ending it.

Nothing that the driver does is the run's trouble: there are fewer samples then, or none, and a
reason.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

import harness
from harness.errors import ProbeError
from harness.sampler.records import Header, parse_line
from harness.sampler.samples import GpuSamples, read_samples
from harness.sampler.spec import own_to_line

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from harness.sampler.spec import Own, SampleSpec

SAMPLER_MODULE = "harness.sampler"

# Without persistence mode the driver sets up each GPU when its library is opened: 1 to 3 s for one.
_READY_TIMEOUT_S = 10.0
_END_TIMEOUT_S = 2.0  # a look takes milliseconds
_KILL_TIMEOUT_S = 2.0  # a process that waits inside the driver may not even die
_COMPLAINT_BYTES = 2000
_COMPLAINT_CHARS = 300


class Sampler:
    """A sampler as a child process. ``header`` once it has started; ``problem`` where it has not,
    or has ended unasked. :meth:`finish` returns what it saw; leaving without it ends it."""

    def __init__(
        self,
        spec: SampleSpec,
        *,
        environment: Mapping[str, str] | None = None,
        ready_timeout_s: float = _READY_TIMEOUT_S,
    ) -> None:
        """``environment``: of the child, beside this process's own."""
        self.spec = spec
        self.header: Header | None = None
        self.problem: str | None = None
        self._environment = {**os.environ, "PYTHONPATH": _search_path(), **(environment or {})}
        self._ready_timeout_s = ready_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._complaints: IO[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end(_END_TIMEOUT_S)

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self) -> bool:
        """Returns whether it looks at the GPUs from now on."""
        try:
            self._launch()
            self.header = self._await_ready()
        except (OSError, ProbeError) as error:
            how = self._end(0.0 if isinstance(error, TimeoutError) else _END_TIMEOUT_S)
            self.problem = self.problem or str(error) or how
        except BaseException:  # Ctrl-C
            self._end(0.0)
            raise
        return self.header is not None

    def own(self, own: Own) -> None:
        """Say whose processes are the submission's; of looks before that it is not known."""
        if self._process is None or self._process.stdin is None:
            return
        try:
            self._process.stdin.write(own_to_line(own))
            self._process.stdin.flush()
        except OSError:  # it has died: finish tells
            return

    def finish(self) -> GpuSamples:
        """End it and read the samples back."""
        if self.header is None:
            self._end(0.0)
            return GpuSamples(problem=self.problem or "the sampler was not started")
        self.problem = self._end(_END_TIMEOUT_S) or self.problem
        found = read_samples(self.spec.file)
        # How it ended says more than what that did to the file.
        return replace(found, problem=self.problem or found.problem)

    def _launch(self) -> None:
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - closed at the end
        self._process = subprocess.Popen(
            # -P: a file in the working directory must not stand in for a module of the sampler's.
            [sys.executable, "-P", "-m", SAMPLER_MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            env=self._environment,
        )

    def _await_ready(self) -> Header:
        if self._process is None or self._process.stdin is None or self._process.stdout is None:
            raise ProbeError("the sampler of GPUs has no pipe")
        stdout = self._process.stdout
        try:
            self._process.stdin.write(self.spec.to_line())
            self._process.stdin.flush()
            ready, _, _ = select.select([stdout], [], [], self._ready_timeout_s)
            if not ready:
                raise TimeoutError(
                    f"the sampler of GPUs was not ready within {self._ready_timeout_s:g} s; does "
                    "the driver answer `nvidia-smi`?"
                )
            line = stdout.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            how = self._end(_END_TIMEOUT_S) or "it ended and gave no reason"
            raise ProbeError(f"the sampler of GPUs could not start: {how}")
        header = parse_line(line)
        if not isinstance(header, Header):
            raise ProbeError(f"expected the samples' header, found {line[:_COMPLAINT_CHARS]!r}")
        return header

    def _end(self, timeout_s: float) -> str | None:
        """What was wrong with its end. Does nothing when it has ended already."""
        process, self._process = self._process, None
        complaints, self._complaints = self._complaints, None
        try:
            return None if process is None else _see_it_gone(process, complaints, timeout_s)
        finally:
            if complaints is not None:
                complaints.close()


def _see_it_gone(
    process: subprocess.Popen[bytes], complaints: IO[bytes] | None, timeout_s: float
) -> str | None:
    try:
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                _close(pipe)
        return _how_it_ended(process.wait(timeout_s), complaints)
    except subprocess.TimeoutExpired:
        process.kill()
    except BaseException:  # Ctrl-C
        process.kill()
        raise
    try:
        process.wait(_KILL_TIMEOUT_S)
    except subprocess.TimeoutExpired:  # it hangs in the driver, and is left to it
        threading.Thread(target=process.wait, name="reap the sampler", daemon=True).start()
        return f"the sampler hung and could not be ended (process {process.pid})"
    return "the sampler hung and was ended"


def _how_it_ended(code: int, complaints: IO[bytes] | None) -> str | None:
    if not code:
        return None
    if code < 0:
        return f"the sampler was ended by {signal.Signals(-code).name}"
    words = _last_words(complaints) if complaints is not None else ""
    return words or f"the sampler ended with exit code {code}"


def _last_words(complaints: IO[bytes]) -> str:
    complaints.seek(max(complaints.seek(0, os.SEEK_END) - _COMPLAINT_BYTES, 0))
    lines = complaints.read().decode(errors="replace").strip().splitlines()
    return lines[-1][:_COMPLAINT_CHARS] if lines else ""


def _close(pipe: IO[bytes]) -> None:
    try:
        pipe.close()
    except OSError:  # what was not sent yet has nobody who reads it
        return


def _search_path() -> str:
    """Where the sampler's own Python finds this package, however ours found it."""
    inherited = os.environ.get("PYTHONPATH")
    own = str(Path(harness.__file__).parents[1])
    return own if not inherited else os.pathsep.join((own, inherited))
