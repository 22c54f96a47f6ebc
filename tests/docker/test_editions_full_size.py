"""Images of the later editions on data of full size, from the command line to the accuracy."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from harness.phantom import write_phantoms
from tests.editions import NAMES

if TYPE_CHECKING:
    from pathlib import Path

    from harness.engine.base import Image

pytestmark = pytest.mark.docker

GAIN = {"learn2reg2022": (15.0, 25.0, "tre"), "lumir2024": (0.4, 0.8, "dice")}  # of the zero field


@pytest.mark.parametrize("name", NAMES)
def test_full_size_phantom_from_the_command_line(
    edition_images: dict[str, Image], tmp_path: Path, name: str
) -> None:
    write_phantoms(tmp_path / "test", tmp_path / "truth", challenge=name, pairs_per_task=2)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "harness", "run", edition_images[name].reference),
            *("--challenge", name, "--engine", "docker", "--json"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    announced = re.findall(r"^ *[12]/2 +(\S+) +([0-9.]+) s$", done.stderr, re.MULTILINE)
    for pair, (key, runtime_s) in zip(record["pairs"], announced, strict=True):
        assert pair["key"] == key
        assert pair["runtime_s"] == pytest.approx(float(runtime_s), abs=0.01)
    assert record["challenge"] == name
    assert [pair["field_state"] for pair in record["pairs"]] == ["valid", "valid"]
    assert all(pair["runtime_s"] > 0 for pair in record["pairs"])
    low, high, metric = GAIN[name]
    for pair in record["accuracy"]:
        assert pair["metric"] == metric
        assert low < pair["initial"] < high
        assert pair["value"] == pytest.approx(pair["initial"])
    assert len(record["accuracy"]) == 2
    assert len(list((tmp_path / "submission").glob("disp_*.nii.gz"))) == 2
