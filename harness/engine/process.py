"""The engine that is none: the method folder's plugin in a child process.

The same layout, the same limits as far as a process can have them, no isolation. It serves machines
without a container engine, and it starts in a tenth of the time while a method is being written.
Memory and processes are sampled, so a quick peak can slip through, which a container's would not.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from harness.engine import handover
from harness.engine.base import UNLIMITED, BuildLimits, EngineInfo, EngineName, Image, Isolation
from harness.engine.child import ChildExecution
from harness.engine.home import sweep_homes
from harness.engine.process_tree import ProcessTree, run_marks
from harness.errors import BuildError, EngineError, ImageMissing, OptionError

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.engine.base import Helper, HelperSpec, RunSpec
    from harness.engine.owner import Owner

METHOD_FOLDER = "method"
METHOD_FILE = "method.py"
RUNNER = (sys.executable, "-P", "-m", "harness.runner")  # -P: not the working directory's modules


class ProcessEngine:
    """See :class:`harness.engine.base.Engine`. An image is a folder that holds ``method/``, or
    ``method.py`` itself; its reference is that folder, its ID a digest of the method's files.

    ``command`` replaces the reference runner (for tests).
    """

    def __init__(self, command: tuple[str, ...] = RUNNER) -> None:
        self._command = command

    @property
    def info(self) -> EngineInfo:
        return EngineInfo(
            name=EngineName.PROCESS,
            version=f"Python {platform.python_version()}",
            isolation="none: the method is a process of yours, with your rights and your network",
        )

    def cpus(self) -> tuple[int, ...]:
        return tuple(sorted(os.sched_getaffinity(0)))

    @property
    def storage(self) -> Path | None:
        return None

    def build(
        self,
        folder: Path,
        *,
        tag: str,  # noqa: ARG002 - nothing is kept under a name
        base_image: str | None = None,  # noqa: ARG002
        limits: BuildLimits = UNLIMITED,  # noqa: ARG002 - nothing is made
        on_output: Callable[[str], None] | None = None,  # noqa: ARG002
    ) -> Image:
        return Image(id=method_digest(_method_of(folder)), reference=str(folder.resolve()))

    def find(self, reference: str) -> Image:
        raise ImageMissing(
            f"no image {reference}: the process engine runs folders with a method and no images; "
            "those need Docker or Podman, and --engine docker"
        )

    def image_facts(self, image: Image) -> None:
        """There is no image."""

    def prepare(self, spec: RunSpec) -> ChildExecution:
        self.check_isolation(spec.isolation)
        folder = Path(spec.image.reference)
        if self.build(folder, tag=spec.image.reference).id != spec.image.id:
            raise EngineError(
                f"{_method_of(folder)} has changed since it was identified; start again"
            )
        return ChildExecution(spec, self._command, method=_method_of(folder))

    def why_no_gpus(self) -> str | None:
        return None

    def check_isolation(self, isolation: Isolation) -> None:
        given = ["--read-only-root"] if isolation.read_only_root else []
        if isolation.runtime is not None:
            given.append(f"--runtime {isolation.runtime}")
        if given:
            raise OptionError(
                f"{' and '.join(given)}: expected containers, and the process engine has none; use "
                "--engine docker, or leave it out"
            )

    def own_image(self) -> Image:
        raise ImageMissing("the process engine has no images, so none of the harness's own")

    def shares_our_kernel(self, find_image: Callable[[], Image]) -> bool:  # noqa: ARG002
        return True

    def helper(self, spec: HelperSpec) -> Helper:
        raise EngineError(f"{spec.name}: the process engine has no containers")

    def hand_over(self, folder: Path, find_image: Callable[[], Image]) -> None:  # noqa: ARG002
        if not handover.is_ours(folder):
            handover.make_ours(folder)

    def sweep(self) -> tuple[str, ...]:
        """End what is left of runs whose harness died; only their first process died with it."""
        orphans = {
            marks.run: process
            for process in psutil.process_iter()
            if (marks := run_marks(process)) is not None and marks.owner.is_dead()
        }
        for mark, process in orphans.items():
            with suppress(psutil.NoSuchProcess):  # it has ended by itself
                ProcessTree(process.pid, mark).end(grace_s=0.0)
        sweep_homes()
        return tuple(orphans)

    def left_of(self, owner: Owner) -> tuple[str, ...]:
        found = {
            marks.run
            for process in psutil.process_iter()
            if (marks := run_marks(process)) is not None and marks.owner == owner
        }
        return tuple(sorted(found))


def _method_of(folder: Path) -> Path:
    if (folder / METHOD_FOLDER).is_dir():
        return folder / METHOD_FOLDER
    if (folder / METHOD_FILE).is_file():
        return folder
    raise BuildError(
        f"{folder}: expected {METHOD_FOLDER}/{METHOD_FILE} in it, or {METHOD_FILE}, found neither; "
        "the process engine runs nothing else"
    )


def method_digest(folder: Path) -> str:
    """SHA-256 over the names and bytes of the files in ``folder``, compiled bytecode left out."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_dir() or "__pycache__" in path.parts:
            continue
        name = path.relative_to(folder).as_posix().encode()
        content = path.read_bytes() if path.is_file() else b""  # b"": a link that leads nowhere
        for part in (name, content):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
    return f"sha256:{digest.hexdigest()}"
