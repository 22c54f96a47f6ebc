"""The walk over all pairs: the plugin registers, the runner converts and writes."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from harness.challenge.field import DisplacementField, to_challenge, write_field
from harness.errors import FieldError, MethodError
from harness.runner.plugin import (
    ImagePair,
    LazyImage,
    RegistrationMethod,
    TaskInfo,
    raise_if_asked_to_stop,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.challenge.model import Task
    from harness.challenge.pairs import Pair, TaskPairs


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def attempted(
    method: RegistrationMethod, tasks: Iterable[TaskPairs], known: Iterable[str]
) -> tuple[TaskPairs, ...]:
    """The tasks that are there and that the method says it does.

    Raises MethodError when it names a task the challenge does not have.
    """
    wanted: object = method.tasks  # what a team wrote need not be what the type says
    if wanted is None:
        return tuple(tasks)
    if not isinstance(wanted, set | frozenset | list | tuple):
        raise MethodError(f"Method.tasks: expected a set of task names, found {wanted!r}")
    names = sorted(known)
    if unknown := [name for name in wanted if name not in names]:
        raise MethodError(
            f"Method.tasks names {unknown[0]!r}; the challenge has {', '.join(names)}"
        )
    return tuple(found for found in tasks if found.task.name in wanted)


def walk(
    method: RegistrationMethod,
    tasks: Iterable[TaskPairs],
    *,
    data_dir: Path,
    output_dir: Path,
) -> dict[str, str]:
    """Register every pair and write its field; why pairs failed, by their keys.

    A pair that fails leaves no field and does not stop the others.
    """
    failed: dict[str, str] = {}
    for found in tasks:
        info = task_info(found.task)
        try:
            method.prepare(info)
        except (Exception, SystemExit) as error:
            raise_if_asked_to_stop(error)
            say(f"{info.name}: prepare() failed, its {len(found.pairs)} pairs are skipped")
            traceback.print_exc()
            failed |= {pair.key: f"prepare() failed: {_in_a_line(error)}" for pair in found.pairs}
            continue
        for pair in found.pairs:
            problem = _register(method, info, pair, data_dir, output_dir)
            if problem is not None:
                failed[pair.key] = problem
    return failed


def task_info(task: Task) -> TaskInfo:
    return TaskInfo(name=task.name, title=task.title, image_grid=task.image_grid, field=task.field)


def _register(
    method: RegistrationMethod, task: TaskInfo, pair: Pair, data_dir: Path, output_dir: Path
) -> str | None:
    """Why the pair failed; None when its field is written."""
    images = ImagePair(
        task=task,
        fixed_id=pair.fixed_id,
        moving_id=pair.moving_id,
        fixed=LazyImage(data_dir / pair.fixed),
        moving=LazyImage(data_dir / pair.moving),
        auxiliary={role: data_dir / path for role, path in pair.auxiliary},
    )
    path = output_dir / pair.field
    try:
        path.unlink(missing_ok=True)  # an earlier run's field must not stand in for this one's
        field = _checked(method.register(images))
        write_field(to_challenge(field, task.field, task.image_grid), path)
    except (FieldError, MethodError) as error:
        say(f"{images}  failed: {error}")
        return str(error)
    except (Exception, SystemExit) as error:  # the method's own: it costs this pair only
        raise_if_asked_to_stop(error)
        say(f"{images}  failed")
        traceback.print_exc()
        return _in_a_line(error)
    say(f"{images}  field written")
    return None


def _in_a_line(error: BaseException) -> str:
    """What was raised, and where last in the method's own files."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"


def _checked(returned: object) -> DisplacementField:
    if not isinstance(returned, DisplacementField):
        raise FieldError(
            "expected register() to return a DisplacementField, found "
            f"{type(returned).__name__}; wrap the array: DisplacementField(array=...)"
        )
    return returned
