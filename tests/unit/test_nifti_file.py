"""NIfTI field files: what other programs write is read as they would, anything else is refused."""

from __future__ import annotations

import gzip
import io
import math
import struct
import zlib
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest

from harness.challenge import field_file, inflate
from harness.challenge.field import write_field
from harness.challenge.field_file import max_file_bytes, read_field
from harness.challenge.model import FieldDtype, FieldFormat, FieldSpec, Layout
from harness.challenge.nifti_file import MAX_DATA_OFFSET
from tests.field_files import field_refusal, incomplete_deflate, peak_bytes
from tests.tiny import HALF

if TYPE_CHECKING:
    from pathlib import Path

Array = npt.NDArray[Any]

SPEC = FieldSpec(
    path="disp_{fixed:04d}_{moving:04d}.nii.gz",
    format=FieldFormat.NIFTI,
    layout=Layout.CHANNELS_LAST,
    resolution="half",
    shape=(*HALF, 3),
    dtype=FieldDtype.FLOAT32,
)
BIG_SPEC = SPEC.model_copy(update={"shape": (96, 96, 104, 3)})
FIELD: Array = np.random.default_rng(0).normal(0, 5, SPEC.shape).astype(np.float32)
VECTORS: Array = np.moveaxis(FIELD, -1, 0)


def nifti(
    array: Array = FIELD,
    *,
    version: int = 1,
    byte_order: Literal["<", ">"] = "<",
    **changes: object,
) -> bytes:
    """A NIfTI file as NiBabel writes it, with fields of its header changed afterwards."""
    kind: Any = nib.nifti1.Nifti1Image if version == 1 else nib.nifti2.Nifti2Image
    header = kind.header_class(endianness=byte_order)
    header.set_data_dtype(array.dtype)
    raw = bytearray(kind(array, np.eye(4), header).to_bytes())
    fields: Array = np.ndarray((), header.template_dtype.newbyteorder(byte_order), raw)
    for name, value in changes.items():
        fields[name] = value
    return bytes(raw)


VALID = nifti()


@pytest.fixture
def plain_path(tmp_path: Path) -> Path:
    return tmp_path / "disp_0001_0002.nii"


@pytest.fixture
def packed_path(tmp_path: Path) -> Path:
    return tmp_path / "disp_0001_0002.nii.gz"


def refusal(path: Path, raw: bytes, spec: FieldSpec = SPEC) -> str:
    return field_refusal(path, spec, raw)


# --- Files that keep the contract ---------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("layout", Layout)
def test_what_we_write(tmp_path: Path, suffix: str, layout: Layout) -> None:
    array = FIELD if layout is Layout.CHANNELS_LAST else VECTORS
    path = tmp_path / f"disp_0001_0002{suffix}"
    write_field(array, path)
    spec = SPEC.model_copy(update={"layout": layout, "shape": array.shape})
    found = read_field(path, spec)
    assert np.array_equal(found, VECTORS)
    assert found.dtype == np.float32


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("byte_order", "<>")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_versions_byte_orders_and_types(
    plain_path: Path, version: int, byte_order: Literal["<", ">"], dtype: str
) -> None:
    """What NiBabel reads in them is what we read."""
    raw = nifti(FIELD.astype(dtype), version=version, byte_order=byte_order)
    plain_path.write_bytes(raw)
    spec = SPEC.model_copy(update={"other_dtypes": (FieldDtype.FLOAT64,)})
    found = read_field(plain_path, spec)
    theirs = np.asanyarray(nib.load(plain_path).dataobj)  # type: ignore[attr-defined]
    assert theirs.dtype.newbyteorder("=") == found.dtype == np.dtype(dtype)
    assert np.array_equal(np.moveaxis(theirs, -1, 0), found)


def test_either_layout(plain_path: Path) -> None:
    spec = SPEC.model_copy(update={"other_layouts": (Layout.CHANNELS_FIRST,)})
    for array in (FIELD, VECTORS):
        plain_path.write_bytes(nifti(array))
        assert np.array_equal(read_field(plain_path, spec), VECTORS)
    message = refusal(plain_path, nifti(FIELD[:-1]), spec)
    assert message.startswith("expected shape (8, 6, 10, 3) or (3, 8, 6, 10), found (7, 6, 10, 3)")


def test_extensions_before_the_values(plain_path: Path) -> None:
    image = nib.nifti1.Nifti1Image(FIELD, np.eye(4))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 5000))
    plain_path.write_bytes(image.to_bytes())
    assert np.array_equal(read_field(plain_path, SPEC), VECTORS)


def test_compressed_in_several_members(packed_path: Path) -> None:
    """As block gzip does, and ``cat a.gz b.gz``."""
    cuts = [0, 1, 200, 352, 353, len(VALID)]
    parts = [VALID[a:b] for a, b in pairwise(cuts)]
    packed_path.write_bytes(b"".join(map(gzip.compress, [b"", *parts, b""])))
    assert np.array_equal(read_field(packed_path, SPEC), VECTORS)


@pytest.mark.parametrize("slope", [0.0, 1.0, math.nan])
def test_unscaled_values(plain_path: Path, slope: float) -> None:
    plain_path.write_bytes(nifti(scl_slope=slope, scl_inter=0))
    assert np.array_equal(read_field(plain_path, SPEC), VECTORS)


@pytest.mark.parametrize("level", [0, 1, 9])
def test_the_size_limit_leaves_room_for_any_legal_field(packed_path: Path, level: int) -> None:
    """Incompressible values behind the longest incompressible extension."""
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 0x7F80_0000, SPEC.shape, np.uint32).view(np.float32)
    raw = nifti(noise, vox_offset=MAX_DATA_OFFSET)
    raw = raw[:352] + rng.bytes(MAX_DATA_OFFSET - 352) + raw[352:]
    packed_path.write_bytes(gzip.compress(raw, level))
    assert packed_path.stat().st_size <= max_file_bytes(SPEC)
    assert np.isfinite(read_field(packed_path, SPEC)).all()


@pytest.mark.parametrize("byte_order", "<>")
def test_memory_of_a_legal_field(packed_path: Path, byte_order: Literal["<", ">"]) -> None:
    noise = np.random.default_rng(0).integers(0, 0x7F80_0000, BIG_SPEC.shape, np.uint32)
    raw = nifti(noise.view(np.float32), byte_order=byte_order)
    packed_path.write_bytes(gzip.compress(raw, 1))
    assert peak_bytes(lambda: read_field(packed_path, BIG_SPEC)) < 1.2 * BIG_SPEC.nbytes


# --- Another kind of file -----------------------------------------------------------------------


def test_another_kind_of_file(plain_path: Path, packed_path: Path) -> None:
    archive = io.BytesIO()
    np.savez_compressed(archive, FIELD)
    for path, raw, message in (
        (packed_path, b"", "expected a NIfTI file, found an empty one"),
        (packed_path, archive.getvalue(), "found a zip file; is it an .npz?"),
        (packed_path, VALID, "found something else; it is not compressed: name it .nii"),
        (packed_path, b"hello", "expected a compressed NIfTI file, found something else"),
        (packed_path, gzip.compress(b"hello" * 100), "expected a NIfTI file, found something else"),
        (plain_path, gzip.compress(VALID), "found a compressed one; name it .nii.gz"),
        (plain_path, b"hello" * 100, "expected a NIfTI file, found something else"),
        (plain_path, VALID[:3], "damaged or truncated"),
        (plain_path, nifti(magic=b"ni1"), "found the header of a pair (.hdr, .img)"),
        (plain_path, nifti(magic=b""), "expected a NIfTI header, found something unreadable"),
    ):
        assert message in refusal(path, raw)


# --- Headers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": [4, 8, 6, 11, 3, 1, 1, 1]}, "expected shape (8, 6, 10, 3), found (8, 6, 11, 3)"),
        ({"dim": [4, 8, 6, -10, 3, 1, 1, 1]}, "found (8, 6, -10, 3)"),
        ({"dim": [4, 0, 0, 0, 0, 0, 0, 0]}, "found (0, 0, 0, 0)"),
        ({"dim": [4, *[32767] * 4, 1, 1, 1]}, "found (32767, 32767, 32767, 32767)"),
        ({"dim": [7, *[32767] * 7]}, "expected shape (8, 6, 10, 3), found (32767"),
        ({"dim": [3, 8, 6, 10, 3, 1, 1, 1]}, "one number a voxel"),
        ({"dim": [5, 8, 6, 10, 1, 3, 1, 1]}, "harness convert --from itk"),
        ({"dim": [5, 8, 6, 10, 3, 1, 1, 1]}, "np.squeeze(field, 4)"),
        ({"dim": [0, 8, 6, 10, 3, 1, 1, 1]}, "something unreadable"),
        ({"dim": [8, 8, 6, 10, 3, 1, 1, 1]}, "something unreadable"),
        ({"dim": [-4, 8, 6, 10, 3, 1, 1, 1]}, "something unreadable"),
        ({"datatype": 64, "bitpix": 64}, "found float64; field.astype(np.float32)"),
        ({"datatype": 4, "bitpix": 16}, "found int16; whole numbers hold no parts of a voxel"),
        (
            {"datatype": 4, "bitpix": 16, "scl_slope": 0.01},
            (
                "found int16, scaled; store the displacements themselves, unscaled: "
                "nib.Nifti1Image(field.astype(np.float32), np.eye(4))"
            ),
        ),
        ({"datatype": 128, "bitpix": 24}, "found RGB colours"),
        ({"datatype": 1536, "bitpix": 128}, "found float128"),
        ({"datatype": 0}, "found datatype 0"),
        ({"datatype": -77}, "found datatype -77"),
        ({"bitpix": 16}, "expected 32 bits a value, those of float32, found 16"),
        ({"vox_offset": 0}, "expected values that start at byte"),
        ({"vox_offset": 351}, "found 351"),
        ({"vox_offset": -352}, "found -352"),
        ({"vox_offset": MAX_DATA_OFFSET + 1}, "found 32769"),
        ({"vox_offset": 2**30}, "found 1073741824"),
        ({"vox_offset": 560}, "expected 5760 bytes of values, found 5"),
        (
            {"scl_slope": 2},
            "expected unscaled values (scl_slope 1, scl_inter 0), found scl_slope 2",
        ),
        ({"scl_slope": 1, "scl_inter": 0.5}, "scl_inter 0.5; store the displacements themselves"),
        ({"scl_slope": math.inf}, "found scl_slope inf"),
        ({"scl_slope": 1, "scl_inter": math.nan}, "scl_inter nan"),
        ({"scl_slope": -1, "scl_inter": 0}, "found scl_slope -1"),
    ],
    ids=str,
)
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("byte_order", "<>")
def test_header(
    plain_path: Path,
    changes: dict[str, Any],
    message: str,
    version: int,
    byte_order: Literal["<", ">"],
) -> None:
    raw = nifti(version=version, byte_order=byte_order, **changes)
    assert message in refusal(plain_path, raw)


@pytest.mark.parametrize("offset", [math.nan, math.inf, -math.inf, 352.5, 1e30])
def test_offset_that_is_no_place(plain_path: Path, offset: float) -> None:
    assert "(vox_offset), found" in refusal(plain_path, nifti(vox_offset=offset))


@pytest.mark.parametrize("n", [2**31, 2**62, -(2**63)])
def test_absurd_dimensions_of_nifti2(plain_path: Path, n: int) -> None:
    raw = nifti(version=2, dim=[4, n, n, n, 3, 1, 1, 1])
    assert peak_bytes(lambda: refusal(plain_path, raw)) < 1 << 20


# --- What the evaluation's reader refuses -------------------------------------------------------


def loads(path: Path) -> bool:
    """Does NiBabel, with which the evaluation reads, open it?"""
    try:
        values = nib.load(path).get_fdata()  # type: ignore[attr-defined]
    except Exception:  # of many kinds; any ends the evaluation
        return False
    return np.array_equal(np.moveaxis(values, -1, 0), VECTORS)


HALF_TURN = 3**-0.5


@pytest.mark.parametrize(
    ("quaternion", "codes", "is_right"),
    [
        ((0, 0, 0), (1, 0), True),
        ((1, 0, 0), (1, 0), True),
        ((HALF_TURN, HALF_TURN, HALF_TURN), (1, 0), True),
        ((9, 0, 0), (1, 0), False),
        ((math.inf, 0, 0), (2, 0), False),
        ((0.8, 0.8, 0), (4, 0), False),
        ((1.000001, 0, 0), (1, 0), False),
        ((9, 0, 0), (1, 1), True),
        ((9, 0, 0), (0, 0), True),
        ((9, 0, 0), (1, -7), False),
    ],
)
@pytest.mark.parametrize("version", [1, 2])
def test_quaternion(
    plain_path: Path,
    quaternion: tuple[float, float, float],
    codes: tuple[int, int],
    is_right: bool,
    version: int,
) -> None:
    """We use no affine, so a field was told to be valid that ended the evaluation in an error."""
    parts = dict(zip(("quatern_b", "quatern_c", "quatern_d"), quaternion, strict=True))
    changes: dict[str, Any] = {"qform_code": codes[0], "sform_code": codes[1], **parts}
    raw = nifti(version=version, **changes)
    plain_path.write_bytes(raw)
    assert loads(plain_path) is is_right
    if is_right:
        assert np.array_equal(read_field(plain_path, SPEC), VECTORS)
    else:
        assert "expected a rotation (quatern_b" in refusal(plain_path, raw)


def extended(*extensions: tuple[int, bytes], byte_order: Literal["<", ">"], version: int) -> bytes:
    """A file with these sizes and contents before its values."""
    parts = [struct.pack(f"{byte_order}2i", size, 6) + rest for size, rest in extensions]
    place = 348 if version == 1 else 540
    offset = place + 4 + len(b"".join(parts))
    raw = nifti(version=version, byte_order=byte_order, vox_offset=offset)
    return raw[:place] + b"\1\0\0\0" + b"".join(parts) + raw[place + 4 :]


@pytest.mark.filterwarnings("ignore:Extension size is not a multiple")
@pytest.mark.parametrize(
    ("extensions", "is_right"),
    [
        ([], True),
        ([(16, bytes(8))], True),
        ([(32, bytes(24)), (16, bytes(8))], True),
        ([(12, bytes(4)), (20, bytes(12))], True),
        ([(8, b""), (8, b"")], True),
        ([(0, bytes(8))], False),
        ([(-16, bytes(8))], False),
        ([(7, bytes(8))], False),
        ([(2**31 - 16, bytes(8))], False),
        ([(16, bytes(8)), (10_000, bytes(24))], False),
    ],
)
@pytest.mark.parametrize("byte_order", "<>")
@pytest.mark.parametrize("version", [1, 2])
def test_sizes_of_extensions(
    plain_path: Path,
    extensions: list[tuple[int, bytes]],
    is_right: bool,
    byte_order: Literal["<", ">"],
    version: int,
) -> None:
    """They were skipped unseen; NiBabel reads them one by one, and opens no file of others."""
    raw = extended(*extensions, byte_order=byte_order, version=version)
    plain_path.write_bytes(raw)
    assert loads(plain_path) is is_right
    if is_right:
        assert np.array_equal(read_field(plain_path, SPEC), VECTORS)
    else:
        assert "expected extensions that end at byte" in refusal(plain_path, raw)


@pytest.mark.parametrize("magic", [b"n+1\0", b"ni1\0"])
def test_file_of_both_versions(plain_path: Path, magic: bytes) -> None:
    """NiBabel looks for the first version's magic first, which lies among the second's numbers."""
    raw = nifti(version=2, qform_code=int.from_bytes(magic, "little"), sform_code=1)
    plain_path.write_bytes(raw)
    assert not loads(plain_path)
    assert "of both versions" in refusal(plain_path, raw)


def test_cifti(plain_path: Path) -> None:
    raw = nifti(version=2, intent_code=3001)
    plain_path.write_bytes(raw)
    assert not loads(plain_path)
    assert "found a CIFTI one (intent 3001)" in refusal(plain_path, raw)


# --- Sizes and damage ---------------------------------------------------------------------------


def test_cut_file(plain_path: Path, packed_path: Path) -> None:
    packed = gzip.compress(VALID)
    for cut in (*range(1, 360, 7), len(VALID) - 1):
        refusal(plain_path, VALID[:cut])
    for cut in (*range(1, 30), *range(30, 300, 11), *range(len(packed) - 12, len(packed))):
        refusal(packed_path, packed[:cut])
    for cut in range(0, len(VALID), 311):
        refusal(packed_path, gzip.compress(VALID[:cut]))


@pytest.mark.parametrize("rest", [b"\0", b"x", b"\0" * 512, b"x" * 100_00])
def test_bytes_behind_the_values(plain_path: Path, packed_path: Path, rest: bytes) -> None:
    found = "expected 5760 bytes of values, found more"
    assert refusal(plain_path, VALID + rest) == found
    assert refusal(packed_path, gzip.compress(VALID + rest)) == found
    assert refusal(packed_path, gzip.compress(VALID) + gzip.compress(rest)) == found


@pytest.mark.parametrize("rest", [b"\0", b"\x1f", b"\x1f\x8b", b"hello", gzip.compress(b"")[:-1]])
def test_bytes_behind_the_gzip_member(packed_path: Path, rest: bytes) -> None:
    assert "damaged or truncated" in refusal(packed_path, gzip.compress(VALID) + rest)


@pytest.mark.parametrize("place", [-8, -4])
def test_wrong_trailer(packed_path: Path, place: int) -> None:
    """Its CRC-32, then its length."""
    raw = bytearray(gzip.compress(VALID))
    raw[place] ^= 1
    assert "damaged or truncated" in refusal(packed_path, bytes(raw))


def test_stream_that_zlib_refuses(packed_path: Path) -> None:
    """As for .npz: the evaluation inflates with zlib, and so do we, whatever is installed."""
    trailer = struct.pack("<2L", zlib.crc32(VALID), len(VALID))
    raw = gzip.compress(b"")[:10] + incomplete_deflate(VALID) + trailer
    assert "invalid literal/lengths set" in refusal(packed_path, raw)


@pytest.mark.parametrize("dim", [BIG_SPEC.shape, (*[32767] * 4,)])
def test_gzip_bomb_is_not_inflated(packed_path: Path, dim: tuple[int, ...]) -> None:
    """A correct header, or an absurd one, before 200 MB of zeros in 200 kB."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    raw = packer.compress(nifti(dim=[4, *dim, 1, 1, 1])[:352])
    raw += b"".join(packer.compress(bytes(1 << 20)) for _ in range(200)) + packer.flush()
    limit = 1.2 * BIG_SPEC.nbytes if dim == BIG_SPEC.shape else 1 << 20
    assert peak_bytes(lambda: refusal(packed_path, raw, BIG_SPEC)) < limit


def test_thousands_of_empty_members(packed_path: Path) -> None:
    """Half a million of them fit in a file of a field's size; each costs a new decompressor."""
    raw = (
        gzip.compress(nifti(dim=[4, *BIG_SPEC.shape, 1, 1, 1])[:352]) + gzip.compress(b"") * 500_000
    )
    assert len(raw) < max_file_bytes(BIG_SPEC)
    assert "too many gzip members" in refusal(packed_path, raw, BIG_SPEC)


def test_empty_blocks_without_an_end(packed_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file that is too large the header is read, but not by reading all of the file for it."""
    sizes: list[int] = []

    class Counted(inflate.FrugalFile):
        def read(self, size: int, /) -> bytes:
            data = super().read(size)
            sizes.append(len(data))
            return data

    monkeypatch.setattr(field_file, "FrugalFile", Counted)
    raw = gzip.compress(b"")[:10] + b"\0\0\0\xff\xff" * (1 << 20)
    assert "expected at most" in refusal(packed_path, raw)
    assert 0 < sum(sizes) < len(raw) / 4


def test_empty_blocks(packed_path: Path) -> None:
    """Deflate blocks that hold nothing: a megabyte of input without a byte of output."""
    raw = gzip.compress(b"")[:10] + b"\0\0\0\xff\xff" * 200_000
    assert "damaged or truncated" in refusal(packed_path, raw, BIG_SPEC)
