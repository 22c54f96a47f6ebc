"""What a challenge asks for, in lines that a person reads and a docker line that a team copies."""

from __future__ import annotations

import shlex
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from harness.challenge.model import FieldFormat, Layout, Metric, PairsJson
from harness.challenge.pairs import Pair
from harness.challenge.quantity import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.challenge.contract import Mount
    from harness.challenge.model import Challenge, FieldSpec, Task

_OF_LABELS = (Metric.DICE, Metric.DICE30, Metric.HD95)
_OF_LANDMARKS = (Metric.TRE, Metric.TRE30)
_EXAMPLE = "the pair of fixed case 1 and moving case 2"
_GIB, _MIB = 1 << 30, 1 << 20


def outline(challenge: Challenge) -> str:
    """Tasks, files with an example pair, docker line and limits of a challenge."""
    lines = [f"{challenge.title}  ({challenge.name}, {challenge.digest[:19]})"]
    for task in challenge.tasks:
        lines += ["", f"task {task.name}: {task.title}"]
        lines += [f"  {name:<9} {text}" for name, text in _task_rows(task)]
    lines += ["", "run", *(f"  {line}" for line in docker_line(challenge).splitlines())]
    lines += ["", "limits"]
    lines += [f"  {name:<9} {text}" for name, text in _limit_rows(challenge)]
    return "\n".join(lines)


def docker_line(challenge: Challenge, *, image: str = "IMAGE") -> str:
    """A run under the challenge's mounts, arguments, limits and isolation, from the folder above
    ``test/``. `harness run` also looks after time, output, disk and log, and allows as many open
    files as the challenge says where the engine may."""
    limits = challenge.limits
    longest = max(limits.output_bytes, limits.scratch_bytes)
    rows = [
        # Without capabilities root may write only what anybody may.
        "chmod -R a+rwX submission && docker run --rm --init --network none --ipc private",
        "--cap-drop ALL --security-opt no-new-privileges --hostname submission",
        f"--memory {_size(limits.memory_bytes)} --memory-swap {_size(limits.memory_bytes)}",
        f"--shm-size {_size(limits.shared_memory_bytes)} --pids-limit {limits.processes}",
        f"--tmpfs /tmp:rw,exec,nosuid,nodev,mode=1777,size={limits.temporary_bytes}",
        f"--ulimit core=0 --ulimit fsize={longest} --oom-score-adj 500 --no-healthcheck",
    ]
    rows += [_mount(mount) for mount in challenge.container.mounts]
    rows += [
        f"--env {shlex.quote(f'{name}={value}')}"
        for name, value in challenge.container.environment.items()
    ]
    rows.append(" ".join((image, *map(shlex.quote, challenge.container.arguments))))
    return " \\\n  ".join(rows)


def doubts(challenge: Challenge) -> list[str]:
    """What is allowed and yet perhaps not meant."""
    whole = [mount for mount in challenge.container.mounts if mount.is_whole_data]
    found = []
    if not whole:
        found.append(
            "container.mounts: none shows the whole data folder, so the reference image (the "
            "plugin in method/) cannot run; other images can"
        )
    owners: dict[str, str] = {}
    for n, task in enumerate(challenge.tasks):
        if (owner := owners.setdefault(task.field.path, task.name)) != task.name:
            found.append(
                f"tasks.{n}.field.path: {task.name} has that of {owner}, so pairs of the same case "
                "ids would share a file"
            )
        truth = task.truth
        for wanted, of, there in (
            (_OF_LABELS, "labels", truth.fixed_labels and truth.moving_labels),
            (_OF_LANDMARKS, "landmarks", truth.fixed_landmarks and truth.moving_landmarks),
        ):
            metrics = [metric for metric in task.metrics if metric in wanted]
            if metrics and not there:
                found.append(
                    f"tasks.{n}.truth: {task.name} has the metrics {', '.join(metrics)} and not "
                    f"both fixed_{of} and moving_{of}, without which none can be computed"
                )
        if not task.metrics:
            found.append(f"tasks.{n}.metrics: {task.name} has none, so only runtimes count")
    return found


def example_pair(task: Task) -> Pair:
    """Fixed case 1 and moving case 2, under the names that the task's patterns give."""
    if task.images is None:
        folder = task.folder / "imagesTs"
        fixed, moving = (folder / f"{task.name}_{n:04d}_{n - 1:04d}.nii.gz" for n in (1, 2))
    else:
        fixed, moving = (
            PurePosixPath(pattern.format(fixed=1, moving=2))
            for pattern in (task.images.fixed, task.images.moving)
        )
    bare = Pair(
        task=task.name,
        fixed_id=1,
        moving_id=2,
        fixed=fixed,
        moving=moving,
        auxiliary=(),
        field=PurePosixPath(),
        modalities=None if task.images is not None else (0, 1),
    )
    return Pair(
        task=task.name,
        fixed_id=1,
        moving_id=2,
        fixed=fixed,
        moving=moving,
        auxiliary=tuple((role, bare.fill(file.path)) for role, file in task.auxiliary.items()),
        field=bare.fill(task.field.path),
        other_fields=tuple(bare.fill(path) for path in task.field.other_paths),
        modalities=bare.modalities,
    )


def _task_rows(task: Task) -> Iterator[tuple[str, str]]:
    pair = example_pair(task)
    yield "pairs", _list(task)
    yield "images", f"{_by(task.image_grid)} voxels"
    for n, text in enumerate(_field(task.field)):
        yield "" if n else "field", text
    yield "metrics", ", ".join(task.metrics) or "none"
    yield "example", _EXAMPLE if task.images is not None else f"{_EXAMPLE}, modalities 0 and 1"
    yield "  data", f"{pair.fixed} <- {pair.moving}"
    for role, path in pair.auxiliary:
        needed = "required" if task.auxiliary[role].required else "may be absent"
        yield "", f"{path}  ({role.replace('_', ' ')}, {needed})"
    yield "  output", str(pair.field)
    for path in pair.other_fields:
        yield "", f"or {path}"
    patterns = task.truth.model_dump(exclude_none=True)
    files = [str(pair.fill(text)) for text in patterns.values() if isinstance(text, str)]
    yield "  truth", "  ".join(files) or "none"


def _list(task: Task) -> str:
    pairs = task.pairs
    if isinstance(pairs, PairsJson):
        return f"{pairs.path}: its list {', else '.join(pairs.lists)}"
    return (
        f"{pairs.path}: the header {pairs.fixed_column},{pairs.moving_column}, two case ids a row"
    )


def _field(spec: FieldSpec) -> Iterator[str]:
    kind = "NPZ with one array" if spec.format is FieldFormat.NPZ else "NIfTI"
    yield f"{kind}, {' or '.join(spec.dtypes)}, {spec.resolution} resolution"
    names = {Layout.CHANNELS_FIRST: "components first", Layout.CHANNELS_LAST: "components last"}
    yield " or ".join(f"{spec.shape_in(layout)}, {names[layout]}" for layout in spec.layouts)
    yield "displacements in voxels of the image grid, components x, y, z"


def _by(grid: tuple[int, ...]) -> str:
    return " x ".join(map(str, grid))


def _mount(mount: Mount) -> str:
    if mount.source == "output":
        return f'--mount type=bind,src="$(pwd)/submission",target={mount.target}'
    source = PurePosixPath("test") / mount.path
    return f'--mount type=bind,src="$(pwd)/{source}",target={mount.target},readonly'


def _size(size_bytes: int) -> str:
    """As docker reads it: its g and m are powers of two."""
    for unit, letter in ((_GIB, "g"), (_MIB, "m")):
        if size_bytes % unit == 0:
            return f"{size_bytes // unit}{letter}"
    return str(size_bytes)


def _limit_rows(challenge: Challenge) -> Iterator[tuple[str, str]]:
    limits = challenge.limits
    shared = format_bytes(limits.shared_memory_bytes)
    yield "memory", f"{format_bytes(limits.memory_bytes)}, of it shared {shared}"
    yield "processes", f"{limits.processes}, threads count"
    yield "time", f"{limits.setup_time_s:g} s and {limits.pair_time_s:g} s a pair"
    yield "pair", f"at most {limits.longest_pair_s:g} s; at most {limits.idle_time_s:g} s idle"
    output = format_bytes(limits.output_bytes)
    yield "output", f"{output} in {limits.output_files} files, log {format_bytes(limits.log_bytes)}"
    temporary, scratch = format_bytes(limits.temporary_bytes), format_bytes(limits.scratch_bytes)
    yield "disk", f"{temporary} in /tmp, which is memory; {scratch} elsewhere"
    yield "files", f"{limits.open_files} open in a process"
