"""Tiny challenges on disk, and whole runs of a workload over them with and without the harness."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil

from bench.support.image import ROOT
from tests.tiny import YAML, write_data

if TYPE_CHECKING:
    from harness.engine.base import Engine, Image

WORKLOAD = Path(__file__).parent / "workload.py"
TAG = "l2r-harness-bench-workload"
_SAMPLE_S = 0.02


def build_workload(engine: Engine, base: Image, folder: Path) -> Image:
    """An image that runs ``workload.py``."""
    folder.mkdir()
    (folder / "workload.py").write_bytes(WORKLOAD.read_bytes())
    (folder / "Dockerfile").write_text(
        f"FROM {base.reference}\nCOPY workload.py /workload.py\n"
        'ENTRYPOINT ["python3", "/workload.py"]\n'
    )
    return engine.build(folder, tag=TAG, on_output=lambda _: None)


@dataclass(frozen=True, kw_only=True)
class Site:
    """A folder with a challenge's data; its challenge file tells the workload its seconds."""

    folder: Path

    @classmethod
    def make(cls, folder: Path, *, pairs: int) -> Site:
        """The first task has ``pairs`` pairs, the second one."""
        first = tuple((case, case) for case in range(1, pairs + 1))
        data = write_data(folder / "test", first=first, second=((1, 2),))
        np.savez_compressed(data / "task_01/zero.npz", np.zeros((3, 8, 6, 10), np.float16))
        folder.chmod(0o755)
        return cls(folder=folder)

    def challenge(self, seconds: float) -> Path:
        path = self.folder / f"challenge_{seconds:g}.yaml"
        arguments = f'  arguments: ["{seconds:g}"]\nlimits:'
        path.write_text(YAML.replace("limits:", arguments, 1))
        return path


@dataclass(frozen=True, kw_only=True)
class Measured:
    """``peak_bytes``: the most memory the harness's process held, and its probe's."""

    wall_s: float
    peak_bytes: int = 0
    probe_peak_bytes: int = 0


def run_with_harness(site: Site, image: Image, seconds: float) -> Measured:
    """``harness run`` as a user calls it: a new process, from its start to its end."""
    command = [
        *(sys.executable, "-m", "harness", "run", image.reference, "--engine", "docker"),
        *("--challenge", str(site.challenge(seconds)), "--data", str(site.folder / "test")),
        *("--runs", str(site.folder / "runs"), "--submission", str(site.folder / "submission")),
    ]
    # As at a user's: from its second run on, Python finds its own modules compiled.
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with (site.folder / "log").open("wb") as log:
        start_s = time.monotonic()
        process = psutil.Popen(
            command,
            cwd=site.folder,
            stdout=log,
            stderr=log,
            env=environment,
        )
        peak_bytes, probe_peak_bytes = _watch_memory(process)
        wall_s = time.monotonic() - start_s
    if process.returncode != 0:
        sys.exit((site.folder / "log").read_text())
    return Measured(wall_s=wall_s, peak_bytes=peak_bytes, probe_peak_bytes=probe_peak_bytes)


def run_bare(site: Site, image: Image, seconds: float) -> Measured:
    """``docker run --rm`` of the same image with the same mounts."""
    output = site.folder / f"bare_{time.monotonic_ns()}"
    output.mkdir()
    output.chmod(0o777)
    command = [
        *("docker", "run", "--rm", "--network", "none", "--cap-drop", "ALL", "--init"),
        *("-v", f"{site.folder / 'test'}:/l2r/test:ro", "-v", f"{output}:/l2r/submission"),
        *(image.id, f"{seconds:g}"),
    ]
    start_s = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return Measured(wall_s=time.monotonic() - start_s)


def _watch_memory(process: psutil.Popen) -> tuple[int, int]:
    """Until it ends: the highest resident set of the process, and the highest of a child of it."""
    own = child = 0
    while process.poll() is None:
        try:
            own = max(own, process.memory_info().rss)
            children = [each.memory_info().rss for each in process.children()]
            child = max(child, *children, 0)
        except psutil.Error:
            pass
        time.sleep(_SAMPLE_S)
    return own, child
