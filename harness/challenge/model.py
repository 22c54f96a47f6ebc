"""A challenge as its YAML file describes it: tasks, container contract, limits.

The models forbid unknown keys, so a misspelt limit is an error rather than a limit that does not
apply. They are frozen: what was read is what every later stage sees.
"""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Literal

import yaml
from pydantic import (
    Discriminator,
    Field,
    PositiveInt,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from harness.challenge.contract import ContainerContract, Part, Upload
from harness.challenge.contract import Limits as Limits  # noqa: PLC0414 - run records hold it too
from harness.challenge.findings import did_you_mean, findings, kind_of
from harness.challenge.pattern import CSV_NAMES, FieldPattern, Pattern, names_in
from harness.challenge.strict_yaml import load_yaml
from harness.errors import ChallengeError

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT_CHALLENGE = "learn2reg2021"

# In a task's truth folder, may be absent: lines of ``sha256sum`` over the images it belongs to.
TRUTH_DIGESTS_FILE = "images.sha256"

# The auxiliary files that a plugin gets as masks; it gets others by their role only.
MASK_ROLES = ("fixed_mask", "moving_mask")

Grid = tuple[PositiveInt, PositiveInt, PositiveInt]


class Metric(StrEnum):
    """Metrics a task is scored by; computed by :mod:`harness.evaluate`."""

    DICE = "dice"
    DICE30 = "dice30"
    HD95 = "hd95"
    TRE = "tre"
    TRE30 = "tre30"
    SDLOGJ = "sdlogj"


class FieldDtype(StrEnum):
    FLOAT16 = "float16"
    FLOAT32 = "float32"
    FLOAT64 = "float64"

    @property
    def itemsize(self) -> int:
        return {FieldDtype.FLOAT16: 2, FieldDtype.FLOAT32: 4, FieldDtype.FLOAT64: 8}[self]


class PairsCsv(Part):
    """Pairs come from a CSV file with a header and one row of case ids a pair."""

    format: Literal["csv"] = "csv"
    path: Pattern
    fixed_column: str = "fixed"
    moving_column: str = "moving"


class PairsJson(Part):
    """Pairs come from a ``<Task>_dataset.json``: lists of ``{"fixed": path, "moving": path}``.

    The first of ``lists`` that is there and not empty holds the pairs. Paths are relative to the
    file's folder and end in ``_CCCC_MMMM.nii.gz``: case id and modality, four digits each.
    """

    format: Literal["dataset_json"]
    path: Pattern
    lists: Annotated[tuple[str, ...], Field(min_length=1)] = (
        "registration_test",
        "registration_val",
    )


def _list_format(pairs: object) -> str:
    """Which of the two a list is; a CSV file unless it says else."""
    if isinstance(pairs, dict):
        return str(pairs.get("format", "csv"))
    return str(getattr(pairs, "format", "csv"))


class ImagePatterns(Part):
    """Paths of a pair's two images, relative to the data folder."""

    fixed: Pattern
    moving: Pattern


class AuxiliaryFile(Part):
    """A further input of a pair: a mask, keypoints, ..."""

    path: Pattern
    required: bool = False


class FieldFormat(StrEnum):
    NPZ = "npz"
    NIFTI = "nifti"

    @property
    def suffixes(self) -> tuple[str, ...]:
        return (".npz",) if self is FieldFormat.NPZ else (".nii.gz", ".nii")


class Layout(StrEnum):
    """Where the components x, y, z of a field's array are."""

    CHANNELS_FIRST = "channels_first"  # (3, X, Y, Z)
    CHANNELS_LAST = "channels_last"  # (X, Y, Z, 3)


Shape4 = tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt]


class FieldSpec(Part):
    """What a displacement field file must be.

    ``shape`` is the array's whole shape. Values are displacements in voxels of the full-resolution
    image grid whatever the field's own resolution, component order x, y, z
    (``scipy.ndimage.map_coordinates``). ``path``, ``layout`` and ``dtype`` are what the harness
    writes; the ``other_...`` are accepted as well, of several files of one pair the first.
    """

    path: FieldPattern
    other_paths: tuple[FieldPattern, ...] = ()
    format: FieldFormat = FieldFormat.NPZ
    layout: Layout = Layout.CHANNELS_FIRST
    other_layouts: tuple[Layout, ...] = ()
    resolution: Literal["full", "half"]
    shape: Shape4
    dtype: FieldDtype
    other_dtypes: tuple[FieldDtype, ...] = ()

    @model_validator(mode="after")
    def _is_consistent(self) -> FieldSpec:
        suffixes = self.format.suffixes
        for path in (self.path, *self.other_paths):
            if not path.endswith(suffixes):
                raise ValueError(
                    f"expected a path that ends in {' or '.join(suffixes)} for format "
                    f"{self.format}, found {path!r}"
                )
        if self.format is FieldFormat.NIFTI and FieldDtype.FLOAT16 in self.dtypes:
            raise ValueError("NIfTI has no float16: expected dtype float32 or float64")
        return self

    @property
    def grid(self) -> Grid:
        """Spatial shape (X, Y, Z) of the field."""
        first = 1 if self.layout is Layout.CHANNELS_FIRST else 0
        return self.shape[first], self.shape[first + 1], self.shape[first + 2]

    @property
    def folder(self) -> PurePosixPath:
        """The fields' folder below the output folder."""
        return PurePosixPath(self.path).parent

    @property
    def layouts(self) -> tuple[Layout, ...]:
        return (self.layout, *self.other_layouts)

    @property
    def dtypes(self) -> tuple[FieldDtype, ...]:
        return (self.dtype, *self.other_dtypes)

    def shape_in(self, layout: Layout) -> Shape4:
        x, y, z = self.grid
        return (3, x, y, z) if layout is Layout.CHANNELS_FIRST else (x, y, z, 3)

    def layout_of(self, shape: tuple[int, ...]) -> Layout | None:
        """The accepted layout that an array of this shape has; None for a shape that is wrong."""
        return next((one for one in self.layouts if self.shape_in(one) == shape), None)

    @property
    def nbytes(self) -> int:
        """Size in bytes of the largest array that is accepted."""
        x, y, z = self.grid
        return 3 * x * y * z * max(dtype.itemsize for dtype in self.dtypes)


class TruthPatterns(Part):
    """Where a pair's truth lies, relative to the truth folder."""

    fixed_labels: Pattern | None = None
    moving_labels: Pattern | None = None
    labels: tuple[PositiveInt, ...] = ()
    fixed_landmarks: Pattern | None = None
    moving_landmarks: Pattern | None = None
    fixed_mask: Pattern | None = None


class Task(Part):
    name: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$",
            description="letters, digits, _ and -, a letter or digit first",
        ),
    ]
    title: str
    pairs: Annotated[
        Annotated[PairsCsv, Tag("csv")] | Annotated[PairsJson, Tag("dataset_json")],
        Discriminator(_list_format),
    ]
    images: ImagePatterns | None = None
    auxiliary: dict[str, AuxiliaryFile] = Field(default_factory=dict)
    image_grid: Grid
    field: FieldSpec
    truth: TruthPatterns = TruthPatterns()
    metrics: tuple[Metric, ...] = ()

    @field_validator("auxiliary")
    @classmethod
    def _masks_are_spelt_right(
        cls, auxiliary: dict[str, AuxiliaryFile]
    ) -> dict[str, AuxiliaryFile]:
        for role in auxiliary.keys() - MASK_ROLES:
            if meant := did_you_mean(role.lower(), MASK_ROLES, likeness=0.85):
                raise ValueError(f"the role {role!r} is no mask for a plugin{meant}")
        return auxiliary

    @model_validator(mode="after")
    def _grids_fit(self) -> Task:
        x, y, z = self.image_grid
        grid = (x, y, z) if self.field.resolution == "full" else (x // 2, y // 2, z // 2)
        first = self.field.layout is Layout.CHANNELS_FIRST
        shape = (3, *grid) if first else (*grid, 3)
        if self.field.shape != shape:
            raise ValueError(
                f"task {self.name}: a {self.field.resolution}-resolution field of image grid "
                f"{self.image_grid} in layout {self.field.layout} has shape {shape}, found "
                f"{self.field.shape}"
            )
        return self

    @model_validator(mode="after")
    def _paths_can_be_filled(self) -> Task:
        if isinstance(self.pairs, PairsJson):
            if self.images is not None:
                raise ValueError(
                    f"task {self.name}: the images' paths stand in {self.pairs.path}; leave out "
                    "the key images"
                )
            return self
        if self.images is None:
            raise ValueError(f"task {self.name}: expected the key images, with fixed and moving")
        for pattern in self._patterns():
            if too_much := names_in(pattern) - CSV_NAMES:
                raise ValueError(
                    f"task {self.name}: {pattern!r} uses {{{min(too_much)}}}, which a CSV list of "
                    "pairs does not tell; it tells {fixed} and {moving}"
                )
        return self

    def _patterns(self) -> Iterator[str]:
        if self.images is not None:
            yield from (self.images.fixed, self.images.moving)
        yield from (file.path for file in self.auxiliary.values())
        yield from (self.field.path, *self.field.other_paths)
        truth = self.truth
        for pattern in (
            *(truth.fixed_labels, truth.moving_labels),
            *(truth.fixed_landmarks, truth.moving_landmarks, truth.fixed_mask),
        ):
            if pattern is not None:
                yield pattern

    @property
    def folder(self) -> PurePosixPath:
        """The task's folder below the data folder, where its list of pairs lies; ``.`` for the data
        folder itself."""
        return PurePosixPath(self.pairs.path).parent


class Challenge(Part):
    schema_version: Literal[1]
    name: Annotated[
        str,
        Field(
            pattern=r"^[a-z0-9][a-z0-9_-]*$",
            description="lower-case letters, digits, _ and -, a letter or digit first",
        ),
    ]
    title: str
    container: ContainerContract
    upload: Upload = Upload()
    limits: Limits
    tasks: Annotated[tuple[Task, ...], Field(min_length=1)]

    @field_validator("tasks")
    @classmethod
    def _unique_names(cls, tasks: tuple[Task, ...]) -> tuple[Task, ...]:
        names = [task.name for task in tasks]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"task {twice[0]} is described twice")
        return tasks

    def task(self, name: str) -> Task:
        return next(task for task in self.tasks if task.name == name)

    @property
    def digest(self) -> str:
        """SHA-256 of the challenge's content, whatever its file's spelling."""
        content = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return "sha256:" + hashlib.sha256(content.encode()).hexdigest()


def builtin_names() -> tuple[str, ...]:
    """Names of the challenges that come with the package."""
    folder = resources.files("harness.challenge")
    return tuple(sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".yaml")))


def load_challenge(source: str | Path = DEFAULT_CHALLENGE) -> Challenge:
    """The challenge of a built-in name or of a YAML file.

    Raises ChallengeError naming the file, the key, what was expected and what was found.
    """
    return parse_challenge(challenge_text(source), origin=str(source))


def challenge_text(source: str | Path) -> str:
    """The YAML text of a built-in name or of a file. Raises ChallengeError when there is none."""
    if isinstance(source, str) and source in builtin_names():
        return (resources.files("harness.challenge") / f"{source}.yaml").read_text("utf-8")
    path = Path(source)
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        found = "not a text file"
        if isinstance(error, OSError):
            found = (error.strerror or str(error)).lower().removesuffix(" or directory")
        raise ChallengeError(
            f"challenge {source}: {found}; expected a YAML file or one of the built-in challenges "
            f"({', '.join(builtin_names())}){did_you_mean(source, builtin_names())}"
        ) from error
    return text


def parse_challenge(text: str, *, origin: str) -> Challenge:
    try:
        content = load_yaml(text, name=origin)
    except yaml.YAMLError as error:
        raise ChallengeError(f"challenge {origin}: not valid YAML: {error}") from error
    if not isinstance(content, dict):
        found = "an empty file" if content is None else kind_of(content)
        raise ChallengeError(
            f"challenge {origin}: expected keys such as name, tasks and limits, found {found}"
        )
    try:
        return Challenge.model_validate(content)
    except ValidationError as error:
        lines = "\n".join(f"  - {finding}" for finding in findings(error, Challenge))
        raise ChallengeError(f"challenge {origin}:\n{lines}") from error
