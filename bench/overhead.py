"""What the harness costs: a run with it against a bare ``docker run`` of the same image, in turn,
each as a user calls it; and what watching costs whoever opens a file.

The fixed cost is what a run of no work takes longer; the ratio is of runs that last a while.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from statistics import median
from typing import TYPE_CHECKING

from bench.support.image import build_reference_image
from bench.support.quiet import wait_until_idle
from bench.support.results import machine, write_results
from bench.support.runs import Site, build_workload, run_bare, run_with_harness
from harness.engine.docker import DockerEngine
from harness.errors import HarnessError
from harness.probe.client import Probe
from harness.probe.spec import WatchSpec
from harness.probe.trace import Placement

if TYPE_CHECKING:
    from harness.engine.base import Image

FIXED_TARGET_S = 0.5
RATIO_TARGET = 1.02
OPENS = 4000  # fewer than the kernel's queue holds
ROUNDS_OF_OPENS = 5


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Medians over the rounds, in seconds. ``beyond_s`` and ``ratio`` are medians of the rounds'
    differences and quotients: what disturbs one round disturbs both of its runs. ``quiet_rounds``
    began on an idle machine."""

    work_s: float
    rounds: int
    quiet_rounds: int
    bare_s: float
    harness_s: float
    beyond_s: float
    ratio: float


@dataclass(frozen=True, kw_only=True)
class OpenCost:
    """Microseconds of one open, read and close."""

    size_bytes: int
    bare_us: float
    watched_us: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="pairs of runs without work (10)")
    parser.add_argument("--long-rounds", type=int, default=2, help="pairs of long runs (2)")
    parser.add_argument("--seconds", type=float, default=30.0, help="work of a long run (30)")
    parser.add_argument(
        "--patience", type=float, default=10.0, help="seconds to wait for other work to end (10)"
    )
    parser.add_argument("--json", type=Path, help="where the results go (bench/results/)")
    args = parser.parse_args()
    try:
        engine = DockerEngine.connect()
        with tempfile.TemporaryDirectory(prefix="harness-bench-") as scratch:
            folder = Path(scratch)
            image = build_workload(engine, build_reference_image(engine), folder / "image")
            site = Site.make(folder, pairs=2)
            print(
                f"{'work':>6} {'rounds':>7} {'quiet':>6} {'bare':>9} {'harness':>9} "
                f"{'beyond':>9} {'ratio':>7}"
            )
            fixed = _paired(site, image, 0.0, args.rounds, args.patience)
            long = _paired(site, image, args.seconds, args.long_rounds, args.patience)
        print(f"\n{'open + read + close':<20} {'bare':>9} {'watched':>9}")
        opens = [_open_cost(size) for size in (4096, 1 << 20)]
    except HarnessError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    met = fixed.beyond_s <= FIXED_TARGET_S and long.ratio <= RATIO_TARGET
    print(f"targets ({FIXED_TARGET_S} s, {RATIO_TARGET}): {'met' if met else 'MISSED'}")
    content = {
        "machine": machine(),
        "fixed": asdict(fixed),
        "long": asdict(long),
        "opens": [asdict(cost) for cost in opens],
        "met": met,
    }
    print(f"written to {write_results('overhead', content, args.json)}")
    return 0


def _paired(site: Site, image: Image, seconds: float, rounds: int, patience_s: float) -> Paired:
    bare, harness = [], []
    quiet_rounds = 0
    for index in range(rounds):
        quiet_rounds += wait_until_idle(patience_s)
        order = (run_bare, run_with_harness) if index % 2 else (run_with_harness, run_bare)
        walls = {run: run(site, image, seconds).wall_s for run in order}
        bare.append(walls[run_bare])
        harness.append(walls[run_with_harness])
    both = list(zip(bare, harness, strict=True))
    found = Paired(
        work_s=seconds,
        rounds=rounds,
        quiet_rounds=quiet_rounds,
        bare_s=median(bare),
        harness_s=median(harness),
        beyond_s=median(b - a for a, b in both),
        ratio=median(b / a for a, b in both),
    )
    print(
        f"{seconds:>4.0f} s {rounds:>7} {quiet_rounds:>6} {found.bare_s:>7.3f} s "
        f"{found.harness_s:>7.3f} s {found.beyond_s:>7.3f} s {found.ratio:>7.3f}",
        flush=True,
    )
    return found


def _open_cost(size_bytes: int) -> OpenCost:
    """Two files in turn: the kernel merges an event with one before it that is the same."""
    with tempfile.TemporaryDirectory(prefix="harness-bench-") as scratch:
        folder = Path(scratch)
        (folder / "output").mkdir()
        (folder / "data").mkdir()
        names = ("a", "b")
        for name in names:
            (folder / "data" / name).write_bytes(bytes(size_bytes))
        spec = WatchSpec(
            placement=Placement.HOST,
            trace=folder / "trace.jsonl",
            data_dir=folder / "data",
            output_dir=folder / "output",
            inputs=tuple(PurePosixPath(name) for name in names),
            fields=(PurePosixPath("field"),),
        )
        paths = [str(folder / "data" / name) for name in names]
        bare, watched = [], []
        for _ in range(ROUNDS_OF_OPENS):
            bare.append(_open_all(paths, size_bytes))
            with Probe(spec):
                watched.append(_open_all(paths, size_bytes))
    cost = OpenCost(size_bytes=size_bytes, bare_us=median(bare), watched_us=median(watched))
    print(
        f"{size_bytes >> 10:>15} KiB  {cost.bare_us:>6.1f} us {cost.watched_us:>6.1f} us",
        flush=True,
    )
    return cost


def _open_all(paths: list[str], size_bytes: int) -> float:
    """Microseconds an opening."""
    start_s = time.perf_counter()
    for index in range(OPENS):
        descriptor = os.open(paths[index % 2], os.O_RDONLY)
        os.read(descriptor, size_bytes)
        os.close(descriptor)
    return (time.perf_counter() - start_s) / OPENS * 1e6


if __name__ == "__main__":
    sys.exit(main())
