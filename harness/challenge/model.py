"""A challenge as its YAML file describes it: tasks, container contract, limits.

The models forbid unknown keys, so a misspelt limit is an error rather than a limit that does not
apply. They are frozen: what was read is what every later stage sees.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from enum import StrEnum
from importlib import resources
from pathlib import Path, PurePosixPath
from string import Formatter
from typing import TYPE_CHECKING, Annotated, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from harness.challenge.quantity import Bytes, Seconds
from harness.errors import ChallengeError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

DEFAULT_CHALLENGE = "learn2reg2021"

# In a task's truth folder, may be absent: lines of ``sha256sum`` over the images it belongs to.
TRUTH_DIGESTS_FILE = "images.sha256"

Grid = tuple[PositiveInt, PositiveInt, PositiveInt]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


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


def _check_pattern(pattern: str) -> str:
    """A relative file path in which ``{fixed}`` and ``{moving}`` stand for the case ids."""
    try:
        names = {name for _, name, _, _ in Formatter().parse(pattern) if name is not None}
    except ValueError as error:
        raise ValueError(f"{pattern!r} is not a valid pattern: {error}") from None
    if unknown := names - {"fixed", "moving"}:
        raise ValueError(
            f"{pattern!r} uses {{{sorted(unknown)[0]}}}; known are {{fixed}} and {{moving}}, "
            "the case ids, as in img{fixed:04d}.nii.gz"
        )
    try:
        path = PurePosixPath(pattern.format(fixed=1, moving=2))
    except (ValueError, IndexError, KeyError) as error:
        raise ValueError(f"{pattern!r} is not a valid pattern: {error}") from None
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"expected a path inside the folder, found {pattern!r}")
    return pattern


def _check_one_file_a_pair(pattern: str) -> str:
    names = {name for _, name, _, _ in Formatter().parse(pattern)}
    for name in ("fixed", "moving"):
        if name not in names:
            raise ValueError(
                f"expected a path with {{fixed}} and {{moving}}, for pairs that share a case need "
                f"a file each; {pattern!r} lacks {{{name}}}"
            )
    return pattern


Pattern = Annotated[str, AfterValidator(_check_pattern)]
FieldPattern = Annotated[Pattern, AfterValidator(_check_one_file_a_pair)]


class PairsCsv(_Model):
    """Pairs come from a CSV file with a header and one row of case ids a pair."""

    format: Literal["csv"] = "csv"
    path: Pattern
    fixed_column: str = "fixed"
    moving_column: str = "moving"


class ImagePatterns(_Model):
    """Paths of a pair's two images, relative to the data folder."""

    fixed: Pattern
    moving: Pattern


class AuxiliaryFile(_Model):
    """A further input of a pair: a mask, keypoints, ..."""

    path: Pattern
    required: bool = False


class FieldSpec(_Model):
    """What a displacement field file must be.

    ``shape`` is the array's whole shape. Values are displacements in voxels of the full-resolution
    image grid whatever the field's own resolution, component order x, y, z
    (``scipy.ndimage.map_coordinates``).
    """

    path: FieldPattern
    format: Literal["npz"] = "npz"
    layout: Literal["channels_first"] = "channels_first"
    resolution: Literal["full", "half"]
    shape: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt]
    dtype: FieldDtype

    @property
    def grid(self) -> Grid:
        """Spatial shape (X, Y, Z) of the field."""
        return self.shape[1], self.shape[2], self.shape[3]

    @property
    def nbytes(self) -> int:
        """Size of the array in bytes."""
        item = {"float16": 2, "float32": 4, "float64": 8}[self.dtype]
        return item * self.shape[0] * self.shape[1] * self.shape[2] * self.shape[3]


class TruthPatterns(_Model):
    """Where a pair's truth lies, relative to the truth folder."""

    fixed_labels: Pattern | None = None
    moving_labels: Pattern | None = None
    labels: tuple[PositiveInt, ...] = ()
    fixed_landmarks: Pattern | None = None
    moving_landmarks: Pattern | None = None
    fixed_mask: Pattern | None = None


class Task(_Model):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
    title: str
    pairs: PairsCsv
    images: ImagePatterns
    auxiliary: dict[str, AuxiliaryFile] = Field(default_factory=dict)
    image_grid: Grid
    field: FieldSpec
    truth: TruthPatterns = TruthPatterns()
    metrics: tuple[Metric, ...] = ()

    @model_validator(mode="after")
    def _grids_fit(self) -> Task:
        half = tuple(n // 2 for n in self.image_grid)
        grid = self.image_grid if self.field.resolution == "full" else half
        if self.field.shape != (3, *grid):
            raise ValueError(
                f"task {self.name}: a {self.field.resolution}-resolution field of image grid "
                f"{self.image_grid} has shape {(3, *grid)}, found {self.field.shape}"
            )
        return self

    @property
    def folder(self) -> PurePosixPath:
        """The task's folder below the data folder: where its list of pairs lies."""
        return PurePosixPath(self.pairs.path).parent


class Mount(_Model):
    """One bind mount of the container contract: ``data`` read-only, ``output`` writable."""

    source: Literal["data", "output"]
    target: Annotated[str, Field(pattern=r"^/[^:,]+$")]
    path: Pattern = "."


class ContainerContract(_Model):
    mounts: tuple[Mount, ...]
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = Field(default_factory=dict)

    @field_validator("mounts")
    @classmethod
    def _one_output(cls, mounts: tuple[Mount, ...]) -> tuple[Mount, ...]:
        if [m.source for m in mounts].count("output") != 1:
            raise ValueError("expected exactly one mount with source: output")
        return mounts


class Limits(_Model):
    """What a run may use. Sizes in bytes, durations in seconds.

    The deadline of a run is ``setup_time_s + pair_time_s * pairs``. ``reserve_cpu`` allows the
    harness to keep one of several CPUs from the submission, for a witness that gets no real-time
    scheduling.
    """

    memory_bytes: Bytes = Field(alias="memory")
    shared_memory_bytes: Bytes = Field(alias="shared_memory")
    processes: PositiveInt
    setup_time_s: Seconds = Field(alias="setup_time")
    pair_time_s: Seconds = Field(alias="pair_time")
    output_bytes: Bytes = Field(alias="output_size")
    log_bytes: Bytes = Field(alias="log_size")
    reserve_cpu: bool = True

    def deadline_s(self, n_pairs: int) -> float:
        return self.setup_time_s + self.pair_time_s * n_pairs


class Challenge(_Model):
    schema_version: Literal[1]
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    title: str
    container: ContainerContract
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
    if isinstance(source, str) and source in builtin_names():
        text = (resources.files("harness.challenge") / f"{source}.yaml").read_text("utf-8")
        return parse_challenge(text, origin=source)
    path = Path(source)
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ChallengeError(
            f"challenge {source}: neither a readable YAML file ({error}) nor one of the built-in "
            f"challenges ({', '.join(builtin_names())})"
        ) from error
    return parse_challenge(text, origin=str(path))


def parse_challenge(text: str, *, origin: str) -> Challenge:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ChallengeError(f"challenge {origin}: not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise ChallengeError(
            f"challenge {origin}: expected keys such as name, tasks and limits, found "
            f"{type(content).__name__}"
        )
    try:
        return Challenge.model_validate(content)
    except ValidationError as error:
        findings = "\n".join(f"  - {_describe(item)}" for item in error.errors())
        raise ChallengeError(f"challenge {origin}:\n{findings}") from error


def _describe(item: ErrorDetails) -> str:
    """One finding as ``key: what is wrong``, with the nearest known key for a misspelt one."""
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] != "extra_forbidden":
        return f"{where}: {item['msg'].removeprefix('Value error, ')}"
    known = sorted({key for model in _models() for key in _keys(model)})
    near = difflib.get_close_matches(str(item["loc"][-1]), known, n=1)
    return f"{where}: unknown key" + (f"; did you mean {near[0]!r}?" if near else "")


def _models() -> list[type[_Model]]:
    return _Model.__subclasses__()


def _keys(model: type[_Model]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]
