"""From a challenge and a data folder to the pairs, with everything that is wrong listed at once.

Two depths: :func:`read_pairs` opens the lists of pairs only and looks the images up by name, which
is no access in the sense of the timing rule, so the runner may do it inside the container;
:func:`check_data` also opens every image and belongs before a run.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from harness.challenge.model import builtin_names
from harness.challenge.nifti import NiftiError, read_header
from harness.challenge.pair_lists import MAX_CASE_ID, Listed, list_pairs
from harness.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from harness.challenge.model import Challenge, Task
    from harness.challenge.pattern import PatternValues

__all__ = [
    "MAX_CASE_ID",
    "Pair",
    "TaskPairs",
    "check_data",
    "is_present",
    "list_pairs_alone",
    "read_pairs",
    "tops",
]

_NIFTI_SUFFIXES = (".nii", ".nii.gz")
_USUAL_MODALITIES = ((0, 0), (0, 1))


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One pair of a task. Inputs are relative to the data folder, the field to the output folder.

    ``auxiliary`` holds the further inputs that exist, as (role, path). ``other_fields`` are further
    names its field may have; of several files the first counts, ``field`` before all others.
    ``modalities``: of the fixed and the moving image, where the list of pairs tells them.
    """

    task: str
    fixed_id: int
    moving_id: int
    fixed: PurePosixPath
    moving: PurePosixPath
    auxiliary: tuple[tuple[str, PurePosixPath], ...]
    field: PurePosixPath
    other_fields: tuple[PurePosixPath, ...] = ()
    modalities: tuple[int, int] | None = None

    @property
    def key(self) -> str:
        """Unique among all pairs of a challenge, as in ``task_03/0438_0439``.

        With the modalities, as in ``ThoraxCBCT/0011_0001_0011_0000``, where they are not the usual
        ones: both 0, or fixed 0 and moving 1.
        """
        if self.modalities is None or self.modalities in _USUAL_MODALITIES:
            return f"{self.task}/{self.fixed_id:04d}_{self.moving_id:04d}"
        fixed, moving = self.modalities
        return f"{self.task}/{self.fixed_id:04d}_{fixed:04d}_{self.moving_id:04d}_{moving:04d}"

    @property
    def field_names(self) -> tuple[PurePosixPath, ...]:
        """Every name the field may have, the one that counts first first."""
        return (self.field, *self.other_fields)

    def fill(self, pattern: str) -> PurePosixPath:
        """The path that a pattern of the challenge means for this pair."""
        listed = Listed(
            fixed_id=self.fixed_id,
            moving_id=self.moving_id,
            fixed=self.fixed,
            moving=self.moving,
            modalities=self.modalities,
        )
        return _fill(pattern, listed)

    @property
    def inputs(self) -> tuple[PurePosixPath, ...]:
        """Every file whose opening counts as an access of this pair."""
        return (self.fixed, self.moving, *(path for _, path in self.auxiliary))


@dataclass(frozen=True, kw_only=True)
class TaskPairs:
    task: Task
    pairs: tuple[Pair, ...]


def read_pairs(challenge: Challenge, data_dir: Path) -> tuple[TaskPairs, ...]:
    """The tasks that are present below ``data_dir``, with their pairs in file order.

    A task whose folder is absent is skipped. Raises DataError with every finding: lists that break
    the rules, inputs that are missing, paths that leave the data folder.
    """
    findings: list[str] = []
    found = _find_tasks(challenge, data_dir, findings)
    _raise_if_any(findings, data_dir)
    return found


def list_pairs_alone(challenge: Challenge, folder: Path) -> tuple[TaskPairs, ...]:
    """The tasks whose lists of pairs lie below ``folder``, whether the images do or not: enough to
    hold fields against the truth. Empty if there is none. Raises DataError for a broken list."""
    findings: list[str] = []
    found: list[TaskPairs] = []
    for task in challenge.tasks:
        if (folder / task.pairs.path).is_file():
            listed = list_pairs(task, folder, findings)
            absent: list[str] = []  # images; nobody asks for them here
            pairs = tuple(_make_pair(task, one, folder, absent) for one in listed)
            found.append(TaskPairs(task=task, pairs=pairs))
    findings += _shared_names(found)
    _raise_if_any(findings, folder)
    return tuple(found)


def check_data(challenge: Challenge, data_dir: Path) -> tuple[TaskPairs, ...]:
    """As :func:`read_pairs`, with every NIfTI input opened once: readable, complete, on the grid.

    Raises DataError with every finding about lists, files and images.
    """
    findings: list[str] = []
    found = _find_tasks(challenge, data_dir, findings)
    findings += _absent_mounts(challenge, data_dir)
    _check_images(found, data_dir, findings)
    _raise_if_any(findings, data_dir)
    return found


def tops(tasks: Iterable[TaskPairs], data_dir: Path) -> tuple[str, ...]:
    """Names of the files and folders at the data folder's top that the tasks need: those that hold
    their lists and inputs, and what these lead to where they are links."""
    names: set[str] = set()
    top = data_dir.resolve()
    for found in tasks:
        inputs = (path for pair in found.pairs for path in pair.inputs)
        for path in {PurePosixPath(found.task.pairs.path), *inputs}:
            names.add(path.parts[0])
            names.add((top / path).resolve().relative_to(top).parts[0])
    return tuple(sorted(names))


def _absent_mounts(challenge: Challenge, data_dir: Path) -> list[str]:
    return [
        f"{mount.path}: expected it in the data folder, for it is mounted at {mount.target}, "
        "found none"
        for mount in challenge.container.mounts
        if mount.source == "data" and not (data_dir / mount.path).exists()
    ]


def _raise_if_any(findings: list[str], data_dir: Path) -> None:
    if findings:
        n = f"{len(findings)} finding{'s' if len(findings) > 1 else ''}"
        raise DataError(f"data folder {data_dir}: {n}", findings)


def _find_tasks(challenge: Challenge, data_dir: Path, findings: list[str]) -> tuple[TaskPairs, ...]:
    if not data_dir.is_dir():
        way = _way_to_data(challenge, data_dir)
        raise DataError(f"data folder {data_dir}: expected a folder, found none{way}")
    found: list[TaskPairs] = []
    try:
        for task in challenge.tasks:
            if is_present(task, data_dir):
                pairs = _read_task(task, data_dir, findings)
                found.append(TaskPairs(task=task, pairs=pairs))
    except PermissionError as error:  # a folder that may not be searched
        raise DataError(
            f"data folder {data_dir}: cannot look at {error.filename} ({error.strerror})", findings
        ) from error
    if not found:
        expected = ", ".join(_sign_of(task) for task in challenge.tasks)
        raise DataError(
            f"data folder {data_dir}: expected at least one of {expected}, found none"
            f"{_way_to_data(challenge, data_dir)}"
        )
    findings += _shared_names(found)
    return tuple(found)


def _way_to_data(challenge: Challenge, data_dir: Path) -> str:
    if challenge.name not in builtin_names():
        return "; unpack the challenge's data there"
    return (
        "; unpack the challenge's data there or make phantom data: "
        f"`harness phantom --challenge {challenge.name} --data {shlex.quote(str(data_dir))}`"
    )


def _check_images(tasks: tuple[TaskPairs, ...], data_dir: Path, findings: list[str]) -> None:
    """Open every NIfTI input that is there; missing ones are findings of the list already."""
    for found in tasks:
        paths = {path for pair in found.pairs for path in pair.inputs}
        for path in sorted(paths):
            there = (data_dir / path).is_file() and _inside(data_dir, data_dir / path)
            if there and path.name.endswith(_NIFTI_SUFFIXES):
                findings += _check_image(data_dir, path, found.task)


def _check_image(data_dir: Path, path: PurePosixPath, task: Task) -> list[str]:
    try:
        header = read_header(data_dir / path)
    except NiftiError as error:
        return [f"{path}: {error}"]
    if header.grid != task.image_grid:
        return [f"{path}: expected grid {task.image_grid} for {task.name}, found {header.grid}"]
    return []


def _read_task(task: Task, data_dir: Path, findings: list[str]) -> tuple[Pair, ...]:
    listed = list_pairs(task, data_dir, findings)
    return tuple(_make_pair(task, one, data_dir, findings) for one in listed)


def _shared_names(tasks: Iterable[TaskPairs]) -> Iterator[str]:
    """Findings about keys and fields that two pairs, of one task or of two, would share."""
    owners: dict[str, Pair] = {}
    for pair in (pair for found in tasks for pair in found.pairs):
        for name in (pair.key, *map(str, pair.field_names)):
            owner = owners.setdefault(name, pair)
            if owner is not pair:
                yield (
                    f"{pair.task}: {owner.fixed} <- {owner.moving} and {pair.fixed} <- "
                    f"{pair.moving} would both be {name}; expected names that tell them apart, "
                    "by the modalities or the task perhaps"
                )


def _make_pair(task: Task, listed: Listed, data_dir: Path, findings: list[str]) -> Pair:
    auxiliary = tuple(
        (role, _fill(file.path, listed))
        for role, file in task.auxiliary.items()
        if file.required or (data_dir / _fill(file.path, listed)).exists()
    )
    name = f"{task.name} pair {listed.fixed_id},{listed.moving_id}"
    for role, path in (("fixed", listed.fixed), ("moving", listed.moving), *auxiliary):
        if not (data_dir / path).is_file():
            findings.append(f"{name}: expected its {role} file {path}, found none")
        elif not _inside(data_dir, data_dir / path):
            target = (data_dir / path).resolve()
            findings.append(f"{name}: {path} leads out of the data folder, to {target}")
    return Pair(
        task=task.name,
        fixed_id=listed.fixed_id,
        moving_id=listed.moving_id,
        fixed=listed.fixed,
        moving=listed.moving,
        auxiliary=auxiliary,
        field=_fill(task.field.path, listed),
        other_fields=tuple(_fill(path, listed) for path in task.field.other_paths),
        modalities=listed.modalities,
    )


def _fill(pattern: str, listed: Listed) -> PurePosixPath:
    fixed_modality, moving_modality = listed.modalities or (0, 0)
    values: PatternValues = {
        "fixed": listed.fixed_id,
        "moving": listed.moving_id,
        "fixed_modality": fixed_modality,
        "moving_modality": moving_modality,
        "fixed_name": _name(listed.fixed),
        "moving_name": _name(listed.moving),
        "fixed_split": listed.fixed.parent.name.removeprefix("images"),
        "moving_split": listed.moving.parent.name.removeprefix("images"),
    }
    return PurePosixPath(pattern.format(**values))


def _name(image: PurePosixPath) -> str:
    return image.name.removesuffix(".gz").removesuffix(".nii")


def is_present(task: Task, data_dir: Path) -> bool:
    """Does the data folder have this task? By its folder or, in the top folder, its list."""
    if task.folder == PurePosixPath():
        return (data_dir / task.pairs.path).is_file()
    return (data_dir / task.folder).is_dir()


def _sign_of(task: Task) -> str:
    return task.pairs.path if task.folder == PurePosixPath() else f"{task.folder}/"


def _inside(folder: Path, path: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())
