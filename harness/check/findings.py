"""What a check reports: one finding, with what was expected, what was found and what to change."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """ERROR: the challenge cannot use it. WARNING: it can, and the result is probably not meant."""

    ERROR = "error"
    WARNING = "warning"


class FindingKind(StrEnum):
    """What is wrong, for programs; the sentences are in the finding.

    Format, mostly errors:

    ARCHIVE              the zip itself, or the name of a file in it, cannot be accepted
    NOTHING              not one field of the challenge's pairs
    MISSING              an attempted task lacks this pair's field
    MISNAMED             the same, and a file is there that seems to be it under another name
    UNREADABLE           a file that is no array, or a damaged one
    WRONG_DTYPE          numbers of another type
    WRONG_SHAPE          an array of another shape
    NOT_FINITE           NaN or infinite values
    EXTRA                a file that no pair expects; it is not evaluated
    TWO_NAMES            several files for one pair, of which one counts
    NO_DUMMY             a zip without a file at its top level, where the site wants one

    Meaning, always warnings:

    NORMALISED           values are in the -1..1 of PyTorch's ``grid_sample``, not in voxels
    MILLIMETRES          values are in millimetres
    HALF_SIZE            values are half of what they should be: voxels of the half grid
    DOUBLE_SIZE          values are twice what they should be
    COMPONENTS_REVERSED  components are stored z, y, x
    AXES_SWAPPED         two spatial axes of equal length are in each other's place
    RESHAPED             components were moved by ``reshape`` where ``transpose`` was meant
    IDENTITY_INCLUDED    values are positions, not displacements
    NEGATED              every displacement points the opposite way
    DIRECTION_SWAPPED    the field takes moving voxels to the fixed image
    LPS                  x and y are negated: ITK's axes point left and back, the voxels' do not
    WILD                 displacements reach across much of the image
    ROUGH                neighbouring displacements have little to do with each other
    FOLDED               space is turned inside out in more voxels than registration explains
    """

    ARCHIVE = "archive"
    NOTHING = "nothing"
    MISSING = "missing"
    MISNAMED = "misnamed"
    UNREADABLE = "unreadable"
    WRONG_DTYPE = "wrong_dtype"
    WRONG_SHAPE = "wrong_shape"
    NOT_FINITE = "not_finite"
    EXTRA = "extra"
    TWO_NAMES = "two_names"
    NO_DUMMY = "no_dummy"
    NORMALISED = "normalised"
    MILLIMETRES = "millimetres"
    HALF_SIZE = "half_size"
    DOUBLE_SIZE = "double_size"
    COMPONENTS_REVERSED = "components_reversed"
    AXES_SWAPPED = "axes_swapped"
    RESHAPED = "reshaped"
    IDENTITY_INCLUDED = "identity_included"
    NEGATED = "negated"
    DIRECTION_SWAPPED = "direction_swapped"
    LPS = "lps"
    WILD = "wild"
    ROUGH = "rough"
    FOLDED = "folded"

    @property
    def is_about_meaning(self) -> bool:
        return self not in _FORMAT


_FORMAT = frozenset(
    {
        *(FindingKind.ARCHIVE, FindingKind.NOTHING, FindingKind.MISSING, FindingKind.MISNAMED),
        *(FindingKind.UNREADABLE, FindingKind.WRONG_DTYPE, FindingKind.WRONG_SHAPE),
        *(FindingKind.NOT_FINITE, FindingKind.EXTRA, FindingKind.TWO_NAMES, FindingKind.NO_DUMMY),
    }
)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing to look at. ``pair`` is the key of the pair (``task_01/0012_0012``), or None when
    it is about more than one."""

    severity: Severity
    kind: FindingKind
    pair: str | None
    expected: str
    found: str
    fix: str
