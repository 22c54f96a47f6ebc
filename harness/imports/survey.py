"""The first reading of an uploaded image: what members it has, and the digests of each.

What a member is for is told at the end of the file at the earliest, so each is taken for a layer
and digested, and kept as well when it can be a document. Memory: the documents, bounded.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.challenge.quantity import format_bytes
from harness.imports.compression import (
    CHUNK_BYTES,
    Compression,
    Pushback,
    Readable,
    foreign_format,
    read_fully,
    uncompressed,
)
from harness.imports.limits import Budget, ImageFileError, TooLarge
from harness.imports.tar import USTAR, TarEntry, TarStream, shown

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

    from harness.imports.limits import ImportLimits

_MAX_NAME_BYTES = 4096  # of a path: limits.h
_BEGINS_DOCUMENT = (b"{", b"[")


@dataclass(frozen=True, kw_only=True)
class Blob:
    """A member of the outer archive. ``sha256``: of the bytes as they lie there, in hex.

    ``diff_sha256``: of the uncompressed bytes, which number ``unpacked_bytes``. ``entries``: files
    and folders in it, ``devices`` of them device nodes, when it is a layer. ``fault``: why it
    cannot be one. ``document``: its bytes when it may be JSON.
    """

    name: str
    size: int
    sha256: str
    compression: Compression
    diff_sha256: str
    unpacked_bytes: int
    entries: int
    devices: int
    fault: str | None
    document: bytes | None


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What an upload holds. ``links``: name of a link -> name of the member it leads to."""

    compression: Compression
    blobs: dict[str, Blob]
    links: dict[str, str]
    problems: tuple[str, ...]
    unpacked_bytes: int


@dataclass
class _Found:
    blobs: dict[str, Blob] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    members: int = 0
    entries: int = 0
    documents_bytes: int = 0

    def count_entry(self, limits: ImportLimits) -> None:
        self.entries += 1
        if self.entries > limits.entries:
            raise TooLarge(
                f"the layers: expected at most {limits.entries} files and folders, found more; "
                "make fewer in the Dockerfile"
            )


class Metered:
    """A stream that counts against the budget and is told of to whoever shows progress."""

    def __init__(self, source: Readable, on_read: Callable[[int], None]) -> None:
        self._source = source
        self._on_read = on_read

    def read(self, size: int, /) -> bytes:
        data = self._source.read(size)
        self._on_read(len(data))
        return data


def survey(file: BinaryIO, limits: ImportLimits, on_progress: Callable[[int], None]) -> Survey:
    """Read the whole upload once. ``on_progress`` gets the number of its bytes read so far.

    Raises ImageFileError when reading cannot go on; what does not fit together is for
    :mod:`harness.imports.layout` to find.
    """
    file.seek(0)
    budget = Budget(limits)
    kind, source = uncompressed(Metered(file, lambda _n: on_progress(file.tell())), limits)
    head = Pushback(source)
    if not head.head:
        raise ImageFileError("the file: expected an image, found nothing in it; is it cut off?")
    if other := foreign_format(head.head):
        raise ImageFileError(f"the file: expected a tar made by `docker save`, found {other}")
    if len(head.head) >= 512 and not any(head.head[:512]):
        raise ImageFileError("the file: expected an image, found a tar with nothing in it")
    if len(head.head) < 512 or head.head[257:262] != USTAR:
        raise ImageFileError(
            "the file: expected a tar made by `docker save` (plain, gzip or zstd), found something "
            "else"
        )
    tar = TarStream(Metered(head, budget.spend), "the file")
    found = _Found()
    for entry in tar:
        _take(entry, tar, found, budget, limits)
    tar.drain()
    _resolve(found)
    return Survey(
        compression=kind,
        blobs=found.blobs,
        links=found.links,
        problems=tuple(found.problems),
        unpacked_bytes=budget.spent_bytes,
    )


def plain_name(name: str) -> str | None:
    """A member's name without decoration; None when it is not a harmless relative path."""
    trimmed = name.removeprefix("./").rstrip("/") or "."
    parts = trimmed.split("/")
    harmless = (
        len(trimmed) <= _MAX_NAME_BYTES
        and trimmed.isprintable()
        and "\\" not in trimmed
        and not any(part in ("", "..") or (part == "." and trimmed != ".") for part in parts)
    )
    return trimmed if harmless else None


def _take(
    entry: TarEntry, tar: TarStream, found: _Found, budget: Budget, limits: ImportLimits
) -> None:
    found.members += 1
    if found.members > limits.members:
        raise TooLarge(
            f"the file: expected at most {limits.members} members, found more; it is no image, or "
            "one of far too many layers"
        )
    name = plain_name(entry.name)
    if name is None or (entry.is_file and entry.name.endswith("/")):
        found.problems.append(
            f"the file: expected names within it, found {shown(entry.name)}; save the image again "
            "with `docker save`"
        )
        return
    if entry.is_folder:
        found.folders.add(name)
        return
    if name in found.blobs or name in found.links or name in found.folders:
        found.problems.append(
            f"the file: expected each member once, found {shown(name)} twice; save the image again"
        )
        return
    if entry.is_file:
        found.blobs[name] = _digest(name, entry.size, tar, found, budget, limits)
    elif entry.is_symbolic_link or entry.is_hard_link:
        found.links[name] = (
            entry.link if entry.is_hard_link else _beside(name, entry.link) or f"/{entry.link}"
        )
    else:
        found.problems.append(
            f"the file: expected files and folders, found the device or FIFO {shown(name)}"
        )


def _beside(name: str, target: str) -> str | None:
    """Where a symbolic link leads within the archive: ``..`` may lead one folder up at a time."""
    parts = name.split("/")[:-1]
    for part in target.split("/"):
        if part == "..":
            if not parts:
                return None
            parts.pop()
        elif part == "":
            return None
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


def _resolve(found: _Found) -> None:
    """Links must lead straight to a member: that is how Docker stores a layer that occurs twice."""
    for name, target in list(found.links.items()):
        if target not in found.blobs:
            del found.links[name]
            found.problems.append(
                f"the file: expected {shown(name)} to be a file or a link to one of its files, "
                f"found a link to {shown(target)}; save the image again with `docker save`"
            )


def _digest(
    name: str, size: int, tar: TarStream, found: _Found, budget: Budget, limits: ImportLimits
) -> Blob:
    raw = _Hashing(tar)
    kind, plain = uncompressed(raw, limits)
    content = _Hashing(plain)
    pushback = Pushback(content)
    entries, devices, fault, document = 0, 0, None, None
    if size <= limits.document_bytes and kind is Compression.NONE and _is_text(pushback.head):
        found.documents_bytes += size
        if found.documents_bytes > limits.documents_bytes:
            raise TooLarge(
                f"the file: expected at most {format_bytes(limits.documents_bytes)} of documents, "
                "found more; it is no image"
            )
        document = read_fully(pushback, size)
        fault = f"the layer {shown(name)}: expected a tar, found text"
    else:
        spend = budget.spend if kind is not Compression.NONE else _nothing
        entries, devices, fault = _scan(_LayerMeter(pushback, limits, spend), name, found, limits)
    while raw.read(CHUNK_BYTES):  # what a damaged stream left
        pass
    return Blob(
        name=name,
        size=size,
        sha256=raw.hexdigest,
        compression=kind,
        diff_sha256=content.hexdigest,
        unpacked_bytes=content.n_bytes,
        entries=entries,
        devices=devices,
        fault=fault,
        document=document,
    )


def _is_text(head: bytes) -> bool:
    """Can it be a JSON document? (A layer's first file may have any name.)"""
    return head.lstrip()[:1] in _BEGINS_DOCUMENT and head[257:262] != USTAR


def _scan(
    source: Readable, name: str, found: _Found, limits: ImportLimits
) -> tuple[int, int, str | None]:
    """Entries, device nodes and fault of what may be a layer; it is read to its end."""
    layer = TarStream(source, f"the layer {shown(name)}")
    entries, devices, fault = 0, 0, None
    try:
        for entry in layer:
            entries += 1
            devices += entry.is_device
            found.count_entry(limits)
    except TooLarge:
        raise
    except ImageFileError as error:
        fault = str(error)
    try:
        layer.drain()
    except TooLarge:
        raise
    except ImageFileError as error:
        fault = fault or f"the layer {shown(name)}: {error}"
    return entries, devices, fault


def _nothing(_n_bytes: int) -> None:
    """Plain bytes were counted when they came out of the outer archive."""


class _Hashing:
    def __init__(self, source: Readable) -> None:
        self._source = source
        self._hash = hashlib.sha256()
        self.n_bytes = 0

    def read(self, size: int, /) -> bytes:
        data = self._source.read(size)
        self._hash.update(data)
        self.n_bytes += len(data)
        return data

    @property
    def hexdigest(self) -> str:
        return self._hash.hexdigest()


class _LayerMeter:
    """Ends a layer that is larger than a layer may be."""

    def __init__(
        self, source: Readable, limits: ImportLimits, spend: Callable[[int], None]
    ) -> None:
        self._source = source
        self._limits = limits
        self._spend = spend
        self._n_bytes = 0

    def read(self, size: int, /) -> bytes:
        data = self._source.read(size)
        self._n_bytes += len(data)
        self._spend(len(data))
        if self._n_bytes > self._limits.layer_bytes:
            raise TooLarge(
                f"a layer: expected at most {format_bytes(self._limits.layer_bytes)} unpacked, "
                "found more; make it smaller, or raise --max-size"
            )
        return data
