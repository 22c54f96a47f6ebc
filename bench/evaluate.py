"""How fast the harness evaluates fields: against the straightforward formulation (SciPy and the
``surface-distance`` package), on full-size phantoms, in turn in one run, from warm memory.

Reading the files counts. A ratio is the straightforward formulation in one process over ours, in
one worker and in two; each round is of another case. Their numbers are compared as well. Grossly
wrong fields are of one kind, and the straightforward formulation evaluates one of them.

Five minutes on two quiet cores; what is made in between lies in a temporary folder.
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

from bench.support.evaluation import (
    Case,
    Kind,
    Outcome,
    evaluate_ours,
    evaluate_plainly,
    make_cases,
)
from bench.support.results import machine, write_results
from harness.phantom import write_phantoms

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TASKS = ("task_01", "task_02", "task_03")
# Least ratios with two workers, by the task: full resolution, and half.
TARGETS = {"task_01": (12, 25), "task_02": (12, 30), "task_03": (30, 60)}
TARGET_BYTES = 350 << 20
TARGET_WRONG_RATIO = 2.5
TARGET_START_S = 3.0
EVER = "first call ever, compiles"
MIB = 1 << 20

# Prints the seconds of two evaluations of one case in a new process, import and all.
_TWO_CALLS = """
import sys, time
start = time.perf_counter()
from pathlib import Path
from bench.support.evaluation import Kind, evaluate_ours, make_cases
truth, folder, task = sys.argv[1:]
cases = make_cases(Path(truth), Path(folder), task, wrong=False, kinds=[Kind.NPZ])
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
    parser.add_argument("--rounds", type=int, default=2, help="of the cases in turn (2)")
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
            cases = make_cases(folder / "truth", folder / task, task, wrong=False, kinds=args.kinds)
            rows += [_measure(cases[kind], rounds, wrong=False) for kind in args.kinds]
            if not args.quick:
                kind = args.kinds[0]
                cases = make_cases(folder / "truth", folder / task, task, wrong=True, kinds=[kind])
                rows.append(_measure(cases[kind], 1, wrong=True))
        starts = {} if args.quick else _starts(folder, args.tasks[0])
    wrong_ratios = _wrong_ratios(rows)
    for name, ratio in wrong_ratios.items():
        print(f"{name}: grossly wrong fields take {ratio:.2f} times as long")
    for name, seconds in starts.items():
        print(f"{name}: {seconds:.2f} s beyond a later call")
    missed = list(_missed(rows, wrong_ratios, starts))
    for text in missed:
        print(f"MISSED: {text}")
    print(f"targets: {'MISSED' if missed else 'met'}")
    content = {
        "machine": machine(),
        "rows": [asdict(row) for row in rows],
        "wrong_ratios": wrong_ratios,
        "starts": starts,
        "missed": missed,
    }
    print(f"written to {write_results('evaluate', content, args.json)}")
    return 0


def _measure(cases: Sequence[Case], rounds: int, *, wrong: bool) -> Row:
    """Each formulation in workers of its own, which have evaluated each case once before."""
    task, kind = cases[0].task, cases[0].kind
    expected: list[Outcome] = []
    found: list[Outcome] = []
    two_s: list[float] = []
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
        for n in range(rounds):
            case = cases[n % len(cases)]
            expected.append(plainly.submit(evaluate_plainly, case).result())
            found.append(one.submit(evaluate_ours, case).result())
            start_s = time.perf_counter()
            both = list(two.map(evaluate_ours, twice))
            two_s.append((time.perf_counter() - start_s) / len(twice))
    plain_s, one_s = ([outcome.seconds for outcome in some] for some in (expected, found))
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


def _missed(
    rows: Sequence[Row], wrong_ratios: dict[str, float], starts: dict[str, float]
) -> Iterator[str]:
    for row in rows:
        if not row.agrees:
            yield f"{row.task} {row.fields} {row.kind}: the numbers differ"
        if row.peak_bytes > TARGET_BYTES:
            yield (
                f"{row.task} {row.fields} {row.kind}: {row.peak_bytes / MIB:.0f} MiB, "
                f"expected {TARGET_BYTES / MIB:.0f} at most"
            )
        if row.target is not None and row.two_ratio < row.target:
            yield (
                f"{row.task} {row.fields} {row.kind}: {row.two_ratio:.1f} times as fast, "
                f"expected {row.target:.0f}"
            )
    for name, ratio in wrong_ratios.items():
        if ratio > TARGET_WRONG_RATIO:
            yield f"{name}: wrong fields take {ratio:.2f} times as long, not {TARGET_WRONG_RATIO}"
    for name, seconds in starts.items():
        if name != EVER and seconds > TARGET_START_S:
            yield f"{name}: {seconds:.2f} s beyond a later call, {TARGET_START_S} allowed"


def _wrong_ratios(rows: Sequence[Row]) -> dict[str, float]:
    good = {(row.task, row.kind): row.one_s for row in rows if row.fields == "good"}
    return {
        f"{row.task} {row.kind}": row.one_s / good[row.task, row.kind]
        for row in rows
        if row.fields == "wrong"
    }


def _starts(folder: Path, task: str) -> dict[str, float]:
    """What a new process's first call takes longer: compiling everything, then finding it, at last
    with neither that nor any library in the page cache."""
    found = {}
    with tempfile.TemporaryDirectory(prefix="harness-bench-") as cache:
        for name in (EVER, "first call, compiled before", "first call, from a cold page cache"):
            if name.endswith("page cache"):
                _drop_from_page_cache(Path(cache), Path(np.__file__).parents[1])
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


def _drop_from_page_cache(*folders: Path) -> None:
    """What no process has mapped, as after a restart of the machine."""
    os.sync()
    for path in (path for folder in folders for path in folder.rglob("*") if path.is_file()):
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main())
