"""Real containers: tiny images made from whatever base is here, and runs of shell lines in them."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import docker.errors
import numpy as np
import pytest

from harness.engine.base import BindMount, Image, RunSpec
from harness.engine.docker import DockerEngine
from tests.conftest import local_base
from tests.docker.leftovers import LABEL, Leftovers
from tests.editions import NAMES
from tests.tiny import tiny_challenge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from docker import DockerClient

    from harness.engine.container import ContainerExecution
    from tests.docker.fault import Fault

    MakeRun = Callable[..., ContainerExecution]
    MakeImage = Callable[[Fault], Image]

MIB = 2**20
REPOSITORY = Path(__file__).parents[2]
FAULTS = Path(__file__).with_name("faults")


@pytest.fixture(scope="session")
def base() -> str:
    found = local_base()
    assert found is not None  # else the test was skipped
    return found


@pytest.fixture(scope="session")
def engine() -> Iterator[DockerEngine]:
    engine = DockerEngine.connect()
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def client(engine: DockerEngine) -> DockerClient:
    """The SDK itself, to look at what the engine did and to do what others might."""
    return engine._client


class Tags:
    """Names for images that no other pytest of the same machine uses, removed at the end.

    Removing a name removes its image only when that has no other: two that build the same
    share it.
    """

    def __init__(self, client: DockerClient) -> None:
        self._client = client
        self._names: list[str] = []

    def new(self) -> str:
        self._names.append(f"l2r-harness-test:{uuid.uuid4().hex}")
        return self._names[-1]

    def remove(self) -> None:
        for name in self._names:
            with suppress(docker.errors.NotFound):  # its build was meant to fail
                self._client.images.remove(name)


@pytest.fixture(scope="session")
def tags(client: DockerClient) -> Iterator[Tags]:
    tags = Tags(client)
    yield tags
    tags.remove()


@pytest.fixture
def tag(tags: Tags) -> str:
    return tags.new()


@pytest.fixture(scope="session")
def shell_image(
    engine: DockerEngine, base: str, tags: Tags, tmp_path_factory: pytest.TempPathFactory
) -> Image:
    """An image whose argument is a shell script."""
    folder = tmp_path_factory.mktemp("image")
    entry = json.dumps(["sh", "-c"])
    (folder / "Dockerfile").write_text(f"FROM {base}\nENTRYPOINT {entry}\n")
    return engine.build(folder, tag=tags.new())


@pytest.fixture(scope="session")
def reference_image(engine: DockerEngine, client: DockerClient) -> Iterator[Image]:
    """The repository's own image, under a name of this test run's own."""
    tag = f"l2r-harness-test-reference-{os.getpid()}"
    image = engine.build(REPOSITORY, tag=tag)
    yield image
    client.images.remove(tag, force=True)


@pytest.fixture(scope="session")
def edition_images(engine: DockerEngine, reference_image: Image, tags: Tags) -> dict[str, Image]:
    """The submissions that we ship for each edition; NiBabel comes with the image they build on."""
    return {
        name: engine.build(
            REPOSITORY / "examples" / name, tag=tags.new(), base_image=reference_image.reference
        )
        for name in NAMES
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "pairs_val.csv").write_text("fixed,moving\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "out").chmod(0o777)
    return tmp_path


@pytest.fixture
def shell(engine: DockerEngine, shell_image: Image, folder: Path) -> MakeRun:
    """``shell(script, memory_bytes=..., ...)``: a run of the script with these limits."""

    def make(script: str, **limits: int) -> ContainerExecution:
        return engine.prepare(shell_spec(shell_image, folder, script, **limits))

    return make


def shell_spec(image: Image, folder: Path, script: str, **limits: int) -> RunSpec:
    return RunSpec(
        image=image,
        name=f"test-{folder.name}",
        mounts=(
            BindMount(source=folder / "data", target="/l2r/test", read_only=True),
            BindMount(source=folder / "out", target="/l2r/submission", read_only=False),
        ),
        limits=tiny_challenge().limits.model_copy(update=limits),
        log_path=folder / "log.txt",
        arguments=(script,),
    )


@pytest.fixture(scope="session")
def fault_image(
    engine: DockerEngine, base: str, tags: Tags, tmp_path_factory: pytest.TempPathFactory
) -> MakeImage:
    """The image of a fault: the programs are a layer that all of them share."""
    folder = tmp_path_factory.mktemp("faults")
    shutil.copytree(FAULTS, folder / "faults")
    field = np.random.default_rng(1).normal(size=(3, 8, 6, 10)).astype(np.float16)
    np.savez_compressed(folder / "faults/field.npz", field)
    (folder / "Dockerfile").write_text(f"FROM {base}\nLABEL {LABEL}\nCOPY faults /faults\n")
    shared = engine.build(folder, tag=tags.new()).reference

    def make(fault: Fault) -> Image:
        entry = json.dumps(_entry_point(fault))
        lines = (f"FROM {shared}", *fault.image, f"ENTRYPOINT {entry}")
        own = tmp_path_factory.mktemp(fault.name)
        (own / "Dockerfile").write_text("\n".join(lines) + "\n")
        return engine.build(own, tag=tags.new())

    return make


def _entry_point(fault: Fault) -> list[str]:
    """Of its program, which has its name if it says nothing else."""
    named = [path.name for path in FAULTS.glob(f"{fault.name}.*")]
    (program,) = named if fault.program is None else [fault.program]
    interpreter = {".sh": ["sh"], ".py": ["python3"]}.get(Path(program).suffix, [])
    return [*interpreter, f"/faults/{program}"]


@pytest.fixture
def nothing_left(client: DockerClient, tmp_path: Path) -> Iterator[None]:
    leftovers = Leftovers(client, tmp_path)
    yield
    assert leftovers.found() == []
