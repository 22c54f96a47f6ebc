"""A submission's file name taken apart, to see which field it was meant for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.text import harmless, harmless_line

if TYPE_CHECKING:
    from pathlib import PurePosixPath

_NUMBER = re.compile(r"[0-9]+")
FIELD_SUFFIX = re.compile(r"\.(npz|npy|nii|gz|mha|mhd|nrrd|h5|hdf5|pt|pth|mat|zip)$", re.IGNORECASE)
JUNK = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})  # what file managers leave behind
_MAX_SHOWN = 120  # characters of a submission's file name


@dataclass(frozen=True)
class FileName:
    """``folder`` without what people spell in many ways. ``digits``: of the numbers in the name,
    as they are written; ``ids``: what they mean."""

    path: PurePosixPath
    stem: str
    suffix: str
    digits: tuple[str, ...]
    folder: str

    @classmethod
    def of(cls, path: PurePosixPath) -> FileName:
        name = stem = path.name.strip()
        while match := FIELD_SUFFIX.search(stem):
            stem = stem[: match.start()]
        folder = re.sub(r"[^a-z0-9/]|(?<![0-9])0+(?=[0-9])", "", str(path.parent).casefold())
        return cls(
            path=path,
            stem=stem.casefold(),
            suffix=name[len(stem) :].casefold(),
            digits=tuple(digits[:12] for digits in _NUMBER.findall(stem)),
            folder=folder,
        )

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(map(int, self.digits))

    @property
    def is_at_top(self) -> bool:
        return len(self.path.parts) == 1

    def may_be_in(self, folder: str) -> bool:
        """Is it in a task's folder, however deep, or at the top, where it may be any task's?

        A field in the folder of another task is not this task's, whatever its ids.
        """
        return not folder or self.is_at_top or f"/{folder}/" in f"/{self.folder}/"


def shown(name: PurePosixPath) -> str:
    """A submission's file name, fit to be shown; spaces that one would not see are quoted."""
    if any(part != part.strip() for part in name.parts):
        return repr(harmless(str(name))[:_MAX_SHOWN])
    return harmless_line(str(name), _MAX_SHOWN)


def is_junk(name: PurePosixPath) -> bool:
    return name.name in JUNK or "__MACOSX" in name.parts or name.name.startswith("._")
