"""`harness check` with the images at hand: what it reads, says and costs, on real files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from harness.challenge.field import write_field
from harness.cli import app
from harness.errors import DataError
from tests.tiny import YAML
from tests.unit.test_meaning import GRID, HALF, scene

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from tests.unit.test_meaning import Volume

    Change = Callable[[NDArray[Any]], NDArray[Any]]

CHALLENGE = (
    YAML.replace("[16, 12, 20]", str(list(GRID)))
    .replace("[3, 8, 6, 10]", str([3, *HALF]))
    .split("  - <<: *task")[0]
)
UNIT = (np.array(GRID).reshape(3, 1, 1, 1) - 1) / 2
KEYS = ("task_01/0001_0001", "task_01/0002_0002")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two pairs of blobs in test/, the challenge for them in blobs.yaml."""
    folder = tmp_path / "test/task_01"
    folder.mkdir(parents=True)
    (folder / "pairs_val.csv").write_text("fixed,moving\n1,1\n2,2\n")
    yaml = CHALLENGE.replace("img{moving:04d}", "moving{moving:04d}")
    (tmp_path / "blobs.yaml").write_text(yaml)
    for case in (1, 2):
        save(scene(case).fixed, folder / f"img{case:04d}.nii.gz")
        save(scene(case).moving, folder / f"moving{case:04d}.nii.gz")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def save(volume: Volume, path: Path) -> None:
    nib.nifti1.Nifti1Image(volume.array, volume.affine).to_filename(path)


def store(change: Change = lambda field: field) -> None:
    for case in (1, 2):
        field: NDArray[np.float16] = np.asarray(change(scene(case).field), np.float16)
        path = Path(f"submission/task_01/disp_{case:04d}_{case:04d}.npz")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_field(field, path)


def check(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["check", "--challenge", "blobs.yaml", *arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout


@pytest.mark.parametrize(
    ("change", "kind", "fix"),
    [
        (lambda field: field[::-1], "components_reversed", "field[::-1]"),
        (lambda field: -field, "negated", "-field"),
        (lambda field: field / UNIT, "normalised", "- 1) / 2"),
    ],
)
def test_a_mistake_is_a_warning_for_every_pair_and_no_error(
    site: Path, change: Change, kind: str, fix: str
) -> None:
    store(change)
    code, text = check("--json")
    report = json.loads(text)
    assert code == 0
    assert report["meaning_checked"] is True
    found = report["findings"]
    assert [(one["pair"], one["severity"], one["kind"]) for one in found] == [
        (key, "warning", kind) for key in KEYS
    ]
    assert all(fix in one["fix"] for one in found)
    code, text = check()
    assert code == 0
    assert f"warning  {KEYS[0]}: {kind.replace('_', ' ')}" in text
    assert f"also in   {KEYS[1]}" in text
    assert "probably not what you meant: no errors, 2 warnings" in text


@pytest.mark.parametrize("change", [lambda field: field, lambda field: 0 * field])
def test_correct_fields_and_zero_fields_raise_no_warning(site: Path, change: Change) -> None:
    store(change)
    code, text = check()
    assert code == 0
    assert "nothing to object to" in text


def test_a_pair_without_a_valid_field_does_not_keep_the_others_from_being_looked_at(
    site: Path,
) -> None:
    store(lambda field: -field)
    Path("submission/task_01/disp_0001_0001.npz").write_bytes(b"no array")
    code, text = check("--json")
    assert code == 21
    found = [(one["pair"], one["kind"]) for one in json.loads(text)["findings"]]
    assert found == [(KEYS[0], "unreadable"), (KEYS[1], "negated")]


def test_format_alone_needs_no_images(site: Path) -> None:
    store(lambda field: -field)
    code, text = check("--format-only")
    assert code == 0
    assert "the images were not looked at" in text


def test_an_image_with_damaged_voxels_is_named(site: Path) -> None:
    store()
    path = site / "test/task_01/moving0002.nii.gz"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2 : len(raw) // 2 + 200] = b"\xff" * 200
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"moving0002\.nii\.gz.*task_01/0002_0002"):
        check()
