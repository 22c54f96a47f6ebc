"""One run of a method folder in a child process: its environment, its life, its end."""

from __future__ import annotations

import dataclasses
import os
import select
import shutil
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

import harness
from harness.challenge.quantity import format_bytes
from harness.engine import leash
from harness.engine.base import ExitState, ScratchUse, Usage
from harness.engine.disk import deleted_bytes, tree_bytes
from harness.engine.home import make_home
from harness.engine.log import CappedLog, LogPump
from harness.engine.owner import Owner
from harness.engine.process_tree import OWNER_MARK, RUN_MARK, ProcessTree
from harness.errors import EngineError
from harness.sampler.spec import OwnTree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from harness.engine.base import RunSpec

_SAMPLE_S = 0.25  # between two looks at memory and processes: one costs a millisecond or two
_POLL_S = 0.02
_LOG_DRAIN_S = 5.0
_CHUNK_BYTES = 64 * 1024

# What a method may need to know of this machine; all else of the environment stays outside.
_PASSED_ON = (
    "PATH",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "CUDA_HOME",
    "CUDA_VISIBLE_DEVICES",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
)


def child_environment(spec: RunSpec, *, method: Path, home: Path, mark: str) -> dict[str, str]:
    """The whole environment of the method's process. Where a container has its mounts, a process is
    told the folders of the host: of several of data that which holds the others."""
    data = [mount.source for mount in spec.mounts if mount.read_only and mount.source.is_dir()]
    data.sort(key=lambda folder: len(folder.parts))
    output = [mount.source for mount in spec.mounts if not mount.read_only]
    if not data or not output:
        raise EngineError(f"{spec.name}: a run needs a data folder and an output folder")
    return {
        "LANG": "C.UTF-8",
        **{name: os.environ[name] for name in _PASSED_ON if name in os.environ},
        "HOME": str(home),
        "TMPDIR": str(home),
        "PYTHONPATH": str(Path(harness.__file__).parents[1]),
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        **spec.environment,
        **({} if spec.gpus is None else {"CUDA_VISIBLE_DEVICES": ",".join(spec.gpus)}),
        "HARNESS_DATA_DIR": str(data[0]),
        "HARNESS_OUTPUT_DIR": str(output[0]),
        "HARNESS_METHOD_DIR": str(method),
        RUN_MARK: mark,
        OWNER_MARK: Owner.current().text,
    }


@dataclass(frozen=True, kw_only=True)
class _BrokenLimit:
    what: str
    is_memory: bool


class ChildExecution:
    """See :class:`harness.engine.base.Execution`. Limits are only looked after while it is waited
    for; the home and temporary folder of the child is removed at the end."""

    def __init__(self, spec: RunSpec, command: tuple[str, ...], *, method: Path) -> None:
        self._spec = spec
        self._command = (*command, *spec.arguments)
        self._method = method
        self._mark = f"{spec.name}-{uuid.uuid4().hex[:8]}"
        self._home: Path | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._tree: ProcessTree | None = None
        self._pump: LogPump | None = None
        self._state: ExitState | None = None
        self._next_sample_s = 0.0
        self._usage = Usage()

    def __enter__(self) -> Self:
        self._home = make_home()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._clean_up()
        except KeyboardInterrupt:  # a second Ctrl-C must not leave anything running
            self._clean_up()
            raise

    def start(self) -> None:
        if self._home is None:
            raise EngineError(f"{self._spec.name}: start was called outside its with block")
        environment = child_environment(
            self._spec, method=self._method, home=self._home, mark=self._mark
        )
        cpuset = self._spec.cpuset
        log = CappedLog(self._spec.log_path, self._spec.limits.log_bytes)
        try:
            self._child = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", leash.__file__, str(os.getpid())),
                    leash.ALL_CPUS if cpuset is None else ",".join(map(str, cpuset)),
                    *self._command,
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=self._home,
                env=environment,
                start_new_session=True,
            )
            self._tree = ProcessTree(self._child.pid, self._mark)
            output = _Output(self._child.stdout)
            self._pump = LogPump(output, log, output.close)
        finally:
            if self._pump is None:
                log.close()

    def wait(self, timeout_s: float) -> ExitState | None:
        if self._tree is None:
            raise EngineError(f"{self._spec.name}: wait was called before start")
        deadline_s = time.monotonic() + timeout_s
        while self._state is None:
            if self._tree.has_ended():
                self._state = self._end()
            elif broken := self._broken_limit(self._tree):
                self._state = self._end(broken=broken)
            elif (left_s := deadline_s - time.monotonic()) <= 0:
                return None
            else:
                time.sleep(min(_POLL_S, left_s))
        return self._state

    def stop(self, grace_s: float = 5.0) -> ExitState:
        if self._state is None:
            self._state = self._end(grace_s=grace_s)
        return self._state

    def usage(self) -> Usage:
        """Memory as the looks at its limit find it, a quick peak may be missed. Refused processes
        there are none: one too many ends the run."""
        if self._tree is not None and self._state is None:
            cpu_s = max(self._tree.cpu_seconds(), self._usage.cpu_s or 0.0)
            self._usage = dataclasses.replace(self._usage, cpu_s=cpu_s)
        printed_bytes = None if self._pump is None else self._pump.total_bytes
        return dataclasses.replace(self._usage, printed_bytes=printed_bytes)

    def scratch(self) -> ScratchUse | None:
        """In its home, which is its folder for temporary files; elsewhere it writes as anybody."""
        if self._home is None or self._tree is None or self._state is not None:
            return None
        written = tree_bytes([self._home])
        if written is None:
            return None
        deleted = deleted_bytes(process.pid for process in self._tree.members())
        return ScratchUse(used_bytes=written + (deleted or 0), deleted_bytes=deleted)

    def own(self) -> OwnTree | None:
        if self._child is None:
            return None
        return OwnTree(root=self._child.pid, mark=f"{RUN_MARK}={self._mark}")

    def is_alone(self) -> bool:
        return False  # nobody knows who else runs one

    def _end(self, *, grace_s: float = 0.0, broken: _BrokenLimit | None = None) -> ExitState:
        """End what is left of the run and say how it ended.

        What outlives the first process is ended too, as it would be in a container.
        """
        if self._child is None or self._tree is None:  # never started
            return ExitState(exit_code=None, out_of_memory=False)
        if not self._tree.end(grace_s):
            raise EngineError(
                f"processes of {self._spec.name} cannot be ended; is a device or a network disk "
                f"hanging? Look at `ps -ef --forest` below {self._child.pid}"
            )
        code = self._child.wait()
        if self._pump is not None:
            self._pump.finish(_LOG_DRAIN_S, last_words=broken.what if broken else "")
        return ExitState(
            exit_code=128 - code if code < 0 else code,
            out_of_memory=broken is not None and broken.is_memory,
        )

    def _broken_limit(self, tree: ProcessTree) -> _BrokenLimit | None:
        if time.monotonic() < self._next_sample_s:
            return None
        use, limits = tree.sample(), self._spec.limits
        self._next_sample_s = time.monotonic() + _SAMPLE_S
        peak_bytes = max(use.memory_bytes, self._usage.memory_peak_bytes or 0)
        self._usage = dataclasses.replace(self._usage, memory_peak_bytes=peak_bytes)
        if use.memory_bytes > limits.memory_bytes:
            return _BrokenLimit(
                what=f"ended for using {format_bytes(use.memory_bytes)} of memory; the limit is "
                f"{format_bytes(limits.memory_bytes)}",
                is_memory=True,
            )
        if use.processes > limits.processes:
            return _BrokenLimit(
                what=f"ended for its {use.processes} processes and threads; the limit is "
                f"{limits.processes}",
                is_memory=False,
            )
        return None

    def _clean_up(self) -> None:
        try:
            if self._state is None:
                self._state = self._end()
        finally:
            if self._home is not None:
                shutil.rmtree(self._home, ignore_errors=True)


class _Output:
    """What comes out of a pipe, in chunks, until all its writers are gone or it is closed."""

    def __init__(self, pipe: IO[bytes] | None) -> None:
        if pipe is None:
            raise EngineError("the child process has no output pipe")
        self._pipe = pipe
        self._closed = False

    def close(self) -> None:
        """Asks only: a thread that reads a pipe is not woken when the pipe is closed under it."""
        self._closed = True

    def __iter__(self) -> Iterator[bytes]:
        with self._pipe:
            while not self._closed:
                if select.select([self._pipe], [], [], 0.2)[0]:
                    chunk = os.read(self._pipe.fileno(), _CHUNK_BYTES)
                    if not chunk:
                        return
                    yield chunk
