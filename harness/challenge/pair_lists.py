"""Lists of pairs: the CSV files of 2021, the ``<Task>_dataset.json`` of later editions.

Every list is read whole and everything that is wrong with it is told at once.
"""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from harness.challenge.findings import kind_of
from harness.challenge.model import PairsCsv, PairsJson
from harness.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from harness.challenge.model import Task

MAX_CASE_ID = 9999  # field names have four digits a case
_MAX_LIST_BYTES = 4 << 20
_MAX_SHOWN = 60  # characters of a list that a message repeats
_NAME_END = re.compile(r"_([0-9]{4})_([0-9]{4})\.nii(?:\.gz)?$")


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One row of a list. Image paths are relative to the data folder."""

    fixed_id: int
    moving_id: int
    fixed: PurePosixPath
    moving: PurePosixPath
    modalities: tuple[int, int] | None = None


def list_pairs(task: Task, data_dir: Path, findings: list[str]) -> tuple[Listed, ...]:
    """The pairs that a task's list names, in its order; what is wrong is added to ``findings``."""
    source = PurePosixPath(task.pairs.path)
    text = _read_list(data_dir, source, findings)
    if text is None:
        return ()
    if isinstance(task.pairs, PairsJson):
        return _list_json(task.pairs, source, text, findings)
    return _list_csv(task, task.pairs, source, text, findings)


def _read_list(data_dir: Path, source: PurePosixPath, findings: list[str]) -> str | None:
    path = data_dir / source
    if not path.is_file():
        findings.append(f"{source}: expected the list of pairs, found no file")
        return None
    if not path.resolve().is_relative_to(data_dir.resolve()):
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


def _list_csv(
    task: Task, pairs: PairsCsv, source: PurePosixPath, text: str, findings: list[str]
) -> tuple[Listed, ...]:
    if task.images is None:  # the challenge's model forbids it for this kind of list
        raise DataError(f"{source}: task {task.name} does not say how its images are named")
    listed: list[Listed] = []
    lines: dict[tuple[int, int], int] = {}
    for line, row in _rows(pairs, source, text, findings):
        ids = _case_ids(source, line, row, findings)
        if ids is None:
            continue
        if ids in lines:
            findings.append(
                f"{source}, line {line}: the pair {ids[0]},{ids[1]} stands in line {lines[ids]} too"
            )
            continue
        lines[ids] = line
        fixed, moving = (
            PurePosixPath(pattern.format(fixed=ids[0], moving=ids[1]))
            for pattern in (task.images.fixed, task.images.moving)
        )
        listed.append(Listed(fixed_id=ids[0], moving_id=ids[1], fixed=fixed, moving=moving))
    return tuple(listed)


def _rows(
    pairs: PairsCsv, source: PurePosixPath, text: str, findings: list[str]
) -> list[tuple[int, list[str]]]:
    """Line number and cells of every row below a correct header; blank lines are left out."""
    header = [pairs.fixed_column, pairs.moving_column]
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


def _list_json(
    pairs: PairsJson, source: PurePosixPath, text: str, findings: list[str]
) -> tuple[Listed, ...]:
    name, rows = _json_rows(pairs, source, text, findings)
    listed: list[Listed] = []
    numbers: dict[tuple[PurePosixPath, PurePosixPath], int] = {}
    for number, row in enumerate(rows):
        where = f"{source}, {name}[{number}]"
        fixed = _json_image(source, f"{where}.fixed", _entry(row, "fixed"), findings)
        moving = _json_image(source, f"{where}.moving", _entry(row, "moving"), findings)
        if fixed is None or moving is None:
            continue
        images = (fixed.path, moving.path)
        if images in numbers:
            findings.append(f"{where}: the same pair stands in {name}[{numbers[images]}] too")
            continue
        numbers[images] = number
        listed.append(
            Listed(
                fixed_id=fixed.case,
                moving_id=moving.case,
                fixed=fixed.path,
                moving=moving.path,
                modalities=(fixed.modality, moving.modality),
            )
        )
    return tuple(listed)


def _json_rows(
    pairs: PairsJson, source: PurePosixPath, text: str, findings: list[str]
) -> tuple[str, list[Any]]:
    """Name and rows of the first list that is there and not empty."""
    wanted = " or ".join(pairs.lists)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        findings.append(f"{source}: not valid JSON ({error})")
        return wanted, []
    if not isinstance(content, dict):
        findings.append(f"{source}: expected an object with {wanted}, found {kind_of(content)}")
        return wanted, []
    for name in pairs.lists:
        rows = content.get(name)
        if rows is not None and not isinstance(rows, list):
            findings.append(f"{source}: expected {name} to be a list, found {kind_of(rows)}")
            return name, []
        if rows:
            return name, rows
    # Lists first: one of them may be the list meant, under another name.
    keys = sorted(content, key=lambda key: (not isinstance(content[key], list), key))
    known = ", ".join(keys[:12]) or "no keys"
    findings.append(f"{source}: expected pairs in {wanted}, found none (its keys: {_cut(known)})")
    return wanted, []


def _entry(row: object, key: str) -> object:
    return row.get(key) if isinstance(row, dict) else row


@dataclass(frozen=True, kw_only=True)
class _JsonImage:
    path: PurePosixPath
    case: int
    modality: int


def _json_image(
    source: PurePosixPath, where: str, value: object, findings: list[str]
) -> _JsonImage | None:
    if not isinstance(value, str):
        findings.append(f"{where}: expected an image's path, found {kind_of(value)}")
        return None
    path = source.parent / PurePosixPath(value)
    match = _NAME_END.search(path.name)
    if path.is_absolute() or ".." in path.parts or "\0" in value:
        findings.append(f"{where}: expected a path inside the data folder, found {_shown(value)}")
        return None
    if match is None:
        findings.append(
            f"{where}: expected a name that ends in _CCCC_MMMM.nii.gz, case id and modality of "
            f"four digits each, found {_shown(value)}"
        )
        return None
    return _JsonImage(path=path, case=int(match[1]), modality=int(match[2]))


def _shown(text: str) -> str:
    return repr(_cut(text))


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "..."
