"""Starting the probe beside a submission, and ending it."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

import harness
from harness.errors import ProbeError
from harness.probe.trace import Header, Trace, read_trace

if TYPE_CHECKING:
    from types import TracebackType

    from harness.probe.watch import WatchSpec

_READY_TIMEOUT_S = 30.0
_END_TIMEOUT_S = 30.0


class Probe:
    """A running probe. On entering, it watches already; ``finish`` returns what it saw.

    Leaving it without ``finish`` ends the probe and keeps the trace as far as it got.
    """

    def __init__(self, spec: WatchSpec) -> None:
        self._spec = spec
        self._process: subprocess.Popen[bytes] | None = None

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
        self._process = subprocess.Popen(
            # -P: else modules would first be looked for in the current folder, which may be a
            # team's, with a json.py of its own.
            [sys.executable, "-P", "-m", "harness.probe"],
            env={**os.environ, "PYTHONPATH": _search_path()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            self.header = self._await_ready(self._process)
        except BaseException:
            self._end()
            raise

    @property
    def pid(self) -> int:
        """Process ID of the running probe."""
        if self._process is None:
            raise ProbeError("the witness does not run")
        return self._process.pid

    def finish(self) -> Trace:
        """End the watch and read the trace back."""
        self._end()
        return read_trace(self._spec.trace)

    def _await_ready(self, process: subprocess.Popen[bytes]) -> Header:
        stdin, stdout = _pipe(process.stdin), _pipe(process.stdout)
        stdin.write(self._spec.model_dump_json().encode() + b"\n")
        stdin.flush()
        ready, _, _ = select.select([stdout], [], [], _READY_TIMEOUT_S)
        if not ready:
            raise ProbeError(f"the witness was not ready within {_READY_TIMEOUT_S:.0f} s")
        line = stdout.readline()
        if not line:
            reason = _pipe(process.stderr).read().decode(errors="replace").strip()
            raise ProbeError(
                "the witness of file accesses could not start: "
                f"{reason.splitlines()[-1] if reason else 'it gave no reason'}"
            )
        return Header.model_validate_json(line)

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def _search_path() -> str:
    """Where the probe's own Python finds this package, however ours found it."""
    inherited = os.environ.get("PYTHONPATH")
    own = str(Path(harness.__file__).parents[1])
    return own if not inherited else os.pathsep.join((own, inherited))


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:  # Popen was asked for pipes
        raise ProbeError("the witness has no pipe")
    return stream
