"""What keeps a field file from being used, in parts: a message for people, a kind for programs."""

from __future__ import annotations

from enum import StrEnum

from harness.errors import FieldError


class FieldProblem(StrEnum):
    """UNREADABLE: no array, or a damaged one. The others speak for themselves."""

    UNREADABLE = "unreadable"
    WRONG_DTYPE = "wrong_dtype"
    WRONG_SHAPE = "wrong_shape"
    NOT_FINITE = "not_finite"


class FieldFileError(FieldError):
    """One thing that is wrong with a field file. ``fix`` is empty where nothing better can be said
    than to write it again."""

    def __init__(self, *, expected: str, found: str, problem: FieldProblem, fix: str = "") -> None:
        self.problem = problem
        self.expected = expected
        self.found = found
        self.fix = fix
        hint = f"; {fix}" if fix else ""
        super().__init__(f"expected {expected}, found {found}{hint}")


def unreadable(*, expected: str, found: str, fix: str = "") -> FieldFileError:
    """The error of a file that is no array, a damaged one, or of a size that no field has."""
    return FieldFileError(expected=expected, found=found, problem=FieldProblem.UNREADABLE, fix=fix)
