"""SHA-256 of what lies on the disk, remembered as long as it has not changed.

What is remembered is found by a path and its stamp (size, both times, inode), so that a campaign of
a thousand uploads is taken up again by looking at a thousand statuses.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
import time
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.beneath import open_beneath
from harness.campaign.tree import Sort, Stamp, Tree
from harness.campaign.upload import Sha256
from harness.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from harness.challenge.pairs import TaskPairs

_log = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 20
_SAVE_EVERY_S = 5.0  # of work that a kill would lose
# A change within one tick of the file system's clock, after the file was read, leaves its times as
# they are. So a digest is remembered only of a file that was this old when it was read. (git calls
# such files "racily clean".) 2 s: the coarsest clock in use, FAT's.
_TICK_S = 2.0


class _Remembered(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    stamp: str
    sha256: Sha256


class _File(BaseModel):
    """``contents``: by absolute path, as JSON's ASCII, since a name may be no UTF-8."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    contents: dict[str, _Remembered] = {}


class Contents:
    """``path``: contents.json, None to remember in memory alone. A damaged one is computed anew.
    ``clock``: seconds since 1970, as the file system has them."""

    def __init__(self, path: Path | None, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._known = _load(path)
        self._asked: set[str] = set()
        self._is_saved = True
        self._saved_at_s = time.monotonic()

    def known(self, place: Path, stamp: str) -> str | None:
        """The digest, if it was computed of what has this stamp. Nothing is read."""
        key = os.path.abspath(place)  # noqa: PTH100 - resolve() would follow links
        self._asked.add(key)
        found = self._known.get(key)
        return found.sha256 if found is not None and found.stamp == stamp else None

    def of_file(self, root: Path, name: PurePosixPath, stamp: Stamp) -> str | None:
        """Of the file ``root/name``, no link in ``name`` followed.

        None when it is not what had this stamp, or changed while it was read. Raises OSError.
        """
        place = root / name
        if (known := self.known(place, str(stamp))) is not None:
            return known
        digest = _digest_beneath(root, name, stamp)
        if digest is not None:
            self._remember(place, str(stamp), digest, stamp.changed_s)
        return digest

    def of_tree(self, root: Path, name: PurePosixPath, tree: Tree) -> str | None:
        """Of a folder's names, modes (whether a file can be executed) and contents.

        ``tree`` is of ``root/name``, complete and without problems. A link counts as its target's
        name. None when a file changed since ``tree`` was read. Raises OSError.
        """
        place, stamp = root / name, tree.stamp
        if (known := self.known(place, stamp)) is not None:
            return known
        digest = hashlib.sha256()
        for one in tree.members:
            said = one.target or ""
            if one.sort is Sort.FILE:
                content = _digest_beneath(root, name / one.path, one.stamp)
                if content is None:
                    return None
                said = content + ("x" if one.is_executable else "")
            _add(digest, os.fsencode(one.path), one.sort.encode(), os.fsencode(said))
        result = f"sha256:{digest.hexdigest()}"
        self._remember(place, stamp, result, tree.changed_s)
        return result

    def data_digest(self, data_dir: Path, tasks: Iterable[TaskPairs]) -> str:
        """Of all that the pairs are made of: the lists of pairs and every input.

        Links lead where they lead. The caller keeps others from the data
        (:mod:`harness.data_lock`). Raises DataError for a file that cannot be read, or changes
        meanwhile.
        """
        names = {PurePosixPath(found.task.pairs.path) for found in tasks} | {
            path for found in tasks for pair in found.pairs for path in pair.inputs
        }
        return self._of_files(data_dir, names, what="data folder")

    def truth_digest(self, truth_dir: Path) -> str:
        """Of every file below a truth folder. Raises DataError as :meth:`data_digest` does, and
        for a folder that is not there."""
        if not truth_dir.is_dir():
            raise DataError(f"truth folder {truth_dir}: expected a folder, found none")
        return self._of_files(truth_dir, set(_files(truth_dir)), what="truth folder")

    def save(self) -> None:
        """Keep what was computed, and forget what is no longer there. A disk that takes nothing is
        told, and costs the next command some time."""
        self._saved_at_s = time.monotonic()
        if self._path is None or self._is_saved:
            return
        self._known = {
            key: value
            for key, value in self._known.items()
            if key in self._asked or os.path.lexists(key)
        }
        part = self._path.with_name(self._path.name + ".part")
        text = _File(contents=self._known).model_dump(mode="python")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps(text, indent=0), "ascii")
            part.replace(self._path)
        except OSError as error:
            _log.warning("%s: not written (%s)", self._path, error.strerror)
        else:
            self._is_saved = True

    def _remember(self, place: Path, stamp: str, digest: str, changed_s: float) -> None:
        if abs(self._clock() - changed_s) < _TICK_S:
            return
        key = os.path.abspath(place)  # noqa: PTH100
        self._known[key] = _Remembered(stamp=stamp, sha256=digest)
        self._is_saved = False
        if time.monotonic() - self._saved_at_s > _SAVE_EVERY_S:
            self.save()

    def _of_files(self, root: Path, names: set[PurePosixPath], *, what: str) -> str:
        digest = hashlib.sha256()
        for name in sorted(names, key=str):
            try:
                content = self._of_ours(root / name)
            except OSError as error:
                raise DataError(f"{what} {root}: {name}: {error.strerror}") from error
            if content is None:
                raise DataError(f"{what} {root}: {name}: changed while it was read; start again")
            _add(digest, os.fsencode(name), content.encode())
        self.save()
        return f"sha256:{digest.hexdigest()}"

    def _of_ours(self, place: Path) -> str | None:
        """Of a file that the organisers put there; links are followed."""
        stamp = Stamp.of(place.stat())
        if (known := self.known(place, str(stamp))) is not None:
            return known
        with place.open("rb", buffering=0) as file:
            digest = _digest_of(file, stamp)
        if digest is not None:
            self._remember(place, str(stamp), digest, stamp.changed_s)
        return digest


def _load(path: Path | None) -> dict[str, _Remembered]:
    if path is None:
        return {}
    try:
        # json's own reader: pydantic's takes no half of a surrogate pair, which a name may have
        return _File.model_validate(json.loads(path.read_text("ascii"))).contents
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        reason = "not what it should be" if isinstance(error, ValidationError) else error
        _log.warning("%s: left out, and everything is read anew (%s)", path, reason)
        return {}


def _digest_beneath(root: Path, name: PurePosixPath, stamp: Stamp) -> str | None:
    with os.fdopen(open_beneath(root, name), "rb", buffering=0) as file:
        return _digest_of(file, stamp)


def _digest_of(file: BinaryIO, stamp: Stamp) -> str | None:
    """None for what has another stamp, before or after. Never reads more than that says, so a file
    that grows as fast as it is read has an end."""
    if not _is_still(file, stamp):
        return None
    digest, buffer, left = hashlib.sha256(), bytearray(_CHUNK_BYTES), stamp.size_bytes
    view = memoryview(buffer)
    while left > 0:
        n = file.readinto(view[: min(left, _CHUNK_BYTES)])  # type: ignore[attr-defined]
        if not n:
            return None
        digest.update(view[:n])
        left -= n
    return f"sha256:{digest.hexdigest()}" if _is_still(file, stamp) else None


def _is_still(file: BinaryIO, stamp: Stamp) -> bool:
    status = os.fstat(file.fileno())
    return stat.S_ISREG(status.st_mode) and Stamp.of(status) == stamp


def _files(folder: Path) -> Iterator[PurePosixPath]:
    """Every file below, links to folders followed, each folder once."""
    seen: set[tuple[int, int]] = set()
    for here, folders, files in os.walk(folder, followlinks=True, onerror=_tell):
        status = os.stat(here)  # noqa: PTH116
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders.sort()
        yield from (PurePosixPath(here, name).relative_to(folder) for name in files)


def _tell(error: OSError) -> None:
    raise DataError(f"{error.filename}: {error.strerror}") from error


def _add(digest: hashlib._Hash, *parts: bytes) -> None:
    """So that no two lists of parts are alike."""
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
