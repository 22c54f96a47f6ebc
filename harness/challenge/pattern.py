"""Patterns of paths: what a challenge's file says instead of one path for each pair."""

from __future__ import annotations

from pathlib import PurePosixPath
from string import Formatter
from typing import Annotated, TypedDict

from pydantic import AfterValidator

from harness.challenge.findings import did_you_mean


class PatternValues(TypedDict):
    """What a pattern's names stand for, for one pair.

    ``fixed``, ``moving``: the case ids. The others only where the pairs come from a JSON file, of
    whose image paths they are parts: ``./imagesTr/NLST_0111_0001.nii.gz`` has the modality 1, the
    name ``NLST_0111_0001`` and the split ``Tr``.
    """

    fixed: int
    moving: int
    fixed_modality: int
    moving_modality: int
    fixed_name: str
    moving_name: str
    fixed_split: str
    moving_split: str


CSV_NAMES = frozenset({"fixed", "moving"})
_EXAMPLE = PatternValues(
    fixed=1,
    moving=2,
    fixed_modality=0,
    moving_modality=1,
    fixed_name="case_0001_0000",
    moving_name="case_0002_0001",
    fixed_split="Tr",
    moving_split="Tr",
)


def names_in(pattern: str) -> set[str]:
    """What stands in braces. Raises ValueError for braces that do not match."""
    return {name for _, name, _, _ in Formatter().parse(pattern) if name is not None}


def _check_pattern(pattern: str) -> str:
    """A relative file path with names of :class:`PatternValues` in braces."""
    try:
        names = names_in(pattern)
    except ValueError:
        raise ValueError(f"{pattern!r} is not a valid pattern: its braces do not match") from None
    if unknown := names - set(_EXAMPLE):
        further = ", ".join(f"{{{name}}}" for name in _EXAMPLE if name not in CSV_NAMES)
        raise ValueError(
            f"{pattern!r} uses {{{min(unknown)}}}; known are {{fixed}} and {{moving}}, "
            "the case ids, as in img{fixed:04d}.nii.gz, and where the pairs come from a JSON file "
            + further
            + did_you_mean(min(unknown), _EXAMPLE)
        )
    try:
        path = PurePosixPath(pattern.format(**_EXAMPLE))
    except (ValueError, IndexError, KeyError):
        raise ValueError(
            f"{pattern!r} is not a valid pattern: numbers are written like {{fixed:04d}}, for four "
            "digits, names and splits without a colon"
        ) from None
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"expected a path inside the folder, found {pattern!r}")
    return pattern


def _check_one_file_a_pair(pattern: str) -> str:
    names = names_in(pattern)
    for name in ("fixed", "moving"):
        if name not in names:
            raise ValueError(
                f"expected a path with {{fixed}} and {{moving}}, for pairs that share a case need "
                f"a file each; {pattern!r} lacks {{{name}}}"
            )
    return pattern


Pattern = Annotated[str, AfterValidator(_check_pattern)]
FieldPattern = Annotated[Pattern, AfterValidator(_check_one_file_a_pair)]
