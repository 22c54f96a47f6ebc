"""Files that no pair expects: why, and what to do with them, in a finding a reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.check.file_name import FileName, is_junk, shown
from harness.check.findings import Finding, FindingKind, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import PurePosixPath

    from harness.challenge.pairs import Pair

_MAX_NAMED = 3  # files that are named
_MAX_CONSIDERED = 2000  # files that may be a missing field of another task


def extra_files(
    names: Sequence[PurePosixPath], pairs: Sequence[Pair], fields: Mapping[str, PurePosixPath]
) -> Iterator[Finding]:
    """``fields``: by pair key, the files that are fields of the pairs."""
    by_ids: dict[tuple[int, ...], list[Pair]] = {}
    for pair in pairs:
        by_ids.setdefault((pair.fixed_id, pair.moving_id), []).append(pair)
    junk = [name for name in names if is_junk(name)]
    rest = [name for name in names if not is_junk(name)]
    strays = [
        name
        for name in rest[:_MAX_CONSIDERED]
        if any(pair.key not in fields for pair in by_ids.get(FileName.of(name).ids, ()))
    ]
    if rest := sorted(set(rest).difference(strays)):
        reasons = [_reason(name, pairs, by_ids, fields) for name in rest[:_MAX_NAMED]]
        yield _finding(rest, "leave {them} out, {they} not evaluated", reasons)
    if strays:
        # May be what the team has of a task: it is not for us to say that it is to be deleted.
        fix = "{they} not evaluated where {they} now; a pair that has no field has the same ids"
        yield _finding(strays, fix, [_missed(name, by_ids, fields) for name in strays[:_MAX_NAMED]])
    if junk:
        yield _finding(
            junk, "leave {them} out; {they} what a file manager or archiver left behind", []
        )


def _finding(names: Sequence[PurePosixPath], fix: str, reasons: Sequence[str]) -> Finding:
    is_one = len(names) == 1
    named = [shown(name) for name in names[:_MAX_NAMED]]
    for i, reason in enumerate(reasons):
        named[i] += f" ({reason})" if reason else ""
    more = len(names) - len(named)
    return Finding(
        severity=Severity.WARNING,
        kind=FindingKind.EXTRA,
        pair=None,
        expected="fields of the pairs in the list only",
        found=", ".join(named) + (f" and {more} more that no pair expects" if more else ""),
        fix=fix.format(them="it" if is_one else "them", they="it is" if is_one else "they are"),
    )


def _reason(
    path: PurePosixPath,
    pairs: Sequence[Pair],
    by_ids: Mapping[tuple[int, ...], Sequence[Pair]],
    fields: Mapping[str, PurePosixPath],
) -> str:
    """Why a file whose name has two numbers is no field; empty where that cannot be said."""
    name = FileName.of(path)
    folders = {FileName.of(pair.field).folder for pair in pairs}
    if len(name.ids) != len(("fixed", "moving")) or not any(map(name.may_be_in, folders)):
        return ""
    alike = by_ids.get(name.ids, ())
    if not alike:
        return f"the list of pairs has no pair {name.ids[0]},{name.ids[1]}"
    here = [pair for pair in alike if name.may_be_in(FileName.of(pair.field).folder)]
    key = (here or alike)[0].key
    return f"the field of {key} is {fields[key]}" if key in fields else ""


def _missed(
    path: PurePosixPath,
    by_ids: Mapping[tuple[int, ...], Sequence[Pair]],
    fields: Mapping[str, PurePosixPath],
) -> str:
    pair = next(pair for pair in by_ids[FileName.of(path).ids] if pair.key not in fields)
    return f"the field of {pair.key} would be {pair.field}"
