"""What a campaign costs: many simulated runs and machines, one that has nothing left to do, what
each real run takes longer for being part of one, and how busy several places are."""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.support.campaign_finished import resume
from bench.support.campaign_real import measure_busy, measure_overhead
from bench.support.campaign_simulation import simulate_apart
from bench.support.dask_farm import measure_farm
from bench.support.results import machine, write_results
from harness.errors import HarnessError

if TYPE_CHECKING:
    from collections.abc import Callable

OVERHEAD_TARGET_S = 0.3
RESUME_TARGET_S = 2.0
BUSY_TARGET = 0.95
_MAX_PROCESSES = 4  # of Dask's workers, which share them


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=sorted(PARTS), action="append", help="only this (all)")
    parser.add_argument("--runs", type=int, default=2000, help="simulated runs (2000)")
    parser.add_argument(
        "--machines", type=int, nargs="+", default=[10, 100, 1000], help="simulated (10 100 1000)"
    )
    parser.add_argument("--finished", type=int, default=1000, help="runs to resume after (1000)")
    parser.add_argument("--teams", type=int, default=6, help="real runs for the overhead (6)")
    parser.add_argument(
        "--places", type=int, nargs="+", default=[1, 2, 4, 8], help="to be kept busy (1 2 4 8)"
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="that each sleeps there (20)")
    parser.add_argument("--json", type=Path, help="where the results go (bench/results/)")
    args = parser.parse_args()
    content: dict[str, Any] = {"machine": machine()}
    met: list[bool] = []
    try:
        for part in args.part or PARTS:
            with tempfile.TemporaryDirectory(prefix="harness-bench-") as scratch:
                content[part], is_met = PARTS[part](args, Path(scratch))
            met.append(is_met)
    except HarnessError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    content["met"] = all(met)
    print(f"targets: {'met' if all(met) else 'MISSED'}")
    print(f"written to {write_results('campaign', content, args.json)}")
    return 0


def _resume(args: argparse.Namespace, folder: Path) -> tuple[list[dict[str, Any]], bool]:
    print("finished: teams    runs    resume   memory  exit code  run again")
    rows = []
    met = True
    for teams, each in ((args.finished, 1), (max(1, args.finished // 10), 10)):
        found = resume(folder / str(teams), teams, each)
        met = met and found.is_right and found.wall_s <= RESUME_TARGET_S
        print(
            f"{found.teams:>15} {found.runs:>7} {found.wall_s:>7.2f} s"
            f" {found.peak_bytes / 1e6:>5.0f} MB {found.exit_code:>10} {found.again:>10}",
            flush=True,
        )
        rows.append(asdict(found))
    return rows, _judged(f"{RESUME_TARGET_S} s", met)


def _overhead(args: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], bool]:
    found = measure_overhead(folder, args.teams)
    print(
        "a run:    bare  in a campaign   beyond | preparing  scoring |  on a worker, beyond\n"
        f"{found.bare_s:>12.3f} s {found.inside_s + found.other_s:>12.3f} s"
        f" {found.beyond_s:>6.3f} s | {found.preparing_s:>7.3f} s {found.scoring_s:>6.3f} s |"
        f" {found.cluster_beyond_s:>18.3f} s"
    )
    met = found.beyond_s <= OVERHEAD_TARGET_S
    return asdict(found), _judged(f"{OVERHEAD_TARGET_S} s beyond", met)


def _busy(args: argparse.Namespace, folder: Path) -> tuple[list[dict[str, Any]], bool]:
    """The largest once more with scoring, which the conductor does itself."""
    print("places   runs  scoring    busy      gap    worst")
    rows = []
    for places, scored in (*((one, False) for one in args.places), (max(args.places), True)):
        runs_each = 3 if places == 1 else 2
        here = folder / f"{places}{scored}"
        found = measure_busy(here, places, runs_each, args.seconds, scored=scored)
        scoring = "none" if found.scoring_s is None else f"{found.scoring_s:.2f} s"
        print(
            f"{places:>6} {found.runs:>6} {scoring:>8} {found.ratio:>7.1%} {found.gap_s:>6.2f} s"
            f" {found.worst_gap_s:>6.2f} s",
            flush=True,
        )
        rows.append(asdict(found))
    met = all(row["ratio"] >= BUSY_TARGET for row in rows)
    return rows, _judged(f"{BUSY_TARGET:.0%} busy", met)


def _simulation(args: argparse.Namespace, folder: Path) -> tuple[list[dict[str, Any]], bool]:
    return _simulated([64], args.runs, folder), True


def _simulated(counts: list[int], runs: int, folder: Path) -> list[dict[str, Any]]:
    print(
        "machines   runs     wall  attempts/s  decision p50    p99   sync  status  journal  memory"
    )
    rows = []
    for count in counts:
        found = simulate_apart(count, runs, folder / str(count))
        print(
            f"{count:>8} {runs:>6} {found.wall_s:>6.1f} s {found.attempts_per_s:>11.1f}"
            f" {found.decision_s * 1e3:>10.2f} ms {found.decision_p99_s * 1e3:>3.0f} ms"
            f" {found.sync_s / found.wall_s:>5.0%} {found.status_s / found.wall_s:>6.0%}"
            f" {found.journal_bytes / 1e6:>5.1f} MB {found.peak_bytes / 1e6:>4.0f} MB",
            flush=True,
        )
        rows.append(asdict(found))
    return rows


def _machines(args: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], bool]:
    simulated = _simulated(args.machines, min(args.runs, 2000), folder)
    print("workers   joined  scheduler's CPU    look   trip p50    p99   ended  scheduler memory")
    farms = []
    for workers in args.machines:
        processes = min(workers, _MAX_PROCESSES)
        farm = measure_farm(workers, processes, folder / f"farm{workers}", sleep_s=1.0)
        print(
            f"{workers:>7} {farm.joined_s:>6.1f} s {farm.idle_cpu_ratio:>15.0%}"
            f" {farm.look_s * 1e3:>5.0f} ms {farm.trip_s * 1e3:>6.1f} ms"
            f" {farm.trip_p99_s * 1e3:>3.0f} ms {farm.ended_s:>5.1f} s"
            f" {farm.scheduler_bytes / 1e6:>10.0f} MB",
            flush=True,
        )
        farms.append(asdict(farm))
    return {"simulated": simulated, "dask": farms}, True


def _judged(target: str, met: bool) -> bool:
    print(f"target ({target}): {'met' if met else 'MISSED'}", flush=True)
    return met


PARTS: dict[str, Callable[[argparse.Namespace, Path], tuple[Any, bool]]] = {
    "resume": _resume,
    "overhead": _overhead,
    "busy": _busy,
    "simulation": _simulation,
    "machines": _machines,
}


if __name__ == "__main__":
    sys.exit(main())
