"""Which file is which pair's field, and which was meant to be.

Works on names alone: nothing is opened.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from harness.check.findings import Finding, FindingKind, Severity
from harness.text import harmless_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import PurePosixPath

    from harness.challenge.pairs import Pair, TaskPairs

_NUMBER = re.compile(r"[0-9]+")
_FIELD_SUFFIX = re.compile(
    r"\.(npz|npy|nii|gz|mha|mhd|nrrd|h5|hdf5|pt|pth|mat|zip)$", re.IGNORECASE
)
_JUNK = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})  # what file managers leave behind
_MAX_SHOWN = 120  # characters of a submission's file name
_NEAR_RATIO = 0.8  # difflib's measure; at four-digit ids one wrong digit is 0.95
_MAX_EXTRA = 20  # files that get a finding of their own
_MAX_CONSIDERED = 2000  # files that may be a missing field under another name
_MAX_COMPARED = 100  # those of them that are compared letter by letter

_MAX_COMPARED_LETTERS = 60  # of a name; a field's has 30


@dataclass(frozen=True, kw_only=True)
class Matched:
    """``fields``: by pair key, the name of the file that counts. ``attempted``: names of tasks of
    which there is a field, or a file that seems to be one."""

    fields: dict[str, PurePosixPath]
    attempted: frozenset[str]
    findings: tuple[Finding, ...]


def match_names(tasks: Sequence[TaskPairs], names: Iterable[PurePosixPath]) -> Matched:
    """Hold the names of all files that are there against those that the pairs may have.

    A task of which there is nothing at all is not attempted, which is no finding.
    """
    there = sorted(names)
    pairs = [pair for found in tasks for pair in found.pairs]
    fields, findings = _expected(pairs, set(there))
    known = {name for pair in pairs for name in pair.field_names}
    others = [name for name in there if name not in known and not _is_ours(name)]
    missing = [pair for pair in pairs if pair.key not in fields]
    meant = _meant(missing, others)
    attempted = frozenset(pair.task for pair in pairs if pair.key in fields or pair.key in meant)
    for pair in missing:
        if pair.key in meant:
            findings.append(_misnamed(pair, meant[pair.key]))
        elif pair.task in attempted:
            findings.append(_missing(pair))
    if not attempted:
        findings.append(_nothing(pairs, there))
    misnamed = set(meant.values())
    findings += _extra([name for name in others if name not in misnamed], pairs)
    return Matched(fields=fields, attempted=attempted, findings=tuple(findings))


def shown(name: PurePosixPath) -> str:
    """A submission's file name, fit to be shown."""
    return harmless_line(str(name), _MAX_SHOWN)


def _expected(
    pairs: Sequence[Pair], there: set[PurePosixPath]
) -> tuple[dict[str, PurePosixPath], list[Finding]]:
    fields: dict[str, PurePosixPath] = {}
    findings: list[Finding] = []
    for pair in pairs:
        found = [name for name in pair.field_names if name in there]
        if found:
            fields[pair.key] = found[0]
        if len(found) > 1:
            rest = ", ".join(map(str, found[1:]))
            findings.append(
                Finding(
                    severity=Severity.WARNING,
                    kind=FindingKind.TWO_NAMES,
                    pair=pair.key,
                    expected="one file for the pair",
                    found=f"{found[0]}, which counts, and {rest}",
                    fix=f"delete {rest}",
                )
            )
    return fields, findings


def _is_ours(name: PurePosixPath) -> bool:
    """Files that may lie beside fields: a read-me, the zip's dummy, a record of the runner."""
    if name.name.startswith(".inside_report"):
        return True
    return len(name.parts) == 1 and not _FIELD_SUFFIX.search(name.name) and name.name not in _JUNK


@dataclass(frozen=True)
class _Name:
    """A file's name taken apart. ``folder`` without what people spell in many ways."""

    path: PurePosixPath
    stem: str
    suffix: str
    ids: tuple[int, ...]
    folder: str

    @classmethod
    def of(cls, path: PurePosixPath) -> _Name:
        stem = path.name
        while match := _FIELD_SUFFIX.search(stem):
            stem = stem[: match.start()]
        folder = re.sub(r"[^a-z0-9/]|(?<![0-9])0+(?=[0-9])", "", str(path.parent).casefold())
        return cls(
            path=path,
            stem=stem.casefold(),
            suffix=path.name[len(stem) :].casefold(),
            ids=tuple(int(digits[:12]) for digits in _NUMBER.findall(stem)),
            folder=folder,
        )


def _meant(missing: Sequence[Pair], others: Sequence[PurePosixPath]) -> dict[str, PurePosixPath]:
    """By pair key, the file that was meant to be a missing field; each file for one pair only."""
    meant: dict[str, PurePosixPath] = {}
    considered = islice((path for path in others if not _is_junk(path)), _MAX_CONSIDERED)
    left = [_Name.of(path) for path in considered]
    wanted = {pair.key: _Name.of(pair.field) for pair in missing}
    for is_it in (_differs_in_spelling, _has_the_ids, _has_the_ids_swapped, _looks_alike):
        for pair in missing:
            if pair.key in meant:
                continue
            expected = wanted[pair.key]
            names = left[:_MAX_COMPARED] if is_it is _looks_alike else left
            found = next(
                (one for one in names if _same_task(one, expected) and is_it(one, pair, expected)),
                None,
            )
            if found is not None:
                meant[pair.key] = found.path
                left.remove(found)
    return meant


def _differs_in_spelling(name: _Name, pair: Pair, expected: _Name) -> bool:
    """Another folder, another suffix, other capitals; the digits as they should be."""
    del pair
    return name.stem == expected.stem


def _has_the_ids(name: _Name, pair: Pair, expected: _Name) -> bool:
    del expected
    return name.ids[:2] == (pair.fixed_id, pair.moving_id)


def _has_the_ids_swapped(name: _Name, pair: Pair, expected: _Name) -> bool:
    del expected
    return name.ids[:2] == (pair.moving_id, pair.fixed_id)


def _looks_alike(name: _Name, pair: Pair, expected: _Name) -> bool:
    del pair
    if len(name.ids) >= 2:
        return False  # two other ids are another pair, however alike the names look
    two = difflib.SequenceMatcher(
        None, name.stem[:_MAX_COMPARED_LETTERS], expected.stem[:_MAX_COMPARED_LETTERS]
    )
    bounds = (two.real_quick_ratio, two.quick_ratio, two.ratio)  # each dearer, and never higher
    return all(bound() >= _NEAR_RATIO for bound in bounds)


def _same_task(name: _Name, expected: _Name) -> bool:
    """A field in the folder of another task is not this task's, whatever its ids."""
    if not expected.folder or len(name.path.parts) == 1:
        return True
    return name.folder == expected.folder or name.folder.endswith("/" + expected.folder)


def _is_junk(name: PurePosixPath) -> bool:
    return name.name in _JUNK or "__MACOSX" in name.parts or name.name.startswith("._")


def _missing(pair: Pair) -> Finding:
    return Finding(
        severity=Severity.ERROR,
        kind=FindingKind.MISSING,
        pair=pair.key,
        expected=_accepted(pair),
        found="no such file",
        fix="write the pair's field there; leave out a whole task to say that it is not attempted",
    )


def _misnamed(pair: Pair, name: PurePosixPath) -> Finding:
    return Finding(
        severity=Severity.ERROR,
        kind=FindingKind.MISNAMED,
        pair=pair.key,
        expected=_accepted(pair),
        found=f"{shown(name)}{_difference(pair, name)}",
        fix=_rename(pair, name),
    )


def _difference(pair: Pair, path: PurePosixPath) -> str:
    """What is wrong with the name, where one thing is."""
    name, expected = _Name.of(path), _Name.of(pair.field)
    if _is_swapped(name, pair):
        return " (the ids are swapped: the fixed case comes first)"
    if name.suffix != expected.suffix:
        return f" (ends in {name.suffix or 'nothing'}, not in {expected.suffix})"
    if name.stem == expected.stem:
        return " (in another folder)" if path.name == pair.field.name else " (other capitals)"
    if name.ids == (pair.fixed_id, pair.moving_id):
        return " (ids have four digits, with leading zeros)"
    return ""


def _rename(pair: Pair, path: PurePosixPath) -> str:
    name, expected = _Name.of(path), _Name.of(pair.field)
    if name.suffix == ".npy" and expected.suffix == ".npz":
        return "write it with np.savez_compressed(path, field); np.save makes an .npy"
    if name.suffix != expected.suffix:
        return f"write it as {expected.suffix}; `harness convert` turns one into the other"
    if _is_swapped(name, pair):
        return f"if its values are on the grid of the fixed image, rename it to {pair.field}"
    return f"rename it to {pair.field}"


def _is_swapped(name: _Name, pair: Pair) -> bool:
    ids = (pair.fixed_id, pair.moving_id)
    return name.ids[:2] == ids[::-1] and ids[0] != ids[1]


def _accepted(pair: Pair) -> str:
    return " or ".join(map(str, pair.field_names))


def _nothing(pairs: Sequence[Pair], there: Sequence[PurePosixPath]) -> Finding:
    found = ", ".join(shown(name) for name in there[:4]) + (", ..." if len(there) > 4 else "")
    return Finding(
        severity=Severity.ERROR,
        kind=FindingKind.NOTHING,
        pair=None,
        expected=f"fields such as {pairs[0].field}",
        found=f"none among {found}" if there else "no files at all",
        fix="is this the right folder or zip, and the right --challenge and --data?",
    )


def _extra(names: Sequence[PurePosixPath], pairs: Sequence[Pair]) -> list[Finding]:
    findings = [
        Finding(
            severity=Severity.WARNING,
            kind=FindingKind.EXTRA,
            pair=None,
            expected="fields of the pairs in the list only",
            found=shown(name),
            fix=(
                "leave it out; it is what a file manager or archiver left behind"
                if _is_junk(name)
                else "leave it out, it is not evaluated" + _why_extra(name, pairs)
            ),
        )
        for name in names[:_MAX_EXTRA]
    ]
    if len(names) > _MAX_EXTRA:
        findings.append(
            Finding(
                severity=Severity.WARNING,
                kind=FindingKind.EXTRA,
                pair=None,
                expected="fields of the pairs in the list only",
                found=f"{len(names) - _MAX_EXTRA} more files that no pair expects",
                fix="leave them out",
            )
        )
    return findings


def _why_extra(path: PurePosixPath, pairs: Sequence[Pair]) -> str:
    name = _Name.of(path)
    if len(name.ids) < 2 or not any(_same_task(name, _Name.of(pair.field)) for pair in pairs):
        return ""
    return f"; the list of pairs has no pair {name.ids[0]},{name.ids[1]}"
