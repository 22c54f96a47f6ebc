"""Many field files at once, by their names: ``disp_FFFF_MMMM...``, FFFF the fixed case's id."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.convert.convention import Family
from harness.errors import ConventionError, DataError, FieldError, HarnessError, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.challenge.model import FieldSpec
    from harness.convert.conversion import Conversion

# The ids alone, or with a modality behind each. What follows is the method's own, as in "Warp".
_NAME = re.compile(r"(disp_(\d+)_(\d+)(?:_(\d+)_(\d+))?)(?!\d)")


@dataclass(frozen=True, kw_only=True)
class PairName:
    """What a field file's name says of its pair. ``text``: ``disp_0001_0002``."""

    text: str
    fixed: int
    moving: int
    fixed_modality: int = 0
    moving_modality: int = 0

    def fill(self, pattern: str) -> str:
        """A pattern such as ``img{fixed:04d}.nii.gz``, for this pair. Raises ConventionError."""
        try:
            return pattern.format(
                fixed=self.fixed,
                moving=self.moving,
                fixed_modality=self.fixed_modality,
                moving_modality=self.moving_modality,
            )
        except (KeyError, ValueError, IndexError) as error:
            raise ConventionError(
                f"{pattern}: expected {{fixed:04d}} and {{moving:04d}} in braces, as a field's "
                f"name tells the case ids only ({type(error).__name__}: {error})"
            ) from error


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one file: ``target`` was written, unless ``error`` says why not."""

    source: Path
    target: Path | None
    error: HarnessError | None = None


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A conversion and where to find what it needs.

    ``fixed``, ``moving``: an image's path; ``{fixed:04d}`` and ``{moving:04d}`` in it stand for the
    case ids of a field's name. ``force``: replace files that are there.
    """

    conversion: Conversion
    fixed: str | None = None
    moving: str | None = None
    force: bool = False

    def __post_init__(self) -> None:
        self.conversion.check_images(self.fixed, self.moving)

    def convert_file(self, source: Path, target: Path) -> Outcome:
        """Convert one file to ``target``, or into it where that is a folder."""
        try:
            if target.is_dir():
                target = self._target(target, parse_name(source))
            self._convert(source, target)
        except HarnessError as error:
            return Outcome(source=source, target=target, error=error)
        return Outcome(source=source, target=target)

    def convert_files(self, sources: Sequence[Path], folder: Path) -> Iterator[Outcome]:
        """Convert each into ``folder``, in the challenge's layout where that is the target.

        A file that cannot be converted does not stop the rest.
        """
        owners: dict[Path, Path] = {}
        for source in sources:
            try:
                target = self._target(folder, parse_name(source))
                owner = owners.setdefault(target, source)
                if owner is not source:
                    raise FieldError(f"{owner.name} would become {target} as well; keep one")
                self._convert(source, target)
            except HarnessError as error:
                yield Outcome(source=source, target=None, error=error)
            else:
                yield Outcome(source=source, target=target)

    def _convert(self, source: Path, target: Path) -> None:
        if target.exists():
            if source.exists() and target.samefile(source):
                raise OutputError(f"{target}: expected another file than the input")
            if not self.force:
                raise OutputError(f"{target} is there already; name another, or --force")
        fixed, moving = (self._image(pattern, source) for pattern in (self.fixed, self.moving))
        self.conversion.convert(source, target, fixed=fixed, moving=moving)

    def find(self, folder: Path) -> tuple[Path, ...]:
        """The field files in a folder or, where it has none, in its folder of the task.

        Raises DataError where there are none.
        """
        folders = [folder]
        if self.conversion.task is not None:
            folders.append(folder / self.conversion.task.field.folder)
        for one in folders:
            if one.is_dir():
                found = tuple(sorted(path for path in one.glob("disp_*") if path.is_file()))
                if found:
                    return found
        looked = " or ".join(f"{one}/" for one in dict.fromkeys(folders))
        raise DataError(f"expected files disp_FFFF_MMMM* in {looked}, found none")

    def _image(self, pattern: str | None, source: Path) -> Path | None:
        if pattern is None:
            return None
        return Path(parse_name(source).fill(pattern) if "{" in pattern else pattern)

    def _target(self, folder: Path, name: PairName) -> Path:
        task = self.conversion.task
        if self.conversion.target.family is Family.CHALLENGE and task is not None:
            return folder / _challenge_path(task.field, name)
        return folder / (name.text + self.conversion.suffixes[0])


def parse_name(path: Path) -> PairName:
    """Raises FieldError for another name than ``disp_FFFF_MMMM``, with or without modalities."""
    match = _NAME.match(path.name)
    if match is None:
        raise FieldError(
            f"expected a name disp_FFFF_MMMM, of the fixed and the moving case, found {path.name}"
        )
    text, first, second, third, fourth = match.groups()
    if third is None:
        return PairName(text=text, fixed=int(first), moving=int(second))
    return PairName(
        text=text,
        fixed=int(first),
        fixed_modality=int(second),
        moving=int(third),
        moving_modality=int(fourth),
    )


def _challenge_path(spec: FieldSpec, name: PairName) -> Path:
    """The file's path below the output folder, by that of the names the challenge takes."""
    expected = []
    for pattern in (spec.path, *spec.other_paths):
        path = Path(name.fill(pattern))
        if path.name.startswith(f"{name.text}."):
            return path
        expected.append(path.name)
    raise FieldError(
        f"expected a name the challenge takes for a pair, as in {' or '.join(expected)}, found "
        f"{name.text}"
    )
