"""Fields that are there under another name, or in another folder: what is wrong, and what mends it.

Fields that all lie in one wrong place are one finding.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from harness.check.file_name import FileName, shown
from harness.check.findings import Finding, FindingKind, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from harness.challenge.pairs import Pair

    _Meant = tuple[Pair, PurePosixPath]

_TOP = PurePosixPath()


def misnamed(meant: Iterable[_Meant]) -> Iterator[Finding]:
    """``meant``: pairs without a field, each with the file that seems to be it."""
    groups: dict[object, list[_Meant]] = {}
    for pair, path in meant:
        groups.setdefault(_move(pair, path) or pair.key, []).append((pair, path))
    for alike in groups.values():
        (pair, path), *others = alike
        yield _many(alike) if others else _one(pair, path)


def accepted(pair: Pair) -> str:
    return " or ".join(map(str, pair.field_names))


def _wanted(pair: Pair, path: PurePosixPath) -> PurePosixPath:
    """Of the names that the pair's field may have, the one of the file, or the first."""
    return next((name for name in pair.field_names if name.name == path.name), pair.field)


def _move(pair: Pair, path: PurePosixPath) -> tuple[PurePosixPath, PurePosixPath] | None:
    """Where the file lies, and where it should, if nothing else is wrong with it; without the
    folders that both end in."""
    wanted = _wanted(pair, path)
    if path.name != wanted.name:
        return None
    extra = path.parts[: -len(wanted.parts)]
    if extra and path == PurePosixPath(*extra, wanted):
        return PurePosixPath(*extra), _TOP
    return path.parent, wanted.parent


def _many(alike: Sequence[_Meant]) -> Finding:
    pair, path = alike[0]
    move = _move(pair, path)
    here, there = move or (path.parent, pair.field.parent)
    if there == _TOP:
        fix = f"check or zip {shown(here)}/ instead, or move what is in it to the top"
    elif here == _TOP:
        fix = f"move them to {there}/; if this is {there}/ itself, check the folder that it is in"
    else:
        fix = f"move them to {there}/"
    return Finding(
        severity=Severity.ERROR,
        kind=FindingKind.MISNAMED,
        pair=None,
        expected=f"fields such as {_wanted(pair, path)}",
        found=f"{len(alike)} fields {_places(here, there)}, such as {shown(path)}",
        fix=fix,
    )


def _one(pair: Pair, path: PurePosixPath) -> Finding:
    return Finding(
        severity=Severity.ERROR,
        kind=FindingKind.MISNAMED,
        pair=pair.key,
        expected=accepted(pair),
        found=shown(path) + (f" ({what})" if (what := _difference(pair, path)) else ""),
        fix=_rename(pair, path),
    )


def _places(here: PurePosixPath, there: PurePosixPath) -> str:
    is_at = "at the top" if here == _TOP else f"in {shown(here)}/"
    return f"{is_at}, not {'at the top' if there == _TOP else f'in {there}/'}"


def _difference(pair: Pair, path: PurePosixPath) -> str:
    """What is wrong with the name, where one thing is."""
    wanted = _wanted(pair, path)
    name, expected = FileName.of(path), FileName.of(wanted)
    if _is_swapped(name, pair):
        return "the ids are swapped: the fixed case comes first"
    if path.name != path.name.strip():
        return "with spaces around the name"
    if name.suffix != expected.suffix:
        return f"ends in {name.suffix or 'nothing'}, not in {expected.suffix}"
    if move := _move(pair, path):
        return _places(*move)
    if name.stem == expected.stem:
        return "other capitals"
    is_short = name.ids == expected.ids and name.digits != expected.digits
    zeros = "ids have four digits, with leading zeros"
    return zeros if is_short else f"the name must be {wanted.name}"


def _rename(pair: Pair, path: PurePosixPath) -> str:
    wanted = _wanted(pair, path)
    name, expected = FileName.of(path), FileName.of(wanted)
    if name.suffix == ".npy" and expected.suffix == ".npz":
        return "write it with np.savez_compressed(path, field); np.save makes an .npy"
    if not name.suffix.endswith(expected.suffix):
        return f"write it as {expected.suffix}; `harness convert` turns one into the other"
    if _is_swapped(name, pair):
        return f"if its values are on the grid of the fixed image, rename it to {wanted}"
    return f"{'rename' if _move(pair, path) is None else 'move'} it to {wanted}"


def _is_swapped(name: FileName, pair: Pair) -> bool:
    ids = (pair.fixed_id, pair.moving_id)
    return name.ids[:2] == ids[::-1] and ids[0] != ids[1]
