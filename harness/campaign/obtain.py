"""From an upload to an image that can be run, by a name that never means another."""

from __future__ import annotations

import hashlib
import os
import re
from typing import TYPE_CHECKING, assert_never

from harness.campaign.bases import check_bases
from harness.campaign.tree import Stamp
from harness.campaign.upload import CALIBRATION, UploadKind
from harness.engine.base import UNLIMITED, BuildLimits, Image
from harness.engine.docker import DockerEngine
from harness.errors import BuildError, CampaignError, ImageMissing, OptionError, SubmissionError
from harness.imports.importer import import_image, require_runnable
from harness.text import harmless_lines

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.campaign.order import Source
    from harness.engine.base import Engine
    from harness.imports.limits import ImportLimits

    # Of a folder's files; None when they change while they are read.
    FolderDigest = Callable[[Path], str | None]

NAME_SPACE = "l2r-campaign"
_SHORT_DIGEST = 12  # characters, as docker shows them
_TAIL_LINES = 40
_MAX_LINE_CHARACTERS = 500


class BuildTail:
    """The last lines that a build printed, made harmless."""

    def __init__(self) -> None:
        self.lines: tuple[str, ...] = ()

    def add(self, text: str) -> None:
        new = harmless_lines(text, _MAX_LINE_CHARACTERS)
        self.lines = (*self.lines, *new)[-_TAIL_LINES:]


def obtain(
    engine: Engine,
    source: Source,
    team: str,
    limits: ImportLimits,
    *,
    base_image: str | None = None,
    build_limits: BuildLimits = UNLIMITED,
    folder_digest: FolderDigest | None = None,
    on_output: Callable[[str], None] = lambda _: None,
) -> Image:
    """The image, imported, found or built. Heavy work.

    Raises SubmissionError for what the team must mend, CampaignError for an upload that is not any
    more what it was when it was taken up, MachineError for what the engine cannot do.
    """
    match source.kind:
        case UploadKind.ARCHIVE:
            image = _imported(engine, source, limits)
        case UploadKind.IMAGE:
            image = _found(engine, source)
        case UploadKind.FOLDER:
            tag = f"{NAME_SPACE}/{_slug(team)}:{_short(source.sha256)}"
            if team != CALIBRATION:
                check_bases(path_of(source), base_image)
            try:
                image = engine.build(
                    path_of(source),
                    tag=tag,
                    base_image=base_image,
                    limits=build_limits,
                    on_output=on_output,
                )
            except BuildError:
                _check_folder(source, folder_digest)  # half replaced, it is nobody's fault
                raise
            _check_folder(source, folder_digest)
        case UploadKind.FIELDS:
            raise ValueError(f"{source.entry}: fields are not run")
        case _:
            assert_never(source.kind)
    if isinstance(engine, DockerEngine):
        require_runnable(engine.image_facts(image), engine.platform, source.entry)
    return image


def path_of(source: Source) -> Path:
    """Raises CampaignError where the order says none."""
    if source.path is None:
        raise CampaignError(f"{source.entry}: expected the place of the upload, found none")
    return source.path


def check_unchanged(source: Source) -> Stamp:
    """A file is still the one that was taken up; for :func:`check_untouched` when it was read once
    more. Raises CampaignError, ImageMissing."""
    path = path_of(source)
    try:
        # Never waits for the writer of a pipe that was put in its place.
        opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(opened, "rb") as file:
            stamp = Stamp.of(os.fstat(file.fileno()))
            found = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        raise ImageMissing(f"{path}: cannot be read ({error.strerror})") from error
    if found != source.sha256:
        raise _changed(source, found)
    return stamp


def check_untouched(source: Source, stamp: Stamp) -> None:
    """It was that file until now, also where it is that file again. Raises CampaignError,
    ImageMissing."""
    path = path_of(source)
    try:
        found = Stamp.of(path.stat())
    except OSError as error:
        raise ImageMissing(f"{path}: cannot be read ({error.strerror})") from error
    if found != stamp:
        raise _changed(source, None)


def _check_folder(source: Source, folder_digest: FolderDigest | None) -> None:
    """Also while it was built, where the digest of what was taken up is of its files."""
    if folder_digest is None:
        return
    path = path_of(source)
    try:
        found = folder_digest(path)
    except OSError as error:
        raise ImageMissing(f"{path}: cannot be read ({error.strerror})") from error
    if found != source.sha256:
        raise _changed(source, found)


def _changed(source: Source, found: str | None) -> CampaignError:
    other = "" if found is None else f" ({_short(found)})"
    return CampaignError(
        f"{source.path}: expected what was taken up ({_short(source.sha256)}), found another "
        f"content{other}; it is taken up as a new upload when it is complete"
    )


def _imported(engine: Engine, source: Source, limits: ImportLimits) -> Image:
    if not isinstance(engine, DockerEngine):
        raise OptionError(
            f"{source.entry}: an image's file needs Docker or Podman, and --engine docker"
        )
    stamp = check_unchanged(source)
    try:
        image = import_image(engine, path_of(source), limits).image
    except SubmissionError:
        check_untouched(source, stamp)  # half replaced, it is nobody's fault
        raise
    check_untouched(source, stamp)
    return image


def _found(engine: Engine, source: Source) -> Image:
    """By its ID: what its name means may have changed since it was taken up."""
    reference = source.reference or source.entry
    found = engine.find(source.sha256)
    return Image(id=found.id, reference=reference)


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:_SHORT_DIGEST]


def _slug(team: str) -> str:
    """As part of an image's name, which allows fewer letters than a team's."""
    return re.sub("[^a-z0-9]+", "-", team).strip("-") or "team"
