"""What a campaign costs: many simulated runs and machines, one that has nothing left to do, and
what each real run takes longer for being part of one."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from bench.support.campaign_simulation import simulate_apart
from bench.support.dask_farm import measure_farm
from bench.support.image import ROOT
from bench.support.results import machine, write_results
from tests.campaign_parts import CampaignFiles

if TYPE_CHECKING:
    from collections.abc import Callable

OVERHEAD_TARGET_S = 0.3
RESUME_TARGET_S = 2.0
MACHINES = (10, 100, 1000)
_SAMPLE_S = 0.01


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=sorted(PARTS), action="append", help="only this (all)")
    parser.add_argument("--runs", type=int, default=10_000, help="simulated runs (10000)")
    parser.add_argument("--finished", type=int, default=1000, help="runs to resume after (1000)")
    parser.add_argument("--teams", type=int, default=8, help="real runs (8)")
    parser.add_argument("--json", type=Path, help="where the results go (bench/results/)")
    args = parser.parse_args()
    content: dict[str, Any] = {"machine": machine()}
    for part in args.part or PARTS:
        with tempfile.TemporaryDirectory(prefix="harness-bench-") as scratch:
            content[part] = PARTS[part](args, Path(scratch))
    print(f"written to {write_results('campaign', content, args.json)}")
    return 0


def _simulation(args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    return _simulated((64,), args.runs, folder)


def _simulated(counts: tuple[int, ...], runs: int, folder: Path) -> list[dict[str, Any]]:
    print("machines   runs  attempts/s  decision p50    p99   sync  status  journal   memory")
    rows = []
    for count in counts:
        found = simulate_apart(count, runs, folder / str(count))
        print(
            f"{count:>8} {runs:>6} {found.attempts_per_s:>11.1f} {found.decision_s * 1e3:>10.2f} ms"
            f" {found.decision_p99_s * 1e3:>3.0f} ms {found.sync_s / found.wall_s:>5.0%}"
            f" {found.status_s / found.wall_s:>6.0%} {found.journal_bytes / 1e6:>5.1f} MB"
            f" {found.peak_bytes / 1e6:>5.0f} MB",
            flush=True,
        )
        rows.append(asdict(found))
    return rows


def _machines(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    simulated = _simulated(MACHINES, args.runs, folder)
    print("workers  joined  scheduler idle    look   trip p50    p99   ended  scheduler memory")
    farms = []
    for workers in MACHINES:
        farm = measure_farm(workers, min(workers, 4), folder / f"farm{workers}", sleep_s=1.0)
        print(
            f"{workers:>7} {farm.joined_s:>5.1f} s {farm.idle_ratio:>14.0%}"
            f" {farm.look_s * 1e3:>4.0f} ms {farm.trip_s * 1e3:>7.1f} ms"
            f" {farm.trip_p99_s * 1e3:>3.0f} ms {farm.ended_s:>5.1f} s"
            f" {farm.scheduler_bytes / 1e6:>10.0f} MB",
            flush=True,
        )
        farms.append(asdict(farm))
    return {"simulated": simulated, "dask": farms}


def _resume(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The process engine: only a folder's runs need no image to be found."""
    files = CampaignFiles(folder)
    for number in range(args.finished):
        files.add(f"team{number:04d}")
    files.settle()
    _command(folder, "simulated")
    begin_s = time.perf_counter()
    with (folder / "log").open("w") as log:
        process = psutil.Popen(
            [sys.executable, "-m", "harness", *files.arguments()],
            cwd=folder,
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        peak_bytes = 0
        while process.poll() is None:
            try:
                peak_bytes = max(peak_bytes, process.memory_info().rss)
            except psutil.Error:
                break
            time.sleep(_SAMPLE_S)
        code = process.wait()
    wall_s = time.perf_counter() - begin_s
    met = wall_s <= RESUME_TARGET_S
    print(
        f"resume after {args.finished} runs: {wall_s:.2f} s, {peak_bytes / 1e6:.0f} MB, exit code "
        f"{code}; target ({RESUME_TARGET_S} s): {'met' if met else 'MISSED'}",
        flush=True,
    )
    return {"wall_s": wall_s, "peak_bytes": peak_bytes, "exit_code": code, "met": met}


def _overhead(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The process engine: no container's start blurs what the campaign itself takes."""
    files = CampaignFiles(folder)
    for number in range(args.teams):
        files.add(f"team{number:04d}")
    files.settle()
    found = json.loads(_command(folder, "real").splitlines()[-1])
    runs = max(1, len(found["bare_s"]))
    bare_s, scoring_s = sum(found["bare_s"]) / runs, sum(found["scoring_s"]) / runs
    beyond_s = found["wall_s"] / runs - bare_s - scoring_s
    met = len(found["bare_s"]) == args.teams and beyond_s <= OVERHEAD_TARGET_S
    print(
        f"a run of {len(found['bare_s'])}: bare {bare_s:.3f} s, scoring {scoring_s:.3f} s, beyond "
        f"{beyond_s:.3f} s; target ({OVERHEAD_TARGET_S} s): {'met' if met else 'MISSED'}",
        flush=True,
    )
    return {**found, "beyond_s": beyond_s, "met": met}


def _command(folder: Path, how: str) -> str:
    command = [sys.executable, "-m", "bench.support.campaign_command", how, str(folder)]
    with (folder / "command.log").open("w") as log:
        done = subprocess.run(
            command, cwd=ROOT, check=True, stdout=subprocess.PIPE, stderr=log, text=True
        )
    return done.stdout


PARTS: dict[str, Callable[[argparse.Namespace, Path], Any]] = {
    "simulation": _simulation,
    "overhead": _overhead,
    "resume": _resume,
    "machines": _machines,
}


if __name__ == "__main__":
    sys.exit(main())
