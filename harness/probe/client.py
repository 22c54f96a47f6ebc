"""Starting the probe beside a submission, and ending it."""

from __future__ import annotations

import dataclasses
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol, Self

import harness
from harness.errors import EngineError, ProbeError
from harness.probe.trace import Header, Trace, parse_line, read_trace

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from harness.probe.spec import WatchSpec

PROBE_MODULE = "harness.probe"

_READY_TIMEOUT_S = 30.0
_END_TIMEOUT_S = 30.0
_GLANCE_S = 0.01
_COMPLAINT_CHARS = 300


class Program(Protocol):
    """A started ``python -m harness.probe``, wherever it runs: its standard streams and its end."""

    def start(self) -> None: ...

    def send(self, line: bytes) -> None: ...

    def read_line(self, timeout_s: float) -> bytes:
        """The next line of stdout; empty when it ended. Raises TimeoutError."""

    @property
    def complaint(self) -> str:
        """What it wrote to stderr; known once it has ended."""

    def end(self, timeout_s: float) -> int | None:
        """Close stdin and see the program gone, by force after ``timeout_s``; its exit code, -n for
        signal n. None when it does not run (any more)."""


class ChildProgram:
    """The probe as a child process on this machine."""

    # -P: a file in the working directory must not stand in for a module of the probe's.
    def __init__(self, command: Sequence[str] = (sys.executable, "-P", "-m", PROBE_MODULE)) -> None:
        self._command = list(command)
        self._process: subprocess.Popen[bytes] | None = None
        self.complaint = ""

    @property
    def pid(self) -> int:
        return self._running().pid

    def start(self) -> None:
        """Does nothing when it runs already: it may have been started ahead."""
        if self._process is not None:
            return
        pipe = subprocess.PIPE
        environment = {**os.environ, "PYTHONPATH": _search_path()}
        self._process = subprocess.Popen(
            self._command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment
        )

    def send(self, line: bytes) -> None:
        stdin = _pipe(self._running().stdin)
        stdin.write(line)
        stdin.flush()

    def read_line(self, timeout_s: float) -> bytes:
        stdout = _pipe(self._running().stdout)
        ready, _, _ = select.select([stdout], [], [], timeout_s)
        if not ready:
            raise TimeoutError
        return stdout.readline()

    def end(self, timeout_s: float) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        with process:  # closes the pipes
            try:
                _, stderr = process.communicate(timeout=timeout_s)
                self.complaint = stderr.decode(errors="replace").strip()
            except subprocess.TimeoutExpired:
                process.kill()
            return process.wait()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ProbeError("the witness does not run")
        return self._process


class Probe:
    """A running probe. On entering, it watches already; ``finish`` returns what it saw.

    Leaving it without ``finish`` ends the probe and keeps the trace as far as it got. ``trace`` is
    where this process reads the trace, when that is not where the probe writes it.
    """

    def __init__(
        self, spec: WatchSpec, program: Program | None = None, *, trace: Path | None = None
    ) -> None:
        self.spec = spec
        self._program = program or ChildProgram()
        self._trace = trace or spec.trace

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def start(self) -> None:
        """Returns once every event from now on will be seen. Raises ProbeError."""
        try:
            self._program.start()
            self.header = self._await_ready()
        except BaseException:
            self._end()
            raise

    def has_ended(self) -> bool:
        """Has it ended unasked? Then what it does not tell may have happened all the same."""
        try:
            return not self._program.read_line(_GLANCE_S)
        except TimeoutError:
            return False
        except EngineError:
            return True

    def finish(self) -> Trace:
        """End the watch and read the trace back."""
        problem = self._end()
        trace = read_trace(self._trace)
        if problem is None:
            return trace
        return dataclasses.replace(trace, lost=(*trace.lost, f"the witness: {problem}"))

    def _end(self) -> str | None:
        """What was wrong with the program's end. Does nothing when it has ended already."""
        try:
            exit_code = self._program.end(_END_TIMEOUT_S)
        except EngineError as error:
            return str(error)
        return _how_it_ended(exit_code, self._program.complaint)

    def _await_ready(self) -> Header:
        try:
            self._program.send(self.spec.to_line())
            line = self._program.read_line(_READY_TIMEOUT_S)
        except TimeoutError as error:
            raise ProbeError(
                f"the witness was not ready within {_READY_TIMEOUT_S:.0f} s"
            ) from error
        except BrokenPipeError:
            line = b""
        if not line:
            problem = self._end()
            raise ProbeError(
                "the witness of file accesses could not start: "
                f"{problem or 'it ended and gave no reason'}"
            )
        header = parse_line(line)
        if not isinstance(header, Header):
            raise ProbeError(f"expected the witness's header, found {line[:_COMPLAINT_CHARS]!r}")
        return header


def _how_it_ended(exit_code: int | None, complaint: str) -> str | None:
    """What was wrong with a program's end, None when nothing was."""
    if not exit_code:
        return None
    if exit_code < 0:
        return f"ended by {signal.Signals(-exit_code).name}"
    words = f": {complaint.splitlines()[-1][:_COMPLAINT_CHARS]}" if complaint else ""
    return f"ended with exit code {exit_code}{words}"


def _search_path() -> str:
    """Where the probe's own Python finds this package, however ours found it."""
    inherited = os.environ.get("PYTHONPATH")
    own = str(Path(harness.__file__).parents[1])
    return own if not inherited else os.pathsep.join((own, inherited))


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:  # Popen was asked for pipes
        raise ProbeError("the witness has no pipe")
    return stream
