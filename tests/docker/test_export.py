"""`harness export` with a real engine: the file loads again, the manifest tells the truth."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.export import ExportManifest
from harness.store import RunDirectory
from tests.unit.test_store import RECORD

if TYPE_CHECKING:
    from pathlib import Path

    from docker import DockerClient

    from harness.engine.base import Image

pytestmark = pytest.mark.docker


def export(image: Image, folder: Path, *further: str) -> ExportManifest:
    target = folder / "team.tar.gz"
    arguments = ["export", image.reference, "-o", str(target), "--runs", str(folder / "runs")]
    done = CliRunner().invoke(app, [*arguments, *further])
    assert done.exit_code == 0, done.output
    assert str(target) in done.stdout
    return ExportManifest.model_validate_json((folder / "team.json").read_bytes())


def test_the_file_is_the_image_and_the_manifest_describes_it(
    shell_image: Image, client: DockerClient, tmp_path: Path
) -> None:
    manifest = export(shell_image, tmp_path)
    packed = (tmp_path / "team.tar.gz").read_bytes()
    tar = gzip.decompress(packed)
    assert manifest.image_id == shell_image.id
    assert (manifest.file_size_bytes, manifest.tar_size_bytes) == (len(packed), len(tar))
    assert manifest.file_sha256 == hashlib.sha256(packed).hexdigest()
    assert manifest.tar_sha256 == hashlib.sha256(tar).hexdigest()
    assert manifest.certificate is None
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        content = archive.extractfile("manifest.json")
        assert content is not None
        (listed,) = json.load(content)
    assert listed["RepoTags"] == [shell_image.reference]
    (loaded,) = client.images.load(tar)
    assert loaded.id == shell_image.id
    assert sorted(path.name for path in tmp_path.iterdir()) == ["team.json", "team.tar.gz"]


def test_the_certificate_is_of_exactly_this_image(shell_image: Image, tmp_path: Path) -> None:
    mine = RECORD.model_copy(update={"image_id": shell_image.id, "run_id": "mine"})
    for record in (mine, RECORD.model_copy(update={"run_id": "another"})):
        path = tmp_path / "runs/local" / record.run_id
        path.mkdir(parents=True)
        RunDirectory(path).write_record(record)
    (tmp_path / "runs/local/unfinished").mkdir()
    certificate = export(shell_image, tmp_path).certificate
    assert certificate is not None
    assert certificate.run_id == "mine"
    assert certificate.challenge_digest == RECORD.challenge_digest
    assert certificate.limits == RECORD.limits
    assert [pair.key for pair in certificate.pairs] == [pair.key for pair in RECORD.pairs]
    # The record's witness missed events: its runtimes are nothing to certify.
    assert [pair.runtime_s for pair in certificate.pairs] == [None, None]


def test_nothing_is_overwritten_unasked(shell_image: Image, tmp_path: Path) -> None:
    (tmp_path / "team.json").write_text("precious")
    target = str(tmp_path / "team.tar.gz")
    done = CliRunner().invoke(app, ["export", shell_image.reference, "-o", target])
    assert done.exit_code != 0
    assert "is there already" in str(done.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["team.json"]
    export(shell_image, tmp_path, "--force")


def test_no_such_image(tmp_path: Path) -> None:
    target = str(tmp_path / "team.tar.gz")
    done = CliRunner().invoke(app, ["export", "no-such-image-anywhere", "-o", target])
    assert "no image no-such-image-anywhere" in str(done.exception)
    assert list(tmp_path.iterdir()) == []
