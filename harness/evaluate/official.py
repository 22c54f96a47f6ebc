"""The public ``*_evaluation_config.json`` files of Learn2Reg, from 2022 on.

Which keys there are and what they mean: ``evaluation/evaluation.py`` and
``create_evaluation_config.py`` of https://github.com/MDL-UzL/L2R.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PositiveInt,
    Strict,
    ValidationError,
    field_validator,
    model_validator,
)

from harness.challenge.findings import did_you_mean, findings
from harness.challenge.model import (
    FieldDtype,
    FieldFormat,
    FieldSpec,
    ImagePatterns,
    Layout,
    Metric,
    PairsCsv,
    Task,
)
from harness.challenge.nifti import NiftiError, read_header
from harness.challenge.pairs import Pair, TaskPairs
from harness.errors import ChallengeError, DataError
from harness.evaluate.rules import (
    Case,
    CaseTruth,
    Landmarks,
    Method,
    TaskCases,
    TaskRules,
    case_key,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.challenge.model import Grid

_IMAGE_NAME = re.compile(r"_([0-9]{4})_([0-9]{4})\.nii\.gz$")
_TRIED = re.compile(r"^(evaluation_methods\.[0-9]+)\.(?:sdlogj|dice|hd95|tre)(?=[.:])")
_SHORT_NAME_MODALITIES = (0, 1)
_MAX_CONFIG_BYTES = 4 << 20


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SdLogJMethod(_Part):
    name: str
    metric: Literal["sdlogj"]


# Strict: the official code takes labels written as strings, finds none and scores nothing.
Label = Annotated[int, Strict(), Field(ge=0)]


class LabelMethod(_Part):
    name: str
    metric: Literal["dice", "hd95"]
    labels: Annotated[tuple[Label, ...], Field(min_length=1)]

    @field_validator("labels", mode="before")
    @classmethod
    def _are_no_texts(cls, labels: object) -> object:
        texts = [one for one in labels if isinstance(one, str)] if isinstance(labels, list) else []
        if texts:
            raise ValueError(
                f"expected labels as numbers, such as {texts[0].strip() or 1}, found texts, such "
                f'as "{texts[0]}"; take the quotation marks away: the official code finds no such '
                "labels, and scores nothing"
            )
        return labels


class LandmarkMethod(_Part):
    """``dest``: what stands in place of ``images`` in the paths of the landmark files."""

    name: str
    metric: Literal["tre"]
    dest: Annotated[str, Field(min_length=1)]


class EvalPair(_Part):
    """Paths below the ground truth that end in ``_CCCC_MMMM.nii.gz``: case and modality."""

    fixed: str
    moving: str

    @field_validator("fixed", "moving")
    @classmethod
    def _has_case_and_modality(cls, path: str) -> str:
        if _IMAGE_NAME.search(path) is None:
            raise ValueError(
                f"expected a path that ends in _CCCC_MMMM.nii.gz, four digits for the case and "
                f"four for the modality, found {path!r}"
            )
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise ValueError(f"expected a path below the ground truth, found {path!r}")
        return path


class OfficialConfig(_Part):
    """One ``*_evaluation_config.json``.

    ``expected_shape``: (X, Y, Z, 3), or (3, X, Y, Z) for the convention of 2021, at the images'
    resolution or half of it. Other keys than these decide nothing (``note``, ``description``, ...).
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    task_name: str
    expected_shape: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt]
    evaluation_methods: Annotated[
        tuple[Annotated[SdLogJMethod | LabelMethod | LandmarkMethod, Discriminator("metric")], ...],
        Field(min_length=1),
    ]
    eval_pairs: Annotated[tuple[EvalPair, ...], Field(min_length=1)]
    masked_evaluation: bool = False
    eval_config_version: float | str | None = None

    @model_validator(mode="after")
    def _further_keys_are_no_misspellings(self) -> OfficialConfig:
        for key in self.model_extra or {}:
            if meant := did_you_mean(key, type(self).model_fields, likeness=0.8):
                raise ValueError(f"unknown key {key!r}{meant}")
        return self

    @field_validator("evaluation_methods")
    @classmethod
    def _unique_names(
        cls, methods: tuple[SdLogJMethod | LabelMethod | LandmarkMethod, ...]
    ) -> tuple[SdLogJMethod | LabelMethod | LandmarkMethod, ...]:
        names = [method.name for method in methods]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"expected names that tell the methods apart, found {twice[0]} twice")
        return methods


def load_official_config(path: Path) -> OfficialConfig:
    """Raises ChallengeError naming the file, the key, what was expected and what was found."""
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise ChallengeError(
            f"evaluation configuration {path}: cannot be read ({error.strerror})"
        ) from error
    if len(text) > _MAX_CONFIG_BYTES:
        raise ChallengeError(
            f"evaluation configuration {path}: expected at most {_MAX_CONFIG_BYTES} bytes"
        )
    try:
        return OfficialConfig.model_validate_json(text)
    except ValidationError as error:
        # pydantic adds to a method's place which metric's model it tried.
        found = (_TRIED.sub(r"\1", line) for line in findings(error, OfficialConfig))
        lines = "\n".join(f"  - {finding}" for finding in found)
        raise ChallengeError(f"evaluation configuration {path}:\n{lines}") from error


def official_cases(config: OfficialConfig, truth: Path) -> TaskCases:
    """The cases of a configuration, with their truth below ``truth``.

    Raises ChallengeError for a shape that is none of a field, or pairs that share their names, and
    DataError when the grid of the images is needed and cannot be read.
    """
    pairs = tuple(_pair(config, one) for one in config.eval_pairs)
    names = [case_key(pair) for pair in pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ChallengeError(
            f"evaluation configuration {config.task_name}: {twice[0]} stands in eval_pairs twice"
        )
    task = _task(config, truth)
    specs = [(f".{kind}", _spec(task, kind)) for kind in ("npz", "nii.gz")]
    rules = TaskRules(
        name=config.task_name,
        title=config.task_name,
        image_grid=task.image_grid,
        methods=tuple(map(_method, config.evaluation_methods)),
        specs=tuple(specs),
        scaled_nifti=True,
    )
    cases = tuple(
        Case(key=case_key(pair), pair=pair, truth=_truth(config, one, pair, truth))
        for pair, one in zip(pairs, config.eval_pairs, strict=True)
    )
    return TaskCases(rules=rules, pairs=TaskPairs(task=task, pairs=pairs), cases=cases)


def _pair(config: OfficialConfig, one: EvalPair) -> Pair:
    (fixed, fixed_modality), (moving, moving_modality) = (
        _ids(path) for path in (one.fixed, one.moving)
    )
    stems = [f"disp_{fixed:04d}_{fixed_modality:04d}_{moving:04d}_{moving_modality:04d}"]
    if (fixed_modality, moving_modality) == _SHORT_NAME_MODALITIES:
        stems.insert(0, f"disp_{fixed:04d}_{moving:04d}")
    names = [PurePosixPath(stem + suffix) for stem in stems for suffix in (".npz", ".nii.gz")]
    return Pair(
        task=config.task_name,
        fixed_id=fixed,
        moving_id=moving,
        fixed=PurePosixPath(one.fixed),
        moving=PurePosixPath(one.moving),
        auxiliary=(),
        field=names[0],
        other_fields=tuple(names[1:]),
        modalities=(fixed_modality, moving_modality),
    )


def _ids(path: str) -> tuple[int, int]:
    found = _IMAGE_NAME.search(path)
    if found is None:  # EvalPair lets none through
        raise ChallengeError(f"expected a path that ends in _CCCC_MMMM.nii.gz, found {path!r}")
    return int(found[1]), int(found[2])


def _method(method: SdLogJMethod | LabelMethod | LandmarkMethod) -> Method:
    labels = method.labels if isinstance(method, LabelMethod) else ()
    return Method(name=method.name, metric=Metric(method.metric), labels=labels)


def _task(config: OfficialConfig, truth: Path) -> Task:
    """The task as the rest of the harness knows it, for names and sizes of files."""
    shape = config.expected_shape
    last = shape[3] == 3
    if not last and shape[0] != 3:
        raise ChallengeError(
            f"evaluation configuration {config.task_name}: expected an expected_shape of "
            f"(X, Y, Z, 3) or (3, X, Y, Z), found {shape}"
        )
    grid: Grid = shape[:3] if last else shape[1:]
    image_grid = grid if last else _image_grid(config, truth)
    half = tuple(n // 2 for n in image_grid)
    if grid not in (image_grid, half):
        raise ChallengeError(
            f"evaluation configuration {config.task_name}: expected fields on the images' grid "
            f"{image_grid} or half of it, found the expected_shape {shape}"
        )
    return Task(
        name=re.sub(r"[^A-Za-z0-9_-]", "_", config.task_name).lstrip("_-") or "task",
        title=config.task_name,
        pairs=PairsCsv(path="pairs.csv"),
        images=ImagePatterns(fixed="{fixed:04d}.nii.gz", moving="{moving:04d}.nii.gz"),
        image_grid=image_grid,
        field=FieldSpec(
            path="disp_{fixed:04d}_{moving:04d}.npz",
            layout=Layout.CHANNELS_LAST if last else Layout.CHANNELS_FIRST,
            resolution="full" if grid == image_grid else "half",
            shape=shape,
            dtype=FieldDtype.FLOAT16,
            other_dtypes=(FieldDtype.FLOAT32, FieldDtype.FLOAT64),
        ),
    )


def _spec(task: Task, kind: str) -> FieldSpec:
    if kind == "npz":
        return task.field
    return task.field.model_copy(
        update={
            "path": "disp_{fixed:04d}_{moving:04d}.nii.gz",
            "format": FieldFormat.NIFTI,
            "dtype": FieldDtype.FLOAT32,
            "other_dtypes": (FieldDtype.FLOAT64,),
        }
    )


def _image_grid(config: OfficialConfig, truth: Path) -> Grid:
    """Of the first pair's fixed image, or of its labels."""
    path = config.eval_pairs[0].fixed
    candidates = [truth / path, truth / path.replace("images", "labels")]
    for candidate in candidates:
        if candidate.is_file():
            try:
                x, y, z = read_header(candidate).grid
            except (NiftiError, ValueError) as error:
                raise DataError(f"{candidate}: expected a 3D image: {error}") from error
            return x, y, z
    raise DataError(
        f"expected_shape {config.expected_shape} needs the grid of the images: no file "
        f"{' or '.join(map(str, candidates))}"
    )


def _truth(config: OfficialConfig, one: EvalPair, pair: Pair, truth: Path) -> CaseTruth:
    def beside(path: str, folder: str, suffix: str = ".nii.gz") -> Path:
        """The official rule replaces every ``images`` in the path."""
        return truth / path.replace("images", folder).replace(".nii.gz", suffix)

    metrics = {method.metric for method in config.evaluation_methods}
    has_labels = bool(metrics & {"dice", "hd95"})
    return CaseTruth(
        fixed_labels=beside(one.fixed, "labels") if has_labels else None,
        moving_labels=beside(one.moving, "labels") if has_labels else None,
        landmarks=tuple(
            Landmarks(
                method=method.name,
                fixed=beside(one.fixed, folder, ".csv"),
                moving=beside(one.moving, folder, ".csv"),
            )
            for method, folder in _landmark_folders(config, pair)
        ),
        moving_images=(truth / one.moving,) if "tre" in metrics else (),
        mask=beside(one.fixed, "masks") if config.masked_evaluation else None,
    )


def _landmark_folders(config: OfficialConfig, pair: Pair) -> Iterator[tuple[LandmarkMethod, str]]:
    """Points that were matched in images of other modalities lie in folders of their own, as in
    ``keypoints00000002Tr``."""
    fixed, moving = pair.modalities or _SHORT_NAME_MODALITIES
    usual = fixed == moving or (fixed, moving) == _SHORT_NAME_MODALITIES
    suffix = "" if usual else f"{min(fixed, moving):04d}{max(fixed, moving):04d}"
    for method in config.evaluation_methods:
        if isinstance(method, LandmarkMethod):
            yield method, method.dest + suffix
