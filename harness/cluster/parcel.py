"""A run directory as a parcel: a list of its files with their digests, and their bytes in a row.

The list comes from another machine, whose word is taken for nothing: every name and size is checked
before a byte is written, and every digest after.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.campaign.upload import Sha256
from harness.errors import MachineError, OutputError
from harness.store import sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_FILES = 200_000
_MAX_NAME_BYTES = 1024
_MAX_PART_BYTES = 255  # what file systems take
_FREE_BYTES = 64 << 20  # kept free on the disk that a parcel comes to
_READ_BYTES = 1 << 20
# Of a run whose output could not be collected: whatever its submission left.
_NOT_SENT = frozenset({"output", ".reserve"})


class PackedFile(BaseModel):
    """``name``: below the run directory."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    size_bytes: Annotated[int, Field(ge=0)]
    sha256: Sha256


class Manifest(BaseModel):
    """``left_out``: names of what is not sent: output that could not be collected, and what is
    neither file nor folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    files: tuple[PackedFile, ...]
    left_out: tuple[str, ...] = ()

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    def sha256_of(self, name: str) -> str | None:
        return next((file.sha256 for file in self.files if file.name == name), None)


def make_manifest(run_dir: Path) -> Manifest:
    """Of a run that has ended. Raises OutputError."""
    files: list[PackedFile] = []
    left_out: list[str] = []
    try:
        for path in sorted(_below(run_dir, run_dir)):
            name = path.relative_to(run_dir).as_posix()
            state = path.lstat()
            if not stat.S_ISREG(state.st_mode) or name in _NOT_SENT:
                left_out.append(name)
                continue
            files.append(PackedFile(name=name, size_bytes=state.st_size, sha256=sha256_of(path)))
    except OSError as error:
        raise OutputError(f"{error.filename or run_dir}: {error.strerror}") from error
    return Manifest(files=tuple(files), left_out=tuple(left_out))


def read_parcel(run_dir: Path, manifest: Manifest, offset: int, length: int) -> bytes:
    """Bytes ``offset`` to ``offset + length`` of all files in a row."""
    parts: list[bytes] = []
    begin = 0
    for file in manifest.files:
        end = begin + file.size_bytes
        if end > offset and begin < offset + length:
            first, last = max(offset, begin) - begin, min(offset + length, end) - begin
            with (run_dir / file.name).open("rb") as opened:
                opened.seek(first)
                parts.append(opened.read(last - first))
        begin = end
    return b"".join(parts)


class Incoming:
    """A parcel that comes, below ``target``'s folder under another name until it is whole and
    every digest is right. A context manager: what is not :meth:`accept`-ed is removed.

    Raises MachineError for a list that cannot be of a run directory, and for wrong bytes;
    OutputError when the disk is in the way.
    """

    def __init__(self, target: Path, manifest: Manifest) -> None:
        check_manifest(manifest)
        self._target = target
        self._manifest = manifest
        self._path = target.with_name(f".incoming-{target.name}")

    def __enter__(self) -> Incoming:
        try:
            shutil.rmtree(self._path, ignore_errors=True)  # of a transfer that was cut short
            self._path.parent.mkdir(parents=True, exist_ok=True)
            free_bytes = shutil.disk_usage(self._path.parent).free
            if free_bytes < self._manifest.size_bytes + _FREE_BYTES:
                raise OutputError(
                    f"{self._target}: the run has {self._manifest.size_bytes} bytes, and "
                    f"{free_bytes} are free; make room, and the same command goes on"
                )
            self._path.mkdir(mode=0o700)
            self._writing = _Writing(self._path, self._manifest)
        except OSError as error:
            shutil.rmtree(self._path, ignore_errors=True)
            raise OutputError(f"{self._path}: {error.strerror}") from error
        except MachineError:  # an empty file's digest is wrong
            shutil.rmtree(self._path, ignore_errors=True)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._writing.close()
        shutil.rmtree(self._path, ignore_errors=True)

    @property
    def received_bytes(self) -> int:
        return self._writing.received_bytes

    def add(self, chunk: bytes) -> None:
        """The next bytes of the parcel."""
        try:
            self._writing.add(chunk)
        except OSError as error:
            raise OutputError(
                f"{self._path}: {error.strerror}; make room, and the same command goes on"
            ) from error

    def accept(self) -> None:
        """All of it is there: under its name, on the disk."""
        try:
            self._writing.finish()
            for folder in sorted({path.parent for path in _below(self._path, self._path)}):
                sync_folder(folder)
            sync_folder(self._path)
            self._path.rename(self._target)
            sync_folder(self._target.parent)
        except OSError as error:
            raise OutputError(f"{self._target}: {error.strerror}") from error


class _Writing:
    """The files of a parcel one after the other."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._folder = folder
        self._files = list(manifest.files)
        self._n = 0
        self._opened: int | None = None
        self._digest = hashlib.sha256()
        self._left_bytes = 0
        self.received_bytes = 0
        self._next()

    def add(self, chunk: bytes) -> None:
        view = memoryview(chunk)
        while view:
            if self._opened is None:
                raise MachineError(f"{self._folder.name}: more bytes came than were announced")
            part = view[: self._left_bytes]
            written = os.write(self._opened, part)
            self._digest.update(part[:written])
            self._left_bytes -= written
            self.received_bytes += written
            view = view[written:]
            if self._left_bytes == 0:
                self._next()

    def finish(self) -> None:
        if self._opened is not None:
            raise MachineError(f"{self._folder.name}: fewer bytes came than were announced")

    def close(self) -> None:
        if self._opened is not None:
            os.close(self._opened)
            self._opened = None

    def _next(self) -> None:
        """Close the one that is complete, and open the next that has any bytes."""
        while True:
            if self._opened is not None:
                self._end_one()
            if self._n == len(self._files):
                return
            file = self._files[self._n]
            path = self._folder / file.name
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._opened = os.open(path, flags, 0o644)
            self._digest = hashlib.sha256()
            self._left_bytes = file.size_bytes
            if self._left_bytes:
                return

    def _end_one(self) -> None:
        file = self._files[self._n]
        if self._opened is not None:
            os.fsync(self._opened)
        self.close()
        if f"sha256:{self._digest.hexdigest()}" != file.sha256:
            raise MachineError(
                f"{self._folder.name}: {file.name} did not come as it was sent: its SHA-256 is "
                "another"
            )
        self._n += 1


def check_manifest(manifest: Manifest) -> None:
    """Raises MachineError for what cannot be the list of a run directory."""
    names = [file.name for file in manifest.files]
    if len(names) > _MAX_FILES:
        raise MachineError(f"a run directory of {len(names)} files: expected {_MAX_FILES} at most")
    folders = {str(parent) for name in names for parent in PurePosixPath(name).parents}
    seen: set[str] = set()
    for name in names:
        if not _is_plain(name) or name in seen or name in folders:
            raise MachineError(f"a file called {name!r} cannot be of a run directory")
        seen.add(name)


def is_complete(run_dir: Path, manifest: Manifest) -> bool:
    """Does the folder hold the very files of the list? (It may hold more: a later evaluation.)"""
    try:
        return all(
            (run_dir / file.name).is_file() and sha256_of(run_dir / file.name) == file.sha256
            for file in manifest.files
        )
    except OSError:
        return False


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _is_plain(name: str) -> bool:
    parts = name.split("/")
    return (
        name.isprintable()  # no half of a surrogate pair, which has no bytes, is
        and 0 < len(os.fsencode(name)) <= _MAX_NAME_BYTES
        and "\\" not in name
        and all(part not in {"", ".", ".."} for part in parts)
        and all(len(os.fsencode(part)) <= _MAX_PART_BYTES for part in parts)
    )


def _below(folder: Path, root: Path) -> Iterator[Path]:
    """Everything in a folder that is no folder, and, of the output that was never collected, its
    name alone."""
    for entry in os.scandir(folder):
        path = Path(entry.path)
        if entry.is_dir(follow_symlinks=False) and not (folder == root and entry.name in _NOT_SENT):
            yield from _below(path, root)
        else:
            yield path
