"""Taking fields out of an output folder that a submission filled as it liked.

No link is followed, in the last part of a path or before it; only regular files are copied, up to a
size; each copy is validated where the submission cannot reach it.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import stat
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

from harness.beneath import open_beneath, open_folder_beneath, shown, walk
from harness.challenge.field_file import (
    FieldState,
    check_field,
    max_file_bytes,
    read_open_field,
)
from harness.challenge.model import FieldFormat
from harness.errors import FieldError, OutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from pathlib import Path, PurePosixPath

    from harness.challenge.model import FieldSpec

_LOGGER = logging.getLogger(__name__)
_COPY_BYTES = 1 << 20
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_FIELD_SUFFIXES = tuple(suffix for kind in FieldFormat for suffix in kind.suffixes)


@dataclass(frozen=True, kw_only=True)
class CollectedField:
    """One expected field. ``path``: which of its names was found, below the output folder; None
    when none was. ``modified_ns`` is the file's own mtime (UTC, forgeable)."""

    state: FieldState
    path: PurePosixPath | None = None
    problem: str | None = None
    sha256: str | None = None
    modified_ns: int | None = None


def collect_field(
    output_dir: Path, names: Sequence[PurePosixPath], fields_dir: Path, spec: FieldSpec
) -> CollectedField:
    """Copy one field, under the first of its names that is there, to its place below
    ``fields_dir`` and validate the copy; an invalid one is kept. Its original is freed.

    Without room for a copy the file itself is moved, as nothing runs any more that could change it.
    One that was collected before, by a harness that was killed on the way, is found where it is.
    Raises OSError only where it is our own copy that cannot be written.
    """
    for name in names:
        found = _collect(output_dir, name, fields_dir / name, spec)
        if found.state is not FieldState.MISSING:
            return replace(found, path=name)
    return CollectedField(state=FieldState.MISSING, problem="no file was written")


def _collect(
    output_dir: Path, field: PurePosixPath, destination: Path, spec: FieldSpec
) -> CollectedField:
    try:
        descriptor = open_beneath(output_dir, field)
    except FileNotFoundError:
        return _collected_before(field, destination, spec)
    except OSError as error:
        problem = f"expected a regular file reached without links ({error.strerror})"
        return CollectedField(state=FieldState.INVALID, problem=problem)
    try:
        status = os.fstat(descriptor)
        modified_ns = status.st_mtime_ns
        if not stat.S_ISREG(status.st_mode):
            problem = "expected a regular file, found a folder, pipe or device"
            return CollectedField(state=FieldState.INVALID, problem=problem)
        if status.st_size > max_file_bytes(spec):
            problem = _why_too_large(descriptor, field, spec)
            return CollectedField(
                state=FieldState.INVALID, problem=problem, modified_ns=modified_ns
            )
        try:
            digest = _take(output_dir, field, descriptor, destination, max_file_bytes(spec))
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            problem = f"it could not be copied: {error.strerror}; it is still in {output_dir}"
            return CollectedField(
                state=FieldState.UNCOLLECTED, problem=problem, modified_ns=modified_ns
            )
    finally:
        os.close(descriptor)
    return _examined(field, destination, spec, digest, modified_ns)


def _collected_before(field: PurePosixPath, destination: Path, spec: FieldSpec) -> CollectedField:
    try:
        with destination.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            modified_ns = os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
        return CollectedField(state=FieldState.MISSING)
    return _examined(field, destination, spec, digest, modified_ns)


def _examined(
    field: PurePosixPath, destination: Path, spec: FieldSpec, digest: str, modified_ns: int
) -> CollectedField:
    fault = _fault(field, lambda: check_field(destination, spec))
    return CollectedField(
        state=FieldState.VALID if fault is None else FieldState.INVALID,
        problem=fault,
        sha256=digest,
        modified_ns=modified_ns,
    )


def _fault(field: PurePosixPath, examine: Callable[[], object]) -> str | None:
    """What is wrong with a field's content; None where ``examine`` finds nothing.

    The boundary of one field: whatever a file makes our own code do, it costs that field alone, and
    neither the run's record nor the other fields.
    """
    try:
        examine()
    except FieldError as error:
        return str(error)
    except Exception as error:
        _LOGGER.warning("%s: could not be examined", field, exc_info=True)
        return (
            f"could not be examined ({type(error).__name__}): expected a field that can be read; "
            "write it again with np.savez_compressed or NiBabel"
        )
    return None


def _why_too_large(descriptor: int, field: PurePosixPath, spec: FieldSpec) -> str:
    """What its headers say: the full resolution, double precision, or just its size."""
    fault = _fault(field, lambda: read_open_field(descriptor, field.name, spec))
    return fault or "expected a file that is finished, found one that changed while it was read"


def read_small_file(output_dir: Path, path: PurePosixPath, limit_bytes: int) -> bytes | None:
    """A file of at most ``limit_bytes``, under the same rules; None when there is none."""
    try:
        descriptor = open_beneath(output_dir, path)
    except OSError:
        return None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size > limit_bytes:
        os.close(descriptor)
        return None
    with os.fdopen(descriptor, "rb") as file:
        return file.read(limit_bytes)


@dataclass(frozen=True, kw_only=True)
class Unexpected:
    """Files that nobody expects: how many, and the first of their names, fit to be shown."""

    count: int
    first: str | None = None


def unexpected_files(
    output_dir: Path, expected: Collection[PurePosixPath], max_entries: int
) -> Unexpected:
    """What else than folders lies in an output folder, looked at up to ``max_entries``."""
    strangers = 0
    first: PurePosixPath | None = None
    with closing(walk(output_dir)) as everything:
        for seen in islice(everything, max_entries):
            if seen.unseen is None and not seen.is_folder and seen.path not in expected:
                strangers += 1
                first = seen.path if first is None else min(first, seen.path)
    return Unexpected(count=strangers, first=None if first is None else shown(first))


def publish_fields(fields_dir: Path, submission_dir: Path, kept_dir: Path) -> int:
    """Make ``submission_dir`` hold exactly the fields of a run; how many were moved away.

    Fields of an earlier run are replaced. One that differs from every earlier run's (somebody else
    wrote it) is moved to ``kept_dir`` rather than lost. A run without fields changes nothing.
    Raises OutputError when the folder cannot be written.
    """
    try:
        return _publish(fields_dir, submission_dir, kept_dir)
    except OSError as error:
        raise OutputError(
            f"{error.filename or submission_dir}: {error.strerror}; the run is stored, and its "
            f"fields are in {fields_dir}"
        ) from error


def check_writable(folder: Path, subfolders: Iterable[str] = ()) -> None:
    """Make ``folder`` if need be. Raises OutputError when it, or a subfolder that is there, cannot
    be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: expected a folder to write to ({error.strerror})") from error
    for path in (folder, *(folder / name for name in subfolders)):
        if path.exists() and not os.access(path, os.W_OK | os.X_OK):
            owner = path.stat().st_uid
            raise OutputError(
                f"{path}: expected a folder to write to; it belongs to user {owner}, you are user "
                f"{os.geteuid()}; try: sudo chown -R {os.geteuid()} {folder}"
            )


def _publish(fields_dir: Path, submission_dir: Path, kept_dir: Path) -> int:
    new = {path.relative_to(fields_dir) for path in fields_dir.rglob("*") if path.is_file()}
    if not new:
        return 0
    runs = [run / "fields" for run in fields_dir.parent.parent.iterdir() if os.access(run, os.X_OK)]
    moved = 0
    for old in sorted(submission_dir.rglob("*")):
        if not _is_named_like_a_field(old):
            continue
        name = old.relative_to(submission_dir)
        is_folder = old.is_dir() and not old.is_symlink()
        if not os.path.lexists(old) or (is_folder and name not in new):
            continue  # moved with the folder it was in, or a folder that is in nobody's way
        if not any(_same_content(old, fields / name) for fields in runs):
            (kept_dir / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(old, kept_dir / name)
            moved += 1
        elif name not in new:
            old.unlink()
    for name in sorted(new):
        target = submission_dir / name
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.part")
        shutil.copyfile(fields_dir / name, part)
        part.replace(target)
    return moved


def _is_named_like_a_field(path: Path) -> bool:
    return path.name.startswith("disp_") or path.name.endswith(_FIELD_SUFFIXES)


@dataclass(frozen=True, kw_only=True)
class TreeUse:
    """``entries``: files and folders. ``unseen``: the first that cannot be looked at, and why:
    what lies there may be of any size. None when everything was seen."""

    used_bytes: int
    entries: int
    unseen: str | None


def tree_use(folder: Path, max_entries: int) -> TreeUse:
    """What lies below a folder while it changes.

    Ends early past ``max_entries``, and at what cannot be looked at. Folders count: a submission
    can make millions of them, too.
    """
    used_bytes = entries = 0
    unseen: str | None = None
    with closing(walk(folder)) as everything:
        for seen in everything:
            if seen.unseen is not None:
                unseen = f"{shown(seen.path)} ({seen.unseen})"
                break
            entries += 1
            used_bytes += seen.used_bytes
            if entries > max_entries:
                break
    return TreeUse(used_bytes=used_bytes, entries=entries, unseen=unseen)


def _take(
    output_dir: Path, field: PurePosixPath, descriptor: int, destination: Path, limit_bytes: int
) -> str:
    """Copy an open file's bytes, at most ``limit_bytes``, and remove it where it was; the SHA-256
    of what was taken. The file itself is moved where there is no room for both."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    part = destination.with_name(f".{destination.name}.part")
    status = os.fstat(descriptor)
    folder = open_folder_beneath(output_dir, field.parent)
    try:
        try:
            digest = _copy(descriptor, part, limit_bytes)
            os.utime(part, ns=(status.st_atime_ns, status.st_mtime_ns))
            part.replace(destination)
        except OSError as error:
            part.unlink(missing_ok=True)
            if error.errno not in _NO_ROOM:
                raise
            os.rename(field.name, destination, src_dir_fd=folder)
            os.lseek(descriptor, 0, os.SEEK_SET)
            return _copy(descriptor, None, limit_bytes)
        with suppress(OSError):  # a folder of another user's: it goes with the whole output
            os.unlink(field.name, dir_fd=folder)
        return digest
    finally:
        os.close(folder)


def _copy(descriptor: int, destination: Path | None, limit_bytes: int) -> str:
    """Copy at most ``limit_bytes``, or just read them; their SHA-256."""
    digest = hashlib.sha256()
    left = limit_bytes
    with destination.open("wb") if destination else nullcontext() as file:
        while left and (chunk := os.read(descriptor, min(_COPY_BYTES, left))):
            if file is not None:
                file.write(chunk)
            digest.update(chunk)
            left -= len(chunk)
    return digest.hexdigest()


def _same_content(one: Path, other: Path) -> bool:
    if one.is_symlink() or not one.is_file() or not other.is_file():
        return False
    return one.stat().st_size == other.stat().st_size and one.read_bytes() == other.read_bytes()
