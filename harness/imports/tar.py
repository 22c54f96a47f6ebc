"""Reading a tar front to back: headers in bounded memory, content as a stream.

It takes what Go's ``archive/tar`` takes, which engines read with, in the same way, and less:
nothing sparse (a kilobyte of it unpacks to terabytes) and nothing that readers understand
differently.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.imports.compression import CHUNK_BYTES, Readable, read_fully
from harness.imports.limits import ImageFileError
from harness.text import harmless_line

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK_BYTES = 512
USTAR = b"ustar"  # at 257 in the first header of all but the oldest tars
NAME_LIMIT = 80  # characters of a name that are shown
_ZERO_BLOCK = bytes(BLOCK_BYTES)
_SPECIAL_BYTES = 1 << 20  # of a long name or a header of attributes: Go's maxSpecialFileSize
_MAX_SIZE = 1 << 62
_OCTAL = re.compile(rb"[ \0]*([0-7]*)[ \0]*")
_SPECIAL_IN_A_ROW = 8  # a name, a link, attributes, perhaps of all; more is only work
# Links, devices, folders, FIFOs: no content follows, whatever their size says.
_HEADER_ONLY = frozenset({b"1", b"2", b"3", b"4", b"5", b"6"})
_KINDS = _HEADER_ONLY | {b"0", b"\0"}


@dataclass(frozen=True, kw_only=True)
class TarEntry:
    """One member. ``name`` and ``link`` as they stand, undecodable bytes as surrogates.

    ``size``: bytes of content that follow it. ``kind``: the type flag.
    """

    name: str
    link: str
    size: int
    kind: bytes

    @property
    def is_file(self) -> bool:
        return self.kind in (b"0", b"\0")

    @property
    def is_folder(self) -> bool:
        return self.kind == b"5"

    @property
    def is_hard_link(self) -> bool:
        return self.kind == b"1"

    @property
    def is_symbolic_link(self) -> bool:
        return self.kind == b"2"

    @property
    def is_device(self) -> bool:
        return self.kind in (b"3", b"4")


def shown(name: str) -> str:
    """A name of somebody else's in a message."""
    return repr(harmless_line(name, NAME_LIMIT))


class TarStream:
    """Iterate over the entries; ``read`` gives the content of the one that came last.

    What is not read of it is skipped. Raises ImageFileError; ``what`` begins its messages.
    """

    def __init__(self, source: Readable, what: str) -> None:
        self._source = source
        self._what = what
        self._left = 0  # content of the current entry
        self._padding = 0

    def read(self, size: int, /) -> bytes:
        data = self._source.read(min(size, self._left)) if self._left else b""
        if self._left and not data:
            raise self._error("expected the rest of a file in it, found the end; it is cut off")
        self._left -= len(data)
        return data

    def __iter__(self) -> Iterator[TarEntry]:
        long_name: str | None = None
        long_link: str | None = None
        records: dict[str, str] = {}
        specials = 0
        while (block := self._next_block()) is not None:
            kind, size = block[156:157], self._size(block)
            if kind in (b"x", b"g", b"L", b"K"):
                content = self._special(kind, size)
                if kind == b"L":
                    long_name = _text(content)
                elif kind == b"K":
                    long_link = _text(content)
                elif kind == b"x":
                    records = self._records(content)
                else:  # an entry of its own to Go, so that what came before it is forgotten
                    self._records(content)
                    long_name, long_link, records = None, None, {}
                specials += 1
                if specials > _SPECIAL_IN_A_ROW:
                    raise self._error("expected a file after its attributes, found only more")
                continue
            size = self._own_size(records, size)
            if kind in _HEADER_ONLY:
                size = 0
            entry = TarEntry(
                name=records.get("path") or long_name or self._name(block),
                link=records.get("linkpath") or long_link or _text(block[157:257]),
                size=size,
                kind=kind,
            )
            long_name, long_link, records, specials = None, None, {}, 0
            if kind not in _KINDS:
                raise self._error(
                    f"expected files, folders and links, found an entry of type {kind!r} "
                    f"({shown(entry.name)})"
                )
            self._begin(size)
            yield entry

    def drain(self) -> None:
        """Read the source to its end, past the end of the tar."""
        while self._source.read(CHUNK_BYTES):
            pass

    def _begin(self, size: int) -> None:
        self._left = size
        self._padding = -size % BLOCK_BYTES

    def _next_block(self) -> bytes | None:
        while self._left:
            self.read(CHUNK_BYTES)
        if self._padding and len(read_fully(self._source, self._padding)) != self._padding:
            raise self._error("expected the rest of a file in it, found the end; it is cut off")
        self._padding = 0
        block = read_fully(self._source, BLOCK_BYTES)
        if not block:
            return None
        if block == _ZERO_BLOCK:
            second = read_fully(self._source, BLOCK_BYTES)
            if second not in (b"", _ZERO_BLOCK):
                raise self._error("expected a header or its end, found neither; it is damaged")
            return None
        if len(block) != BLOCK_BYTES:
            raise self._error("expected a header, found the end; it is cut off")
        self._check(block)
        return block

    def _check(self, block: bytes) -> None:
        stored = self._number(block[148:156])
        blanked = block[:148] + b" " * 8 + block[156:]
        if stored not in (sum(blanked), sum(byte - 256 * (byte > 127) for byte in blanked)):
            raise self._error("expected the header of a tar, found something else; it is damaged")

    def _number(self, data: bytes) -> int:
        """Octal, or a GNU binary number: the first byte has its highest bit set."""
        if data[0] & 0x80:
            if data[0] & 0x40:
                raise self._error("expected a size, found a negative number")
            return int.from_bytes(bytes([data[0] & 0x3F]) + data[1:], "big")
        match = _OCTAL.fullmatch(data)
        if match is None:
            raise self._error("expected a number in a header, found something else; it is damaged")
        return int(match[1] or b"0", 8)

    def _size(self, block: bytes) -> int:
        size = self._number(block[124:136])
        if size > _MAX_SIZE:
            raise self._error(f"expected a size, found {size} bytes")
        return size

    def _special(self, kind: bytes, size: int) -> bytes:
        if size > _SPECIAL_BYTES:
            raise self._error(
                f"expected at most {_SPECIAL_BYTES} bytes of names and attributes of one file, "
                f"found {size}"
            )
        self._begin(size)
        content = read_fully(self, size)
        return content if kind in (b"x", b"g") else content.split(b"\0", 1)[0]

    def _records(self, content: bytes) -> dict[str, str]:
        """Those that matter of a header of attributes: ``"%d %s=%s\\n"``, the length first."""
        records: dict[str, str] = {}
        while content:
            length, space, _ = content[:24].partition(b" ")
            end = int(length) if space and length.isdigit() else 0
            record = content[len(length) + 1 : max(end - 1, 0)]
            key, equals, value = record.partition(b"=")
            if not equals or end > len(content) or content[end - 1 : end] != b"\n":
                raise self._error("expected attributes of a file, found none; it is damaged")
            content = content[end:]
            if key.startswith(b"GNU.sparse"):
                raise self._error(
                    "expected no sparse file, found one, of which nobody can tell what it unpacks "
                    "to; build the image with Docker or Podman"
                )
            if key in (b"path", b"linkpath", b"size"):
                if key.decode() in records:
                    raise self._error(f"expected one {key.decode()} of a file, found two")
                records[key.decode()] = _text(value, whole=True)
        return records

    def _own_size(self, records: dict[str, str], size: int) -> int:
        text = records.get("size")
        if not text:
            return size
        if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= _MAX_SIZE):
            raise self._error(f"expected a size, found {shown(text)}")
        return int(text)

    @staticmethod
    def _name(block: bytes) -> str:
        name = _text(block[:100])
        # The magic of POSIX; GNU's, with spaces, has other things where the prefix would be.
        prefix = _text(block[345:500]) if block[257:263] == b"ustar\0" else ""
        return f"{prefix}/{name}" if prefix else name

    def _error(self, problem: str) -> ImageFileError:
        return ImageFileError(f"{self._what}: {problem}")


def _text(data: bytes, *, whole: bool = False) -> str:
    return (data if whole else data.split(b"\0", 1)[0]).decode("utf-8", "surrogateescape")
