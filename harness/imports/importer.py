"""An uploaded file to an image that can be run: judged, loaded, verified, named."""

from __future__ import annotations

import os
import re
import shutil
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from harness.challenge.quantity import format_bytes
from harness.engine.base import Image
from harness.engine.image_facts import ImageFacts, facts_of_inspected
from harness.errors import EngineError, ImageMissing, ImportRejected
from harness.imports.judgement import listed, notes_on, problems_of
from harness.imports.layout import Contained, contained
from harness.imports.limits import ImageFileError, ImportLimits
from harness.imports.stream import rewritten
from harness.imports.survey import Survey, survey
from harness.text import harmless_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from harness.engine.image_load import Loaded

NAME_SPACE = "l2r-import"
_SHORT_ID = 12  # characters, as docker shows them
_MAX_SLUG = 60
_MAX_FINDINGS = 20
# Time for the engine: some for itself, and more for each byte, at the pace of a slow disk.
_LOAD_BASE_S, _LOAD_BYTES_PER_S = 600.0, 5e6
_HALF_LOADED_S = 5.0
# The engine unpacks the file, then its layers: twice the size, and room for whoever else writes.
_COPIES, _SPARE_BYTES = 2, 1 << 30
_ENDINGS = (".gz", ".zst", ".tgz", ".tar", ".zstd")
_NO_ROOM = re.compile("no space left|disk quota exceeded|input/output error|read-only file", re.I)


class ImageLoader(Protocol):
    """What of a container engine this needs."""

    @property
    def platform(self) -> str: ...

    @property
    def storage(self) -> Path | None: ...

    @property
    def stores_configurations(self) -> bool: ...

    def find(self, reference: str) -> Image: ...

    def image_facts(self, image: Image) -> ImageFacts: ...

    def image_ids(self) -> frozenset[str]: ...

    def load(self, chunks: Iterable[bytes], *, deadline_s: float) -> Loaded: ...

    def name_image(self, image_id: str, name: str) -> None: ...

    def remove_image(self, image_id: str, *, absent_for_s: float = 0.0) -> bool: ...


@dataclass(frozen=True, kw_only=True)
class Imported:
    """``was_here``: the same image was on this machine before, and nothing was loaded.

    ``file_bytes``: of the upload; ``notes``: for people, fit to be shown.
    """

    image: Image
    facts: ImageFacts
    compression: str
    file_bytes: int
    unpacked_bytes: int
    was_here: bool
    notes: tuple[str, ...]


def import_image(
    engine: ImageLoader,
    path: Path,
    limits: ImportLimits | None = None,
    on_progress: Callable[[int], None] = lambda _n_bytes: None,
) -> Imported:
    """Load the image in ``path``, unless something speaks against it.

    ``on_progress``: how many bytes of the file have been read; all of them are read twice. Raises
    ImportRejected for what the team must mend, ImageMissing when there is no such file, EngineError
    when the engine fails or has no room. Whatever is raised, nothing is left behind.
    """
    limits = limits or ImportLimits()
    with _opened(path) as file:
        file_bytes = os.fstat(file.fileno()).st_size
        if file_bytes > limits.file_bytes:
            raise _rejected(
                path,
                [
                    (
                        f"size: expected at most {format_bytes(limits.file_bytes)}, found "
                        f"{format_bytes(file_bytes)}; make it smaller, or raise --max-size"
                    )
                ],
            )
        _check_room(engine, file_bytes)
        found, inner, facts = _judge(engine, path, file, limits, on_progress)
        here = _here(engine, inner)
        if here is None:
            _check_room(engine, inner.size_bytes)
            here = _load(engine, path, file, inner, limits, on_progress)
            was_here = False
        else:
            was_here = True
    try:
        name = _name(engine, path, here)
    except BaseException:
        if not was_here:
            engine.remove_image(here)
        raise
    image = Image(id=here, reference=name)
    return Imported(
        image=image,
        facts=engine.image_facts(image),
        compression=found.compression,
        file_bytes=file_bytes,
        unpacked_bytes=found.unpacked_bytes,
        was_here=was_here,
        notes=tuple(_notes(facts, inner)),
    )


def require_runnable(facts: ImageFacts, platform: str, reference: str) -> None:
    """Raises ImportRejected for an image, already here, that cannot or must not be run."""
    if problems := problems_of(facts, platform):
        raise ImportRejected(f"image {harmless_line(reference, 200)}: cannot be run", problems)


def _judge(
    engine: ImageLoader,
    path: Path,
    file: BinaryIO,
    limits: ImportLimits,
    on_progress: Callable[[int], None],
) -> tuple[Survey, Contained, ImageFacts]:
    try:
        found = survey(file, limits, on_progress)
    except ImageFileError as error:
        raise _rejected(path, [str(error)]) from error
    except OSError as error:
        raise ImageMissing(f"{path}: cannot be read ({error.strerror})") from error
    inner, problems = contained(found, limits, engine.platform)
    if inner is None:
        raise _rejected(path, problems)
    facts = facts_of_inspected(_as_inspected(inner))
    problems += problems_of(facts, engine.platform)
    if problems:
        raise _rejected(path, problems)
    return found, inner, facts


def _as_inspected(image: Contained) -> dict[str, Any]:
    """The configuration in the shape in which an engine shows an image."""
    config = image.config
    defaults = config.config
    return {
        "Id": image.image_id,
        "Os": config.os,
        "Architecture": config.architecture,
        "Created": config.created,
        "Size": image.size_bytes,
        "Config": defaults.model_dump(by_alias=True) if defaults else {},
        "RootFS": {"Layers": config.rootfs.diff_ids},
    }


def _here(engine: ImageLoader, image: Contained) -> str | None:
    """The image's ID when it is on this machine already: an ID is a digest of all of it."""
    try:
        return engine.find(image.image_id).id
    except ImageMissing:
        return None


def _load(
    engine: ImageLoader,
    path: Path,
    file: BinaryIO,
    image: Contained,
    limits: ImportLimits,
    on_progress: Callable[[int], None],
) -> str:
    """The ID under which the engine has it now. Removes what it made of it if that is another."""
    before = engine.image_ids()
    named: str | None = None
    answered = done = False
    try:
        chunks = rewritten(file, image, limits, on_progress)
        deadline_s = _LOAD_BASE_S + image.size_bytes / _LOAD_BYTES_PER_S
        loaded = engine.load(chunks, deadline_s=deadline_s)
        named, answered = loaded.image_id, True
        if loaded.refusal is not None:
            raise _refused(path, loaded.refusal)
        image_id = named or image.image_id
        _verify(engine, image_id, image)
        done = True
    except ImageFileError as error:
        raise _rejected(path, [str(error)]) from error
    finally:
        if not done:
            for one in {named, image.image_id} - before - {None}:
                # An engine that we left in the middle may finish it regardless.
                engine.remove_image(str(one), absent_for_s=0.0 if answered else _HALF_LOADED_S)
    return image_id


def _verify(engine: ImageLoader, image_id: str, image: Contained) -> None:
    """Raises EngineError unless what was loaded is what was judged."""
    try:
        facts = engine.image_facts(Image(id=image_id, reference=image_id))
    except EngineError as error:
        raise EngineError(
            f"loading the image: the container engine says it is done, and has no image {image_id}"
        ) from error
    same_id = facts.id == image.image_id
    if not same_id and engine.stores_configurations:
        raise EngineError(
            f"loading the image: expected the ID {image.image_id}, found {facts.id}; it was removed"
        )
    told = facts_of_inspected(_as_inspected(image))
    for what in ("layers", "platform", "user", "entrypoint", "cmd", "environment", "labels"):
        if getattr(facts, what) != getattr(told, what):
            raise EngineError(
                f"loading the image: the container engine's {what} are not those of the file; it "
                "was removed"
            )


def _refused(path: Path, refusal: str) -> Exception:
    words = harmless_line(refusal, 300)
    if _NO_ROOM.search(refusal):
        return EngineError(
            f"loading the image: the container engine's disk failed: {words}; `docker system df` "
            "shows what takes it"
        )
    return _rejected(
        path, [f"loading: the container engine refuses it: {words}; does it load at home?"]
    )


def _name(engine: ImageLoader, path: Path, image_id: str) -> str:
    """Name it, so that nobody's prune takes it: by the file, and by its ID, so that none moves."""
    digest = image_id.removeprefix("sha256:")
    name = f"{NAME_SPACE}/{slug(path.name)}:{digest[:_SHORT_ID]}"
    try:
        if engine.find(name).id != image_id:  # another one begins like it
            name = f"{NAME_SPACE}/{slug(path.name)}:{digest}"
    except ImageMissing:
        pass
    engine.name_image(image_id, name)
    return name


def slug(file_name: str) -> str:
    """A file's name as part of an image's: lower case letters, digits and single dashes."""
    stem = file_name.lower()
    while stem.endswith(_ENDINGS):
        stem = stem.rpartition(".")[0]
    return re.sub("[^a-z0-9]+", "-", stem)[:_MAX_SLUG].strip("-") or "image"


def _notes(facts: ImageFacts, image: Contained) -> Iterator[str]:
    if image.tags:
        yield f"its own name {listed(image.tags)} was not taken over"
    if devices := sum(layer.devices for layer in image.layers):
        yield f"{devices} device nodes in its files: none can be opened in a container"
    yield from notes_on(facts)


def _check_room(engine: ImageLoader, size_bytes: int) -> None:
    """Nothing is written here, all by the engine. ``size_bytes``: at least so much is in it."""
    if engine.storage is None:
        return
    needed = _COPIES * size_bytes + _SPARE_BYTES
    free = shutil.disk_usage(engine.storage).free
    if free < needed:
        raise EngineError(
            f"the container engine's disk ({engine.storage}): expected {format_bytes(needed)} free "
            f"to load this image, found {format_bytes(free)}; `docker system df` shows what takes "
            "it, `docker image prune` removes images without a name"
        )


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Never waits: opening a FIFO would, for its writer."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise ImageMissing(
            f"{path}: expected the file of an image, as `docker save IMAGE -o FILE` makes it, "
            "found none; `harness run NAME` runs an image that is here already"
        ) from error
    except OSError as error:
        raise ImageMissing(f"{path}: cannot be read ({error.strerror})") from error
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise ImageMissing(
                f"{path}: expected the file of an image, found a folder; `harness run {path}` "
                "builds and runs one with a Dockerfile"
            )
        if not stat.S_ISREG(mode):
            raise ImageMissing(f"{path}: expected the file of an image, found no regular file")
        with open(descriptor, "rb", buffering=0, closefd=False) as file:
            yield file
    finally:
        os.close(descriptor)


def _rejected(path: Path, findings: list[str]) -> ImportRejected:
    found = list(dict.fromkeys(findings))
    shown = found[:_MAX_FINDINGS]
    if len(found) > len(shown):
        shown.append(f"and {len(found) - len(shown)} more")
    name = harmless_line(str(path), 200)
    return ImportRejected(f"{name}: this image cannot be imported; nothing was loaded", shown)
