"""The evaluation image as a challenge's site runs it: no network, no rights, nothing writable."""

from __future__ import annotations

import json
import subprocess
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.evaluation_data import config, write_config, write_field, write_labels, write_truth
from tests.reference_data import evaluation_reference, needs_reference, read_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.docker.conftest import Tags

pytestmark = pytest.mark.docker

REPOSITORY = Path(__file__).parents[2]
GROUND_TRUTH = "/opt/evaluation/ground-truth"
KEY = "0001_0000<--0001_0001"


def build(truth: str, base: str, tag: str) -> None:
    """With the host's network, for the packages: an engine may have no other."""
    line = (
        f"{REPOSITORY}/scripts/evaluation-context '{truth}' | docker build --network host "
        f"-f evaluation.Dockerfile --build-arg BASE_IMAGE={base} -t {tag} -"
    )
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def image(base: str, tags: Tags) -> str:
    """Without truth, which is mounted."""
    tag = tags.new()
    build("", base, tag)
    return tag


class Site:
    """Folders as a site mounts them, and the run that it makes."""

    def __init__(self, folder: Path) -> None:
        self.truth, self.input, self.output = (folder / name for name in ("gt", "in", "out"))
        for path in (self.truth, self.input, self.output):
            path.mkdir()
        self.output.chmod(0o777)
        parents = [folder, *folder.parents]
        for parent in parents[: next(i for i, p in enumerate(parents) if p.stat().st_mode & 512)]:
            parent.chmod(0o755)
        write_truth(self.truth)
        write_config(self.truth / "Tiny_VAL_evaluation_config.json", config())

    def run(
        self, image: str, *options: str, mount_truth: bool = True
    ) -> subprocess.CompletedProcess[str]:
        mounts = [f"{self.input}:/input:ro", f"{self.output}:/output"]
        if mount_truth:
            mounts.append(f"{self.truth}:{GROUND_TRUTH}:ro")
        line = ["docker", "run", "--rm", "--network", "none", "--read-only", "--memory", "4g"]
        line += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges", *options]
        line += [part for mount in mounts for part in ("--volume", mount)]
        return subprocess.run(
            [*line, image], check=False, capture_output=True, text=True, timeout=300
        )

    @property
    def result(self) -> Path:
        return self.output / "metrics.json"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    for case in (1, 2):
        write_field(site.input / f"disp_{case:04d}_{case:04d}.npz")
    yield site
    # What another user wrote, root or not may remove: the folder is everybody's.
    assert [path.name for path in site.output.iterdir() if path != site.result] == []


def zip_up(site: Site) -> None:
    with zipfile.ZipFile(site.input / "submission.zip", "w") as archive:
        for path in sorted(site.input.glob("disp_*")):
            archive.write(path, path.name)
            path.unlink()


def test_folder(image: str, site: Site) -> None:
    done = site.run(image)
    assert (done.returncode, done.stderr) == (0, "")
    content = json.loads(site.result.read_text(), parse_constant=pytest.fail)
    assert content["name"] == "Tiny"
    assert content["aggregates"]["DSC"] == {"mean": 1.0, "std": 0.0, "30": 1.0}
    assert content["cases"][KEY]["HD95"] == {"mean": 0.0, "detailed": [0.0, 0.0]}


def test_zip_with_nowhere_to_write_but_the_output(image: str, site: Site) -> None:
    zip_up(site)
    done = site.run(image)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(site.result.read_text())["aggregates"]["DSC"]["mean"] == 1.0


def test_it_is_nobody_in_particular(image: str, site: Site) -> None:
    done = site.run(image, "--entrypoint", "id")
    assert "uid=10001" in done.stdout


def test_compiled_code_is_taken_from_the_image(image: str, site: Site) -> None:
    """Compiling all of it takes longer than evaluating a case of full size."""
    code = (
        "import os; from pathlib import Path; import harness.scoring.compile as c; "
        "c.compile_all(); from harness.evaluate import metrics; "
        "from numba.core.dispatcher import Dispatcher; import gc; "
        "found = [d for d in gc.get_objects() if isinstance(d, Dispatcher) "
        "and d.py_func.__module__.startswith('harness.')]; "
        "print(len(found), sum(sum(d.stats.cache_misses.values()) for d in found))"
    )
    line = ["--tmpfs", "/tmp", "--entrypoint", "bash", image, "-c"]
    copy = f'cp -r $NUMBA_CACHE_DIR /tmp/compiled; NUMBA_CACHE_DIR=/tmp/compiled python -c "{code}"'
    done = subprocess.run(
        ["docker", "run", "--rm", "--network", "none", "--read-only", *line, copy],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    n_functions, misses = map(int, done.stdout.split())
    assert n_functions > 0
    assert misses == 0


class TestRejected:
    """What a team is told, and what it is not."""

    def told(self, image: str, site: Site) -> str:
        site.result.write_text("{}")  # of an earlier submission: it must not stay
        done = site.run(image)
        assert done.returncode == 21
        assert not site.result.exists()
        assert "Traceback" not in done.stderr
        for secret in (GROUND_TRUTH, "labels", "gt/", "config"):
            assert secret not in done.stdout + done.stderr
        return done.stderr

    def test_missing(self, image: str, site: Site) -> None:
        (site.input / "disp_0002_0002.npz").unlink()
        text = self.told(image, site)
        assert "0002_0000<--0002_0001: expected disp_0002_0002.npz or" in text
        assert "0001_0000" not in text

    def test_nothing(self, image: str, site: Site) -> None:
        for path in site.input.iterdir():
            path.unlink()
        assert "found no such file" in self.told(image, site)

    def test_wrong_shape_and_not_finite(self, image: str, site: Site) -> None:
        np.savez_compressed(
            site.input / "disp_0001_0001.npz", np.zeros((3, 16, 12, 20), np.float16)
        )
        write_field(site.input / "disp_0002_0002.npz", (float("nan"), 0, 0))
        text = self.told(image, site)
        assert "disp_0001_0001.npz: expected shape (16, 12, 20, 3), found (3, 16, 12, 20)" in text
        assert "disp_0002_0002.npz: expected finite displacements" in text

    def test_no_zip(self, image: str, site: Site) -> None:
        zip_up(site)
        (site.input / "submission.zip").write_text("not a zip")
        assert "expected a zip file" in self.told(image, site)

    def test_bomb(self, image: str, site: Site) -> None:
        zip_up(site)
        with zipfile.ZipFile(site.input / "submission.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("disp_0001_0001.npz", bytes(1 << 28))
        assert "disp_0001_0001.npz" in self.told(image, site)


class TestOurFault:
    def test_broken_truth_is_not_told(self, image: str, site: Site) -> None:
        write_labels(site.truth / "labelsTs/X_0002_0001.nii.gz", grid=(16, 12, 18))
        done = site.run(image)
        assert done.returncode == 11
        assert done.stderr.startswith("error: the evaluation itself failed, not your submission")
        assert len(done.stderr.splitlines()) == 1
        assert not site.result.exists()

    def test_the_organiser_may_ask(self, image: str, site: Site) -> None:
        write_labels(site.truth / "labelsTs/X_0002_0001.nii.gz", grid=(16, 12, 18))
        done = site.run(image, "--env", "HARNESS_ORGANISER=1")
        assert "X_0002_0001.nii.gz: expected the images' grid (16, 12, 20)" in done.stderr

    def test_no_truth_at_all(self, image: str, site: Site) -> None:
        assert site.run(image, mount_truth=False).returncode == 11


def test_truth_in_the_image(base: str, tags: Tags, site: Site) -> None:
    tag = tags.new()
    build(str(site.truth), base, tag)
    done = site.run(tag, mount_truth=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(site.result.read_text())["aggregates"]["DSC"]["mean"] == 1.0


def test_result_does_not_describe_the_truth(image: str, site: Site) -> None:
    content = config()
    content["masked_evaluation"] = True  # and there are none, which is a warning with their paths
    write_config(site.truth / "Tiny_VAL_evaluation_config.json", content)
    assert site.run(image).returncode == 0
    text = site.result.read_text()
    assert GROUND_TRUTH not in text
    assert "masks" not in text


@needs_reference
def test_full_size_within_its_memory(image: str, site: Site) -> None:
    """The fields of 2021, both cases of full size, at once."""
    source = evaluation_reference() / "AbdomenMRCT"
    for path in [*site.truth.iterdir(), *site.input.iterdir()]:
        if path.is_file():
            path.unlink()
    content = read_json(source / "config.json")
    x, y, z, _ = content["expected_shape"]
    content["expected_shape"] = [3, x // 2, y // 2, z // 2]
    write_config(site.truth / "evaluation_config.json", content)
    for path in [*source.glob("gt/*/*"), *source.glob("half/*")]:
        place = site.input if path.suffix == ".npz" else site.truth / path.parent.name
        place.mkdir(exist_ok=True)
        (place / path.name).write_bytes(path.read_bytes())
    done = site.run(image)
    assert (done.returncode, done.stderr) == (0, "")
    official = read_json(evaluation_reference() / "official/AbdomenMRCT_half2021_zoom2.json")
    ours = read_json(site.result)
    for name, values in official["aggregates"].items():
        assert ours["aggregates"][name] == pytest.approx(values, abs=1e-6)
