"""Field files that a submission wrote: a legal one is read, anything else is a FieldError.

Never a hang, another exception, or more memory than a legal field needs twice.
"""

from __future__ import annotations

import gzip
import io
import os
import pickle
import socket
import struct
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.challenge.field_file import max_file_bytes, read_field
from harness.challenge.model import FieldDtype, FieldSpec, Layout, load_challenge
from harness.errors import FieldError
from tests.field_files import field_refusal, incomplete_deflate, peak_bytes
from tests.tiny import HALF

if TYPE_CHECKING:
    from collections.abc import Callable

Array = npt.NDArray[Any]

SPEC = FieldSpec(
    path="disp_{fixed:04d}_{moving:04d}.npz",
    resolution="half",
    shape=(3, *HALF),
    dtype=FieldDtype.FLOAT16,
)
BIG_SPEC = load_challenge("learn2reg2021").task("task_01").field
FIELD: Array = np.random.default_rng(0).normal(0, 5, SPEC.shape).astype(np.float16)
HEADER = "{'descr': '<f2', 'fortran_order': False, 'shape': (3, 8, 6, 10), }"


def npy(array: Array) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npy_with(
    header: str | bytes, *, data: bytes = FIELD.tobytes(), version: int = 1, minor: int = 0
) -> bytes:
    """NPY bytes with any text as their header."""
    raw = header if isinstance(header, bytes) else header.encode()
    length = len(raw).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, minor]) + length + raw + data


def zipped(*members: bytes, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for i, member in enumerate(members):
            archive.writestr(f"arr_{i}.npy", member)
    return file.getvalue()


def patched(raw: bytes, *, local: dict[int, bytes], central: dict[int, bytes]) -> bytes:
    """A zip file of one member with bytes changed in its local and in its central header."""
    changed = bytearray(raw)
    directory = raw.rindex(b"PK\x01\x02")
    for start, changes in ((0, local), (directory, central)):
        for offset, value in changes.items():
            changed[start + offset : start + offset + len(value)] = value
    return bytes(changed)


def claiming(raw: bytes, file_size: int) -> bytes:
    """A zip file whose headers claim that its member inflates to ``file_size`` bytes."""
    claim = struct.pack("<I", file_size)
    return patched(raw, local={22: claim}, central={24: claim})


VALID = zipped(npy(FIELD))


@pytest.fixture
def field_path(tmp_path: Path) -> Path:
    return tmp_path / "disp_0001_0002.npz"


@pytest.fixture(scope="module")
def shared_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("field") / "disp_0001_0002.npz"


def refusal(path: Path, raw: bytes | None = None, spec: FieldSpec = SPEC) -> str:
    return field_refusal(path, spec, raw)


# --- Files that keep the contract ---------------------------------------------------------------


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_writes(field_path: Path, save: Callable[..., None]) -> None:
    save(field_path, FIELD)
    found = read_field(field_path, SPEC)
    assert np.array_equal(found, FIELD)
    assert found.dtype == np.float16


@pytest.mark.parametrize(
    "array",
    [FIELD, np.asfortranarray(FIELD), FIELD.astype(">f2"), np.asfortranarray(FIELD.astype(">f2"))],
    ids=["c", "fortran", "big_endian", "big_endian_fortran"],
)
def test_memory_layouts(field_path: Path, array: Array) -> None:
    np.savez_compressed(field_path, array)
    assert np.array_equal(read_field(field_path, SPEC), FIELD)


@pytest.mark.parametrize("dtype", [FieldDtype.FLOAT32, FieldDtype.FLOAT64])
def test_other_types_of_later_editions(field_path: Path, dtype: FieldDtype) -> None:
    spec = SPEC.model_copy(update={"dtype": dtype})
    np.savez_compressed(field_path, FIELD.astype(dtype.value))
    assert read_field(field_path, spec).dtype == np.dtype(dtype.value)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_versions_of_the_header(field_path: Path, version: int) -> None:
    field_path.write_bytes(zipped(npy_with(HEADER, version=version)))
    assert np.array_equal(read_field(field_path, SPEC), FIELD)


def test_archive_with_a_comment(field_path: Path) -> None:
    with zipfile.ZipFile(field_path, "w") as archive:
        archive.writestr("arr_0.npy", npy(FIELD))
        archive.comment = b"made by another program"
    assert np.array_equal(read_field(field_path, SPEC), FIELD)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_memory_of_a_legal_field(field_path: Path, save: Callable[..., None]) -> None:
    """Random bits, so that the file is as large as the array."""
    bits = np.random.default_rng(0).integers(0, 0x7800, BIG_SPEC.shape, np.uint16)
    save(field_path, bits.view(np.float16))
    assert peak_bytes(lambda: read_field(field_path, BIG_SPEC)) < 2 * BIG_SPEC.nbytes


# --- What is no regular file --------------------------------------------------------------------


def test_missing_file(field_path: Path) -> None:
    assert refusal(field_path) == "cannot be read (No such file or directory)"


@pytest.mark.parametrize("target", ["valid.npz", "nowhere.npz", "disp_0001_0002.npz", "/dev/zero"])
def test_symbolic_link(field_path: Path, target: str) -> None:
    (field_path.parent / "valid.npz").write_bytes(VALID)
    field_path.symlink_to(target)
    assert refusal(field_path) == (
        "expected a regular file, found a symbolic link; put the file itself there: cp -L copies "
        "what a link leads to"
    )


def test_pipe_does_not_block(field_path: Path) -> None:
    os.mkfifo(field_path)
    assert refusal(field_path) == "expected a regular file, found a pipe or device"


def test_folder(field_path: Path) -> None:
    field_path.mkdir()
    assert refusal(field_path) == (
        "expected a regular file, found a folder; put a file there, not a folder"
    )


def test_device() -> None:
    assert "pipe or device" in refusal(Path("/dev/zero"))


def test_socket(field_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(field_path))
        assert "cannot be read" in refusal(field_path)


def test_refused_files_are_closed(field_path: Path) -> None:
    """A campaign reads thousands of them."""
    field_path.mkdir()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        refusal(field_path)
        refusal(Path("/dev/zero"))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# --- Sizes --------------------------------------------------------------------------------------


def test_empty_file(field_path: Path) -> None:
    assert refusal(field_path, b"").startswith("expected an .npz file, found an empty one; ")


def test_oversize_file_is_not_read(field_path: Path) -> None:
    with field_path.open("wb") as file:
        file.truncate(1 << 40)
    limit = max_file_bytes(SPEC)
    assert refusal(field_path) == f"expected at most {limit} bytes, found {1 << 40}"


def test_oversize_file_says_why(field_path: Path) -> None:
    """The commonest mistakes make files that are too large; their headers are read all the same.

    Noise at full resolution was once told its size only, zeros (which deflate) their mistake.
    """
    big = SPEC.model_copy(update={"shape": (3, 40, 30, 50)})
    rng = np.random.default_rng(0)
    for array, found in (
        (rng.normal(0, 5, (3, 80, 60, 100)).astype(np.float16), "this is the full resolution"),
        (rng.normal(0, 5, big.shape), "expected dtype float16, found float64"),
    ):
        np.savez_compressed(field_path, array)
        assert field_path.stat().st_size > max_file_bytes(big)
        assert found in refusal(field_path, spec=big)
        assert peak_bytes(lambda: refusal(field_path, spec=big)) < 1 << 20


def test_the_size_limit_leaves_room_for_any_legal_field(field_path: Path) -> None:
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        noise = np.random.default_rng(1).integers(0, 0x7800, SPEC.shape, np.uint16)
        raw = zipped(npy(noise.view(np.float16)), compression=compression)
        assert len(raw) <= max_file_bytes(SPEC)
        field_path.write_bytes(raw)
        read_field(field_path, SPEC)


def bomb() -> bytes:
    """A correct header, then zeros: hundreds of megabytes in a small file."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = npy_with(HEADER, data=b"")
    zeros = bytes(1 << 20)
    body = packer.compress(start) + b"".join(packer.compress(zeros) for _ in range(50))
    body += packer.flush()
    assert len(body) < max_file_bytes(SPEC)
    size = len(start) + (50 << 20)
    file = io.BytesIO(zipped(b"", compression=zipfile.ZIP_DEFLATED))
    raw = file.getvalue()
    name_end = 30 + len("arr_0.npy")
    sizes = struct.pack("<II", len(body), size)
    directory = raw.rindex(b"PK\x01\x02")
    end = raw.rindex(b"PK\x05\x06")
    entry = bytearray(raw[directory:end])
    entry[20:28] = sizes
    local = bytearray(raw[:name_end])
    local[18:26] = sizes
    record = bytearray(raw[end:])
    record[16:20] = struct.pack("<I", name_end + len(body))
    return bytes(local) + body + bytes(entry) + bytes(record)


@pytest.mark.parametrize(
    "claim", [None, SPEC.nbytes + len(npy_with(HEADER, data=b"")), 100, 2**32 - 2, 0]
)
def test_zip_bomb_is_not_inflated(field_path: Path, claim: int | None) -> None:
    """Whether it tells its real size, the right size, less than that, or far more."""
    raw = bomb()
    field_path.write_bytes(raw if claim is None else claiming(raw, claim))
    assert peak_bytes(lambda: refusal(field_path)) < 2 << 20


def test_directory_bomb(field_path: Path) -> None:
    """A small file may list a hundred thousand members, each of which would become an object."""
    entry = VALID[VALID.rindex(b"PK\x01\x02") : VALID.rindex(b"PK\x05\x06")]
    end = bytearray(VALID[VALID.rindex(b"PK\x05\x06") :])
    n = BIG_SPEC.nbytes // len(entry)
    end[8:20] = struct.pack("<HHII", n % 2**16, n % 2**16, n * len(entry), 0)
    field_path.write_bytes(entry * n + end)
    peak = peak_bytes(lambda: refusal(field_path, spec=BIG_SPEC))
    assert peak < BIG_SPEC.nbytes


def test_huge_header(field_path: Path) -> None:
    raw = zipped(npy_with(HEADER + " " * 60000))
    assert "expected an array header of at most 4096 bytes" in refusal(field_path, raw)
    raw = zipped(npy_with(HEADER, version=2)[:8] + b"\xff\xff\xff\xff" + HEADER.encode())
    assert "expected an array header of at most 4096 bytes" in refusal(field_path, raw)


@pytest.mark.parametrize("difference", [-1, 1, -SPEC.nbytes, 100])
def test_wrong_header_length(field_path: Path, difference: int) -> None:
    """The header claims to be shorter or longer than it is, or values are missing or left over."""
    raw = bytearray(npy_with(HEADER))
    length = (len(HEADER) + difference) % 2**16
    raw[8:10] = length.to_bytes(2, "little")
    refusal(field_path, zipped(bytes(raw)))


@pytest.mark.parametrize("n", [0, 1, SPEC.nbytes - 2, SPEC.nbytes - 1])
def test_too_few_values(field_path: Path, n: int) -> None:
    refusal(field_path, zipped(npy_with(HEADER, data=FIELD.tobytes()[:n])))


@pytest.mark.parametrize("n", [1, 2, 5000])
def test_too_many_values(field_path: Path, n: int) -> None:
    refusal(field_path, zipped(npy_with(HEADER, data=FIELD.tobytes() + bytes(n))))


# --- Two files in one ---------------------------------------------------------------------------


def shifted(raw: bytes, n: int) -> bytes:
    """A zip file's directory and end, told that ``n`` bytes are inserted before its member."""
    start = raw.rindex(b"PK\x01\x02")
    changed = bytearray(raw[start:])
    changed[42:46] = struct.pack("<L", n)
    changed[-6:-2] = struct.pack("<L", start + n)
    return bytes(changed)


def test_two_files_in_one(field_path: Path) -> None:
    """np.load decides by the first bytes, we read from the end: of an array before the zip file it
    read that, and we, and the check of the submission, another."""
    other = npy(FIELD + np.float16(7))
    with zipfile.ZipFile(field_path, "w") as archive:
        archive.writestr("arr_0.npy", npy(FIELD))
    raw = field_path.read_bytes()
    member = raw[: raw.rindex(b"PK\x01\x02")]
    found = ("an .npy under its name", "come before its member", "come before its member")
    for before, message in zip((other, zipped(other), b"x"), found, strict=True):
        file = before + member + shifted(raw, len(before))
        field_path.write_bytes(file)
        with zipfile.ZipFile(field_path) as archive:
            assert archive.read("arr_0.npy") == npy(FIELD)
        assert message in refusal(field_path)


def gapped(raw: bytes, gap: bytes) -> bytes:
    """A zip file with other bytes between its member and its directory."""
    start = raw.rindex(b"PK\x01\x02")
    end = bytearray(raw[start:])
    end[-6:-2] = struct.pack("<L", start + len(gap))
    return raw[:start] + gap + bytes(end)


@pytest.mark.parametrize("gap", [b"x", bytes(12), bytes(16), bytes(24), VALID])
def test_bytes_between_member_and_directory(field_path: Path, gap: bytes) -> None:
    streamed = patched(VALID, local={6: b"\x08"}, central={8: b"\x08"})
    for raw in (VALID, streamed):
        assert "other bytes lie between" in refusal(field_path, gapped(raw, gap))


@pytest.mark.parametrize("signature", [b"", b"PK\7\x08"])
@pytest.mark.parametrize("sizes", ["<2L", "<2Q"])
def test_member_written_as_a_stream(field_path: Path, signature: bytes, sizes: str) -> None:
    """Its checksum and sizes follow the data, in one of four forms."""
    crc, packed, size = struct.unpack_from("<3L", VALID, 14)
    streamed = patched(VALID, local={6: b"\x08", 14: bytes(12)}, central={8: b"\x08"})
    told = signature + struct.pack("<L", crc) + struct.pack(sizes, packed, size)
    field_path.write_bytes(gapped(streamed, told))
    assert np.array_equal(read_field(field_path, SPEC), FIELD)
    assert np.array_equal(np.load(field_path)["arr_0"], FIELD)
    assert "other bytes lie between" in refusal(field_path, streamed)
    assert "other bytes lie between" in refusal(field_path, gapped(VALID, told))


@pytest.mark.parametrize("seekable", [True, False])
@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_what_zipfile_writes(
    field_path: Path, seekable: bool, wide: bool, compression: int
) -> None:
    class Target(io.BytesIO):
        def seekable(self) -> bool:
            return seekable

        def seek(self, offset: int, whence: int = 0, /) -> int:
            if not seekable:
                raise io.UnsupportedOperation("seek")
            return super().seek(offset, whence)

        def tell(self) -> int:
            if not seekable:
                raise io.UnsupportedOperation("tell")
            return super().tell()

    file = Target()
    with (
        zipfile.ZipFile(file, "w", compression) as archive,
        archive.open("arr_0.npy", "w", force_zip64=wide) as target,
    ):
        target.write(npy(FIELD))
    field_path.write_bytes(file.getvalue())
    assert np.array_equal(read_field(field_path, SPEC), FIELD)


# --- Content ------------------------------------------------------------------------------------


WHERE = "% of all, the first: component x at voxel (0, 0, 0)); "
OVERFLOW = "float16 holds at most 65504: are they in voxels?"
ZERO_BY_ZERO = "look for 0/0, such as the mean over an empty mask"


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ((np.nan, np.nan, np.nan), f"3 values that are NaN (0.21 {WHERE}{ZERO_BY_ZERO}"),
        ((np.inf, np.inf, -np.inf), f"3 values that are infinite (0.21 {WHERE}{OVERFLOW}"),
        (
            (np.nan, 1, np.inf),
            (
                "1 value that is NaN and 1 value that is infinite (0.14 "
                f"{WHERE}{ZERO_BY_ZERO}; {OVERFLOW}"
            ),
        ),
    ],
)
@pytest.mark.parametrize("byte_order", "<>")
def test_values_that_are_not_finite(
    field_path: Path, values: tuple[float, ...], found: str, byte_order: str
) -> None:
    """Infinity is what a displacement in the wrong unit becomes in half precision; NaN is not."""
    array = FIELD.astype(byte_order + "f2")
    array[:, 0, 0, 0] = values
    np.savez_compressed(field_path, array)
    assert refusal(field_path) == f"expected finite displacements, found {found}"


def test_infinity_beyond_half_precision(field_path: Path) -> None:
    spec = SPEC.model_copy(update={"dtype": FieldDtype.FLOAT32})
    array = FIELD.astype(np.float32)
    array[0, 0, 0, 0] = np.inf
    np.savez_compressed(field_path, array)
    assert refusal(field_path, spec=spec) == (
        "expected finite displacements, found 1 value that is infinite "
        f"(0.069 {WHERE}look for a division by 0"
    )


@pytest.mark.parametrize("fortran", [False, True])
@pytest.mark.parametrize("layout", Layout)
def test_the_first_that_is_not_finite_is_told(
    field_path: Path, layout: Layout, fortran: bool
) -> None:
    array = FIELD.copy()
    array[1, 7, 5, 9] = np.nan
    spec = SPEC
    if layout is Layout.CHANNELS_LAST:
        array = np.moveaxis(array, 0, -1)
        spec = SPEC.model_copy(update={"layout": layout, "shape": array.shape})
    np.savez(field_path, np.asfortranarray(array) if fortran else np.ascontiguousarray(array))
    assert "the first: component y at voxel (7, 5, 9)" in refusal(field_path, spec=spec)


CAST = "field.astype(np.float16)"


@pytest.mark.parametrize(
    ("dtype", "found"),
    [
        ("<f4", f"float32; {CAST}"),
        ("<f8", f"float64; {CAST}"),
        ("<i2", f"int16; whole numbers hold no parts of a voxel: {CAST}"),
        ("|b1", f"bool; is it a mask? {CAST}"),
        ("<c8", "complex64; displacements are real numbers: field.real.astype(np.float16)"),
    ],
)
def test_wrong_dtype(field_path: Path, dtype: str, found: str) -> None:
    np.savez_compressed(field_path, FIELD.astype(dtype))
    assert refusal(field_path) == f"expected dtype float16, found {found}"


def test_wrong_dtype_and_shape(field_path: Path) -> None:
    """Both at once, rather than one after another upload."""
    np.savez_compressed(field_path, np.moveaxis(FIELD, 0, -1).astype(np.float32))
    assert refusal(field_path) == (
        "expected dtype float16 and shape (3, 8, 6, 10), found float32 and (8, 6, 10, 3); "
        f"components come first: np.moveaxis(field, -1, 0); {CAST}"
    )


def test_full_resolution(field_path: Path) -> None:
    np.savez_compressed(field_path, np.zeros((3, 16, 12, 20), np.float16))
    assert refusal(field_path) == (
        "expected shape (3, 8, 6, 10), found (3, 16, 12, 20); this is the full resolution, the "
        "challenge wants half: "
        f"scipy.ndimage.zoom(field.astype(np.float32), (1, 0.5, 0.5, 0.5), order=1); {CAST}"
    )


def test_components_last(field_path: Path) -> None:
    np.savez_compressed(field_path, np.moveaxis(FIELD, 0, -1))
    assert refusal(field_path) == (
        "expected shape (3, 8, 6, 10), found (8, 6, 10, 3); components come first: "
        "np.moveaxis(field, -1, 0)"
    )


@pytest.mark.parametrize("shape", ["(3, 8, 6)", "()", "(0, 8, 6, 10)", f"({2**63 - 1}, 8, 6, 10)"])
def test_wrong_shape(field_path: Path, shape: str) -> None:
    header = HEADER.replace("(3, 8, 6, 10)", shape)
    assert f"expected shape (3, 8, 6, 10), found {shape}" in refusal(
        field_path, zipped(npy_with(header))
    )


class Trap:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)


def test_pickles_are_not_opened(field_path: Path, tmp_path: Path) -> None:
    mark = tmp_path / "opened"
    array = np.full(1, Trap(mark), dtype=object)
    np.savez(field_path, array)
    assert refusal(field_path) == "expected an array of numbers, found pickled Python objects"
    refusal(field_path, pickle.dumps(Trap(mark)))
    refusal(field_path, zipped(pickle.dumps(Trap(mark))))
    assert not mark.exists()


def test_records(field_path: Path) -> None:
    np.savez(field_path, np.zeros(SPEC.shape, [("x", "<f2")]))
    assert refusal(field_path) == "expected one number a voxel, found an array of records"


def test_two_arrays(field_path: Path) -> None:
    np.savez(field_path, first=FIELD, second=FIELD)
    assert refusal(field_path) == (
        "expected one array in the file, found 2 ('first', 'second'); "
        "np.savez_compressed(path, field)"
    )


@pytest.mark.parametrize("key", ["field", "arr_1", "arr_0.npy", "ARR_0"])
def test_array_of_another_name(field_path: Path, key: str) -> None:
    """The reference evaluation takes the one array that is there, whatever it is called."""
    np.savez_compressed(field_path, **{key: FIELD})  # type: ignore[arg-type]
    assert np.array_equal(read_field(field_path, SPEC), FIELD)


@pytest.mark.parametrize("name", ["arr_0.npy", "arr_0"])
def test_names_that_numpy_knows_the_array_by(field_path: Path, name: str) -> None:
    with zipfile.ZipFile(field_path, "w") as archive:
        archive.writestr(name, npy(FIELD))
    assert np.array_equal(np.load(field_path)["arr_0"], FIELD)
    assert np.array_equal(read_field(field_path, SPEC), FIELD)


def test_no_array(field_path: Path) -> None:
    assert refusal(field_path, zipped()) == (
        "expected one array in the file, found an empty zip; np.savez_compressed(path, field)"
    )


def test_names_in_the_archive_are_escaped(field_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("\x1b[2J\n" + "x" * 500, npy(FIELD))
        archive.writestr("../../etc/passwd", npy(FIELD))
    refusal(field_path, file.getvalue())


def test_not_a_zip_file(field_path: Path) -> None:
    for raw in (b"PK\x05\x06", b"hello", b"\x80", b"\x80hello", b"\x93NUMP"):
        assert "damaged or truncated" in refusal(field_path, raw)


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (npy(FIELD), "an .npy under its name: np.save writes those"),
        *(
            (
                pickle.dumps(FIELD, protocol),
                "a pickle: pickle.dump and np.save of objects write those",
            )
            for protocol in (2, 3, 4, 5)
        ),
        (gzip.compress(b"x"), "a gzip file: is it a .nii.gz?"),
    ],
)
def test_a_file_of_another_kind(field_path: Path, raw: bytes, found: str) -> None:
    assert refusal(field_path, raw) == (
        f"expected an .npz file, found {found}; np.savez_compressed(path, field)"
    )


def test_not_an_array_in_the_zip_file(field_path: Path) -> None:
    raw = zipped(b"hello" * 1000)
    assert "expected a NumPy array inside the .npz file" in refusal(field_path, raw)


@pytest.mark.parametrize("bit", [0, 6])
def test_encrypted(field_path: Path, bit: int) -> None:
    flags = struct.pack("<H", 1 << bit | 1)
    refusal(field_path, patched(VALID, local={6: flags}, central={8: flags}))


@pytest.mark.parametrize("method", [1, 9, 12, 14, 93, 99, 65535])
def test_other_compression(field_path: Path, method: int) -> None:
    code = struct.pack("<H", method)
    raw = patched(VALID, local={8: code}, central={10: code})
    assert "stored or deflated" in refusal(field_path, raw)


def test_bzip2_and_lzma(field_path: Path) -> None:
    for compression in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        raw = zipped(npy(FIELD), compression=compression)
        assert "stored or deflated" in refusal(field_path, raw)


def test_stream_that_zlib_refuses(field_path: Path) -> None:
    """A faster library than zlib, where it was installed, inflated it: whether the field was valid
    depended on an optional package, and the evaluation could not read it."""
    content = npy(FIELD)
    told = struct.pack("<L", zlib.crc32(content)), struct.pack("<L", len(content))
    raw = patched(
        zipped(incomplete_deflate(content), compression=zipfile.ZIP_STORED),
        local={8: b"\x08", 14: told[0], 22: told[1]},
        central={10: b"\x08", 16: told[0], 24: told[1]},
    )
    assert "invalid literal/lengths set" in refusal(field_path, raw)


def test_wrong_checksum(field_path: Path) -> None:
    assert "CRC" in refusal(
        field_path, patched(VALID, local={14: bytes(4)}, central={16: bytes(4)})
    )


@pytest.mark.parametrize("offset", [1, 1000, 2**32 - 1])
def test_offset_that_leads_elsewhere(field_path: Path, offset: int) -> None:
    refusal(field_path, patched(VALID, local={}, central={42: struct.pack("<I", offset)}))


@pytest.mark.parametrize("offset", [2**63 - 1, 2**63, 2**64 - 1])
def test_offset_past_any_file(field_path: Path, offset: int) -> None:
    """The zip64 extension holds offsets that no seek takes."""
    directory, end = VALID.rindex(b"PK\x01\x02"), VALID.rindex(b"PK\x05\x06")
    entry = bytearray(VALID[directory:end])
    extra = struct.pack("<HHQ", 1, 8, offset)
    entry[42:46] = b"\xff" * 4
    entry[30:32] = struct.pack("<H", len(extra))
    record = bytearray(VALID[end:])
    record[12:16] = struct.pack("<I", len(entry) + len(extra))
    refusal(field_path, VALID[:directory] + bytes(entry) + extra + bytes(record))


NESTED = "(" * 150 + ")" * 150

HEADERS = {
    "empty": "",
    "no_mapping": "(1, 2)",
    "number": "7",
    "set": "{'descr', 'shape', 'fortran_order'}",
    "missing_key": "{'descr': '<f2', 'shape': (3, 8, 6, 10)}",
    "nested": NESTED,
    "nested_value": HEADER.replace("(3, 8, 6, 10)", NESTED),
    "nested_shape": HEADER.replace("(3, 8, 6, 10)", "((3, 8), (6, 10))"),
    "very_nested": "(" * 4000,
    "minus": "-" * 4000 + "1",
    "lists": "[" * 2000 + "]" * 2000,
    "call": "{'descr': __import__('os').system('true'), 'fortran_order': False, 'shape': ()}",
    "product": HEADER.replace("3,", "3 * 1,"),
    "power": HEADER.replace("3,", "9 ** 9 ** 9,"),
    "infinite": HEADER.replace("3,", "1e999,"),
    "not_a_number": HEADER.replace("3,", "1e999 - 1e999,"),
    "complex": HEADER.replace("3,", "3j,"),
    "long_number": HEADER.replace("3,", "9" * 3900 + ","),
    "none": HEADER.replace("(3, 8, 6, 10)", "None"),
    "text": HEADER.replace("(3, 8, 6, 10)", "'3861'"),
    "unhashable": "{[]: 1}",
    "nul": HEADER.replace("<f2", "<f2\0"),
    "nul_behind": HEADER + "\0",
    "unclosed": HEADER[:-1],
    "bytes": HEADER.replace("'<f2'", "b'<f2'"),
    "shorter_type": HEADER.replace("<f2", "f2"),
    "numeric_type": HEADER.replace("'<f2'", "2"),
    "empty_type": HEADER.replace("<f2", ""),
    "odd_type": HEADER.replace("<f2", "(2f2,f4"),
    "comma_type": HEADER.replace("<f2", ","),
    "many_types": HEADER.replace("<f2", ",".join(["f2"] * 1000)),
    "old_type": HEADER.replace("<f2", "a5"),
    "void_type": HEADER.replace("<f2", "V2000000000"),
    "terminal": HEADER.replace("<f2", "\\x1b[2J\\n"),
    "escape": HEADER.replace("<f2", "\\d"),
    "types_of_records": HEADER.replace("'<f2'", "[('x', '<f2')]"),
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
@pytest.mark.parametrize("version", [1, 2])
def test_hostile_header(field_path: Path, header: str, version: int) -> None:
    refusal(field_path, zipped(npy_with(header, version=version)))


@pytest.mark.parametrize("shape", ["(3, 8, 6, 10 if 1else 2)", "'\\d'", "0xfor 1", "(1)(2)"])
def test_header_that_python_would_warn_of(field_path: Path, shape: str) -> None:
    """A file could write to standard error through the warnings of Python's parser."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        refusal(field_path, zipped(npy_with(HEADER.replace("(3, 8, 6, 10)", shape))))
    assert not caught


@pytest.mark.parametrize(
    "shape",
    [
        *(f"(0x{'f' * 3700},)", f"({'9' * 4000},)", f"(3, 8, 6, 0b{'1' * 3500})"),
        *("(3, 8, 6, -10)", "(-1, -1, -1, -1)", "(-0x1, 8, 6, 10)", f"({2**63}, 8, 6, 10)"),
        *("(" + "1, " * 33 + ")", "(True, 8, 6, 10)", "[3, 8, 6, 10]"),
    ],
    ids=range(10),
)
@pytest.mark.parametrize("descr", ["<f2", "<f4"])
def test_shape_that_is_none(field_path: Path, shape: str, descr: str) -> None:
    """Python's parser takes hexadecimal numbers of any length, but no more than 4300 decimal digits
    are printed: the message itself was once a ValueError, and the whole run's record was lost."""
    header = HEADER.replace("(3, 8, 6, 10)", shape).replace("<f2", descr)
    assert "expected a NumPy array header" in refusal(field_path, zipped(npy_with(header)))


@pytest.mark.parametrize(
    "raw",
    [
        npy_with(HEADER, minor=1),
        npy_with(HEADER, version=2, minor=255),
        npy_with("\n \t" + HEADER),
        npy_with(HEADER.replace("'shape'", "'extra': 1, 'shape'")),
        npy_with(HEADER.replace("(3, 8, 6, 10)", "(3L, 8, 6, 10)")),
        npy_with(HEADER + "\xa0"),
    ],
    ids=["version_1.1", "version_2.255", "indented", "extra_key", "python_2", "space"],
)
def test_header_that_numpy_would_refuse(field_path: Path, raw: bytes) -> None:
    """What we read and the evaluation cannot was told to be valid, and scored nothing."""
    assert "a NumPy array" in refusal(field_path, zipped(raw))


@pytest.mark.parametrize("order", ["0", "1", "'False'", "None", "[]"])
def test_order_that_is_none(field_path: Path, order: str) -> None:
    """NumPy takes True and False only; the text 'False' was once true."""
    header = HEADER.replace("False", order)
    assert "a NumPy array header" in refusal(field_path, zipped(npy_with(header)))


def test_header_that_is_no_text(field_path: Path) -> None:
    refusal(field_path, zipped(npy_with(b"\xff\xfe" + HEADER.encode())))


@pytest.mark.parametrize("version", [0, 4, 255])
def test_unknown_version_of_the_header(field_path: Path, version: int) -> None:
    """NumPy would not read it, so whoever evaluates with NumPy could not."""
    assert "NumPy array" in refusal(field_path, zipped(npy_with(HEADER, version=version)))


# --- Properties ---------------------------------------------------------------------------------


@given(st.integers(0, len(VALID) - 1))
@example(0)
@example(4)
@example(len(VALID) - 1)
@example(len(VALID) - 22)
@settings(deadline=None, max_examples=80)
def test_cut_file(shared_path: Path, cut: int) -> None:
    refusal(shared_path, VALID[:cut])


def test_cut_array_in_a_whole_zip_file(shared_path: Path) -> None:
    """At every byte of its header, and within its values."""
    raw = npy(FIELD)
    for cut in (*range(129), 200, len(raw) - 1):
        refusal(shared_path, zipped(raw[:cut], compression=zipfile.ZIP_STORED))


STORED = zipped(npy(FIELD), compression=zipfile.ZIP_STORED)


@given(
    raw=st.sampled_from([VALID, STORED]),
    flips=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(1, 255)), min_size=1, max_size=4),
    in_headers=st.booleans(),
)
@settings(deadline=None, max_examples=400)
def test_flipped_bytes(
    shared_path: Path, raw: bytes, flips: list[tuple[int, int]], in_headers: bool
) -> None:
    """A flip that changes a value is caught by the checksum; others may not matter."""
    changed = bytearray(raw)
    directory = raw.rindex(b"PK\x01\x02")
    headers = [*range(39 + 128), *range(directory, len(raw))]
    for place, mask in flips:
        changed[headers[place % len(headers)] if in_headers else place % len(raw)] ^= mask
    shared_path.write_bytes(changed)
    try:
        found = read_field(shared_path, SPEC)
    except FieldError:
        return
    assert found.shape == SPEC.shape
    assert np.isfinite(found).all()


@given(st.binary(max_size=400))
@settings(deadline=None, max_examples=100)
def test_any_bytes_inside_the_zip_file(shared_path: Path, raw: bytes) -> None:
    refusal(shared_path, zipped(b"\x93NUMPY" + raw))


def test_message_does_not_repeat_a_long_name(tmp_path: Path) -> None:
    """zipfile's error names the member, twice: 60 kB of a submission's text in each record."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("A" * 30_000, b"x")
    path = tmp_path / "field.npz"
    path.write_bytes(file.getvalue().replace(b"AAAA", b"BAAA", 1))
    with pytest.raises(FieldError) as caught:
        read_field(path, SPEC)
    assert len(str(caught.value)) < 200
