"""What every engine can do: build or find an image, and run it once under limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from types import TracebackType

    from harness.challenge.model import Limits
    from harness.engine.image_facts import ImageFacts
    from harness.engine.owner import Owner
    from harness.sampler.spec import Own


NVIDIA_RUNTIME = "nvidia"  # the engine's name of what hands out GPUs


class EngineName(StrEnum):
    DOCKER = "docker"
    PROCESS = "process"


@dataclass(frozen=True, kw_only=True)
class Image:
    """Something an engine can run. ``id`` never means another content later; ``reference`` is what
    the user called it."""

    id: str
    reference: str


@dataclass(frozen=True, kw_only=True)
class BuildLimits:
    """What building one image may take; None: as much as it likes. ``time_s``: in all, and from its
    last line as long again where it prints nothing. ``memory_bytes``: each of its steps."""

    time_s: float | None = None
    memory_bytes: int | None = None


UNLIMITED = BuildLimits()


@dataclass(frozen=True, kw_only=True)
class BindMount:
    """A host folder or file shown to the submission at ``target``.

    ``only``: names of files and folders in the source, which alone are shown, in a folder in which
    nothing else can be made; None for all that it holds. A mount in part is read-only.
    """

    source: Path
    target: str
    read_only: bool
    only: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Isolation:
    """What the organiser may choose of how a submission is shut in; the rest is fixed.

    ``read_only_root``: of its container it may write only the output folder and ``/tmp``.
    ``runtime``: the engine's name of another container runtime (``runsc`` for gVisor, ``nvidia``);
    None for the engine's own.
    """

    read_only_root: bool = False
    runtime: str | None = None


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One execution: everything an engine must know, and nothing a submission may change.

    ``log_path`` receives stdout and stderr, at most ``limits.log_bytes`` of them. ``cpuset``: the
    only CPUs it may run on; None for all. ``gpus``: UUIDs of the GPUs that it gets, () for none;
    None for what the engine gives without being asked.
    """

    image: Image
    name: str
    mounts: tuple[BindMount, ...]
    limits: Limits
    log_path: Path
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    cpuset: tuple[int, ...] | None = None
    isolation: Isolation = field(default_factory=Isolation)
    gpus: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class HelperSpec:
    """A program of the harness's own in a container. ``command`` replaces the image's entry point;
    with ``realtime`` it may ask for real-time scheduling, where the engine can grant that."""

    image: Image
    name: str
    command: tuple[str, ...]
    mounts: tuple[BindMount, ...] = ()
    realtime: bool = False


@dataclass(frozen=True, kw_only=True)
class ExitState:
    """How the submission ended. ``exit_code`` is None when it vanished; 128 + n for signal n.

    ``out_of_memory`` is also true when only a child of the main process was killed for memory.
    """

    exit_code: int | None
    out_of_memory: bool


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a submission has used so far; None for what cannot be told.

    ``cpu_s``: CPU time. ``memory_peak_bytes``: the most memory at once. ``memory_kills``: processes
    that were killed for memory, for their limit of it or because the machine had none left;
    ``memory_limit_hits``: how often it came to that limit, which not every kernel counts although
    it says zero; seen, as the peak, no earlier than the kills.
    ``refused_processes``: how often its limit of processes held. ``printed_bytes``: all that it
    printed, kept in the log or not. ``open_files``: how many a process of it may have open.
    """

    cpu_s: float | None = None
    memory_peak_bytes: int | None = None
    memory_kills: int | None = None
    memory_limit_hits: int | None = None
    refused_processes: int | None = None
    printed_bytes: int | None = None
    open_files: int | None = None


@dataclass(frozen=True, kw_only=True)
class ScratchUse:
    """What a submission keeps on the machine's disk outside of its output folder.

    ``deleted_bytes`` of ``used_bytes`` are in files that have no name any more; None where this
    user may not look for such files, which ``used_bytes`` then lacks.
    """

    used_bytes: int
    deleted_bytes: int | None


class Execution(Protocol):
    """One run of an image. A context manager: leaving it removes everything that was started."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def start(self) -> None:
        """Start the submission; everything slow (creating it) was done on entering."""

    def wait(self, timeout_s: float) -> ExitState | None:
        """How it ended, or None when it still runs after ``timeout_s``."""

    def stop(self, grace_s: float = 5.0) -> ExitState:
        """Ask, then kill after ``grace_s``; returns once it is gone."""

    def usage(self) -> Usage:
        """What it has used so far: microseconds a look. Of one that has ended, what was last seen
        of it."""

    def scratch(self) -> ScratchUse | None:
        """What it wrote outside of its output folder; may take seconds. None when it cannot be
        told. Of one that has ended, what has a name and is there until it is removed."""

    def own(self) -> Own | None:
        """How its processes are told from others; None when it has not been started."""

    def is_alone(self) -> bool:
        """Is it certain that this engine keeps nothing of another submission that runs?"""


class Helper(Protocol):
    """A helper's streams and its end. Everything raises EngineError when the engine fails."""

    def start(self) -> None: ...

    def send(self, line: bytes) -> None: ...

    def read_line(self, timeout_s: float) -> bytes:
        """The next line of stdout; empty when it ended. Raises TimeoutError."""

    @property
    def complaint(self) -> str:
        """The end of what it wrote to stderr before its stdout ended."""

    def end(self, timeout_s: float) -> int | None:
        """Close stdin and see it gone, by force after ``timeout_s``; its exit code, -n for signal
        n. None when it did not run (any more)."""


@dataclass(frozen=True, kw_only=True)
class EngineInfo:
    """What is recorded of an engine with each run. ``isolation`` is a line for people."""

    name: EngineName
    version: str
    isolation: str


class Engine(Protocol):
    @property
    def info(self) -> EngineInfo: ...

    @property
    def storage(self) -> Path | None:
        """The folder that holds images and what containers write; None when there is none, or not
        on this machine."""

    def cpus(self) -> tuple[int, ...]:
        """Numbers of the CPUs that a run can have."""

    def build(
        self,
        folder: Path,
        *,
        tag: str,
        base_image: str | None = None,
        limits: BuildLimits = UNLIMITED,
        on_output: Callable[[str], None] | None = None,
    ) -> Image:
        """The image that ``folder`` (a Dockerfile's folder) makes.

        Raises BuildError when the team's build fails, BaseImageUnavailable when its base cannot be
        had, EngineError when the engine fails.
        """

    def find(self, reference: str) -> Image:
        """An image that is already here. Raises ImageMissing."""

    def image_facts(self, image: Image) -> ImageFacts | None:
        """What the image says of itself; None for an engine without images."""

    def prepare(self, spec: RunSpec) -> Execution: ...

    def why_no_gpus(self) -> str | None:
        """None when it can give a run GPUs of this machine, else what is missing."""

    def check_isolation(self, isolation: Isolation) -> None:
        """Raises OptionError for what this engine cannot do; costs nothing, so ask it first."""

    def own_image(self) -> Image:
        """An image of the harness's own, with its probe and a shell and nothing of any submission,
        made if it is not there. Raises ImageMissing when it cannot be."""

    def shares_our_kernel(self, find_image: Callable[[], Image]) -> bool:
        """Can what containers do to files be seen from here? In doubt a container of the image,
        any with Python, is asked for its kernel's boot ID."""

    def helper(self, spec: HelperSpec) -> Helper: ...

    def hand_over(self, folder: Path, find_image: Callable[[], Image]) -> None:
        """Make all in an output folder whose submission is gone this user's own: to read, to enter,
        to delete, and nothing in it with more rights than who runs it.

        Where that takes more than this user's rights, a container of an image that is *not* the
        submission's does it. Raises EngineError when it cannot be done; the folder is as it was.
        """

    def sweep(self) -> tuple[str, ...]:
        """Remove what dead harnesses left behind (only ours); returns the names removed."""

    def left_of(self, owner: Owner) -> tuple[str, ...]:
        """Names of what a harness process has started and is still there."""
