"""The submission image as people run it: by hand, by compose, by the harness."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.engine.base import BindMount, RunSpec
from harness.errors import ImageMissing
from tests.conftest import BASES
from tests.tiny import tiny_challenge, write_image

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docker import DockerClient

    from harness.engine.base import Image
    from harness.engine.docker import DockerEngine

pytestmark = pytest.mark.docker

REPOSITORY = Path(__file__).parents[2]
OFFLINE_BASE, DEFAULT_BASE = BASES
IMAGE = "l2r_submission"
FIELD = Path("task_02/disp_0001_0001.npz")

BUILD = "docker build -t l2r_submission ."
RUN = (
    'docker run --mount src="$(pwd)/test",target=/l2r/test,type=bind,readonly '
    '--mount src="$(pwd)/submission",target=/l2r/submission,type=bind l2r_submission'
)

# Says at once what it can say: the images of a test are not of the challenge's size.
METHOD = """
import os
import numpy as np
from harness.runner import DisplacementField, ImagePair, RegistrationMethod

class Method(RegistrationMethod):
    def register(self, pair: ImagePair) -> DisplacementField:
        pair.fixed.array, pair.moving.array
        print("user", os.geteuid())
        return DisplacementField(array=np.zeros((3, *pair.task.field.grid), np.float32))
"""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives folders to users: needs root")


@pytest.fixture(scope="module")
def default_base(client: DockerClient, engine: DockerEngine) -> Iterator[str]:
    """The two lines name no base image, so the Dockerfile's own must be here: the offline base
    stands in where it is not, and only while these tests run.

    The lines also name the image, so only one pytest at a time may run them.
    """
    with (Path(tempfile.gettempdir()) / "l2r-harness-test-image.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            engine.find(DEFAULT_BASE)
        except ImageMissing:
            client.images.get(OFFLINE_BASE).tag(DEFAULT_BASE)
            yield OFFLINE_BASE
            client.images.remove(DEFAULT_BASE)
        else:
            yield DEFAULT_BASE


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository with a quick method and one pair of small images."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("Dockerfile", ".dockerignore", "compose.yaml", "constraints.txt"):
        shutil.copy(REPOSITORY / name, folder)
    for name in ("harness", "method"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, folder / name, ignore=ignore)
    (folder / "method" / "method.py").write_text(METHOD)
    (folder / "method" / "requirements.txt").write_text("")
    task = folder / "test" / "task_02"
    write_image(task / "case_001_exp.nii.gz")
    write_image(task / "case_001_insp.nii.gz")
    (task / "pairs_val.csv").write_text("fixed,moving\n1,1\n")
    parents = [folder, *folder.parents]
    for parent in parents[: next(i for i, p in enumerate(parents) if p.stat().st_mode & 0o1000)]:
        parent.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def built(default_base: str, checkout: Path, client: DockerClient) -> Iterator[str]:
    """What `docker build` printed. An image of that name that was here before comes back after."""
    before = client.images.list(name=IMAGE)
    done = bash(checkout, BUILD)
    assert done.returncode == 0, f"from {default_base}: {done.stdout}"
    image = client.images.get(IMAGE)
    yield done.stdout
    for left in client.containers.list(all=True, filters={"ancestor": str(image.id)}):
        left.remove(force=True)  # the challenge's line has no --rm
    client.images.remove(str(image.id), force=True)
    if before:
        before[0].tag(IMAGE)


@pytest.fixture
def submission(checkout: Path) -> Iterator[Path]:
    folder = checkout / "submission"
    folder.mkdir(mode=0o755)
    yield folder
    shutil.rmtree(folder)


def bash(folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    """Both streams in ``stdout``."""
    return subprocess.run(
        ["bash", "-c", line],
        cwd=folder,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )


@pytest.mark.usefixtures("built")
class TestTheTwoLines:
    """README.md and the challenge's page give these lines; they must work as they are."""

    @as_root
    @pytest.mark.parametrize(
        ("owner", "mode", "expected_uid"),
        [(0, 0o755, 10001), (0, 0o777, 10001), (1000, 0o755, 1000), (1000, 0o700, 1000)],
    )
    def test_whoever_owns_the_output(
        self, checkout: Path, submission: Path, owner: int, mode: int, expected_uid: int
    ) -> None:
        os.chown(submission, owner, owner)
        submission.chmod(mode)
        done = bash(checkout, RUN)
        assert done.returncode == 0, done.stdout
        assert f"user {expected_uid}" in done.stdout
        assert (submission / FIELD).stat().st_uid == expected_uid
        assert bash(checkout, RUN).returncode == 0, "a second run replaces the first one's fields"

    def test_as_the_current_user(self, checkout: Path, submission: Path) -> None:
        done = bash(checkout, RUN)
        assert done.returncode == 0, done.stdout
        assert (submission / FIELD).is_file()
        assert "task_02" in done.stdout

    @as_root
    def test_data_that_only_root_may_read(self, checkout: Path, submission: Path) -> None:
        task = checkout / "test" / "task_02"
        task.chmod(0o700)
        try:
            done = bash(checkout, RUN)
        finally:
            task.chmod(0o755)
        assert done.returncode == 0, done.stdout
        assert "running as root: user 10001 could not read the data" in done.stdout
        assert (submission / FIELD).is_file()

    def test_a_user_who_was_named(self, checkout: Path, submission: Path) -> None:
        line = RUN.replace("docker run", "docker run --user 1234")
        submission.chmod(0o777)
        assert bash(checkout, line).returncode == 0
        assert (submission / FIELD).stat().st_uid == 1234

    @as_root
    @pytest.mark.usefixtures("submission")
    def test_a_named_user_who_may_not_write(self, checkout: Path) -> None:
        done = bash(checkout, RUN.replace("docker run", "docker run --user 1234"))
        assert done.returncode == 12
        assert "1234" in done.stdout

    @pytest.mark.usefixtures("submission")
    def test_no_data(self, checkout: Path) -> None:
        (checkout / "test").rename(checkout / "kept")
        (checkout / "test").mkdir()
        try:
            done = bash(checkout, RUN)
        finally:
            (checkout / "test").rmdir()
            (checkout / "kept").rename(checkout / "test")
        assert done.returncode == 11
        assert "task_01" in done.stdout


class TestCompose:
    def test_its_default_base_is_the_dockerfiles(self) -> None:
        assert f"BASE_IMAGE={DEFAULT_BASE}\n" in (REPOSITORY / "Dockerfile").read_text()
        assert f"BASE_IMAGE:-{DEFAULT_BASE}}}" in (REPOSITORY / "compose.yaml").read_text()

    @pytest.mark.parametrize("command", [("docker", "compose"), ("docker-compose",)])
    @pytest.mark.usefixtures("built")
    def test_up(self, checkout: Path, submission: Path, command: tuple[str, ...]) -> None:
        compose = " ".join(command)
        if bash(checkout, f"{compose} version").returncode != 0:
            pytest.skip(f"no {compose} here")
        try:
            done = bash(checkout, f"{compose} up --build")
        finally:
            bash(checkout, f"{compose} down")
        assert done.returncode == 0, done.stdout
        assert (submission / FIELD).is_file(), done.stdout


@pytest.mark.usefixtures("built")
class TestTheHarness:
    def test_a_run_under_limits(self, checkout: Path, engine: DockerEngine, tmp_path: Path) -> None:
        """No capabilities: the runner cannot change who it is, and need not."""
        output = tmp_path / "out"
        output.mkdir()
        output.chmod(0o777)
        spec = RunSpec(
            image=engine.find(IMAGE),
            name="test-image",
            mounts=(
                BindMount(source=checkout / "test", target="/l2r/test", read_only=True),
                BindMount(source=output, target="/l2r/submission", read_only=False),
            ),
            limits=tiny_challenge().limits,
            log_path=tmp_path / "log.txt",
        )
        with engine.prepare(spec) as execution:
            execution.start()
            state = execution.wait(60)
        log = (tmp_path / "log.txt").read_text()
        assert state is not None, log
        assert state.exit_code == 0, log
        assert "its container may not change the user" in log
        assert (output / FIELD).is_file()

    def test_build_by_the_engine_gives_the_same_image(
        self, checkout: Path, engine: DockerEngine, tag: str
    ) -> None:
        """Same files, same steps: what a participant builds by hand is what `make build` makes."""
        image: Image = engine.build(checkout, tag=tag)
        assert image.id == engine.find(IMAGE).id


@pytest.mark.usefixtures("built")
class TestContent:
    def inside(self, checkout: Path, code: str) -> str:
        line = f"docker run --rm --network none --entrypoint python {IMAGE} -c '{code}'"
        done = bash(checkout, line)
        assert done.returncode == 0, done.stdout
        return done.stdout.strip()

    def test_only_what_runs_inside(self, checkout: Path) -> None:
        code = 'import pathlib; print(*sorted(p.name for p in pathlib.Path("harness").iterdir()))'
        found = set(self.inside(checkout, code).split()) - {"__pycache__"}
        assert found == {"__init__.py", "errors.py", "timing.py", "challenge", "probe", "runner"}

    def test_readable_by_anybody_and_compiled(self, checkout: Path) -> None:
        code = (
            'import pathlib; files = [p for p in pathlib.Path("/opt/l2r").rglob("*")]; '
            "print(all(p.stat().st_mode & 4 for p in files), "
            'any(p.suffix == ".pyc" and "method" in p.parts for p in files))'
        )
        assert self.inside(checkout, code) == "True True"

    def test_no_tools_to_build_with(self, checkout: Path) -> None:
        code = 'import shutil; print(shutil.which("gcc"), shutil.which("git"))'
        assert self.inside(checkout, code) == "None None"

    def test_data_do_not_travel_to_the_engine(self, built: str) -> None:
        sizes = [line for line in built.splitlines() if "build context" in line]
        if not sizes:
            pytest.skip("this builder does not say")
        assert "MB" not in sizes[0], sizes[0]

    def test_a_changed_method_is_built_without_installing_anything(
        self, checkout: Path, engine: DockerEngine, tag: str
    ) -> None:
        method = checkout / "method" / "method.py"
        method.write_text(METHOD + "# changed\n")
        lines: list[str] = []
        try:
            engine.build(checkout, tag=tag, on_output=lines.append)
        finally:
            method.write_text(METHOD)
        installs = [i for i, line in enumerate(lines) if "RUN python -m pip install" in line]
        assert installs
        assert all("Using cache" in lines[i + 1] for i in installs)


class TestBaseImageScript:
    """What it says without doing it; making the image takes minutes and an archive."""

    SCRIPT = str(REPOSITORY / "scripts" / "base-image")

    def test_an_image_that_is_there_is_kept(self, base: str, tmp_path: Path) -> None:
        done = bash(tmp_path, f"{self.SCRIPT} {base}")
        assert done.returncode == 0
        assert "is there already" in done.stdout

    def test_no_engine(self, tmp_path: Path) -> None:
        done = bash(tmp_path, f"DOCKER_HOST=unix:///nonexistent {self.SCRIPT}")
        assert done.returncode == 1
        assert "no container engine answers" in done.stdout

    def test_an_unknown_option(self, tmp_path: Path) -> None:
        done = bash(tmp_path, f"{self.SCRIPT} --forec")
        assert done.returncode == 1
        assert "--force" in done.stdout
