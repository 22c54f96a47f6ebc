"""An image as a file to upload, and beside it what is known of it: its certificate."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO, Literal, Protocol

from pydantic import BaseModel, ConfigDict

from harness import __version__
from harness.challenge.field_file import FieldState
from harness.challenge.model import Limits
from harness.challenge.quantity import format_bytes
from harness.errors import EngineError, OutputError
from harness.machine.contamination import MachineVerdict
from harness.machine.fingerprint import Fingerprint
from harness.store import LOCAL_SUBMISSION, RunDirectory, RunStatus, WitnessRecord
from harness.timing import Flag

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from harness.engine.base import Image
    from harness.store import RunRecord

_GZIP_LEVEL = 3  # layers of programs: a twentieth larger than at 6, in half the time


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CertifiedPair(_Model):
    """``runtime_s``: of a valid field, by a witness that missed nothing; else None."""

    key: str
    field_state: FieldState
    runtime_s: float | None
    flags: tuple[Flag, ...]


class Certificate(_Model):
    """The dry run that the image had on the team's machine: what was run, under which limits, how
    long each pair took, and on what."""

    run_id: str
    created: str
    harness_version: str
    challenge: str
    challenge_digest: str
    limits: Limits
    status: RunStatus
    reason: str
    witness: WitnessRecord
    machine: Fingerprint
    machine_digest: str
    machine_verdict: MachineVerdict | None
    pairs: tuple[CertifiedPair, ...]


class ExportManifest(_Model):
    """Stands beside the file, with ``.json`` for its ``.tar.gz``. Sizes in bytes.

    ``file_sha256`` is of the compressed file, ``tar_sha256`` of what it inflates to.
    ``certificate`` is None for an image that had no dry run here.
    """

    schema_version: Literal[1] = 1
    harness_version: str
    created: str
    image_reference: str
    image_id: str
    image_size_bytes: int
    file: str
    file_size_bytes: int
    file_sha256: str
    tar_size_bytes: int
    tar_sha256: str
    certificate: Certificate | None


class ImageSaver(Protocol):
    """What of a container engine this needs."""

    def find(self, reference: str) -> Image: ...

    def size_bytes(self, image: Image) -> int: ...

    def save(self, image: Image) -> Iterable[bytes]:
        """``docker save``: the image under its name, as the chunks of a tar file."""


def export_image(
    engine: ImageSaver,
    image: Image,
    target: Path,
    *,
    certificate: Certificate | None,
    on_progress: Callable[[int], None] = lambda _: None,
) -> ExportManifest:
    """Write ``docker save | gzip`` of the image to ``target`` and the manifest beside it.

    ``on_progress`` gets the bytes of the tar file so far. Both files appear only when whole. Raises
    OutputError for a full disk, before anything is written where that can be told.
    """
    size_bytes = engine.size_bytes(image)
    free_bytes = shutil.disk_usage(target.parent).free
    if free_bytes < size_bytes // 2:  # images mostly compress to less than half
        raise OutputError(
            f"{target}: the image has {format_bytes(size_bytes)}, and {format_bytes(free_bytes)} "
            "are free; choose another folder with --output"
        )
    part = target.with_name(f".{target.name}.part")
    try:
        with part.open("wb") as file:
            tar_size_bytes, tar_sha256 = _compress(engine.save(image), file, on_progress)
            file.flush()
            os.fsync(file.fileno())
        if engine.find(image.reference).id != image.id:
            raise EngineError(
                f"image {image.reference} was replaced while it was exported; try again"
            )
        manifest = ExportManifest(
            harness_version=__version__,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            image_reference=image.reference,
            image_id=image.id,
            image_size_bytes=size_bytes,
            file=target.name,
            file_size_bytes=part.stat().st_size,
            file_sha256=_digest(part),
            tar_size_bytes=tar_size_bytes,
            tar_sha256=tar_sha256,
            certificate=certificate,
        )
        manifest_path(target).write_text(manifest.model_dump_json(indent=1, by_alias=True) + "\n")
        part.replace(target)
    except OSError as error:
        raise OutputError(f"{target}: cannot be written ({error.strerror})") from error
    finally:
        part.unlink(missing_ok=True)
    return manifest


def manifest_path(target: Path) -> Path:
    return target.with_name(target.name.removesuffix(".gz").removesuffix(".tar") + ".json")


def latest_run_of(image: Image, runs_dir: Path) -> RunRecord | None:
    """The newest finished dry run of exactly this image; one that succeeded before all others."""
    records = [record for record in _records(runs_dir) if record.image_id == image.id]
    records.sort(key=lambda record: (record.status is RunStatus.SUCCEEDED, record.created))
    return records[-1] if records else None


def certify(record: RunRecord) -> Certificate:
    return Certificate(
        run_id=record.run_id,
        created=record.created,
        harness_version=record.harness_version,
        challenge=record.challenge,
        challenge_digest=record.challenge_digest,
        limits=record.limits,
        status=record.status,
        reason=record.reason,
        witness=record.witness,
        machine=record.machine,
        machine_digest=record.machine_digest,
        machine_verdict=record.contamination.verdict,
        pairs=tuple(
            CertifiedPair(
                key=pair.key,
                field_state=pair.field_state,
                runtime_s=record.ranked_runtime_s(pair),
                flags=pair.flags,
            )
            for pair in record.pairs
        ),
    )


def _records(runs_dir: Path) -> Iterator[RunRecord]:
    folder = runs_dir / LOCAL_SUBMISSION
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        try:
            yield RunDirectory(path).read_record()
        except OutputError:  # a run that did not end, or of another version of the harness
            continue


def _compress(
    chunks: Iterable[bytes], file: BinaryIO, on_progress: Callable[[int], None]
) -> tuple[int, str]:
    """Size and SHA-256 of what went in. The same tar gives the same bytes."""
    digest = hashlib.sha256()
    size_bytes = 0
    with gzip.GzipFile("", "wb", _GZIP_LEVEL, file, mtime=0) as packed:
        for chunk in chunks:
            packed.write(chunk)
            digest.update(chunk)
            size_bytes += len(chunk)
            on_progress(size_bytes)
    return size_bytes, digest.hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
