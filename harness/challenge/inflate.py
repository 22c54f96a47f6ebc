"""Bytes out of a part of a file, stored or compressed: never more of them than were asked for.

Each stream's ``read(n)`` gives 1 to n bytes, or none at the end; what is behind the end is not
silently left. Inflating takes most of the time that reading a field takes, so it is done in large
pieces; with zlib always, since faster libraries accept streams that zlib, and with it the reference
evaluation, refuses.
"""

from __future__ import annotations

import zlib
from typing import Protocol

_CHUNK_BYTES = 1 << 16  # compressed bytes at a time
_RAW, _GZIP = -15, 31  # zlib's window bits for bare deflate and for gzip
_GZIP_MAGIC = b"\x1f\x8b"
_FREE_GZIP_MEMBERS = 1024
_MIN_GZIP_MEMBER_BYTES = 1 << 14  # on average, past those; block gzip makes members of 64 KiB


class DamagedError(ValueError):
    """A file is not what its format promises. The message says what was found."""


class ByteStream(Protocol):
    def read(self, size: int, /) -> bytes: ...


class RandomAccess(ByteStream, Protocol):
    """A file as far as it is used here; ``seek`` is from its start."""

    def seek(self, offset: int, /) -> int: ...


class FrugalFile:
    """A file of which no more than ``budget_bytes`` are read, wherever they are.

    Compressed data may be as long as the file and hold nothing at all.
    """

    def __init__(self, file: RandomAccess, budget_bytes: int) -> None:
        self._file = file
        self._left = budget_bytes

    def seek(self, offset: int, /) -> int:
        return self._file.seek(offset)

    def read(self, size: int, /) -> bytes:
        if size > self._left:
            raise DamagedError("more of it would have to be read than a field takes")
        data = self._file.read(size)
        self._left -= len(data)
        return data


class StoredStream:
    """The next ``n_bytes`` of a file as they are."""

    def __init__(self, file: ByteStream, n_bytes: int) -> None:
        self._file = file
        self._left = n_bytes

    def read(self, size: int, /) -> bytes:
        data = self._file.read(min(size, self._left))
        if not data and size and self._left:
            raise DamagedError(f"{self._left} bytes are missing at its end")
        self._left -= len(data)
        return data


class _Inflating:
    """What both compressed kinds share: one compressed member of a source, piece by piece."""

    def __init__(self, file: ByteStream, packed_bytes: int, window_bits: int) -> None:
        self._window_bits = window_bits
        self._source = StoredStream(file, packed_bytes)
        self._unread = b""
        self._member = zlib.decompressobj(window_bits)

    def _inflate(self, size: int) -> bytes:
        """Some bytes of the member; none at its end only."""
        if size < 1:  # to zlib, 0 is no limit
            return b""
        ended = self._member.eof
        while not ended:
            packed = self._unread or self._source.read(_CHUNK_BYTES)
            try:
                data = self._member.decompress(packed, size)
            except zlib.error as error:
                raise DamagedError(f"cannot be inflated: {error}") from error
            self._unread = self._member.unconsumed_tail
            ended = self._member.eof
            if ended:
                self._unread = self._member.unused_data
            if data:
                return data
            if not packed and not ended:
                raise DamagedError("its compressed data ends too early")
        return b""

    def _next_packed(self) -> bytes:
        """What follows the member; empty at the end of the source."""
        if not self._unread:
            self._unread = self._source.read(_CHUNK_BYTES)
        return self._unread


class DeflatedStream(_Inflating):
    """What the next ``packed_bytes`` of a file, one bare deflate stream, inflate to."""

    def __init__(self, file: ByteStream, packed_bytes: int) -> None:
        super().__init__(file, packed_bytes, _RAW)

    def read(self, size: int, /) -> bytes:
        data = self._inflate(size)
        if not data and size and self._next_packed():
            raise DamagedError("other bytes follow its compressed data")
        return data


class GunzippedStream(_Inflating):
    """What the next ``packed_bytes`` of a file, gzip members one after another, inflate to.

    Each member's CRC-32 and length are checked (RFC 1952).
    """

    def __init__(self, file: ByteStream, packed_bytes: int) -> None:
        super().__init__(file, packed_bytes, _GZIP)
        self._members_left = _FREE_GZIP_MEMBERS + packed_bytes // _MIN_GZIP_MEMBER_BYTES

    def read(self, size: int, /) -> bytes:
        while not (data := self._inflate(size)) and size and self._next_packed():
            self._members_left -= 1
            if self._members_left < 0:
                raise DamagedError("too many gzip members for its size")
            if len(self._unread) == 1:
                self._unread += self._source.read(1)
            if not self._unread.startswith(_GZIP_MAGIC):
                raise DamagedError("other bytes follow its compressed data")
            self._member = zlib.decompressobj(self._window_bits)
        return data


class CheckedStream:
    """Another stream that must hold exactly ``n_bytes`` with this CRC-32, as a zip file promises.

    Both are checked where the stream ends, that is when ``read`` gives nothing.
    """

    def __init__(self, stream: ByteStream, *, n_bytes: int, crc: int) -> None:
        self._stream = stream
        self._left = n_bytes
        self._expected_crc = crc
        self._crc = 0

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        self._crc = zlib.crc32(data, self._crc)
        if self._left < 0:
            raise DamagedError("it inflates to more than its directory promises")
        if not data and size:
            if self._left:
                raise DamagedError(f"{self._left} of the bytes its directory promises are missing")
            if self._crc != self._expected_crc:
                raise DamagedError("its content does not fit its CRC-32")
        return data


def read_exactly(stream: ByteStream, n_bytes: int) -> bytes:
    """The next ``n_bytes``. Raises DamagedError where there are fewer."""
    parts = []
    left = n_bytes
    while left:
        data = stream.read(left)
        if not data:
            raise DamagedError(f"it ends {left} bytes too early")
        parts.append(data)
        left -= len(data)
    return b"".join(parts)
