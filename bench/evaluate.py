"""How fast the harness evaluates fields: against the straightforward formulation (SciPy and the
``surface-distance`` package), on full-size phantoms, in turn in one run, from warm memory.

Reading the files counts. A ratio is the straightforward formulation in one process over ours, in
one worker and in two. Every case's numbers are compared as well.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from bench.support.evaluation import Case, Kind, evaluate_ours, evaluate_plainly, make_cases
from bench.support.results import machine, write_results
from harness.phantom import write_phantoms

if TYPE_CHECKING:
    from collections.abc import Sequence

TASKS = ("task_01", "task_02", "task_03")
# Least ratios with two workers, by the task: full resolution, and half.
TARGETS = {"task_01": (12, 25), "task_02": (12, 30), "task_03": (30, 60)}
TARGET_BYTES = 350 << 20
TARGET_WRONG_RATIO = 2.5
TARGET_START_S = 3.0
MIB = 1 << 20

# Prints the seconds of two evaluations of one case in a new process, import and all.
_TWO_CALLS = """
import sys, time
start = time.perf_counter()
from pathlib import Path
from bench.support.evaluation import Kind, evaluate_ours, make_cases
truth, folder, task = sys.argv[1:]
cases = make_cases(Path(truth), Path(folder), task, wrong=False)
for _ in range(2):
    evaluate_ours(cases[Kind.NPZ][0])
    print(time.perf_counter() - start)
    start = time.perf_counter()
"""


@dataclass(frozen=True, kw_only=True)
class Row:
    """Seconds a case, medians over the rounds; ratios are medians of each round's."""

    task: str
    kind: str
    fields: str
    plain_s: float
    one_s: float
    two_s: float
    one_ratio: float
    two_ratio: float
    plain_peak_bytes: int
    peak_bytes: int
    agrees: bool
    target: float | None

    @property
    def met(self) -> bool:
        return self.agrees and self.peak_bytes <= TARGET_BYTES and (
            self.target is None or self.two_ratio >= self.target
        )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="of each case, in turn (3)")
    parser.add_argument("--tasks", nargs="+", default=TASKS, help="(all three)")
    parser.add_argument("--kinds", nargs="+", default=[*Kind], type=Kind, help="(npz, half, nii)")
    parser.add_argument(
        "--quick", action="store_true", help="one round, good fields only, no cold start"
    )
    parser.add_argument("--folder", type=Path, help="where cases are made and kept (temporary)")
    parser.add_argument("--json", type=Path, help="where the results go (bench/results/)")
    args = parser.parse_args()
    rounds = 1 if args.quick else args.rounds
    with tempfile.TemporaryDirectory(prefix="harness-bench-") as scratch:
        folder = args.folder or Path(scratch)
        if not (folder / "truth").is_dir():
            print("making phantoms ...", file=sys.stderr, flush=True)
            write_phantoms(folder / "test", folder / "truth", pairs_per_task=2, seed=2021)
        print(
            f"{'task':<8} {'fields':<6} {'kind':<9} {'plain':>8} {'1 worker':>9} {'2':>8} "
            f"{'ratio 1':>8} {'2':>6} {'target':>7} {'MiB plain':>10} {'ours':>6}"
        )
        rows = []
        for task in args.tasks:
            for wrong in (False,) if args.quick else (False, True):
                cases = make_cases(folder / "truth", folder / task, task, wrong=wrong)
                for kind in args.kinds:
                    rows.append(_measure(cases[kind], rounds, wrong=wrong))
        starts = {} if args.quick else _starts(folder, args.tasks[0])
    wrong_ratios = _wrong_ratios(rows)
    for name, ratio in wrong_ratios.items():
        print(f"{name}: grossly wrong fields take {ratio:.2f} times as long")
    for name, seconds in starts.items():
        print(f"{name}: {seconds:.2f} s beyond a later call")
    met = (
        all(row.met for row in rows)
        and all(ratio <= TARGET_WRONG_RATIO for ratio in wrong_ratios.values())
        and starts.get("first call, compiled before", 0.0) <= TARGET_START_S
    )
    print(f"targets: {'met' if met else 'MISSED'}")
    content = {
        "machine": machine(),
        "rows": [asdict(row) for row in rows],
        "wrong_ratios": wrong_ratios,
        "starts": starts,
        "met": met,
    }
    print(f"written to {write_results('evaluate', content, args.json)}")
    return 0


def _measure(cases: Sequence[Case], rounds: int, *, wrong: bool) -> Row:
    """Each formulation in workers of its own, which have evaluated each case once before."""
    task, kind = cases[0].task, cases[0].kind
    plain_s, one_s, two_s = [], [], []
    # New interpreters: their peak memory is their own. One after another is the same on each side.
    context = multiprocessing.get_context("spawn")
    twice = [*cases, *cases]
    with (
        ProcessPoolExecutor(1, mp_context=context) as plainly,
        ProcessPoolExecutor(1, mp_context=context) as one,
        ProcessPoolExecutor(2, mp_context=context) as two,
    ):
        list(two.map(evaluate_ours, twice))
        list(one.map(evaluate_ours, cases))
        list(plainly.map(evaluate_plainly, cases[:1]))
        for _ in range(rounds):
            expected = list(plainly.map(evaluate_plainly, cases))
            found = list(one.map(evaluate_ours, cases))
            start_s = time.perf_counter()
            both = list(two.map(evaluate_ours, twice))
            two_s.append((time.perf_counter() - start_s) / len(twice))
            plain_s.append(float(np.mean([outcome.seconds for outcome in expected])))
            one_s.append(float(np.mean([outcome.seconds for outcome in found])))
    target = None if wrong else float(TARGETS[task][1 if kind is Kind.HALF else 0])
    row = Row(
        task=task,
        kind=kind.value,
        fields="wrong" if wrong else "good",
        plain_s=median(plain_s),
        one_s=median(one_s),
        two_s=median(two_s),
        one_ratio=median(a / b for a, b in zip(plain_s, one_s, strict=True)),
        two_ratio=median(a / b for a, b in zip(plain_s, two_s, strict=True)),
        plain_peak_bytes=max(outcome.peak_bytes for outcome in expected),
        peak_bytes=max(outcome.peak_bytes for outcome in (*found, *both)),
        agrees=all(
            np.allclose(a.numbers, b.numbers, rtol=0, atol=1e-6)
            for a, b in zip(expected, found, strict=True)
        ),
        target=target,
    )
    print(
        f"{task:<8} {row.fields:<6} {row.kind:<9} {row.plain_s:>6.2f} s {row.one_s:>7.3f} s "
        f"{row.two_s:>6.3f} s {row.one_ratio:>8.1f} {row.two_ratio:>6.1f} "
        f"{'' if target is None else f'{target:.0f}':>7} {row.plain_peak_bytes / MIB:>10.0f} "
        f"{row.peak_bytes / MIB:>6.0f}  {'' if row.met else 'MISSED' if row.agrees else 'DIFFERS'}",
        flush=True,
    )
    return row


def _wrong_ratios(rows: Sequence[Row]) -> dict[str, float]:
    good = {(row.task, row.kind): row.one_s for row in rows if row.fields == "good"}
    return {
        f"{row.task} {row.kind}": row.one_s / good[row.task, row.kind]
        for row in rows
        if row.fields == "wrong"
    }


def _starts(folder: Path, task: str) -> dict[str, float]:
    """What a new process's first call takes longer: compiling everything, then finding it."""
    found = {}
    with tempfile.TemporaryDirectory(prefix="harness-bench-") as cache:
        for name in ("first call ever, compiles", "first call, compiled before"):
            done = subprocess.run(
                [sys.executable, "-c", _TWO_CALLS, folder / "truth", folder / task, task],
                env={**os.environ, "NUMBA_CACHE_DIR": cache},
                cwd=Path(__file__).resolve().parents[1],
                capture_output=True,
                text=True,
                check=True,
            )
            first_s, second_s = (float(line) for line in done.stdout.split())
            found[name] = first_s - second_s
    return found


if __name__ == "__main__":
    sys.exit(main())
