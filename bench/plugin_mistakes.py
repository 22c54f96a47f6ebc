"""What the usual mistakes of a deep-learning team's plugin cost: examples/convexadam with one of
them planted at a time, run by ``harness run --engine process`` as a user would.

A mistake whose cost lies in the traffic with a GPU is left out, and said to be, where PyTorch sees
none.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, Any

from bench.support.image import ROOT
from bench.support.results import machine, write_results
from harness.phantom import write_phantoms

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLE = ROOT / "examples/convexadam"

_PLUGIN = "import shipped\n\nclass Method(shipped.Method):\n"
_NOTHING_PREPARED = f"{_PLUGIN}    def prepare(self, task):\n        pass\n"
_LATE_IMPORT = """
from harness.runner import RegistrationMethod

class Method(RegistrationMethod):
    method = None

    def register(self, pair):
        if self.method is None:
            import shipped
            self.method = shipped.Method()
        return self.method.register(pair)
"""
_READS_AHEAD = f"""
import re
from concurrent.futures import ThreadPoolExecutor
from harness.runner import ImagePair, LazyImage

{_PLUGIN}    pool, ahead = ThreadPoolExecutor(1), None

    def register(self, pair):
        if self.ahead is not None:
            fixed, moving = self.ahead.result()
            pair = ImagePair(**{{**vars(pair), "fixed": fixed, "moving": moving}})
        self.ahead = self.pool.submit(self.read_next, pair)
        return super().register(pair)

    def read_next(self, pair):
        rows = (pair.fixed.path.parent / "pairs_val.csv").read_text().split()[1:]
        pairs = [tuple(map(int, row.split(","))) for row in rows]
        here = pairs.index((pair.fixed_id, pair.moving_id))
        ids = pairs[min(here + 1, len(pairs) - 1)]
        images = []
        for image, number in zip((pair.fixed, pair.moving), ids):
            name = re.sub(r"[0-9]+", lambda m: f"{{number:0{{len(m[0])}}d}}", image.path.name, 1)
            images.append(LazyImage(image.path.with_name(name)))
            images[-1].array
        return images
"""
_CONVENTION = """import shipped
from harness.convert.convention import Family, FieldConvention, Order
from shipped import Method

shipped.PYTORCH = FieldConvention(family=Family.GRID_SAMPLE, {})
"""
_PAGEABLE = f"""{_PLUGIN}    def prepare(self, task):
        super().prepare(task)
        self.buffers = {{}}
"""
_READS_BACK = """import instance
from shipped import Method

gradient = instance.data_gradient

def reads_back(*inputs):
    slope = gradient(*inputs)
    print("slope", float(slope.abs().mean()))
    return slope

instance.data_gradient = reads_back
"""

MISTAKES = {
    "none": "from shipped import Method\n",
    "no warm-up in prepare": _NOTHING_PREPARED,
    "imports in register": _LATE_IMPORT,
    "reads the next pair ahead": _READS_AHEAD,
    "align_corners the other way": _CONVENTION.format("align_corners=True"),
    "components in the other order": _CONVENTION.format("align_corners=False, order=Order.XYZ"),
    "pageable memory": _PAGEABLE,
    "reads a number back each step": _READS_BACK,
}
NEEDS_GPU = {"pageable memory", "reads a number back each step"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """Runtimes in seconds, as witnessed; ``rest_s`` is the median of the pairs after the first."""

    mistake: str
    first_s: float
    rest_s: float
    exclusive_rest_s: float
    flags: list[str]
    score: float
    folded_percent: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="data folder (default: phantoms, made for this)")
    parser.add_argument("--truth", type=Path, help="truth folder of --data")
    parser.add_argument("--task", default="task_02", help="the only task that is run (task_02)")
    parser.add_argument("--pairs", type=int, default=3, help="of the phantoms made here (3)")
    parser.add_argument(
        "--iterations", type=int, help="of Adam, fewer to see costs beside a shorter runtime (all)"
    )
    parser.add_argument("--only", nargs="*", help="these mistakes only, by their names")
    parser.add_argument("--json", type=Path, help="where the results go (bench/results/)")
    args = parser.parse_args()
    if (args.data is None) != (args.truth is None):
        parser.error("--data and --truth belong together")
    if find_spec("torch") is None:
        print("plugin_mistakes: not run, PyTorch is not installed (extra torch)")
        return 0
    with tempfile.TemporaryDirectory(prefix="harness-bench-") as name:
        folder = Path(name)
        data_dir, truth_dir = args.data, args.truth
        if data_dir is None:
            data_dir, truth_dir = folder / "all", folder / "truth"
            print("making phantoms ...", file=sys.stderr, flush=True)
            write_phantoms(data_dir, truth_dir, pairs_per_task=args.pairs, seed=2021)
        data = folder / "test"
        shutil.copytree(data_dir / args.task, data / args.task)
        rows = list(_measure(folder, data, truth_dir, args.only, args.iterations))
    content = {**machine(), "task": args.task, "rows": [asdict(row) for row in rows]}
    write_results("plugin_mistakes", content, args.json)
    return 0


def _measure(
    folder: Path, data: Path, truth: Path, only: list[str] | None, iterations: int | None
) -> Iterator[Row]:
    gpu = _sees_gpu()
    print(f"{'mistake':<30}{'first s':>9}{'rest s':>8}{'exclusive':>11}{'score':>8}{'folded %':>10}"
          "  flags")  # fmt: skip
    for mistake, source in MISTAKES.items():
        if only and mistake not in only:
            continue
        if mistake in NEEDS_GPU and not gpu:
            print(f"{mistake:<30}  not measured: PyTorch sees no GPU here", flush=True)
            continue
        plugin = plant(folder / mistake.replace(" ", "_"), source, iterations)
        row = _row(mistake, _run(plugin, folder, data, truth))
        print(
            f"{mistake:<30}{row.first_s:>9.2f}{row.rest_s:>8.2f}{row.exclusive_rest_s:>11.2f}"
            f"{row.score:>8.3f}{row.folded_percent:>10.4f}  {', '.join(row.flags)}",
            flush=True,
        )
        yield row


def _sees_gpu() -> bool:
    asked = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([sys.executable, "-c", asked], check=False).returncode == 0


def plant(plugin: Path, source: str, iterations: int | None) -> Path:
    """The example with its ``method.py`` renamed and the mistake's in its place."""
    shutil.copytree(EXAMPLE, plugin, ignore=shutil.ignore_patterns("__pycache__", "Dockerfile"))
    shipped = (plugin / "method.py").read_text()
    if iterations is not None:
        shipped, found = re.subn(r"(?m)^ITERATIONS = \d+", f"ITERATIONS = {iterations}", shipped)
        if found != 1:
            sys.exit("examples/convexadam/method.py: expected one line ITERATIONS = ...")
    (plugin / "shipped.py").write_text(shipped)
    (plugin / "method.py").write_text(source)
    return plugin


def _run(plugin: Path, folder: Path, data: Path, truth: Path) -> dict[str, Any]:
    command = [
        *(sys.executable, "-m", "harness", "run", str(plugin), "--engine", "process", "--json"),
        *("--data", str(data), "--truth", str(truth)),
        *("--runs", str(folder / "runs"), "--submission", str(folder / "submission")),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, check=False, capture_output=True, cwd=folder, env=environment)
    if done.returncode != 0:
        sys.exit(done.stderr.decode())
    record: dict[str, Any] = json.loads(done.stdout)
    return record


def _row(mistake: str, record: dict[str, Any]) -> Row:
    pairs, accuracy = record["pairs"], record["accuracy"]
    return Row(
        mistake=mistake,
        first_s=pairs[0]["runtime_s"],
        rest_s=median(pair["runtime_s"] for pair in pairs[1:]),
        exclusive_rest_s=median(pair["exclusive_s"] for pair in pairs[1:]),
        flags=sorted({flag for pair in pairs for flag in pair["flags"]}),
        score=mean(each["value"] for each in accuracy),
        folded_percent=mean(each["folded_percent"] for each in accuracy),
    )


if __name__ == "__main__":
    sys.exit(main())
