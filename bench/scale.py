"""Many pairs in one task: the memory of the harness and its probe, and the time attribution takes.

The process of the harness is what `harness run` starts; its memory is sampled from outside.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.support.image import build_reference_image
from bench.support.results import machine, write_results
from bench.support.runs import Site, build_workload, run_with_harness
from harness.challenge.model import load_challenge
from harness.challenge.pairs import read_pairs
from harness.engine.docker import DockerEngine
from harness.errors import HarnessError
from harness.probe.trace import read_trace
from harness.store import RunDirectory
from harness.timing import time_pairs

MEMORY_TARGET_BYTES = 150 * 10**6
ATTRIBUTION_TARGET_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Scale:
    pairs: int
    wall_s: float
    harness_peak_bytes: int
    probe_peak_bytes: int
    events: int
    read_trace_s: float
    attribution_s: float
    complete: bool

    @property
    def met(self) -> bool:
        return (
            self.complete
            and self.harness_peak_bytes <= MEMORY_TARGET_BYTES
            and self.attribution_s <= ATTRIBUTION_TARGET_S
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=1000, help="pairs of the task (1000)")
    parser.add_argument("--seconds", type=float, default=20.0, help="work of all pairs (20)")
    parser.add_argument("--json", type=Path, help="where the results go (bench/results/)")
    args = parser.parse_args()
    try:
        engine = DockerEngine.connect()
        with tempfile.TemporaryDirectory(prefix="harness-bench-") as scratch:
            folder = Path(scratch)
            image = build_workload(engine, build_reference_image(engine), folder / "image")
            site = Site.make(folder, pairs=args.pairs)
            measured = run_with_harness(site, image, args.seconds)
            found = _look_at(
                site,
                args.seconds,
                wall_s=measured.wall_s,
                memory=(measured.peak_bytes, measured.probe_peak_bytes),
            )
    except HarnessError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    for name, value in asdict(found).items():
        shown = f"{value / 1e6:.0f} MB" if name.endswith("_bytes") else value
        shown = f"{value:.3f} s" if name.endswith("_s") else shown
        print(f"{name.removesuffix('_bytes').removesuffix('_s'):<14} {shown}")
    print(f"targets (150 MB, 1 s): {'met' if found.met else 'MISSED'}")
    content = {"machine": machine(), **asdict(found), "met": found.met}
    print(f"written to {write_results('scale', content, args.json)}")
    return 0


def _look_at(site: Site, seconds: float, *, wall_s: float, memory: tuple[int, int]) -> Scale:
    tasks = read_pairs(load_challenge(site.challenge(seconds)), site.folder / "test")
    pairs = tuple(pair for found in tasks for pair in found.pairs)
    (path,) = (site.folder / "runs/local").iterdir()
    begin_s = time.perf_counter()
    trace = read_trace(RunDirectory(path).trace_path)
    read_s = time.perf_counter()
    timings = time_pairs(pairs, trace)
    end_s = time.perf_counter()
    return Scale(
        pairs=sum(timing.runtime_s is not None for timing in timings),
        wall_s=wall_s,
        harness_peak_bytes=memory[0],
        probe_peak_bytes=memory[1],
        events=len(trace.events),
        read_trace_s=read_s - begin_s,
        attribution_s=end_s - read_s,
        complete=trace.complete,
    )


if __name__ == "__main__":
    sys.exit(main())
