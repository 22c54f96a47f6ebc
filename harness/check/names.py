"""Which file is which pair's field, and which was meant to be.

Works on names alone: nothing is opened.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from harness.check.extra import extra_files
from harness.check.file_name import FIELD_SUFFIX, JUNK, FileName, is_junk, shown
from harness.check.findings import Finding, FindingKind, Severity
from harness.check.misnamed import accepted, misnamed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import PurePosixPath

    from harness.challenge.pairs import Pair, TaskPairs

_NEAR_RATIO = 0.8  # difflib's measure; at four-digit ids one wrong digit is 0.95
_MAX_CONSIDERED = 2000  # files that may be a missing field under another name
_MAX_COMPARED = 100  # those of them that are compared letter by letter
_MAX_PARTS = 16  # folders in folders above a file that is refused

_MAX_COMPARED_LETTERS = 60  # of a name; a field's has 30


@dataclass(frozen=True, kw_only=True)
class Matched:
    """``fields``: by pair key, the name of the file that counts. ``refused``: keys of pairs whose
    file is known to be unusable. ``attempted``: names of tasks of which there is a field, or a file
    that seems to be one."""

    fields: dict[str, PurePosixPath]
    refused: frozenset[str]
    attempted: frozenset[str]
    findings: tuple[Finding, ...]


def match_names(
    tasks: Sequence[TaskPairs],
    names: Iterable[PurePosixPath],
    refused: Iterable[str] = (),
) -> Matched:
    """Hold the names of all files that are there against those that the pairs may have.

    ``refused``: names of files that cannot be used, of which somebody else tells why. A task of
    which there is nothing at all is not attempted, which is no finding.
    """
    there = sorted(names)
    pairs = [pair for found in tasks for pair in found.pairs]
    fields, findings = _expected(pairs, set(there))
    known = {name for pair in pairs for name in pair.field_names}
    others = [name for name in there if name not in known and not _is_ours(name)]
    unusable = _refused([pair for pair in pairs if pair.key not in fields], refused)
    missing = [pair for pair in pairs if pair.key not in fields and pair.key not in unusable]
    meant = _meant(missing, others)
    has_file = {*fields, *unusable, *meant}
    attempted = {pair.task for pair in pairs if pair.key in has_file}
    meant |= _in_other_folders(pairs, missing, meant, others, attempted)
    attempted |= {pair.task for pair in pairs if pair.key in meant}
    findings += misnamed((pair, meant[pair.key]) for pair in missing if pair.key in meant)
    for pair in missing:
        if pair.key not in meant and pair.task in attempted:
            findings.append(_missing(pair))
    if not attempted:
        findings.append(_nothing(pairs, there))
    taken = set(meant.values())
    findings += extra_files([name for name in others if name not in taken], pairs, fields)
    return Matched(
        fields=fields,
        refused=frozenset(unusable),
        attempted=frozenset(attempted),
        findings=tuple(findings),
    )


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


def _refused(pairs: Sequence[Pair], names: Iterable[str]) -> set[str]:
    """Keys of pairs whose field is among the names, below whatever folders and root."""
    tails = set()
    for name in names:
        parts = name.replace("\\", "/").strip("/").split("/")
        tails |= {"/".join(parts[-n:]) for n in range(1, _MAX_PARTS + 1)}
    return {pair.key for pair in pairs if any(str(name) in tails for name in pair.field_names)}


def _is_ours(name: PurePosixPath) -> bool:
    """Files that may lie beside fields: a read-me, the zip's dummy, a record of the runner."""
    if name.name.startswith(".inside_report"):
        return True
    is_field = FIELD_SUFFIX.search(name.name.strip())
    return len(name.parts) == 1 and not is_field and name.name not in JUNK


def _meant(missing: Sequence[Pair], others: Sequence[PurePosixPath]) -> dict[str, PurePosixPath]:
    """By pair key, the file that was meant to be a missing field; each file for one pair only."""
    meant: dict[str, PurePosixPath] = {}
    considered = islice((path for path in others if not is_junk(path)), _MAX_CONSIDERED)
    left = [FileName.of(path) for path in considered]
    wanted = {pair.key: FileName.of(pair.field) for pair in missing}
    for is_it in (_differs_in_spelling, _has_the_ids, _has_the_ids_swapped, _looks_alike):
        for pair in missing:
            if pair.key in meant:
                continue
            expected = wanted[pair.key]
            names = left[:_MAX_COMPARED] if is_it is _looks_alike else left
            found = next(
                (
                    one
                    for one in names
                    if one.may_be_in(expected.folder) and is_it(one, pair, expected)
                ),
                None,
            )
            if found is not None:
                meant[pair.key] = found.path
                left.remove(found)
    return meant


def _in_other_folders(
    pairs: Sequence[Pair],
    missing: Sequence[Pair],
    meant: Mapping[str, PurePosixPath],
    others: Sequence[PurePosixPath],
    attempted: set[str],
) -> dict[str, PurePosixPath]:
    """By pair key, the file of the right name in the folder of another task that has no such pair.

    Of a task of which there is nothing else, only if there is one for every pair.
    """
    ids_in: dict[PurePosixPath, set[tuple[int, int]]] = {}
    for pair in pairs:
        ids = ids_in.setdefault(pair.field.parent, set())
        ids |= {(pair.fixed_id, pair.moving_id), (pair.moving_id, pair.fixed_id)}
    by_name: dict[str, list[PurePosixPath]] = {}
    taken = set(meant.values())
    for path in others:
        if path.parent in ids_in and path not in taken:
            by_name.setdefault(path.name, []).append(path)
    found: dict[str, PurePosixPath] = {}
    claims: dict[PurePosixPath, int] = {}
    for pair in missing:
        for path in by_name.get(pair.field.name, ()) if pair.key not in meant else ():
            if (pair.fixed_id, pair.moving_id) not in ids_in[path.parent]:
                found.setdefault(pair.key, path)
                claims[path] = claims.get(path, 0) + 1
    sure = {key: path for key, path in found.items() if claims[path] == 1}
    for task in {pair.task for pair in missing} - attempted:
        keys = [pair.key for pair in pairs if pair.task == task]
        if any(key not in sure for key in keys):
            sure = {key: path for key, path in sure.items() if key not in keys}
    return sure


def _differs_in_spelling(name: FileName, pair: Pair, expected: FileName) -> bool:
    """Another folder, another suffix, other capitals; the digits as they should be."""
    others = (other.name for other in pair.other_fields)
    return name.stem == expected.stem or name.path.name in others


def _has_the_ids(name: FileName, pair: Pair, expected: FileName) -> bool:
    del expected
    return name.ids[:2] == (pair.fixed_id, pair.moving_id)


def _has_the_ids_swapped(name: FileName, pair: Pair, expected: FileName) -> bool:
    del expected
    return name.ids[:2] == (pair.moving_id, pair.fixed_id)


def _looks_alike(name: FileName, pair: Pair, expected: FileName) -> bool:
    del pair
    if len(name.ids) >= 2:
        return False  # two other ids are another pair, however alike the names look
    two = difflib.SequenceMatcher(
        None, name.stem[:_MAX_COMPARED_LETTERS], expected.stem[:_MAX_COMPARED_LETTERS]
    )
    bounds = (two.real_quick_ratio, two.quick_ratio, two.ratio)  # each dearer, and never higher
    return all(bound() >= _NEAR_RATIO for bound in bounds)


def _missing(pair: Pair) -> Finding:
    return Finding(
        severity=Severity.ERROR,
        kind=FindingKind.MISSING,
        pair=pair.key,
        expected=accepted(pair),
        found="no such file",
        fix="write the pair's field there; leave out a whole task to say that it is not attempted",
    )


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
