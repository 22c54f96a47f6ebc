"""Fields stored wrongly on purpose: is each mistake named, and is no other field accused?

Every mistake is made with the true field and with the default method's, pair by pair and for the
pairs of a task together. Fields in the right convention, however bad, must not be accused.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import tracemalloc
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.support.mistakes import Planted, degraded_fields, planted_mistakes
from bench.support.results import machine, percentile, write_results
from harness.challenge.field import to_challenge
from harness.challenge.model import load_challenge
from harness.challenge.pairs import read_pairs
from harness.check.meaning.decide import judge, judge_task
from harness.check.meaning.evidence import gather, make_likeness
from harness.errors import HarnessError
from harness.phantom import write_phantoms
from harness.runner.plugin import ImagePair, LazyImage, RegistrationMethod, load_method
from harness.runner.walk import task_info

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from harness.challenge.model import Task
    from harness.challenge.pairs import Pair, TaskPairs
    from harness.check.meaning.decide import Verdict
    from harness.check.meaning.evidence import Evidence

ROOT = Path(__file__).resolve().parents[1]
NAMED_TARGET = 0.95  # of the planted mistakes
CORRECT = "correct: true field, method's field"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A field as a file holds it. ``names`` is empty for one in the right convention.

    ``together``: cases of a task that one code would have written: they are judged together too.
    """

    row: str
    together: str
    field: NDArray[Any]
    names: tuple[frozenset[str], ...] = ()

    def accepts(self, verdict: Verdict) -> bool:
        if not self.names:
            return verdict.support is None and verdict.shape is None
        if verdict.support is None:
            return False
        return frozenset(map(str, verdict.support.reading.kinds)) in self.names


@dataclass(kw_only=True)
class Count:
    right: int = 0
    of: int = 0

    def add(self, right: bool) -> None:
        self.right += right
        self.of += 1

    def __str__(self) -> str:
        return f"{self.right}/{self.of}" if self.of else "-"


@dataclass(kw_only=True)
class Tally:
    """Counts by row and task, of single pairs and of tasks; what went wrong in words."""

    single: dict[str, dict[str, Count]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(Count))
    )
    together: dict[str, dict[str, Count]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(Count))
    )
    planted: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0

    def total(self, *, planted: bool, together: bool) -> Count:
        counts = self.together if together else self.single
        rows = [r for r in counts if (r in self.planted) == planted]
        cells = [count for row in rows for count in counts[row].values()]
        return Count(right=sum(c.right for c in cells), of=sum(c.of for c in cells))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="data folder (default: phantoms, made for this)")
    parser.add_argument("--truth", type=Path, help="truth folder of --data")
    parser.add_argument("--tasks", nargs="*", help="only these (default: all there are)")
    parser.add_argument("--pairs", type=int, default=2, help="of each task, if made here (2)")
    parser.add_argument("--seed", type=int, default=2021, help="of the phantoms made here (2021)")
    parser.add_argument("--json", type=Path, help="where the results go (bench/results/)")
    args = parser.parse_args()
    if (args.data is None) != (args.truth is None):
        parser.error("--data and --truth belong together")
    try:
        with tempfile.TemporaryDirectory(prefix="harness-bench-") as folder:
            data_dir, truth_dir = args.data, args.truth
            if data_dir is None:
                data_dir, truth_dir = Path(folder) / "test", Path(folder) / "truth"
                print("making phantoms ...", file=sys.stderr, flush=True)
                write_phantoms(data_dir, truth_dir, pairs_per_task=args.pairs, seed=args.seed)
            there = read_pairs(load_challenge(), data_dir)
            tasks = [t for t in there if not args.tasks or t.task.name in args.tasks]
            tally = _measure(tasks, data_dir, truth_dir)
    except HarnessError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    names = [found.task.name for found in tasks]
    print("\n".join(_table(tally, names)))
    print(f"written to {write_results('planted_mistakes', _content(tally), args.json)}")
    return 0


def _measure(tasks: Sequence[TaskPairs], data_dir: Path, truth_dir: Path) -> Tally:
    method, tally = load_method(ROOT / "method"), Tally()
    for found in tasks:
        task = found.task
        pairs = [_images(task, pair, data_dir) for pair in found.pairs]
        true = [_true_field(truth_dir / task.folder / pair.field.name) for pair in found.pairs]
        together: dict[str, list[tuple[Case, Evidence]]] = defaultdict(list)
        for n, images in enumerate(pairs):
            print(f"{images} ...", file=sys.stderr, flush=True)
            likeness = make_likeness(images.fixed, images.moving, images.fixed_mask)
            other = true[(n + 1) % len(true)]
            for case in _cases(method, task, images, true[n], other):
                evidence = gather(
                    case.field.astype(np.float16),
                    images.fixed,
                    images.moving,
                    pair=str(images),
                    likeness=likeness,
                )
                _judge_alone(tally, case, evidence, images)
                together[case.together].append((case, evidence))
        for cases in together.values():
            verdicts = judge_task([evidence for _, evidence in cases]).verdicts
            right = all(c.accepts(v) for (c, _), v in zip(cases, verdicts, strict=True))
            tally.together[cases[0][0].row][task.name].add(right)
        tally.seconds += [_cpu_s(*both) for both in zip(true, pairs, strict=True)]
        tally.peak_bytes = max(tally.peak_bytes, _peak_bytes(true[0], pairs[0]))
    return tally


def _cases(
    method: RegistrationMethod,
    task: Task,
    images: ImagePair,
    true: NDArray[Any],
    other: NDArray[Any],
) -> Iterator[Case]:
    registered = to_challenge(method.register(images), task.field, task.image_grid)
    spacing_mm = np.array(images.fixed.spacing_mm)
    for source, correct in (("true", true), ("method's", registered.astype(np.float32))):
        yield Case(row=CORRECT, together=source, field=correct)
        for plant in planted_mistakes(correct, task.image_grid, spacing_mm):
            yield _planted_case(plant, source)
    rng = np.random.default_rng(images.fixed_id)
    for bad in degraded_fields(true, other, task.image_grid, rng):
        yield Case(row=bad.what, together=bad.what, field=bad.field)


def _planted_case(plant: Planted, source: str) -> Case:
    return Case(
        row=plant.mistake,
        together=f"{source} {plant.mistake}",
        field=plant.field,
        names=tuple(frozenset(map(str, names)) for names in plant.names),
    )


def _judge_alone(tally: Tally, case: Case, evidence: Evidence, images: ImagePair) -> None:
    verdict = judge(evidence)
    right = case.accepts(verdict)
    tally.single[case.row][images.task.name].add(right)
    if case.names:
        tally.planted.add(case.row)
    if not right:
        taken = verdict.support.reading.name if verdict.support else verdict.shape or "nothing"
        tally.wrong.append(f"{images} {case.together}: taken for {taken}")


def _cpu_s(true: NDArray[Any], images: ImagePair) -> float:
    """What it costs to check a correct field, images read already."""
    begin_s = time.process_time()
    gather(true.astype(np.float16), images.fixed, images.moving, fixed_mask=images.fixed_mask)
    return time.process_time() - begin_s


def _peak_bytes(true: NDArray[Any], images: ImagePair) -> int:
    """What the arrays of one check take beside the images and the field. Slower, so not timed."""
    tracemalloc.start()
    try:
        gather(true.astype(np.float16), images.fixed, images.moving, fixed_mask=images.fixed_mask)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _images(task: Task, pair: Pair, data_dir: Path) -> ImagePair:
    images = ImagePair(
        task=task_info(task),
        fixed_id=pair.fixed_id,
        moving_id=pair.moving_id,
        fixed=LazyImage(data_dir / pair.fixed),
        moving=LazyImage(data_dir / pair.moving),
        auxiliary={role: data_dir / path for role, path in pair.auxiliary},
    )
    _ = images.fixed.array, images.moving.array  # read before anything is timed
    return images


def _true_field(path: Path) -> NDArray[Any]:
    with np.load(path) as stored:
        return np.asarray(stored["arr_0"], dtype=np.float32)


def _table(tally: Tally, tasks: list[str]) -> Iterator[str]:
    """A cell: pairs judged rightly by themselves, and, after the bar, tasks judged as a whole."""
    for planted, title in ((True, "mistake, named"), (False, "right convention, not accused")):
        yield f"{title:<45}" + "".join(f"{task:>16}" for task in tasks)
        for row in (r for r in tally.single if (r in tally.planted) == planted):
            cells = [f"{tally.single[row][t]} | {tally.together[row][t]}" for t in tasks]
            shown = ["-" if cell == "- | -" else cell for cell in cells]
            yield f"  {row:<43}" + "".join(f"{cell:>16}" for cell in shown)
        single, together = (tally.total(planted=planted, together=t) for t in (False, True))
        yield f"  {'all':<43}{single} pairs, {together} tasks"
    yield from tally.wrong
    yield (
        f"CPU seconds a pair: median {percentile(tally.seconds, 50):.2f}, "
        f"worst {max(tally.seconds):.2f}; "
        f"memory beside the images {tally.peak_bytes / 1e6:.0f} MB"
    )
    yield f"targets ({NAMED_TARGET:.0%} named, none accused): {'met' if _met(tally) else 'MISSED'}"


def _met(tally: Tally) -> bool:
    named = tally.total(planted=True, together=False)
    spared = tally.total(planted=False, together=False)
    return named.right >= NAMED_TARGET * named.of and spared.right == spared.of


def _content(tally: Tally) -> dict[str, Any]:
    def cells(counts: dict[str, dict[str, Count]]) -> dict[str, dict[str, list[int]]]:
        return {
            row: {task: [count.right, count.of] for task, count in tasks.items()}
            for row, tasks in counts.items()
        }

    return {
        "machine": machine(),
        "planted": sorted(tally.planted),
        "pairs": cells(tally.single),
        "tasks": cells(tally.together),
        "wrong": tally.wrong,
        "cpu_s": tally.seconds,
        "peak_bytes": tally.peak_bytes,
        "met": _met(tally),
    }


if __name__ == "__main__":
    sys.exit(main())
