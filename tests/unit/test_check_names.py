"""Which file is which pair's field: every way a name can be almost right."""

from __future__ import annotations

import time
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import pytest

from harness.challenge.pairs import Pair, TaskPairs
from harness.check.findings import Finding, FindingKind, Severity
from harness.check.names import Matched, match_names
from tests.tiny import tiny_challenge

if TYPE_CHECKING:
    from collections.abc import Iterable

CHALLENGE = tiny_challenge()


def make_pair(task: str, fixed: int, moving: int, *, other: str | None = None) -> Pair:
    return Pair(
        task=task,
        fixed_id=fixed,
        moving_id=moving,
        fixed=PurePosixPath(f"{task}/img{fixed:04d}.nii.gz"),
        moving=PurePosixPath(f"{task}/img{moving:04d}.nii.gz"),
        auxiliary=(),
        field=PurePosixPath(f"{task}/disp_{fixed:04d}_{moving:04d}.npz"),
        other_fields=() if other is None else (PurePosixPath(other),),
    )


LONG = "task_01/disp_0001_0000_0002_0001.npz"
TASKS = (
    TaskPairs(
        task=CHALLENGE.task("task_01"),
        pairs=(make_pair("task_01", 1, 2, other=LONG), make_pair("task_01", 3, 4)),
    ),
    TaskPairs(
        task=CHALLENGE.task("task_02"),
        pairs=(make_pair("task_02", 7, 8), make_pair("task_02", 8, 9)),
    ),
)
FIRST, SECOND = "task_01/disp_0001_0002.npz", "task_01/disp_0003_0004.npz"
NAME = PurePosixPath(FIRST).name
CHAIN = ("task_02/disp_0007_0008.npz", "task_02/disp_0008_0009.npz")


def match(*names: str) -> Matched:
    return match_names(TASKS, map(PurePosixPath, names))


def only(findings: Iterable[Finding]) -> Finding:
    (finding,) = findings
    return finding


def test_all_fields_under_their_names() -> None:
    found = match(FIRST, SECOND, *CHAIN)
    assert found.findings == ()
    assert {key: str(name) for key, name in found.fields.items()} == {
        "task_01/0001_0002": FIRST,
        "task_01/0003_0004": SECOND,
        "task_02/0007_0008": CHAIN[0],
        "task_02/0008_0009": CHAIN[1],
    }


def test_a_task_without_files_is_not_attempted_and_no_finding() -> None:
    found = match(FIRST, SECOND)
    assert found.findings == ()
    assert found.attempted == {"task_01"}


def test_one_missing_field_of_an_attempted_task() -> None:
    finding = only(match(SECOND).findings)
    assert (finding.severity, finding.kind) == (Severity.ERROR, FindingKind.MISSING)
    assert finding.pair == "task_01/0001_0002"
    assert finding.expected == f"{FIRST} or {LONG}"


@pytest.mark.parametrize(
    ("name", "why", "fix"),
    [
        ("task_01/disp_1_2.npz", "four digits", f"rename it to {FIRST}"),
        ("task_01/disp_001_002.npz", "four digits", f"rename it to {FIRST}"),
        ("task_01/disp_0002_0001.npz", "ids are swapped", "on the grid of the fixed image"),
        ("task_01/disp_0001_0002.npy", "ends in .npy", "np.savez_compressed"),
        ("task_01/disp_0001_0002.npz.npz", "ends in .npz.npz", f"rename it to {FIRST}"),
        ("task_01/disp_0001_0002.nii.gz", "ends in .nii.gz", "harness convert"),
        ("task_01/disp_0001_0002", "ends in nothing", "write it as .npz"),
        ("task_01/DISP_0001_0002.NPZ", "other capitals", f"rename it to {FIRST}"),
        ("disp_0001_0002.npz", "(at the top, not in task_01/)", f"move it to {FIRST}"),
        ("x/task_01/disp_0001_0002.npz", "(in x/, not at the top)", f"move it to {FIRST}"),
        ("Task1/disp_0001_0002.npz", "(in Task1/, not in task_01/)", f"move it to {FIRST}"),
        (
            "task_01/x/disp_0001_0002.npz",
            "(in task_01/x/, not in task_01/)",
            f"move it to {FIRST}",
        ),
        (f"Task1/{PurePosixPath(LONG).name}", "(in Task1/, not in task_01/)", f"move it to {LONG}"),
        ("task_02/disp_0001_0002.npz", "(in task_02/, not in task_01/)", f"move it to {FIRST}"),
        ("task_01/field_0001_0002.npz", f"(the name must be {NAME})", f"rename it to {FIRST}"),
        ("task_01/disp_0001-0002.npz", f"(the name must be {NAME})", f"rename it to {FIRST}"),
        ("task_01/disp_0001_to_0002.npz", f"(the name must be {NAME})", f"rename it to {FIRST}"),
    ],
)
def test_a_name_that_is_almost_right(name: str, why: str, fix: str) -> None:
    finding = only(match(name, SECOND).findings)
    assert (finding.severity, finding.kind) == (Severity.ERROR, FindingKind.MISNAMED)
    assert finding.pair == "task_01/0001_0002"
    assert finding.found.startswith(f"{name} (")
    assert why in finding.found
    assert fix in finding.fix


def test_a_misnamed_field_alone_makes_its_task_attempted() -> None:
    kinds = {finding.pair: finding.kind for finding in match("task_02/disp_7_8.npz").findings}
    assert kinds == {
        "task_02/0007_0008": FindingKind.MISNAMED,
        "task_02/0008_0009": FindingKind.MISSING,
    }


def test_a_file_is_taken_for_one_pair_only() -> None:
    """In a chain the swapped ids of one pair are near those of the next."""
    found = match("task_02/disp_0009_0008.npz", CHAIN[0])
    finding = only(found.findings)
    assert finding.pair == "task_02/0008_0009"
    assert "swapped" in finding.found


@pytest.mark.parametrize(
    ("found", "fix"),
    [
        ("task_01/disp_0005_0006.npz (the list of pairs has no pair 5,6)", "it is not evaluated"),
        ("task_01/disp_0001_0002.npy (the field of task_01/0001_0002 is " + FIRST + ")", "leave"),
        ("task_02/disp_0001_0002.npz (the field of task_01/0001_0002 is " + FIRST + ")", "leave"),
        ("task_01/disp_0001_0000_0009_0001.npz", "leave it out, it is not evaluated"),
        ("task_01/notes.txt", "leave it out, it is not evaluated"),
        (".DS_Store", "left behind"),
        ("__MACOSX/task_01/._disp_0001_0002.npz", "left behind"),
    ],
)
def test_a_file_that_no_pair_expects(found: str, fix: str) -> None:
    """A file beside the valid field was once said to be of no pair in the list."""
    finding = only(match(FIRST, SECOND, found.partition(" (")[0]).findings)
    assert (finding.severity, finding.kind) == (Severity.WARNING, FindingKind.EXTRA)
    assert finding.found == found
    assert fix in finding.fix


def test_a_flood_of_extra_files_is_a_finding_junk_another() -> None:
    names = [f"task_01/disp_0005_{n:04d}.npz" for n in range(6, 500)]
    shadows = [f"__MACOSX/task_01/._{n}" for n in range(50)]
    extra, junk = match(FIRST, SECOND, *names, *shadows).findings
    assert extra.found == (
        "task_01/disp_0005_0006.npz (the list of pairs has no pair 5,6), "
        "task_01/disp_0005_0007.npz (the list of pairs has no pair 5,7), "
        "task_01/disp_0005_0008.npz (the list of pairs has no pair 5,8) "
        "and 491 more that no pair expects"
    )
    assert extra.fix == "leave them out, they are not evaluated"
    assert "and 47 more" in junk.found
    assert "left behind" in junk.fix


def test_a_field_of_a_task_that_is_not_attempted_is_not_to_be_deleted() -> None:
    """It may be all that the team has of the pair; the task alone is no error, though."""
    found = match(FIRST, SECOND, "task_01/disp_0007_0008.npz")
    finding = only(found.findings)
    assert (finding.severity, finding.kind) == (Severity.WARNING, FindingKind.EXTRA)
    assert f"(the field of task_02/0007_0008 would be {CHAIN[0]})" in finding.found
    assert "leave" not in finding.fix
    assert found.attempted == {"task_01"}


def test_a_whole_task_in_the_folder_of_another() -> None:
    found = match(FIRST, SECOND, *(f"task_01/{PurePosixPath(name).name}" for name in CHAIN))
    finding = only(found.findings)
    assert (finding.severity, finding.kind) == (Severity.ERROR, FindingKind.MISNAMED)
    assert finding.found.startswith("2 fields in task_01/, not in task_02/, such as task_01/")
    assert finding.fix == "move them to task_02/"


def test_a_file_where_both_tasks_have_the_pair() -> None:
    """It may be either's, so it is not taken from the folder that it lies in."""
    both = (
        TaskPairs(task=CHALLENGE.task("task_01"), pairs=(make_pair("task_01", 1, 2),)),
        TaskPairs(
            task=CHALLENGE.task("task_02"),
            pairs=(make_pair("task_02", 1, 2), make_pair("task_02", 3, 4)),
        ),
    )
    there = ("task_02/disp_0001_0002.npz", "task_02/disp_0003_0004.npz")
    assert match_names(both, map(PurePosixPath, there)).findings == ()


@pytest.mark.parametrize("folder", ["my_submission/", "a/b/"])
def test_all_fields_in_a_folder_are_one_finding(folder: str) -> None:
    finding = only(match(*(folder + name for name in (FIRST, SECOND, *CHAIN))).findings)
    assert (finding.severity, finding.kind) == (Severity.ERROR, FindingKind.MISNAMED)
    assert finding.pair is None
    assert finding.found == f"4 fields in {folder}, not at the top, such as {folder}{FIRST}"
    assert finding.fix == f"check or zip {folder} instead, or move what is in it to the top"


def test_all_fields_of_a_task_at_the_top_are_one_finding() -> None:
    finding = only(match(NAME, PurePosixPath(SECOND).name).findings)
    assert finding.found == f"2 fields at the top, not in task_01/, such as {NAME}"
    assert finding.fix == (
        "move them to task_01/; if this is task_01/ itself, check the folder that it is in"
    )


def test_spaces_around_a_name_are_shown() -> None:
    finding = only(match("task_01/ disp_0001_0002.npz ", SECOND).findings)
    assert finding.kind is FindingKind.MISNAMED
    assert finding.found == "'task_01/ disp_0001_0002.npz ' (with spaces around the name)"
    assert finding.fix == f"rename it to {FIRST}"


@pytest.mark.parametrize("name", ["/" + FIRST, FIRST.replace("/", "\\"), "my/" + FIRST])
def test_a_refused_file_is_not_missing(name: str) -> None:
    """Why it is refused is told by whoever refused it."""
    found = match_names(TASKS, [PurePosixPath(SECOND)], refused=[name])
    assert found.findings == ()
    assert found.refused == {"task_01/0001_0002"}
    assert match_names(TASKS, [], refused=[name]).attempted == {"task_01"}


@pytest.mark.parametrize("name", ["README.md", "dummy", "dummy.txt", ".inside_report.json"])
def test_files_that_may_lie_at_the_top(name: str) -> None:
    assert match(FIRST, SECOND, name).findings == ()


def test_of_two_names_the_first_counts() -> None:
    found = match(FIRST, LONG, SECOND)
    finding = only(found.findings)
    assert (finding.severity, finding.kind) == (Severity.WARNING, FindingKind.TWO_NAMES)
    assert found.fields["task_01/0001_0002"] == PurePosixPath(FIRST)
    assert LONG in finding.fix
    assert match(LONG, SECOND).fields["task_01/0001_0002"] == PurePosixPath(LONG)


@pytest.mark.parametrize("names", [(), ("a.txt", "b/c.png")])
def test_nothing_at_all(names: tuple[str, ...]) -> None:
    found = match(*names)
    errors = [one for one in found.findings if one.severity is Severity.ERROR]
    assert only(errors).kind is FindingKind.NOTHING
    assert found.attempted == frozenset()


def test_hostile_names_are_shown_harmless_and_do_not_hold_us_up() -> None:
    names = [f"task_01/disp_{'9' * 4000}_{n}.npz" for n in range(5000)]
    names.append("task_01/\x1b[2Jdisp_\N{RIGHT-TO-LEFT OVERRIDE}x.npz")
    start_s = time.monotonic()
    found = match(*names)
    assert time.monotonic() - start_s < 20  # seconds; it takes one
    assert len(found.findings) < 50
    for finding in found.findings:
        assert "\x1b" not in finding.found
        assert len(finding.found) < 600  # characters


def test_long_names_do_not_hold_us_up() -> None:
    """Six hundred names of 240 letters, each compared with 300 missing fields: 9 s of difflib."""
    pairs = tuple(make_pair("task_01", i, i) for i in range(300))
    tasks = (TaskPairs(task=CHALLENGE.task("task_01"), pairs=pairs),)
    names = [
        PurePosixPath("task_01", f"{'disp_ooiz_' * 23}{chr(97 + i % 26)}{i}.npz")
        for i in range(600)
    ]
    start_s = time.process_time()
    found = match_names(tasks, names)
    assert time.process_time() - start_s < 4  # seconds; it takes a half
    assert len(found.findings) == 2


def test_a_slip_in_a_name_is_seen_an_anagram_is_none() -> None:
    slip, anagram = "task_01/dips_00010002.npz", "task_01/20001000_psid_.npz"
    assert match(slip, SECOND).findings[0].kind is FindingKind.MISNAMED
    assert match(anagram, SECOND).findings[0].kind is FindingKind.MISSING
