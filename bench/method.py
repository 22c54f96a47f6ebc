"""How accurate and how fast a method is: one table, the zero field above the method, task by task.

Runs the plugin in this process, without a container and without the witness, so that it is quick to
try an idea; `harness run` gives the runtimes that count.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.challenge.field import to_challenge, write_field
from harness.challenge.model import Metric, load_challenge
from harness.challenge.pairs import read_pairs
from harness.errors import HarnessError
from harness.evaluate.accuracy import PairAccuracy, pair_accuracy
from harness.phantom import write_phantoms
from harness.runner.plugin import ImagePair, LazyImage, RegistrationMethod, load_method
from harness.runner.walk import task_info

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.challenge.model import Task
    from harness.challenge.pairs import Pair

ROOT = Path(__file__).resolve().parents[1]
UNITS = {Metric.DICE: "Dice, higher is better", Metric.TRE: "TRE in mm, lower is better"}


@dataclass(frozen=True, kw_only=True)
class Row:
    pair: str
    accuracy: PairAccuracy | None  # None: the truth folder has nothing on this pair
    runtime_s: float  # first image opened -> field on disk


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="data folder (default: phantoms, made for this)")
    parser.add_argument("--truth", type=Path, help="truth folder of --data")
    parser.add_argument(
        "--method", type=Path, default=ROOT / "method", help="folder of method.py (default: ours)"
    )
    parser.add_argument("--tasks", nargs="*", help="only these (default: all there are)")
    args = parser.parse_args()
    if (args.data is None) != (args.truth is None):
        parser.error("--data and --truth belong together")
    try:
        with tempfile.TemporaryDirectory(prefix="harness-bench-") as folder:
            data_dir, truth_dir = args.data, args.truth
            if data_dir is None:
                data_dir, truth_dir = Path(folder) / "test", Path(folder) / "truth"
                print("making phantoms ...", file=sys.stderr, flush=True)
                write_phantoms(data_dir, truth_dir, pairs_per_task=2, seed=2021)
            _bench(load_method(args.method), data_dir, truth_dir, Path(folder), args.tasks)
    except HarnessError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
    print(f"peak memory of this process, evaluation included: {peak_bytes / 2**30:.2f} GiB")
    return 0


def _bench(
    method: RegistrationMethod,
    data_dir: Path,
    truth_dir: Path,
    scratch: Path,
    only: list[str] | None,
) -> None:
    for found in read_pairs(load_challenge(), data_dir):
        task = found.task
        if (only and task.name not in only) or (method.tasks and task.name not in method.tasks):
            continue
        method.prepare(task_info(task))
        rows = [
            _measure(method, task, pair, data_dir=data_dir, truth_dir=truth_dir, scratch=scratch)
            for pair in found.pairs
        ]
        print("\n".join(_table(task, rows)), flush=True)


def _measure(
    method: RegistrationMethod,
    task: Task,
    pair: Pair,
    *,
    data_dir: Path,
    truth_dir: Path,
    scratch: Path,
) -> Row:
    images = ImagePair(
        task=task_info(task),
        fixed_id=pair.fixed_id,
        moving_id=pair.moving_id,
        fixed=LazyImage(data_dir / pair.fixed),
        moving=LazyImage(data_dir / pair.moving),
        auxiliary={role: data_dir / path for role, path in pair.auxiliary},
    )
    start_s = time.monotonic()
    field = to_challenge(method.register(images), task.field, task.image_grid)
    write_field(field, scratch / pair.field.name)
    runtime_s = time.monotonic() - start_s
    accuracy = pair_accuracy(task, truth_dir, pair=pair, field=field, data_dir=data_dir)
    return Row(pair=str(images), accuracy=accuracy, runtime_s=runtime_s)


def _table(task: Task, rows: list[Row]) -> Iterator[str]:
    known = [row.accuracy for row in rows if row.accuracy is not None]
    yield f"{task.name}: {task.title}" + (f" ({UNITS[known[0].metric]})" if known else "")
    yield f"  {'pair':<22}{'zero':>8}{'method':>8}{'folded %':>10}{'seconds':>9}"
    for row in rows:
        if (a := row.accuracy) is None:
            yield f"  {row.pair:<22}{'no truth':>16}{'':>10}{row.runtime_s:>9.2f}"
        else:
            yield _line(row.pair, a.initial, a.value, a.folded_percent, row.runtime_s)
    if known:
        yield _line(
            "mean",
            float(np.nanmean([a.initial for a in known])),
            float(np.nanmean([a.value for a in known])),
            float(np.mean([a.folded_percent for a in known])),
            float(np.mean([row.runtime_s for row in rows])),
        )


def _line(name: str, zero: float, value: float, folded_percent: float, runtime_s: float) -> str:
    return f"  {name:<22}{zero:>8.3f}{value:>8.3f}{folded_percent:>10.4f}{runtime_s:>9.2f}"


if __name__ == "__main__":
    sys.exit(main())
