"""Images as files, so that a worker can be sent them: those of the engine on the conductor's
machine, and folders that it builds."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from harness.campaign.obtain import obtain
from harness.campaign.upload import UploadKind
from harness.cluster.parcel import sha256_of
from harness.engine.base import UNLIMITED, BuildLimits, EngineName
from harness.engine.docker import DockerEngine
from harness.errors import EngineError, OptionError, OutputError
from harness.imports.limits import ImportLimits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from harness.campaign.order import JobOrder, Source


class Images:
    """``folder``: for the files made here, by the digest of what they were made from."""

    def __init__(
        self,
        folder: Path,
        *,
        limits: ImportLimits | None = None,
        base_image: str | None = None,
        build_limits: BuildLimits = UNLIMITED,
    ) -> None:
        self._folder = folder
        self._limits = limits or ImportLimits()
        self._base_image = base_image
        self._build_limits = build_limits
        self._one_at_a_time = threading.Lock()
        self._made: dict[str, Source] = {}

    def portable(self, order: JobOrder, tell: Callable[[str], None]) -> Source:
        """The upload as a file. Files stay what they are, and so does a folder for the process
        engine, which must be shared. Raises OptionError where it takes an engine and there is
        none, SubmissionError when a folder does not build."""
        source = order.source
        is_file = source.kind in {UploadKind.ARCHIVE, UploadKind.FIELDS}
        if is_file or order.conditions.engine is EngineName.PROCESS:
            return source
        with self._one_at_a_time:
            if source.sha256 not in self._made:
                self._made[source.sha256] = self._archive(order, tell)
            return self._made[source.sha256]

    def _archive(self, order: JobOrder, tell: Callable[[str], None]) -> Source:
        source = order.source
        path = self._folder / f"{source.sha256.removeprefix('sha256:')}.tar"
        if not path.is_file():
            engine = _engine(source)
            try:
                tell("building the image" if source.kind is UploadKind.FOLDER else "saving it")
                image = obtain(
                    engine,
                    source,
                    order.team,
                    self._limits,
                    base_image=self._base_image,
                    build_limits=self._build_limits,
                )
                tell("saving the image to a file")
                _save(engine.save(image), path)
            finally:
                engine.close()
        return source.model_copy(
            update={
                "kind": UploadKind.ARCHIVE,
                "sha256": sha256_of(path),
                "path": path.resolve(),
                "size_bytes": path.stat().st_size,
            }
        )


def _engine(source: Source) -> DockerEngine:
    try:
        return DockerEngine.connect()
    except EngineError as error:
        raise OptionError(
            f"{source.entry}: the workers are sent images as files, and to make one of this takes "
            f"a container engine on the conductor's machine ({error}); hand in what `docker save` "
            "or `harness export` wrote"
        ) from error


def _save(chunks: Iterable[bytes], path: Path) -> None:
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        part.unlink(missing_ok=True)
