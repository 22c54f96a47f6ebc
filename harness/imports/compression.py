"""Plain, gzip or zstd bytes, told by their first bytes: as a stream in bounded memory.

Streams give at most what was asked for, and raise ImageFileError for damage and for what expands
beyond all reason.
"""

from __future__ import annotations

import zlib
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

import zstandard

from harness.challenge.quantity import format_bytes
from harness.imports.limits import ImageFileError, TooLarge

if TYPE_CHECKING:
    from harness.imports.limits import ImportLimits

CHUNK_BYTES = 1 << 18
SNIFF_BYTES = 512
_GZIP_WINDOW_BITS = 31  # zlib's for gzip
# Memory that a zstd frame may ask for: what the zstd program allows unless told otherwise.
_ZSTD_WINDOW_BYTES = 128 << 20
_GZIP, _ZSTD, _ZSTD_SKIPPABLE = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\x2a\x4d\x18"
_FREE_GZIP_MEMBERS = 1024
_MIN_GZIP_MEMBER_BYTES = 1 << 10  # out of each on average, past those; some are block by block
_OTHERS = {
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "rar",
}
_ZIPS = (b"PK\x03\x04", b"PK\x05\x06")


class Compression(StrEnum):
    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Pushback:
    """A stream whose first bytes were looked at."""

    def __init__(self, source: Readable) -> None:
        self._source = source
        self.head = read_fully(source, SNIFF_BYTES)
        self._left = self.head

    def read(self, size: int, /) -> bytes:
        if self._left:
            data, self._left = self._left[:size], self._left[size:]
            return data
        return self._source.read(size)


def read_fully(source: Readable, size: int) -> bytes:
    """``size`` bytes, fewer only at the end."""
    parts = []
    while size > 0 and (data := source.read(min(size, CHUNK_BYTES))):
        parts.append(data)
        size -= len(data)
    return b"".join(parts)


def told_by(head: bytes) -> Compression:
    if head.startswith(_GZIP):
        return Compression.GZIP
    # Skippable frames: fifteen first bytes, RFC 8878, 3.1.2.
    if head.startswith(_ZSTD) or (head[1:4] == _ZSTD_SKIPPABLE and head[:1] >= b"\x50"):
        return Compression.ZSTD
    return Compression.NONE


def foreign_format(head: bytes) -> str | None:
    """What it is when it is a kind of archive that cannot be an image."""
    if head.startswith(_ZIPS):
        return "a zip archive; fields are looked at with `harness check`"
    name = next((name for magic, name in _OTHERS.items() if head.startswith(magic)), None)
    return name and f"{name}-compressed data; compress it with gzip or zstd instead"


def uncompressed(source: Readable, limits: ImportLimits) -> tuple[Compression, Readable]:
    """The stream without its compression, whatever that is; only one layer of it is taken off."""
    pushback = Pushback(source)
    kind = told_by(pushback.head)
    if kind is Compression.NONE:
        return kind, pushback
    counted = _Counted(pushback)
    inner: Readable = _Gunzip(counted) if kind is Compression.GZIP else _Unzstd(counted)
    return kind, _Bounded(inner, counted, limits)


class _Counted:
    def __init__(self, source: Readable) -> None:
        self._source = source
        self.n_bytes = 0

    def read(self, size: int = CHUNK_BYTES, /) -> bytes:
        data = self._source.read(size)
        self.n_bytes += len(data)
        return data


class _Bounded:
    """Ends what grows beyond all reason."""

    def __init__(self, inner: Readable, source: _Counted, limits: ImportLimits) -> None:
        self._inner = inner
        self._source = source
        self._limits = limits
        self._n_bytes = 0

    def read(self, size: int, /) -> bytes:
        data = self._inner.read(size)
        self._n_bytes += len(data)
        if (
            self._n_bytes > self._limits.free_bytes
            and self._n_bytes > self._limits.expansion * self._source.n_bytes
        ):
            raise TooLarge(
                f"compression: expected at most {self._limits.expansion} times as much as went in, "
                f"found {format_bytes(self._n_bytes)} from {format_bytes(self._source.n_bytes)} "
                "and more to come; does a layer hold a huge file of zeros?"
            )
        return data


class _Gunzip:
    """Gzip with one or several members. Zeros behind the last are padding."""

    def __init__(self, source: Readable) -> None:
        self._source = source
        self._inflater = zlib.decompressobj(_GZIP_WINDOW_BITS)
        self._pending = b""
        self._members = 1
        self._n_bytes = 0
        self._ended = False

    def read(self, size: int, /) -> bytes:
        try:
            while not self._ended:
                if not self._pending:
                    self._pending = self._source.read(CHUNK_BYTES)
                    if not self._pending:
                        raise ImageFileError(_cut("gzip"))
                data = self._inflater.decompress(self._pending, size)
                self._pending = self._inflater.unconsumed_tail
                self._n_bytes += len(data)
                if self._inflater.eof:
                    self._next_member()
                if data:
                    return data
        except zlib.error as error:
            raise ImageFileError(f"gzip: the data is damaged ({error}); upload it again") from error
        return b""

    def _next_member(self) -> None:
        rest = self._inflater.unused_data.lstrip(b"\0")
        while not rest and (more := self._source.read(CHUNK_BYTES)):
            rest = more.lstrip(b"\0")
        self._pending = rest
        if not rest:
            self._ended = True
            return
        self._members += 1
        if self._members > _FREE_GZIP_MEMBERS + self._n_bytes // _MIN_GZIP_MEMBER_BYTES:
            raise ImageFileError(
                f"gzip: expected one stream, found {self._members} and more to come, with next to "
                "nothing in them; compress it again with gzip"
            )
        self._inflater = zlib.decompressobj(_GZIP_WINDOW_BITS)


class _Unzstd:
    """Zstd frames one behind the other. A frame that is cut off just ends."""

    def __init__(self, source: _Counted) -> None:
        decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
        self._reader = decompressor.stream_reader(
            source,  # type: ignore[arg-type]  # it only reads
            read_size=CHUNK_BYTES,
            read_across_frames=True,
        )

    def read(self, size: int, /) -> bytes:
        try:
            return self._reader.read(size)
        except zstandard.ZstdError as error:
            raise ImageFileError(
                f"zstd: the data is damaged ({error}), or asks for more than "
                f"{format_bytes(_ZSTD_WINDOW_BYTES)} of memory; compress it again with `zstd`"
            ) from error


def _cut(kind: str) -> str:
    return f"{kind}: expected the end of the data, found the end of the file; upload it again"
