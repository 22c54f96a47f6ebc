"""How far the witnessed times are from the truth: a program in a container stamps its own opening
and writing of files, a probe outside sees them, and the differences are the errors.

A call lasts from one stamp to the next, so an event seen between the two has no error; one seen
later is late by what is over. A runtime is off by as much as it lies outside what the four stamps
of its pair allow.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import docker

from bench.support.image import build_reference_image
from bench.support.results import machine, percentile, write_results
from harness.challenge.pairs import Pair
from harness.engine.docker import DockerEngine
from harness.errors import HarnessError
from harness.probe.client import Probe
from harness.probe.realtime import Precision
from harness.probe.spec import WatchSpec
from harness.probe.trace import Placement, Trace
from harness.timing import PairTiming, time_pairs
from harness.witness import cpus_left, sidecar

if TYPE_CHECKING:
    from harness.engine.base import Image

GROUND_TRUTH = Path(__file__).parent / "support" / "ground_truth.py"
_NS_TO_MS = 1e-6
# What the witness is built to reach, in ms of a runtime's error: p99 and worst.
TARGETS_MS = {Precision.FIFO: (0.2, 2.0), Precision.PLAIN: (3.0, float("inf"))}


@dataclass(frozen=True, kw_only=True)
class Load:
    """What else happens in the witnessed container. ``cpus`` is its ``--cpus``."""

    name: str
    spinners: int = 0
    cpus: float | None = None


LOADS = (
    Load(name="idle"),
    Load(name="4 spinners", spinners=4),
    Load(name="4 spinners, --cpus 1.5", spinners=4, cpus=1.5),
)


@dataclass(frozen=True, kw_only=True)
class Witnessing:
    """One way to witness, as asked for."""

    placement: Placement
    precision: Precision


WAYS = tuple(
    Witnessing(placement=placement, precision=precision)
    for placement in (Placement.HOST, Placement.SIDECAR)
    for precision in Precision
)


@dataclass(frozen=True, kw_only=True)
class Errors:
    """In milliseconds, over the pairs of a condition."""

    p50: float
    p95: float
    p99: float
    worst: float

    @classmethod
    def of(cls, errors_ns: list[int]) -> Errors:
        found = [abs(error) * _NS_TO_MS for error in errors_ns]
        p50, p95, p99, worst = (percentile(found, p) for p in (50, 95, 99, 100))
        return cls(p50=p50, p95=p95, p99=p99, worst=worst)

    def __str__(self) -> str:
        return f"{self.p50:6.3f} {self.p95:6.3f} {self.p99:6.3f} {self.worst:7.3f}"


@dataclass(frozen=True, kw_only=True)
class Row:
    asked: Witnessing
    got: Precision
    load: Load
    pairs: int
    lost: tuple[str, ...]
    start: Errors
    end: Errors
    runtime: Errors
    load_average: float  # of the last minute, at the condition's end

    @property
    def verdict(self) -> str:
        if self.got not in TARGETS_MS:
            return ""
        p99, worst = TARGETS_MS[self.got]
        met = self.runtime.p99 <= p99 and self.runtime.worst <= worst and not self.lost
        return "met" if met else "MISSED"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=500, help="pairs a condition (500)")
    parser.add_argument(
        "--placement", choices=("host", "sidecar"), help="only this (default: both)"
    )
    parser.add_argument("--json", type=Path, help="where the results go (bench/results/)")
    args = parser.parse_args()
    try:
        engine = DockerEngine.connect()
        image = build_reference_image(engine)
        rows = []
        print(_HEAD, flush=True)
        for asked in WAYS:
            for load in LOADS if args.placement in {None, asked.placement.value} else ():
                row = measure(engine, image, asked, load, args.pairs)
                rows.append(row)
                print(_line(row), flush=True)
    except HarnessError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    content = {"machine": machine(), "rows": [asdict(row) | {"met": row.verdict} for row in rows]}
    print(f"written to {write_results('timing_accuracy', content, args.json)}")
    return 0


def measure(engine: DockerEngine, image: Image, asked: Witnessing, load: Load, pairs: int) -> Row:
    with tempfile.TemporaryDirectory(prefix="harness-bench-") as scratch:
        folder = Path(scratch)
        known = _prepare(folder, pairs)
        spec = WatchSpec(
            placement=asked.placement,
            trace=folder / "trace.jsonl",
            data_dir=folder / "data",
            output_dir=folder / "output",
            inputs=tuple(path for pair in known for path in pair.inputs),
            fields=tuple(pair.field for pair in known),
            realtime=asked.precision is Precision.FIFO,
            spare_cpu=engine.cpus()[-1] if asked.precision is Precision.RESERVED_CPU else None,
        )
        probe = (
            Probe(spec)
            if asked.placement is Placement.HOST
            else sidecar(spec, engine, image, name="bench-witness")
        )
        with probe:
            _run_ground_truth(image, folder, load, pairs, cpus_left(engine, probe))
            trace = probe.finish()
        stamps = json.loads((folder / "output/truth.json").read_text())
    return _row(asked, load, trace, time_pairs(known, trace), stamps)


def _prepare(folder: Path, pairs: int) -> tuple[Pair, ...]:
    (folder / "data/task").mkdir(parents=True)
    (folder / "output/task").mkdir(parents=True)
    shutil.copy(GROUND_TRUTH, folder / "data/ground_truth.py")
    folder.chmod(0o755)
    for index in range(1, pairs + 1):
        (folder / f"data/task/img{index:04d}").write_bytes(bytes(4096))
    return tuple(
        Pair(
            task="task",
            fixed_id=index,
            moving_id=index,
            fixed=PurePosixPath(f"task/img{index:04d}"),
            moving=PurePosixPath(f"task/img{index:04d}"),
            auxiliary=(),
            field=PurePosixPath(f"task/disp{index:04d}"),
        )
        for index in range(1, pairs + 1)
    )


def _run_ground_truth(
    image: Image, folder: Path, load: Load, pairs: int, cpuset: tuple[int, ...] | None
) -> None:
    """With the engine's own client: what is witnessed should depend on the harness in nothing."""
    docker.from_env().containers.run(
        image.id,
        ["/l2r/test/ground_truth.py", str(pairs), str(load.spinners)],
        entrypoint=["python3"],
        volumes={
            str(folder / "data"): {"bind": "/l2r/test", "mode": "ro"},
            str(folder / "output"): {"bind": "/l2r/submission", "mode": "rw"},
        },
        network_mode="none",
        nano_cpus=None if load.cpus is None else int(load.cpus * 1e9),
        cpuset_cpus=None if cpuset is None else ",".join(map(str, cpuset)),
        remove=True,
    )


def _row(
    asked: Witnessing,
    load: Load,
    trace: Trace,
    timings: tuple[PairTiming, ...],
    stamps: list[list[int]],
) -> Row:
    starts, ends, runtimes = [], [], []
    for timing, (opening, opened, writing, written) in zip(timings, stamps, strict=True):
        if timing.started_ns is None or timing.finished_ns is None:
            continue
        starts.append(_outside(timing.started_ns, opening, opened))
        ends.append(_outside(timing.finished_ns, writing, written))
        runtime_ns = timing.finished_ns - timing.started_ns
        runtimes.append(_outside(runtime_ns, writing - opened, written - opening))
    return Row(
        asked=asked,
        got=trace.precision,
        load=load,
        pairs=len(runtimes),
        lost=trace.lost,
        start=Errors.of(starts),
        end=Errors.of(ends),
        runtime=Errors.of(runtimes),
        load_average=os.getloadavg()[0],
    )


def _outside(value: int, low: int, high: int) -> int:
    """How far a value lies outside an interval; negative below it, 0 within."""
    return min(value - low, 0) or max(value - high, 0)


_HEAD = (
    "errors in ms: p50, p95, p99, worst\n"
    f"{'placement':<10}{'precision':<14}{'load':<24}{'pairs':>5}   "
    f"{'start':^28}   {'end':^28}   {'runtime':^28}   target"
)


def _line(row: Row) -> str:
    got = row.got if row.got is row.asked.precision else f"{row.got}!"
    lost = "; " + "; ".join(row.lost) if row.lost else ""
    return (
        f"{row.asked.placement:<10}{got:<14}{row.load.name:<24}{row.pairs:>5}   "
        f"{row.start}   {row.end}   {row.runtime}   {row.verdict}{lost}"
    )


if __name__ == "__main__":
    sys.exit(main())
