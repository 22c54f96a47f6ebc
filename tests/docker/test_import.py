"""`harness import` and `harness run FILE` with a real engine: what is loaded, and what is left."""

from __future__ import annotations

import gzip
import io
import json
import socket
import tarfile
import threading
import time
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import docker
import docker.errors
import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.engine.docker import DockerEngine
from harness.engine.owner import OWNER_LABEL, Owner
from harness.errors import EngineError, ImportRejected
from harness.imports.importer import import_image
from harness.store import RunDirectory, RunStatus
from tests.image_files import blob_name, descriptor, pack, sha256
from tests.tiny import write_challenge, write_data

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from docker import DockerClient

    from harness.engine.base import Image
    from tests.docker.conftest import Tags

pytestmark = pytest.mark.docker


class Team:
    """An image of a team's, saved to a file and then removed from this machine."""

    def __init__(self, client: DockerClient, base: str, folder: Path) -> None:
        self._client = client
        self._base = base
        self.folder = folder
        self.ids: list[str] = []

    def save(self, *lines: str, name: str = "team.tar", tag: str | None = None) -> tuple[Path, str]:
        """The file and the image's ID; no two images are the same."""
        tag = tag or f"l2r-harness-test:{uuid.uuid4().hex}"
        content = "\n".join([f"FROM {self._base}", *lines, f"LABEL unique={uuid.uuid4().hex}"])
        image, _ = self._client.images.build(fileobj=io.BytesIO(content.encode()), tag=tag, rm=True)
        path = self.folder / name
        with path.open("wb") as file:
            file.writelines(self._client.api.get_image(tag))
        self._client.images.remove(tag)
        self.ids.append(str(image.id))
        return path, str(image.id)

    def has(self, image_id: str) -> bool:
        try:
            self._client.images.get(image_id)
        except docker.errors.ImageNotFound:
            return False
        return True

    def clean(self) -> None:
        for image_id in self.ids:
            with suppress(docker.errors.ImageNotFound):
                self._client.images.remove(image_id, force=True)


@pytest.fixture
def team(client: DockerClient, base: str, tmp_path: Path) -> Iterator[Team]:
    team = Team(client, base, tmp_path)
    yield team
    team.clean()


def content_of(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {one.name: tar.extractfile(one).read() for one in tar if one.isfile()}  # type: ignore[union-attr]


def as_oci(path: Path, target: Path, *, with_manifest: bool, compress: bool) -> Path:
    """The same image as Docker writes it from version 25 on, or as BuildKit's OCI output."""
    old = content_of(path)
    (entry,) = json.loads(old["manifest.json"])
    config = old[entry["Config"]]
    layers = [old[name] for name in entry["Layers"]]
    kind = "application/vnd.oci.image.layer.v1.tar"
    if compress:
        layers, kind = [gzip.compress(one, 1) for one in layers], f"{kind}+gzip"
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "config": descriptor(config, "application/vnd.oci.image.config.v1+json"),
            "layers": [descriptor(one, kind) for one in layers],
        }
    ).encode()
    one = descriptor(manifest, "application/vnd.oci.image.manifest.v1+json")
    new = {blob_name(data): data for data in (config, manifest, *layers)}
    new["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    new["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [one]}).encode()
    if with_manifest:
        names = [blob_name(data) for data in layers]
        saved = entry | {"Config": blob_name(config), "Layers": names}
        new["manifest.json"] = json.dumps([saved]).encode()
    target.write_bytes(pack(new))
    return target


def run_command(*arguments: str | Path) -> Any:  # noqa: ANN401 - click's result
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_what_this_engine_saves(team: Team, client: DockerClient) -> None:
    path, image_id = team.save('ENTRYPOINT ["sh", "-c"]', "USER 1000", "VOLUME /scratch")
    assert not team.has(image_id)
    done = run_command("import", path, "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["image_id"] == image_id
    assert told["was_here"] is False
    assert told["facts"]["root"] is False
    assert told["facts"]["volumes"] == ["/scratch"]
    assert client.images.get(image_id).tags == [told["reference"]]
    assert told["reference"] == f"l2r-import/team:{image_id[7:19]}"
    again = run_command("import", path)
    assert "was here already" in again.stdout
    assert [one.name for one in team.folder.iterdir()] == [path.name]


@pytest.mark.parametrize("with_manifest", [True, False])
@pytest.mark.parametrize("compress", [True, False])
def test_layouts_that_this_engine_does_not_know(
    team: Team, engine: DockerEngine, with_manifest: bool, compress: bool
) -> None:
    path, image_id = team.save('CMD ["true"]')
    target = team.folder / "oci.tar"
    as_oci(path, target, with_manifest=with_manifest, compress=compress)
    imported = import_image(engine, target)
    assert imported.image.id == image_id
    assert team.has(image_id)


def test_no_tag_of_this_machine_moves(
    team: Team, engine: DockerEngine, client: DockerClient, shell_image: Image, tags: Tags
) -> None:
    """A file that calls its image what an image here is called: docker load would move the name."""
    victim = tags.new()
    path, image_id = team.save('CMD ["evil"]', tag=victim)
    repository, _, name = victim.partition(":")
    client.api.tag(shell_image.id, repository, name)
    imported = import_image(engine, path)
    assert imported.image.id == image_id
    assert client.images.get(victim).id == shell_image.id
    assert f"its own name '{victim}' was not taken over" in imported.notes


def test_a_layer_the_engine_refuses_leaves_nothing(
    team: Team, engine: DockerEngine, client: DockerClient
) -> None:
    """A file below a file: only unpacking shows it."""
    before = engine.image_ids()
    layer = pack({"a": b"file", "a/b": b"below a file"})
    config = {
        "architecture": engine.platform.partition("/")[2],
        "os": "linux",
        "config": {"Cmd": ["x"], "Labels": {"unique": uuid.uuid4().hex}},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha256(layer)}"]},
    }
    text = json.dumps(config).encode()
    manifest = [{"Config": f"{sha256(text)}.json", "RepoTags": None, "Layers": ["l.tar"]}]
    members = {f"{sha256(text)}.json": text, "l.tar": layer}
    path = team.folder / "broken.tar"
    path.write_bytes(pack(members | {"manifest.json": json.dumps(manifest).encode()}))
    with pytest.raises(ImportRejected, match="the container engine refuses it"):
        import_image(engine, path)
    assert f"sha256:{sha256(text)}" not in engine.image_ids() - before


def test_what_is_rejected_never_reaches_the_engine(team: Team) -> None:
    path, image_id = team.save('CMD ["x"]', f"LABEL {OWNER_LABEL}=x")
    done = run_command("import", path)
    assert isinstance(done.exception, ImportRejected)
    assert "labels" in str(done.exception)
    assert not team.has(image_id)


def test_run_a_file(team: Team, tmp_path: Path) -> None:
    """End to end, by ID. The image writes no field: its run is incomplete, and recorded as its."""
    path, image_id = team.save('ENTRYPOINT ["echo", "hello"]')
    write_data(tmp_path / "test")
    challenge = tmp_path / "tiny.yaml"
    write_challenge(challenge)
    done = run_command(
        *("run", path, "--engine", "docker", "--challenge", challenge),
        *("--data", tmp_path / "test", "--runs", tmp_path / "runs"),
        *("--submission", tmp_path / "submission"),
    )
    assert done.exit_code == RunStatus.INCOMPLETE.exit_code, done.output
    (folder,) = (tmp_path / "runs/local").iterdir()
    record = RunDirectory(folder).read_record()
    assert record.image_id == image_id
    assert "hello" in (folder / "log.txt").read_text()


def test_an_image_by_name_is_looked_at_as_well(
    client: DockerClient, base: str, tag: str, tmp_path: Path
) -> None:
    lines = f"FROM {base}\nCMD true\nLABEL {OWNER_LABEL}=x\n"
    client.images.build(fileobj=io.BytesIO(lines.encode()), tag=tag, rm=True)
    write_data(tmp_path / "test")
    challenge = tmp_path / "tiny.yaml"
    write_challenge(challenge)
    done = run_command(
        *("run", tag, "--engine", "docker", "--challenge", challenge),
        *("--data", tmp_path / "test", "--runs", tmp_path / "runs"),
        *("--submission", tmp_path / "submission"),
    )
    assert isinstance(done.exception, ImportRejected)


def test_sweep_does_not_believe_an_image(
    client: DockerClient, engine: DockerEngine, base: str, tag: str
) -> None:
    """A container that somebody starts by hand has its image's labels: with one of a dead harness
    on its image it would have been removed as ours."""
    dead = Owner(pid="1", start="1", namespace="x", boot="x", machine=socket.gethostname())
    folder = f"FROM {base}\nCMD true\nLABEL {OWNER_LABEL}={json.dumps(dead.text)}\n"
    client.images.build(fileobj=io.BytesIO(folder.encode()), tag=tag, rm=True)
    container = client.containers.create(tag, network_mode="none")
    try:
        assert dead.is_dead()
        assert container.labels[OWNER_LABEL] == dead.text
        assert container.name not in engine.sweep()
        container.reload()
    finally:
        container.remove(force=True)


def test_an_engine_that_goes_away_is_no_fault_of_the_image(engine: DockerEngine) -> None:
    """Restarted while an image was loaded, an engine had the team's upload refused for it."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def take_and_go() -> None:
            connection = server.accept()[0]
            connection.recv(1 << 16)
            connection.close()

        threading.Thread(target=take_and_go, daemon=True).start()
        host = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        client = docker.DockerClient(base_url=host, version="1.41", timeout=5)
        going = DockerEngine(client, engine._facts)
        with pytest.raises(EngineError, match="the container engine failed"):
            going.load((bytes(1 << 16) for _ in range(1 << 10)), deadline_s=60.0, silence_s=30.0)
        client.close()


def test_an_engine_that_hangs_does_not_hang_us(engine: DockerEngine) -> None:
    """It takes the connection and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken: list[socket.socket] = []

        def take() -> None:
            with suppress(OSError):
                taken.append(server.accept()[0])

        threading.Thread(target=take, daemon=True).start()
        host = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        client = docker.DockerClient(base_url=host, version="1.41", timeout=5)
        hung = DockerEngine(client, engine._facts)
        start_s = time.monotonic()
        endless = (bytes(1 << 16) for _ in range(1 << 20))
        with pytest.raises(EngineError, match="did not finish within 1 s"):
            hung.load(endless, deadline_s=60.0, silence_s=1.0)
        assert time.monotonic() - start_s < 30
        for one in taken:
            one.close()
        client.close()
