"""From a challenge and a data folder to the pairs, with everything that is wrong listed at once.

Two depths: :func:`read_pairs` opens the lists of pairs only and looks the images up by name, which
is no access in the sense of the timing rule, so the runner may do it inside the container;
:func:`check_data` also opens every image and belongs before a run.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from harness.challenge.nifti import NiftiError, read_header
from harness.errors import DataError

if TYPE_CHECKING:
    from harness.challenge.model import Challenge, Task

MAX_CASE_ID = 9999  # field names have four digits a case
_MAX_LIST_BYTES = 4 << 20
_MAX_SHOWN = 60  # characters of a list that a message repeats
_NIFTI_SUFFIXES = (".nii", ".nii.gz")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One pair of a task. Inputs are relative to the data folder, the field to the output folder.

    ``auxiliary`` holds the further inputs that exist, as (role, path).
    """

    task: str
    fixed_id: int
    moving_id: int
    fixed: PurePosixPath
    moving: PurePosixPath
    auxiliary: tuple[tuple[str, PurePosixPath], ...]
    field: PurePosixPath

    @property
    def key(self) -> str:
        """Unique among all pairs of a challenge, as in ``task_03/0438_0439``."""
        return f"{self.task}/{self.fixed_id:04d}_{self.moving_id:04d}"

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


def check_data(challenge: Challenge, data_dir: Path) -> tuple[TaskPairs, ...]:
    """As :func:`read_pairs`, with every NIfTI input opened once: readable, complete, on the grid.

    Raises DataError with every finding about lists, files and images.
    """
    findings: list[str] = []
    found = _find_tasks(challenge, data_dir, findings)
    _check_images(found, data_dir, findings)
    _raise_if_any(findings, data_dir)
    return found


def _raise_if_any(findings: list[str], data_dir: Path) -> None:
    if findings:
        n = f"{len(findings)} finding{'s' if len(findings) > 1 else ''}"
        raise DataError(f"data folder {data_dir}: {n}; nothing was run", findings)


def _find_tasks(challenge: Challenge, data_dir: Path, findings: list[str]) -> tuple[TaskPairs, ...]:
    if not data_dir.is_dir():
        raise DataError(f"data folder {data_dir}: expected a folder, found none")
    found: list[TaskPairs] = []
    try:
        for task in challenge.tasks:
            if (data_dir / task.folder).is_dir():
                pairs = _read_task(task, data_dir, findings)
                found.append(TaskPairs(task=task, pairs=pairs))
    except PermissionError as error:  # a folder that may not be searched
        raise DataError(
            f"data folder {data_dir}: cannot look at {error.filename} ({error.strerror})", findings
        ) from error
    if not found:
        expected = ", ".join(f"{task.folder}/" for task in challenge.tasks)
        raise DataError(
            f"data folder {data_dir}: expected at least one of {expected}, found none; "
            "`make data` makes phantom data, or unpack the challenge's there"
        )
    return tuple(found)


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
    source = PurePosixPath(task.pairs.path)
    text = _read_list(data_dir, source, findings)
    if text is None:
        return ()
    pairs: dict[tuple[int, int], int] = {}
    for line, row in _rows(task, source, text, findings):
        ids = _case_ids(source, line, row, findings)
        if ids is None:
            continue
        if ids in pairs:
            findings.append(
                f"{source}, line {line}: the pair {ids[0]},{ids[1]} stands in line {pairs[ids]} too"
            )
            continue
        pairs[ids] = line
    return tuple(_make_pair(task, ids, data_dir, findings) for ids in pairs)


def _read_list(data_dir: Path, source: PurePosixPath, findings: list[str]) -> str | None:
    path = data_dir / source
    if not path.is_file():
        findings.append(f"{source}: expected the list of pairs, found no file")
        return None
    if not _inside(data_dir, path):
        findings.append(f"{source}: leads out of the data folder, to {path.resolve()}")
        return None
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_LIST_BYTES + 1)
        text = raw.decode("utf-8-sig")
    except OSError as error:
        findings.append(f"{source}: cannot be read ({error.strerror})")
        return None
    except UnicodeDecodeError as error:
        findings.append(f"{source}: expected a text file, found bytes that are not UTF-8 ({error})")
        return None
    if len(raw) > _MAX_LIST_BYTES:
        findings.append(f"{source}: expected a list of at most {_MAX_LIST_BYTES} bytes, found more")
        return None
    return text


def _rows(
    task: Task, source: PurePosixPath, text: str, findings: list[str]
) -> list[tuple[int, list[str]]]:
    """Line number and cells of every row below a correct header; blank lines are left out."""
    header = [task.pairs.fixed_column, task.pairs.moving_column]
    reader = csv.reader(io.StringIO(text))
    try:
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except csv.Error as error:
        findings.append(f"{source}, line {reader.line_num}: not a CSV row ({error})")
        return []
    rows = [(line, row) for line, row in rows if row not in ([], [""])]
    if not rows:
        findings.append(f"{source}: expected the header {','.join(header)}, found an empty file")
        return []
    if rows[0][1] != header:
        findings.append(
            f"{source}, line {rows[0][0]}: expected the header {','.join(header)!r}, "
            f"found {_shown(','.join(rows[0][1]))}"
        )
        return []
    if len(rows) == 1:
        findings.append(f"{source}: expected one row a pair below the header, found none")
    return rows[1:]


def _case_ids(
    source: PurePosixPath, line: int, row: list[str], findings: list[str]
) -> tuple[int, int] | None:
    where = f"{source}, line {line}"
    if len(row) != 2:
        findings.append(f"{where}: expected two case ids, found {_shown(','.join(row))}")
        return None
    ids: list[int] = []
    for cell in row:
        digits = cell.lstrip("0") or cell[-1:]
        if not (cell.isascii() and cell.isdigit()) or int(digits[:20]) > MAX_CASE_ID:
            findings.append(
                f"{where}: expected case ids from 0 to {MAX_CASE_ID}, whole numbers, "
                f"found {_shown(cell)}"
            )
            return None
        ids.append(int(digits))
    return ids[0], ids[1]


def _shown(text: str) -> str:
    return repr(text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "...")


def _make_pair(task: Task, ids: tuple[int, int], data_dir: Path, findings: list[str]) -> Pair:
    def fill(pattern: str) -> PurePosixPath:
        return PurePosixPath(pattern.format(fixed=ids[0], moving=ids[1]))

    fixed, moving = fill(task.images.fixed), fill(task.images.moving)
    auxiliary = tuple(
        (role, fill(file.path))
        for role, file in task.auxiliary.items()
        if file.required or (data_dir / fill(file.path)).exists()
    )
    name = f"{task.name} pair {ids[0]},{ids[1]}"
    for role, path in (("fixed", fixed), ("moving", moving), *auxiliary):
        if not (data_dir / path).is_file():
            findings.append(f"{name}: expected its {role} file {path}, found none")
        elif not _inside(data_dir, data_dir / path):
            target = (data_dir / path).resolve()
            findings.append(f"{name}: {path} leads out of the data folder, to {target}")
    return Pair(
        task=task.name,
        fixed_id=ids[0],
        moving_id=ids[1],
        fixed=fixed,
        moving=moving,
        auxiliary=auxiliary,
        field=fill(task.field.path),
    )


def _inside(folder: Path, path: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())
