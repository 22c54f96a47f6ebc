"""Uploaded zips: honest ones are read, hostile ones are told everything that is wrong with them."""

from __future__ import annotations

import io
import os
import resource
import socket
import stat
import struct
import tarfile
import tempfile
import time
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pytest

from harness.challenge.archive import open_archive
from harness.challenge.field_file import max_file_bytes, read_field
from harness.errors import DataError, FieldError, OutputError
from tests.field_files import peak_bytes
from tests.tiny import tiny_challenge

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed import ReadableBuffer

    from harness.challenge.archive import FieldArchive

SPEC = tiny_challenge().task("task_01").field
FIELD: npt.NDArray[Any] = np.random.default_rng(0).normal(0, 5, SPEC.shape).astype(np.float16)
NAMES = tuple(
    PurePosixPath(f"task_0{task}/disp_000{n}_000{n + 1}.npz")
    for task in (1, 2)
    for n in range(1, 4)
)
EXPECTED = dict.fromkeys(NAMES, SPEC)
FIRST = str(NAMES[0])


def npz(array: npt.NDArray[Any] = FIELD) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, array)
    return file.getvalue()


FILE = npz()


def zipped(
    *members: tuple[str | zipfile.ZipInfo, bytes], compression: int = zipfile.ZIP_DEFLATED
) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def member(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = mode << 16
    return info


HONEST = zipped(*((str(name), FILE) for name in NAMES), ("dummy.txt", b"x"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "submission.zip"


@contextmanager
def opened(path: Path, raw: bytes) -> Iterator[FieldArchive]:
    path.write_bytes(raw)
    with open_archive(path, EXPECTED) as archive:
        for problem in archive.problems:
            for text in (problem.expected, problem.found, problem.fix):
                assert text.isprintable()
                assert 0 < len(text) < 400
        yield archive


def problems(path: Path, raw: bytes) -> list[str]:
    with opened(path, raw) as archive:
        return [problem.found for problem in archive.problems]


# --- Honest archives ----------------------------------------------------------------------------


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_honest_archive(path: Path, compression: int) -> None:
    raw = zipped(*((str(n), FILE) for n in NAMES), ("dummy.txt", b"x"), compression=compression)
    with opened(path, raw) as archive:
        assert archive.problems == ()
        assert archive.names == (PurePosixPath("dummy.txt"), *NAMES)
        for name in NAMES:
            with archive.file(name) as copy:
                assert copy.read_bytes() == FILE
                assert np.array_equal(read_field(copy, SPEC), FIELD)
                assert stat.S_IMODE(copy.parent.stat().st_mode) == 0o700
            assert not copy.parent.exists()


def test_several_threads_at_a_time(path: Path) -> None:
    """Each has a position of its own in the one open file."""
    files = {name: npz(FIELD + np.float16(i)) for i, name in enumerate(NAMES)}
    raw = zipped(*((str(name), content) for name, content in files.items()))
    with opened(path, raw) as archive, ThreadPoolExecutor(4) as pool:

        def is_right(name: PurePosixPath) -> bool:
            with archive.file(name) as copy:
                return copy.read_bytes() == files[name]

        assert all(pool.map(is_right, NAMES * 20))


def test_folders_and_a_comment(path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.mkdir("task_01")
        archive.writestr(FIRST, FILE)
        archive.comment = b"made by hand"
    with opened(path, file.getvalue()) as found:
        assert found.problems == ()
        assert found.names == (NAMES[0],)


def test_archive_written_as_a_stream(path: Path) -> None:
    """Sizes behind the data and zip64 fields, as ``zip -r - .`` writes them into a pipe."""

    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.raw = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, data: ReadableBuffer, /) -> int:
            self.raw += bytes(data)
            return len(bytes(data))

    pipe = Pipe()
    with (
        zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(FIRST, "w", force_zip64=True) as target,
    ):
        target.write(FILE)
    with opened(path, bytes(pipe.raw)) as found, found.file(NAMES[0]) as copy:
        assert found.problems == ()
        assert copy.read_bytes() == FILE


def directory_of(raw: bytes | bytearray) -> tuple[int, int]:
    """Where the directory starts and ends; the fields in the archive have one each, too."""
    end = raw.rindex(b"PK\5\6")
    size, offset = struct.unpack_from("<2L", raw, end + 12)
    assert offset + size == end
    return offset, end


def with_zip64_end(raw: bytes) -> bytes:
    """The same archive, its end told in 64 bits, as beyond 65535 members or 4 GiB."""
    start = raw.rindex(b"PK\5\6")
    n, size, offset = struct.unpack_from("<HLL", raw, start + 10)
    wide = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, n, n, size, offset)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, start, 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return raw[:start] + wide + locator + end


def test_zip64_end(path: Path) -> None:
    with opened(path, with_zip64_end(HONEST)) as archive, archive.file(NAMES[0]) as copy:
        assert archive.problems == ()
        assert copy.read_bytes() == FILE


def test_what_macos_adds(path: Path) -> None:
    raw = zipped(
        (FIRST, FILE), ("__MACOSX/task_01/._disp_0001_0002.npz", b"x"), ("task_01/.DS_Store", b"x")
    )
    with opened(path, raw) as archive:
        (problem,) = archive.problems
        assert problem.harmless
        assert "2 files that a file manager left behind" in problem.found
        assert archive.names == (NAMES[0],)


@pytest.mark.parametrize("top", ["submission", "My fields (final)"])
def test_common_top_folder(path: Path, top: str) -> None:
    """One finding and not one for each field, whose content can still be checked."""
    raw = zipped(*((f"{top}/{name}", FILE) for name in NAMES), (f"{top}/dummy.txt", b"x"))
    with opened(path, raw) as archive:
        (problem,) = archive.problems
        assert problem.found == f"everything in a folder {top!r}"
        assert not problem.harmless
        assert archive.names == (PurePosixPath("dummy.txt"), *NAMES)
        with archive.file(NAMES[0]) as copy:
            assert copy.read_bytes() == FILE


def test_a_task_folder_is_no_top_folder(path: Path) -> None:
    assert problems(path, zipped((FIRST, FILE))) == []
    assert problems(path, zipped(("elsewhere/a.npz", FILE))) == []


def test_no_top_folder_beside_fields_at_the_top(path: Path) -> None:
    """Where fields have no folder, a copy of them in one was read in their place, under their
    names, and the zip was told to be in a folder."""
    name = PurePosixPath("disp_0001_0002.npz")
    other = npz(FIELD + np.float16(7))
    path.write_bytes(zipped((str(name), FILE), (f"x/{name}", other)))
    with open_archive(path, {name: SPEC}) as archive:
        assert archive.problems == ()
        assert archive.names == (name, "x" / name)
        with archive.file(name) as copy:
            assert copy.read_bytes() == FILE
    path.write_bytes(zipped((f"x/{name}", FILE), ("dummy.txt", b"x")))
    with open_archive(path, {name: SPEC}) as archive:
        assert archive.names == (name, PurePosixPath("dummy.txt"))
        assert [problem.found for problem in archive.problems] == ["everything in a folder 'x'"]


# --- What is no archive -------------------------------------------------------------------------


def test_paths_that_are_no_regular_file(tmp_path: Path) -> None:
    (tmp_path / "real.zip").write_bytes(HONEST)
    (tmp_path / "link.zip").symlink_to("real.zip")
    (tmp_path / "broken.zip").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.zip")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.zip"))
        for name, found in (
            ("link.zip", "symbolic link"),
            ("broken.zip", "symbolic link"),
            ("pipe.zip", "folder, pipe or device"),
            ("socket.zip", "cannot be read"),
            ("missing.zip", "cannot be read"),
            (".", "folder, pipe or device"),
            ("/dev/zero", "folder, pipe or device"),
        ):
            with pytest.raises(DataError, match=found), open_archive(tmp_path / name, EXPECTED):
                pass


@pytest.mark.parametrize(
    "raw",
    [
        b"PK\5\6",
        HONEST[:-1],
        HONEST[1:],
        HONEST + b"x",
    ],
)
def test_no_zip_file(path: Path, raw: bytes) -> None:
    (found,) = problems(path, raw)
    assert found.startswith("a damaged or truncated one")


def packed(kind: Literal["w", "w:gz", "w:bz2", "w:xz"]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=kind) as archive:
        archive.addfile(tarfile.TarInfo(FIRST))
    return file.getvalue()


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (b"", "an empty file"),
        (b"x", "not a zip at all"),
        (b"hello" * 100_000, "not a zip at all"),
        (packed("w:gz"), "a .tar.gz, not a zip"),
        (packed("w:bz2"), "a .tar.bz2, not a zip"),
        (packed("w:xz"), "a .tar.xz, not a zip"),
        (packed("w"), "a .tar, not a zip"),
        (b"\x93NUMPY\1\0", "an .npy, not a zip"),
    ],
)
def test_a_file_of_another_kind(path: Path, raw: bytes, found: str) -> None:
    assert problems(path, raw) == [found]


def test_every_cut(path: Path) -> None:
    """Of a small archive, at every byte."""
    raw = with_zip64_end(zipped((FIRST, b"x" * 10), ("b", b"y")))
    for cut in range(len(raw)):
        assert problems(path, raw[:cut])


def test_parts_of_a_larger_archive(path: Path) -> None:
    raw = bytearray(HONEST)
    start = raw.rindex(b"PK\5\6")
    raw[start + 4 : start + 8] = struct.pack("<2H", 1, 1)
    assert "several files" in problems(path, bytes(raw))[0]


# --- Members ------------------------------------------------------------------------------------

BAD_NAMES = {
    "/etc/passwd": "an absolute path",
    "C:/windows/x.npz": "an absolute path",
    "c:x.npz": "an absolute path",
    "../x.npz": "leads outside",
    "task_01/../../x.npz": "leads outside",
    "task_01/..": "leads outside",
    "task_01\\disp_0001_0002.npz": "a backslash",
    "..\\x": "a backslash",
    "a//b": "empty parts",
    "./task_01/x": "empty parts",
    "//": "an absolute path",
    "task_01/\x1b[2Jx": "control characters",
    "task_01/a\nb": "control characters",
    "task_01/\u202egpj.npz": "control characters",
    "x" * 300: "one of 300 bytes",
    "d/" * 20 + "x": "a path of 21 parts",
}


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_name(path: Path, name: str) -> None:
    with opened(path, zipped((FIRST, FILE), (name, b"x"))) as archive:
        (problem,) = archive.problems
        assert BAD_NAMES[name] in problem.found
        assert archive.names == (NAMES[0],)


def test_nul_in_a_name(path: Path) -> None:
    """zipfile would cut the name there, and call the member ``task_01``."""
    raw = zipped(("task_01xevil", b"x")).replace(b"task_01xevil", b"task_01\0evil")
    assert problems(path, raw) == [r"control characters, or none at all: 'task_01\x00evil'"]


def test_name_that_is_no_text(path: Path) -> None:
    raw = zipped(("tüsk", b"x")).replace("tüsk".encode(), b"t\xff\xffsk")
    assert "no text" in problems(path, raw)[0]


@pytest.mark.parametrize(
    ("mode", "found"),
    [
        (stat.S_IFLNK | 0o777, "a symbolic link"),
        (stat.S_IFIFO | 0o644, "a device, pipe or socket"),
        (stat.S_IFCHR | 0o644, "a device, pipe or socket"),
        (stat.S_IFBLK | 0o644, "a device, pipe or socket"),
        (stat.S_IFSOCK | 0o644, "a device, pipe or socket"),
        (0o170000, "a device, pipe or socket"),
        (stat.S_IFDIR | 0o755, "a folder under a file's name"),
    ],
)
def test_special_file(path: Path, mode: int, found: str) -> None:
    with opened(path, zipped((member(FIRST, mode), b"/etc/passwd"))) as archive:
        assert [p.found for p in archive.problems] == [f"{found}: {FIRST!r}"]
        assert archive.names == ()


def test_folder_with_content(path: Path) -> None:
    raw = zipped((member("task_01/", stat.S_IFDIR | 0o755), b"x"))
    assert problems(path, raw) == ["a file under a folder's name: 'task_01/'"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("names", "left"),
    [
        ((FIRST, FIRST), 0),
        (("x", "x"), 0),
        (("task_01/a", "task_01/A"), 0),
        (("task_01/a", "Task_01/b"), 1),
        (("n\u0303.npz", "\u00f1.npz"), 0),
        (("stra\u00dfe", "STRASSE"), 0),
        (("task_01", "task_01/a"), 1),
        (("task_01/a", "task_01"), 1),
        (("a/", "a"), 0),
    ],
)
def test_names_that_collide(path: Path, names: tuple[str, str], left: int) -> None:
    files = [(name, b"") if name.endswith("/") else (name, b"x") for name in names]
    with opened(path, zipped(*files)) as archive:
        (problem,) = archive.problems
        assert problem.expected == "names that differ, on any file system"
        assert len(archive.names) == left


def test_encrypted(path: Path) -> None:
    raw = bytearray(zipped((FIRST, FILE)))
    for place in (6, directory_of(raw)[0] + 8):
        raw[place] |= 1
    assert problems(path, bytes(raw)) == [f"an encrypted one: {FIRST!r}"]


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compression(path: Path, compression: int) -> None:
    raw = zipped((FIRST, FILE), compression=compression)
    assert problems(path, raw) == [f"compression method {compression}: {FIRST!r}"]


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "task_01/A.ZIP", "x.tgz", "x.7z"])
def test_archive_in_the_archive(path: Path, name: str) -> None:
    raw = zipped((name, HONEST), ("task_01/disp.nii.gz", b"x"), (FIRST, FILE))
    assert problems(path, raw) == [f"an archive in the archive: {name!r}"]


def test_everything_at_once(path: Path) -> None:
    """All that is wrong is told in one pass, and what is right can be read."""
    raw = zipped(
        ("../x", b""), ("/x", b""), ("a.zip", b""), (member("l", stat.S_IFLNK), b""), (FIRST, FILE)
    )
    with opened(path, raw) as archive:
        assert len(archive.problems) == 4
        assert archive.names == (NAMES[0],)


def test_many_of_one_kind(path: Path) -> None:
    found = problems(path, zipped(*((f"../{i}", b"") for i in range(500))))
    assert len(found) == 6
    assert found[-1] == "495 more of the kind"


# --- Bombs --------------------------------------------------------------------------------------


def test_thousands_of_members(path: Path) -> None:
    raw = zipped(*((f"{i}", b"") for i in range(5000)))
    assert problems(path, raw) == ["5000"]


def test_directory_of_a_million_members(path: Path) -> None:
    """Its entries would become objects of some gigabytes, were they read before being counted."""
    start, end = directory_of(HONEST)
    for n_entries, n_bytes, found in (
        (10**6, end - start, "1000000"),
        (10, 10**7, "a damaged or truncated one (a directory of 10000000 bytes)"),
    ):
        raw = HONEST[:start] + HONEST[start:end].ljust(n_bytes, b"x")
        wide = struct.pack(
            "<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, n_entries, n_entries, n_bytes, start
        )
        locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(raw), 1)
        narrow = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 2**16 - 1, 2**16 - 1, n_bytes, start, 0)
        path.write_bytes(raw + wide + locator + narrow)

        def look() -> list[str]:
            with open_archive(path, EXPECTED) as archive:
                return [problem.found for problem in archive.problems]

        assert peak_bytes(look) < 1 << 20
        assert look() == [found]


def test_time_of_as_many_bad_members_as_are_looked_at(path: Path) -> None:
    """A thousand members whose names are as long, deep and alike as they may be."""
    names = [f"{i:03d}/" + "a/" * 14 + "x" * 200 for i in range(500)]
    raw = zipped(*((name, b"") for name in names), *((name.upper(), b"") for name in names))
    path.write_bytes(raw)
    start = time.process_time()
    with open_archive(path, EXPECTED) as archive:
        assert len(archive.problems) == 6
    assert time.process_time() - start < 2


@pytest.mark.parametrize("honest", [True, False])
def test_overlapping_members(path: Path, honest: bool) -> None:
    """A kernel of zeros that every member shares, the next header quoted by the one before.

    The way of the 42 kB that unpack to gigabytes without a nested archive (Fifield, WOOT 2019).
    Whether the headers tell of it or not.
    """
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    zeros = bytes(10_000)
    kernel = packer.compress(zeros) + packer.flush()
    crc = zlib.crc32(zeros)
    names = [str(name).encode() for name in NAMES]
    local = b""
    for i, name in enumerate(names):
        packed = len(kernel) + honest * sum(30 + len(later) for later in names[i + 1 :])
        local += struct.pack(
            "<4s5H3L2H", b"PK\3\4", 20, 0, 8, 0, 0, crc, packed, len(zeros), len(name), 0
        )
        local += name
    directory, offset = b"", 0
    for name in names:
        shared = len(local) - offset - 30 - len(name) + len(kernel)
        directory += struct.pack(
            "<4s6H3L5H2L",
            *(
                b"PK\1\2",
                20,
                20,
                0,
                8,
                0,
                0,
                crc,
                shared,
                len(zeros),
                len(name),
                0,
                0,
                0,
                0,
                0,
                offset,
            ),
        )
        directory += name
        offset += 30 + len(name)
    body = local + kernel
    end = struct.pack(
        "<4s4H2LH", b"PK\5\6", 0, 0, len(names), len(names), len(directory), len(body), 0
    )
    with opened(path, body + directory + end) as archive:
        assert archive.names == ()
        assert any("in the same bytes" in problem.found for problem in archive.problems)


def raw_zip(name: bytes, *, local: bytes = b"", central: bytes = b"", **changes: int) -> bytes:
    """A zip of ``FILE``, with extra fields, and numbers of either header changed."""
    crc, n = zlib.crc32(FILE), len(FILE)
    there = {"version": 20, "flags": 0, "crc": crc, "packed": n, "size": n, **changes}
    head = struct.pack(
        *("<4s5H3L2H", b"PK\3\4", there["version"], there["flags"], 0, 0, 0),
        *(there["crc"], there["packed"], there["size"], len(name), len(local)),
    )
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, there.get("needed", 20), there["flags"],
        0, 0, 0, crc, n, n, len(name), len(central), 0, 0, 0, 0, 0) + name + central  # fmt: skip
    offset = 30 + len(name) + len(local) + n
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(entry), offset, 0)
    return head + name + local + FILE + entry + end


def unicode_path(name: bytes) -> bytes:
    return struct.pack("<2HBL", 0x7075, 5 + len(name), 1, zlib.crc32(FIRST.encode())) + name


@pytest.mark.parametrize("place", ["local", "central"])
@pytest.mark.parametrize("other", [str(NAMES[1]), "../../evil.npz", ""])
def test_member_with_two_names(path: Path, place: str, other: str) -> None:
    """unzip believes Info-ZIP's Unicode path rather than the name: with two members that name each
    other, it swapped the fields that we had checked."""
    field = {place: unicode_path(other.encode())}
    with opened(path, raw_zip(FIRST.encode(), **field)) as archive:  # type: ignore[arg-type]
        (problem,) = archive.problems
        assert problem.found == f"a damaged one (a member has two names): {FIRST!r}"
        assert archive.names == ()


def test_member_with_its_name_twice(path: Path) -> None:
    same = unicode_path(FIRST.encode())
    with opened(path, raw_zip(FIRST.encode(), local=same, central=same)) as archive:
        assert archive.problems == ()
        assert archive.names == (NAMES[0],)


@pytest.mark.parametrize("name", ["crc", "packed", "size"])
@pytest.mark.parametrize("value", [0, 10, 2**32 - 1])
@pytest.mark.parametrize("streamed", [False, True])
def test_header_that_lies(path: Path, name: str, value: int, streamed: bool) -> None:
    """Programs that read an archive from its start believe the header before the data, and got
    another content than those that begin with the directory."""
    raw = raw_zip(FIRST.encode(), flags=8 * streamed, **{name: value})  # type: ignore[arg-type]
    with opened(path, raw) as archive:
        if streamed and value == 0:  # it is told behind the data
            assert archive.problems == ()
        else:
            (problem,) = archive.problems
            assert problem.kind == "damaged"
            assert archive.names == ()


def test_sizes_in_a_zip64_field(path: Path) -> None:
    """As programs write them which do not know how long a member will be."""
    for size, packed, flags, is_right in (
        (len(FILE), len(FILE), 0, True),
        (len(FILE), len(FILE) + 1, 0, False),
        (0, 0, 0, False),
        (0, 0, 8, True),
    ):
        wide = struct.pack("<2H2Q", 1, 16, size, packed)
        full = {"size": 2**32 - 1, "packed": 2**32 - 1, "flags": flags}
        with opened(path, raw_zip(FIRST.encode(), local=wide, **full)) as archive:  # type: ignore[arg-type]
            assert (archive.names == (NAMES[0],)) is is_right


def test_version_that_no_program_knows(path: Path) -> None:
    for changes in ({"needed": 64}, {"needed": 255}, {"version": 64}):
        assert problems(path, raw_zip(FIRST.encode(), **changes))  # type: ignore[arg-type]
    assert not problems(path, raw_zip(FIRST.encode(), needed=63, version=45))
    assert not problems(path, raw_zip(FIRST.encode(), needed=20 | 3 << 8))  # the upper byte: system


def test_two_entries_of_one_member(path: Path) -> None:
    raw = zipped(("aaaa", FILE))
    start, stop = directory_of(raw)
    entry, end = raw[start:stop], bytearray(raw[stop:])
    end[8:16] = struct.pack("<2HL", 2, 2, 2 * len(entry))
    found = problems(path, raw[:start] + entry + entry.replace(b"aaaa", b"bbbb") + bytes(end))
    assert any("disagree" in one for one in found)


@pytest.mark.parametrize("claim", [None, 100, len(FILE), 2**32 - 2])
def test_member_bomb(path: Path, claim: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zeros by the hundred megabytes where a field should be, whatever size they claim."""
    monkeypatch.setattr(tempfile, "tempdir", str(path.parent))
    zeros = bytes(100 << 20)
    raw = bytearray(zipped((FIRST, zeros)))
    if claim is not None:
        for place in (22, directory_of(raw)[0] + 24):
            raw[place : place + 4] = struct.pack("<L", claim)
    with opened(path, bytes(raw)) as archive:

        def extract() -> None:
            with pytest.raises(FieldError), archive.file(NAMES[0]):
                pass

        assert archive.problems == () or claim == 2**32 - 2
        assert peak_bytes(extract) < 2 << 20
        assert list(path.parent.iterdir()) == [path]


def test_total_size(path: Path) -> None:
    """Far more is promised than fields take, in members that no pair expects."""
    raw = bytearray(zipped(*((f"{i}", b"x") for i in range(5))))
    place = raw.index(b"PK\1\2")
    while place >= 0:
        raw[place + 24 : place + 28] = struct.pack("<L", 1 << 30)
        raw[place + 10 : place + 12] = struct.pack("<H", 8)
        place = raw.find(b"PK\1\2", place + 1)
    assert f"{5 << 30} bytes" in problems(path, bytes(raw))


def test_oversize_field_says_what_it_may_be(path: Path) -> None:
    raw = zipped((FIRST, bytes(max_file_bytes(SPEC) + 1)))
    with opened(path, raw) as archive, pytest.raises(FieldError) as caught, archive.file(NAMES[0]):
        pass
    assert "is it at full resolution, or in double precision?" in str(caught.value)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damaged_member(path: Path, compression: int) -> None:
    raw = bytearray(zipped((FIRST, FILE), compression=compression))
    raw[len(raw) // 2] ^= 0xFF
    with opened(path, bytes(raw)) as archive:
        assert archive.names == (NAMES[0],)
        with pytest.raises(FieldError, match="intact member"), archive.file(NAMES[0]):
            pass


def test_no_room_for_a_copy(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full temporary folder ended the check in a traceback, in the middle of a zip.

    What a file may grow to is limited here: the same error, from the same call, as on a full disk.
    """
    monkeypatch.setattr(tempfile, "tempdir", str(path.parent))
    before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with opened(path, HONEST) as archive:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
        try:
            with (
                pytest.raises(OutputError, match=f"{path.parent}: expected room.*TMPDIR"),
                archive.file(NAMES[0]),
            ):
                pass
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))
    assert list(path.parent.iterdir()) == [path]


def test_no_temporary_folder(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(path.parent / "none"))
    with (
        opened(path, HONEST) as archive,
        pytest.raises(OutputError, match="TMPDIR"),
        archive.file(NAMES[0]),
    ):
        pass
