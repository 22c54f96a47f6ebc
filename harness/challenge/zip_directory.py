"""The directory of a zip file, read strictly and before any of its data (APPNOTE.TXT 6.3.10).

Our own, since ``zipfile`` makes an object of each of a million entries before they can be counted,
and forgives what a hostile archive lives on: directories in unusual places, headers that disagree.
Nothing here believes a number before it is known to lie within the file.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from harness.challenge.inflate import (
    ByteStream,
    CheckedStream,
    DamagedError,
    DeflatedStream,
    RandomAccess,
    StoredStream,
)

STORED, DEFLATED = 0, 8

_END = struct.Struct("<4s4H2LH")
_END_MAGIC = b"PK\5\6"
_MAX_COMMENT_BYTES = (1 << 16) - 1
_LOCATOR64 = struct.Struct("<4sLQL")
_LOCATOR64_MAGIC = b"PK\6\7"
_END64 = struct.Struct("<4sQ2H2L4Q")
_END64_MAGIC = b"PK\6\6"
_ENTRY = struct.Struct("<4s4B4H3L5H2L")
_ENTRY_MAGIC = b"PK\1\2"
_LOCAL = struct.Struct("<4s2B4H3L2H")
_LOCAL_MAGIC = b"PK\3\4"
_DESCRIPTOR_MAGIC = b"PK\7\x08"
_EXTRA = struct.Struct("<2H")
_ZIP64_EXTRA = 1
_PATH_EXTRA = 0x7075  # Info-ZIP's Unicode path: one byte, a CRC-32, and the name again
_PATH_START = 5
_MAX_VERSION = 63  # of the format, times ten, that a member may need; the last there is
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF  # "the real number is elsewhere"

_DESCRIPTOR = 1 << 3  # checksum and sizes follow the data
_ENCRYPTED, _PATCH, _STRONG = 1 << 0, 1 << 5, 1 << 6
_UTF8 = 1 << 11
_MASKED = 1 << 13


@dataclass(frozen=True, kw_only=True)
class ZipEnd:
    """What a zip file's end says of its directory, which is known to lie within the file."""

    n_entries: int
    directory_offset: int
    directory_bytes: int


@dataclass(frozen=True, kw_only=True)
class ZipEntry:
    """One member as the directory describes it; every number is a claim.

    ``has_other_name``: programs that know Unicode paths extract it under a name that is not this.
    ``mode``: its Unix file mode, 0 where it carries none. It is taken from members made on other
    systems, too, since some programs that extract do.
    """

    raw_name: bytes
    name: str
    has_other_name: bool
    method: int
    encrypted: bool
    crc: int
    packed_bytes: int
    n_bytes: int
    header_offset: int
    mode: int


def read_end(file: RandomAccess, file_bytes: int) -> ZipEnd:
    """Where the directory is and how many entries it has; nothing of it is read.

    Raises DamagedError.
    """
    tail_bytes = min(file_bytes, _END.size + _MAX_COMMENT_BYTES)
    tail = _read_at(file, file_bytes - tail_bytes, tail_bytes)
    start = tail.rfind(_END_MAGIC)
    if start < 0 or len(tail) - start < _END.size:
        raise DamagedError("no zip file, or its end is missing")
    _, disk, first_disk, here, total, size, offset, comment = _END.unpack_from(tail, start)
    if len(tail) - start - _END.size != comment:
        raise DamagedError("other bytes follow its end")
    end_offset = file_bytes - len(tail) + start
    locator_offset = end_offset - _LOCATOR64.size
    if locator_offset >= 0 and _read_at(file, locator_offset, 4) == _LOCATOR64_MAGIC:
        wide = _read_end64(file, locator_offset)
        for narrow, full, real in (
            *((here, _FULL16, wide.n_entries), (total, _FULL16, wide.n_entries)),
            *((size, _FULL32, wide.directory_bytes), (offset, _FULL32, wide.directory_offset)),
        ):
            if narrow not in (full, real):
                raise DamagedError("its two ends disagree")
        return wide
    if disk or first_disk or here != total:
        raise DamagedError("a part of an archive in several files")
    if offset + size != end_offset:
        raise DamagedError("its directory is not where its end says")
    return ZipEnd(n_entries=total, directory_offset=offset, directory_bytes=size)


def _read_end64(file: RandomAccess, locator_offset: int) -> ZipEnd:
    """The same of an archive with numbers beyond 32 bits (zip64)."""
    _, disk, end_offset, n_disks = _LOCATOR64.unpack(
        _read_at(file, locator_offset, _LOCATOR64.size)
    )
    if disk or n_disks != 1:
        raise DamagedError("a part of an archive in several files")
    if end_offset + _END64.size != locator_offset:
        raise DamagedError("its zip64 end is not where it says")
    magic, rest, _, _, disk, first_disk, here, total, size, offset = _END64.unpack(
        _read_at(file, end_offset, _END64.size)
    )
    if magic != _END64_MAGIC or rest != _END64.size - 12:
        raise DamagedError("its zip64 end is unreadable")
    if disk or first_disk or here != total:
        raise DamagedError("a part of an archive in several files")
    if offset + size != end_offset:
        raise DamagedError("its directory is not where its end says")
    return ZipEnd(n_entries=total, directory_offset=offset, directory_bytes=size)


def read_entries(file: RandomAccess, end: ZipEnd) -> tuple[ZipEntry, ...]:
    """All entries. Memory is that of ``end.directory_bytes``: the caller limits it beforehand.

    Raises DamagedError unless the directory holds exactly the promised entries.
    """
    directory = _read_at(file, end.directory_offset, end.directory_bytes)
    entries = []
    start = 0
    while start < len(directory):
        entry, start = _entry(directory, start)
        if entry.header_offset + entry.packed_bytes > end.directory_offset:
            raise DamagedError("a member leads outside the file")
        entries.append(entry)
    if len(entries) != end.n_entries:
        raise DamagedError(f"{end.n_entries} members are promised, {len(entries)} are listed")
    return tuple(entries)


def _entry(directory: bytes, start: int) -> tuple[ZipEntry, int]:
    """The entry at ``start``, and where the next one starts."""
    if len(directory) - start < _ENTRY.size:
        raise DamagedError("its directory is cut")
    fields = _ENTRY.unpack_from(directory, start)
    magic, _, _, version, _, flags, method, _, _, crc = fields[:10]
    packed, size, name_bytes, extra_bytes, comment_bytes, disk, _, attributes, offset = fields[10:]
    name_start = start + _ENTRY.size
    extra_start = name_start + name_bytes
    after = extra_start + extra_bytes + comment_bytes
    if magic != _ENTRY_MAGIC or after > len(directory):
        raise DamagedError("its directory is unreadable")
    raw_name = directory[name_start:extra_start]
    extra = _extra_fields(directory[extra_start : extra_start + extra_bytes])
    size, packed, offset = _wide(extra, (size, packed, offset))
    if disk not in (0, _FULL16):
        raise DamagedError("a part of an archive in several files")
    entry = ZipEntry(
        raw_name=raw_name,
        name=_decoded(raw_name, flags),
        has_other_name=_has_other_name(extra, raw_name),
        method=method,
        encrypted=bool(flags & (_ENCRYPTED | _STRONG | _MASKED)),
        crc=crc,
        packed_bytes=packed,
        n_bytes=size,
        header_offset=offset,
        mode=attributes >> 16,
    )
    if flags & _PATCH:
        raise DamagedError("a member is a patch of another file")
    if version > _MAX_VERSION:
        raise DamagedError("a member needs a version of the format that is none")
    return entry, after


def _extra_fields(extra: bytes) -> list[tuple[int, bytes]]:
    """Kind and content of each."""
    fields = []
    start = 0
    while len(extra) - start >= _EXTRA.size:
        kind, length = _EXTRA.unpack_from(extra, start)
        start += _EXTRA.size
        if start + length > len(extra):
            raise DamagedError("a member's extra field is unreadable")
        fields.append((kind, extra[start : start + length]))
        start += length
    return fields


def _wide(extra: list[tuple[int, bytes]], numbers: tuple[int, ...]) -> list[int]:
    """Size, packed size and offset, with those beyond 32 bits taken from the zip64 field."""
    fields = [content for kind, content in extra if kind == _ZIP64_EXTRA]
    wanted = [number for number in numbers if number == _FULL32]
    if not wanted:
        return list(numbers)
    if len(fields) != 1 or len(fields[0]) < 8 * len(wanted):
        raise DamagedError("a member's zip64 field is missing or unreadable")
    wide = iter(struct.unpack_from(f"<{len(wanted)}Q", fields[0]))
    return [next(wide) if number == _FULL32 else number for number in numbers]


def _has_other_name(extra: list[tuple[int, bytes]], raw_name: bytes) -> bool:
    return any(kind == _PATH_EXTRA and content[_PATH_START:] != raw_name for kind, content in extra)


def _decoded(raw: bytes, flags: int) -> str:
    try:
        return raw.decode("utf-8" if flags & _UTF8 else "cp437")
    except UnicodeDecodeError as error:
        raise DamagedError("a member's name is no text") from error


def data_span(file: RandomAccess, entry: ZipEntry, end: ZipEnd) -> tuple[int, int]:
    """Where a member's data starts and ends in the file, from its local header.

    Raises DamagedError where that header is missing, disagrees with the directory, or the data
    reaches into the directory; and for a member with two names.
    """
    start, stop, _ = _local_span(file, entry, end)
    return start, stop


def check_alone(file: RandomAccess, entry: ZipEntry, end: ZipEnd) -> None:
    """That the file is this member from its first byte to its directory, with nothing between.

    Programs that look at a file's first bytes, ``numpy.load`` among them, see another file where
    there is more. Raises DamagedError, also as :func:`data_span` does.
    """
    _, stop, has_descriptor = _local_span(file, entry, end)
    if entry.header_offset:
        raise DamagedError("other bytes come before its member")
    n_between = end.directory_offset - stop
    legal = _descriptors(entry) if has_descriptor else (b"",)
    if n_between not in map(len, legal) or _read_at(file, stop, n_between) not in legal:
        raise DamagedError("other bytes lie between its member and its directory")


def _local_span(file: RandomAccess, entry: ZipEntry, end: ZipEnd) -> tuple[int, int, bool]:
    """As :func:`data_span`, and whether checksum and sizes follow the data."""
    header = _read_at(file, entry.header_offset, _LOCAL.size)
    magic, version, _, flags, method, _, _, *claims, name_bytes, extra_bytes = _LOCAL.unpack(header)
    if magic != _LOCAL_MAGIC:
        raise DamagedError("a member's header is missing")
    crc, packed, size = claims
    rest = _read_at(file, entry.header_offset + _LOCAL.size, name_bytes + extra_bytes)
    name, extra = rest[:name_bytes], _extra_fields(rest[name_bytes:])
    if entry.has_other_name or _has_other_name(extra, entry.raw_name):
        raise DamagedError("a member has two names")
    size, packed = _wide(extra, (size, packed))
    encrypted = bool(flags & (_ENCRYPTED | _STRONG | _MASKED))
    has_descriptor = bool(flags & _DESCRIPTOR)
    real = (entry.crc, entry.packed_bytes, entry.n_bytes)
    if (
        (name, method, encrypted) != (entry.raw_name, entry.method, entry.encrypted)
        or _decoded(name, flags) != entry.name
        or version > _MAX_VERSION
        or not all(
            claim == number or (has_descriptor and not claim)
            for claim, number in zip((crc, packed, size), real, strict=True)
        )
    ):
        raise DamagedError("a member's header and the directory disagree")
    start = entry.header_offset + _LOCAL.size + name_bytes + extra_bytes
    stop = start + entry.packed_bytes
    if stop > end.directory_offset:
        raise DamagedError("a member leads outside the file")
    return start, stop, has_descriptor


def _descriptors(entry: ZipEntry) -> tuple[bytes, ...]:
    """What may follow a member's data: in 32 or 64 bits, with or without a signature."""
    numbers = (entry.packed_bytes, entry.n_bytes)
    sizes = [struct.pack("<2Q", *numbers)]
    if max(numbers) <= _FULL32:
        sizes.append(struct.pack("<2L", *numbers))
    crc = struct.pack("<L", entry.crc)
    return tuple(start + crc + end for start in (b"", _DESCRIPTOR_MAGIC) for end in sizes)


def open_entry(file: RandomAccess, entry: ZipEntry, end: ZipEnd) -> ByteStream:
    """The content of a member that is stored or deflated, and checked where it ends.

    Raises DamagedError as :func:`data_span` does.
    """
    start, stop = data_span(file, entry, end)
    file.seek(start)
    stream: ByteStream
    if entry.method == STORED:
        stream = StoredStream(file, stop - start)
    else:
        stream = DeflatedStream(file, stop - start)
    return CheckedStream(stream, n_bytes=entry.n_bytes, crc=entry.crc)


def _read_at(file: RandomAccess, offset: int, n_bytes: int) -> bytes:
    """``n_bytes`` at ``offset``, which must be there."""
    file.seek(offset)
    data = file.read(n_bytes)
    if len(data) != n_bytes:
        raise DamagedError("it is cut")
    return data
