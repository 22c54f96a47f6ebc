"""The list of pairs is read strictly, and everything wrong with a data folder is said at once."""

from __future__ import annotations

import gzip
import itertools
import os
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.challenge import nifti
from harness.challenge.model import load_challenge, parse_challenge
from harness.challenge.nifti import NiftiError, read_header
from harness.challenge.pairs import check_data, read_pairs, tops
from harness.errors import DataError
from tests.editions import tiny_edition, write_edition
from tests.tiny import GRID, YAML, tiny_challenge, write_data, write_image

if TYPE_CHECKING:
    from collections.abc import Iterator

CHALLENGE = tiny_challenge()
LIST = "task_01/pairs_val.csv"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data")


def findings(data_dir: Path) -> tuple[str, ...]:
    """What is wrong with the data folder, lists and images."""
    with pytest.raises(DataError) as caught:
        check_data(CHALLENGE, data_dir)
    for finding in caught.value.findings:
        assert f"  - {finding}" in str(caught.value)
    return caught.value.findings


def one_finding(data_dir: Path) -> str:
    (finding,) = findings(data_dir)
    return finding


def pair_ids(data_dir: Path, task: int = 0) -> list[tuple[int, int]]:
    pairs = read_pairs(CHALLENGE, data_dir)[task].pairs
    return [(pair.fixed_id, pair.moving_id) for pair in pairs]


@contextmanager
def as_ordinary_user() -> Iterator[Path]:
    """A new folder in which file permissions count, also when root runs the tests."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        was_root = os.geteuid() == 0
        if was_root:
            os.chown(folder, 65534, -1)
            os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            if was_root:
                os.seteuid(0)


# --- What is read -------------------------------------------------------------------------------


def test_pairs_in_file_order_with_their_files(data: Path) -> None:
    (data / LIST).write_text("fixed,moving\n2,2\n1,2\n1,1\n")
    write_image(data / "task_01/mask0002.nii.gz")
    first, second = check_data(CHALLENGE, data)
    assert [pair.key for pair in first.pairs] == [
        "task_01/0002_0002",
        "task_01/0001_0002",
        "task_01/0001_0001",
    ]
    with_mask, without_mask, _ = first.pairs
    assert with_mask.fixed == PurePosixPath("task_01/img0002.nii.gz")
    assert with_mask.auxiliary == (("fixed_mask", PurePosixPath("task_01/mask0002.nii.gz")),)
    assert len(with_mask.inputs) == 3
    assert without_mask.auxiliary == ()
    assert without_mask.inputs == (
        PurePosixPath("task_01/img0001.nii.gz"),
        PurePosixPath("task_01/img0002.nii.gz"),
    )
    assert without_mask.field == PurePosixPath("task_01/disp_0001_0002.npz")
    assert second.task.name == "task_02"


def test_chained_pairs_share_an_image(data: Path) -> None:
    first, second = read_pairs(CHALLENGE, data)[1].pairs
    assert first.moving == second.fixed
    assert first.key != second.key


def test_absent_task_is_skipped(data: Path) -> None:
    (data / "task_01").rename(data / "elsewhere")
    assert [found.task.name for found in check_data(CHALLENGE, data)] == ["task_02"]


@pytest.mark.parametrize(
    "text",
    [
        "fixed,moving\n1,1\n2,2\n",
        "fixed,moving\n1,1\n2,2",
        "\ufefffixed,moving\n1,1\n2,2\n",
        "fixed,moving\r\n1,1\r\n2,2\r\n",
        "\n\nfixed,moving\n\n1,1\n   \n2,2\n\n\n",
        "fixed, moving\n 1 ,1\n2,\t2\n",
        '"fixed","moving"\n"1","1"\n2,2\n',
        "fixed,moving\n0001,01\n002,2\n",
    ],
    ids=["plain", "no_last_newline", "bom", "crlf", "blank_lines", "spaces", "quotes", "zeros"],
)
def test_harmless_spellings(data: Path, text: str) -> None:
    (data / LIST).write_bytes(text.encode())
    assert pair_ids(data) == [(1, 1), (2, 2)]


def test_other_column_names() -> None:
    challenge = parse_challenge(
        YAML.replace(
            "pairs: {format: csv, path: task_01/pairs_val.csv}",
            "pairs: {path: task_01/pairs_val.csv, fixed_column: target, moving_column: source}",
        ),
        origin="tiny",
    )
    with tempfile.TemporaryDirectory() as folder:
        data = write_data(Path(folder) / "data")
        with pytest.raises(DataError, match="expected the header 'target,source'"):
            read_pairs(challenge, data)
        (data / LIST).write_text("target,source\n1,1\n")
        assert len(read_pairs(challenge, data)[0].pairs) == 1


def test_required_auxiliary_file(data: Path) -> None:
    optional = '{path: "task_01/mask{fixed:04d}.nii.gz"}'
    required = '{path: "task_01/mask{fixed:04d}.nii.gz", required: true}'
    challenge = parse_challenge(YAML.replace(optional, required), origin="tiny")
    write_image(data / "task_01/mask0001.nii.gz")
    with pytest.raises(DataError) as caught:
        read_pairs(challenge, data)
    assert caught.value.findings == (
        "task_01 pair 2,2: expected its fixed_mask file task_01/mask0002.nii.gz, found none",
    )


def test_reading_the_pairs_opens_no_image(data: Path) -> None:
    """The runner reads the pairs inside the container, where an opened image starts a clock."""
    for image in data.rglob("*.nii.gz"):
        image.write_bytes(b"this is no image")
    assert len(read_pairs(CHALLENGE, data)) == 2


# --- A list that breaks the rules ---------------------------------------------------------------

HEADER = "fixed,moving\n"
LONG = "1" * 100_000

BROKEN_LISTS = {
    "empty": ("", f"{LIST}: expected the header fixed,moving, found an empty file"),
    "only_blank": ("\n  \n\n", f"{LIST}: expected the header fixed,moving, found an empty file"),
    "only_header": (HEADER, f"{LIST}: expected one row a pair below the header, found none"),
    "no_header": ("1,1\n2,2\n", f"{LIST}, line 1: expected the header 'fixed,moving', found '1,1'"),
    "swapped": ("moving,fixed\n1,1\n", "line 1: expected the header 'fixed,moving', found 'moving"),
    "capitals": ("Fixed,Moving\n1,1\n", "found 'Fixed,Moving'"),
    "semicolons": ("fixed;moving\n1;1\n", "found 'fixed;moving'"),
    "header_of_three": ("fixed,moving,x\n1,1,1\n", "found 'fixed,moving,x'"),
    "word": (HEADER + "1,1\none,2\n", f"{LIST}, line 3: expected case ids from 0 to 9999"),
    "float": (HEADER + "1.0,1\n", "line 2: expected case ids from 0 to 9999, whole numbers, found"),
    "negative": (HEADER + "-1,1\n", "line 2: expected case ids from 0 to 9999, whole numbers"),
    "plus": (HEADER + "+1,1\n", "whole numbers, found '+1'"),
    "underscore": (HEADER + "1_0,1\n", "whole numbers, found '1_0'"),
    "missing_id": (HEADER + "1,\n", "line 2: expected case ids"),
    "both_missing": (HEADER + "1,1\n,\n", "line 3: expected case ids"),
    "too_big": (HEADER + "1,10000\n", "whole numbers, found '10000'"),
    "huge": (HEADER + f"1,{LONG}\n", "whole numbers, found '1111"),
    "zeros_then_big": (HEADER + "1,0000000000000000000010000\n", "line 2: expected case ids"),
    "arabic_digits": (HEADER + "\u0661,1\n", "whole numbers, found '\u0661'"),
    "superscript": (HEADER + "²,1\n", "whole numbers, found '²'"),
    "three": (HEADER + "1,1,1\n", f"{LIST}, line 2: expected two case ids, found '1,1,1'"),
    "one": (HEADER + "1\n", f"{LIST}, line 2: expected two case ids, found '1'"),
    "semicolon_row": (HEADER + "1;1\n", "expected two case ids, found '1;1'"),
    "comment": (HEADER + "# 1,1\n", "line 2: expected case ids"),
    "nul": (HEADER + "1\0,1\n", "line 2: expected case ids"),
    "nul_header": ("fi\0xed,moving\n1,1\n", "line 1: expected the header"),
    "twice": (HEADER + "1,1\n\n01,1\n", f"{LIST}, line 4: the pair 1,1 stands in line 2 too"),
    "open_quote": (HEADER + '"1,1\n2,2\n', "expected two case ids"),
    "huge_cell": (HEADER + "x" * 200_000 + ",1\n", "line 2: not a CSV row"),
}


@pytest.mark.parametrize(("text", "said"), BROKEN_LISTS.values(), ids=BROKEN_LISTS)
def test_broken_list(data: Path, text: str, said: str) -> None:
    (data / LIST).write_bytes(text.encode())
    finding = one_finding(data)
    assert finding.startswith(LIST)
    assert said in finding
    assert len(finding) < 300
    assert "\0" not in finding


@pytest.mark.parametrize(
    "raw", [b"\xff\xfef\0i\0x\0e\0d\0", b"\x1f\x8b\x08\0\0\xff", b"fixed,moving\n\xe9,1\n"]
)
def test_binary_list(data: Path, raw: bytes) -> None:
    (data / LIST).write_bytes(raw)
    assert f"{LIST}: expected a text file, found bytes that are not UTF-8" in one_finding(data)


def test_missing_list(data: Path) -> None:
    (data / LIST).unlink()
    assert one_finding(data) == f"{LIST}: expected the list of pairs, found no file"


def test_folder_in_place_of_a_list(data: Path) -> None:
    (data / LIST).unlink()
    (data / LIST).mkdir()
    assert one_finding(data) == f"{LIST}: expected the list of pairs, found no file"


def test_endless_list(data: Path) -> None:
    (data / LIST).write_text(HEADER + "1,1\n" * 1_100_000)
    assert "expected a list of at most" in one_finding(data)


def test_every_broken_row_is_listed(data: Path) -> None:
    (data / LIST).write_text(HEADER + "x,1\n1,1\n1,1\n1,2,3\n2,2\n2,-1\n")
    found = findings(data)
    assert [finding.split(":")[0] for finding in found] == [
        f"{LIST}, line 2",
        f"{LIST}, line 4",
        f"{LIST}, line 5",
        f"{LIST}, line 7",
    ]


# --- Files that are missing or lead elsewhere ---------------------------------------------------


def test_no_data_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none", Path(__file__)):
        with pytest.raises(DataError, match="expected a folder, found none") as caught:
            check_data(CHALLENGE, path)
        assert str(path) in str(caught.value)


def test_no_task_at_all(tmp_path: Path) -> None:
    (tmp_path / "task_01").write_text("a file, not a folder")
    with pytest.raises(DataError, match="expected at least one of task_01/, task_02/"):
        check_data(CHALLENGE, tmp_path)


@pytest.mark.parametrize("folder", ["none", "."])
def test_way_to_data(tmp_path: Path, folder: str) -> None:
    """Phantom data can be made for the built-in challenges only."""
    with pytest.raises(DataError, match=r"found none; unpack the challenge's data there$"):
        read_pairs(CHALLENGE, tmp_path / folder)
    made = rf"--challenge lumir2024 --data {(tmp_path / folder)}`$"
    with pytest.raises(DataError, match=f"make phantom data: `harness phantom {made}"):
        read_pairs(load_challenge("lumir2024"), tmp_path / folder)


def test_missing_images(data: Path) -> None:
    (data / "task_02/img0008.nii.gz").unlink()
    assert findings(data) == (
        "task_02 pair 7,8: expected its moving file task_02/img0008.nii.gz, found none",
        "task_02 pair 8,9: expected its fixed file task_02/img0008.nii.gz, found none",
    )


@pytest.mark.parametrize("kind", ["folder", "pipe", "loop", "dangling"])
def test_what_is_no_image_file(data: Path, kind: str) -> None:
    path = data / "task_01/img0001.nii.gz"
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(path if kind == "loop" else data / "nowhere")
    assert findings(data) == (
        "task_01 pair 1,1: expected its fixed file task_01/img0001.nii.gz, found none",
        "task_01 pair 1,1: expected its moving file task_01/img0001.nii.gz, found none",
    )


def test_link_out_of_the_data_folder(data: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.nii.gz"
    write_image(outside)
    image = data / "task_02/img0007.nii.gz"
    image.unlink()
    image.symlink_to(outside)
    assert one_finding(data) == (
        f"task_02 pair 7,8: task_02/img0007.nii.gz leads out of the data folder, to {outside}"
    )


def test_list_linked_from_outside(data: Path, tmp_path: Path) -> None:
    (data / LIST).rename(tmp_path / "pairs.csv")
    (data / LIST).symlink_to("../../pairs.csv")
    finding = one_finding(data)
    assert finding == f"{LIST}: leads out of the data folder, to {tmp_path / 'pairs.csv'}"


def test_task_folder_linked_from_outside(data: Path, tmp_path: Path) -> None:
    (data / "task_01").rename(tmp_path / "outside")
    (data / "task_01").symlink_to(tmp_path / "outside")
    assert "leads out of the data folder" in one_finding(data)


def test_links_within_the_data_folder_are_fine(data: Path, tmp_path: Path) -> None:
    """Also when the data folder itself is reached through a link."""
    image = data / "task_01/img0001.nii.gz"
    image.rename(data / "shared.nii.gz")
    image.symlink_to("../shared.nii.gz")
    (tmp_path / "link").symlink_to(data)
    assert len(check_data(CHALLENGE, tmp_path / "link")) == 2


def test_unreadable_files() -> None:
    with as_ordinary_user() as folder:
        data = write_data(folder / "data")
        (data / LIST).chmod(0)
        (data / "task_02/img0007.nii.gz").chmod(0)
        found = findings(data)
        assert found[0] == f"{LIST}: cannot be read (Permission denied)"
        assert "task_02/img0007.nii.gz: cannot be read" in found[1]
        assert len(found) == 2


def test_what_the_tasks_need_of_the_data_folder(data: Path) -> None:
    """The folders of the tasks, and where links in them lead; not what else lies beside them."""
    (data / "answers").mkdir()
    (data / "old.zip").touch()
    assert tops(read_pairs(tiny_challenge(), data), data) == ("task_01", "task_02")
    (data / "pool").mkdir()
    image = data / "task_01/img0001.nii.gz"
    image.rename(data / "pool/one.nii.gz")
    image.symlink_to("../pool/one.nii.gz")
    assert tops(read_pairs(tiny_challenge(), data), data) == ("pool", "task_01", "task_02")


def test_a_list_at_the_top_is_needed_by_itself(tmp_path: Path) -> None:
    write_edition(tmp_path, "lumir2024", pairs=2)
    (tmp_path / "labelsVal").mkdir()
    found = read_pairs(tiny_edition("lumir2024"), tmp_path)
    assert tops(found, tmp_path) == ("LUMIR_dataset.json", "imagesVal")


@pytest.mark.parametrize("locked", [".", "task_01"])
def test_folder_that_may_not_be_entered(locked: str) -> None:
    with as_ordinary_user() as folder:
        data = write_data(folder / "data")
        (data / locked).chmod(0)
        try:
            with pytest.raises(DataError, match="Permission denied"):
                check_data(CHALLENGE, data)
        finally:
            (data / locked).chmod(0o755)


def test_everything_wrong_is_listed_at_once(data: Path, tmp_path: Path) -> None:
    """A wrong row, a missing image, one on another grid, a cut one and a link: one message."""
    (data / LIST).write_text(HEADER + "1,1\nx,1\n2,3\n")
    write_image(data / "task_01/img0001.nii.gz", (16, 12, 21))
    image = data / "task_02/img0007.nii.gz"
    image.write_bytes(image.read_bytes()[:-100])
    (data / "task_02/img0009.nii.gz").rename(tmp_path / "outside.nii.gz")
    (data / "task_02/img0009.nii.gz").symlink_to(tmp_path / "outside.nii.gz")
    found = findings(data)
    assert len(found) == 5
    for part in (
        f"{LIST}, line 3",
        "moving file task_01/img0003.nii.gz, found none",
        "task_02/img0009.nii.gz leads out of the data folder",
        "task_01/img0001.nii.gz: expected grid (16, 12, 20) for task_01, found (16, 12, 21)",
        "task_02/img0007.nii.gz: truncated",
    ):
        assert any(part in finding for finding in found), part


def test_a_broken_image_shared_by_pairs_is_named_once(data: Path) -> None:
    (data / "task_02/img0008.nii.gz").write_bytes(b"not an image")
    assert "task_02/img0008.nii.gz" in one_finding(data)


# --- Images -------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", [(16, 12, 21), (20, 12, 16), (16, 12), (16, 12, 20, 3)])
def test_image_on_another_grid(data: Path, grid: tuple[int, ...]) -> None:
    write_image(data / "task_01/img0002.nii.gz", grid)
    assert one_finding(data) == (
        f"task_01/img0002.nii.gz: expected grid {GRID} for task_01, found {grid}"
    )


def test_mask_is_checked_too(data: Path) -> None:
    write_image(data / "task_01/mask0001.nii.gz", (8, 6, 10))
    assert "task_01/mask0001.nii.gz: expected grid" in one_finding(data)


@pytest.mark.parametrize("content", [b"", b"\0", b"hello" * 100, b"\x1f\x8b", gzip.compress(b"hi")])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_bytes_that_are_no_nifti(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"image{suffix}"
    path.write_bytes(content)
    with pytest.raises(NiftiError):
        read_header(path)


def test_header_of_a_whole_file(tmp_path: Path) -> None:
    image = nib.nifti1.Nifti1Image(np.zeros((4, 5, 6), np.uint8), np.diag([2.0, 1.5, 3.0, 1.0]))
    for suffix in (".nii", ".nii.gz"):
        image.to_filename(tmp_path / f"image{suffix}")
        header = read_header(tmp_path / f"image{suffix}")
        assert header.grid == (4, 5, 6)
        assert header.spacing_mm == pytest.approx((2.0, 1.5, 3.0))


def plain_nifti() -> bytes:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 1000, (4, 5, 6)).astype(np.int16)
    return nib.nifti1.Nifti1Image(values, np.eye(4)).to_bytes()


NII = plain_nifti()
NII_GZ = gzip.compress(NII)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nifti")


@given(st.integers(0, len(NII) - 1))
@example(0)
@example(347)
@example(351)
@example(352)
@example(len(NII) - 1)
@settings(deadline=None, max_examples=80)
def test_cut_nii(scratch: Path, cut: int) -> None:
    path = scratch / "cut.nii"
    path.write_bytes(NII[:cut])
    with pytest.raises(NiftiError):
        read_header(path)


@given(st.integers(0, len(NII_GZ) - 1))
@example(0)
@example(1)
@example(len(NII_GZ) - 1)
@example(len(NII_GZ) - 4)
@example(len(NII_GZ) - 8)
@example(len(NII_GZ) - 9)
@settings(deadline=None, max_examples=120)
def test_cut_nii_gz(scratch: Path, cut: int) -> None:
    path = scratch / "cut.nii.gz"
    path.write_bytes(NII_GZ[:cut])
    with pytest.raises(NiftiError):
        read_header(path)


@given(st.integers(0, len(NII) - 1))
@settings(deadline=None, max_examples=60)
def test_a_whole_gzip_file_of_a_cut_image(scratch: Path, cut: int) -> None:
    path = scratch / "packed_cut.nii.gz"
    path.write_bytes(gzip.compress(NII[:cut], 1))
    with pytest.raises(NiftiError):
        read_header(path)


@given(st.lists(st.integers(0, len(NII)), max_size=4))
@settings(deadline=None, max_examples=40)
def test_gzip_of_several_members_is_accepted(scratch: Path, cuts: list[int]) -> None:
    """As bgzip and pigz write it."""
    edges = [0, *sorted(cuts), len(NII)]
    parts = [NII[start:end] for start, end in itertools.pairwise(edges)]
    path = scratch / "members.nii.gz"
    path.write_bytes(b"".join(gzip.compress(part, 1) for part in parts))
    assert read_header(path).grid == (4, 5, 6)


def test_bytes_behind_the_image_are_accepted(scratch: Path) -> None:
    for name, raw in (("more.nii", NII + b"\0" * 7), ("more.nii.gz", gzip.compress(NII + b"\0"))):
        (scratch / name).write_bytes(raw)
        assert read_header(scratch / name).grid == (4, 5, 6)


@given(st.dictionaries(st.integers(0, 351), st.integers(0, 255), min_size=1, max_size=8))
@example({108 + i: byte for i, byte in enumerate(b"\0\0\x80\x7f")})  # vox_offset: infinity
@example({108 + i: byte for i, byte in enumerate(b"\0\0\xc0\x7f")})  # vox_offset: not a number
@example({108 + i: byte for i, byte in enumerate(b"\0\0\x80\xff")})
@example({40 + i: byte for i, byte in enumerate(b"\3\0\xff\xff\xff\xff\xff\xff")})  # dim: negative
@example({40 + i: byte for i, byte in enumerate(b"\7\0" + b"\xff\x7f" * 7)})  # dim: huge
@example({70: 0, 71: 0})  # datatype: none
@example({348: 1})  # says that an extension follows
@settings(deadline=None, max_examples=250)
def test_any_header_is_read_or_a_nifti_error(scratch: Path, changes: dict[int, int]) -> None:
    raw = bytearray(NII)
    for place, byte in changes.items():
        raw[place] = byte
    path = scratch / "odd.nii"
    path.write_bytes(raw)
    with suppress(NiftiError):
        assert all(isinstance(n, int) for n in read_header(path).grid)


# Where the header's numbers lie that decide whether and how an image is placed and read.
PLACES = st.one_of(
    st.sampled_from([*range(4), *range(40, 56), *range(70, 74), *range(76, 120)]),
    st.integers(252, 351),
)
BYTES = st.one_of(st.sampled_from([0, 1, 2, 3, 0x3F, 0x7F, 0x80, 0xC0, 0xFF]), st.integers(0, 255))


@given(st.dictionaries(PLACES, BYTES, max_size=5))
@example({})
@example({112 + i: byte for i, byte in enumerate(b"\0\0\xc0\x7f" * 2)})  # scaling: not a number
@example({116 + i: byte for i, byte in enumerate(b"\0\0\xc0\x7f")})
@example({280 + i: byte for i, byte in enumerate(b"\0\0\xc0\x7f")})  # a row of the affine
@example({252: 1, 254: 0, 258: 0x80, 259: 0x3F})  # only a quaternion, of length one
@example({252: 1, 254: 0, 258: 0x80, 259: 0x40})  # ... and beyond
@example({348: 1})
@settings(deadline=None, max_examples=400)
def test_what_is_read_without_nibabel_nibabel_reads_alike(
    scratch: Path, changes: dict[int, int]
) -> None:
    raw = bytearray(NII)
    for place, byte in changes.items():
        raw[place] = byte
    path = scratch / "plain.nii"
    path.write_bytes(raw)
    plain = nifti._plain_header(path)
    assert plain is not None or changes
    if plain is not None:
        assert nifti._any_header(path) == plain
        assert nib.nifti1.Nifti1Image.from_filename(path).affine.shape == (4, 4)


# --- Properties ---------------------------------------------------------------------------------

IDS = st.integers(0, 9999)


@given(
    pairs=st.lists(st.tuples(IDS, IDS), min_size=1, max_size=6, unique=True),
    newline=st.sampled_from(["\n", "\r\n"]),
    bom=st.booleans(),
)
@settings(deadline=None, max_examples=30)
def test_generated_lists_come_back(pairs: list[tuple[int, int]], newline: str, bom: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        task = Path(folder) / "task_02"
        task.mkdir()
        rows = newline.join(["fixed,moving", *(f"{fixed},{moving}" for fixed, moving in pairs)])
        (task / "pairs_val.csv").write_bytes(rows.encode("utf-8-sig" if bom else "utf-8"))
        for case in {case for pair in pairs for case in pair}:
            (task / f"img{case:04d}.nii.gz").touch()
        (found,) = read_pairs(CHALLENGE, Path(folder))
    assert [(pair.fixed_id, pair.moving_id) for pair in found.pairs] == pairs
    assert len({pair.field for pair in found.pairs}) == len(pairs)
    for pair in found.pairs:
        assert pair.inputs == (
            PurePosixPath(f"task_02/img{pair.fixed_id:04d}.nii.gz"),
            PurePosixPath(f"task_02/img{pair.moving_id:04d}.nii.gz"),
        )


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("listed") / "data")


CELLS = st.sampled_from(["1", "2", "01", "-1", "", " ", '"', "x", "9" * 30, "0" * 5000, "\0", "é"])
ROWS = st.lists(st.lists(CELLS, max_size=3).map(",".join), max_size=5).map("\n".join)


@given(
    st.text(max_size=60).map(str.encode)
    | st.binary(max_size=60)
    | ROWS.map(lambda rows: (HEADER + rows).encode())
)
@example((HEADER + "0" * 5000 + "1,1").encode())
@example((HEADER + "1,1\r2,2").encode())
@settings(deadline=None, max_examples=300)
def test_any_list_is_read_or_a_data_error(listed: Path, raw: bytes) -> None:
    (listed / LIST).write_bytes(raw)
    try:
        found = read_pairs(CHALLENGE, listed)
    except DataError as error:
        wrong = error.findings
    else:
        wrong = ()
        assert {pair.key for pair in found[0].pairs} <= {
            f"task_01/{fixed:04d}_{moving:04d}" for fixed in (1, 2) for moving in (1, 2)
        }
    assert all(LIST in finding or "task_01 pair" in finding for finding in wrong)
