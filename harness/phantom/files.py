"""Writing the phantom's files with bytes that depend on their content only."""

from __future__ import annotations

import hashlib
import json
import zlib
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np

from harness.challenge import field as challenge_field

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import numpy.typing as npt

GZIP_WINDOW_BITS = 31  # zlib's number for "a gzip header": no file name, no modification time
FIELD_STEPS_A_VOXEL = 1024  # full-resolution fields are rounded to it, or do not compress
COMPRESSION_LEVEL = 2  # on noisy int16 the higher levels gain a few percent and cost seconds


def write_volume(path: Path, volume: npt.NDArray[Any], spacing_mm: tuple[float, ...]) -> None:
    """Write an (X, Y, Z) array as gzipped NIfTI with a diagonal RAS+ affine centred on the grid.

    The dtype is kept (int16 or uint8); `spacing_mm` is the voxel size along X, Y, Z.
    """
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = [-0.5 * s * (n - 1) for s, n in zip(spacing_mm, volume.shape, strict=True)]
    image = nib.Nifti1Image(volume, affine)
    image.set_qform(affine, code="scanner")
    image.set_sform(affine, code="scanner")
    image.header.set_xyzt_units("mm")
    packer = zlib.compressobj(COMPRESSION_LEVEL, zlib.DEFLATED, GZIP_WINDOW_BITS)
    path.write_bytes(packer.compress(image.to_bytes()) + packer.flush())


def write_field(path: Path, displacement_vox: npt.NDArray[np.float32]) -> None:
    """Write a (3, X/2, Y/2, Z/2) displacement in full-resolution voxels as the challenge does."""
    np.savez_compressed(path, displacement_vox.astype(np.float16))


def write_full_field(path: Path, displacement_vox: npt.NDArray[np.float32]) -> None:
    """Write a (3, X, Y, Z) displacement in voxels as NIfTI (X, Y, Z, 3), float32."""
    rounded = np.rint(displacement_vox * FIELD_STEPS_A_VOXEL) / FIELD_STEPS_A_VOXEL
    array = np.ascontiguousarray(np.moveaxis(rounded, 0, -1), dtype=np.float32)
    challenge_field.write_field(array, path)


def write_landmarks(path: Path, landmarks_vox: npt.NDArray[np.float64]) -> None:
    """Write (N, 3) voxel coordinates as `x,y,z` lines without a header."""
    np.savetxt(path, landmarks_vox, fmt="%.5f", delimiter=",")


def write_digests(path: Path, images: Iterable[Path], known: str = "") -> None:
    """Write which images the truth belongs to, as `sha256sum` does, beside the lines `known`."""
    digests = {name: digest for digest, _, name in (s.partition("  ") for s in known.splitlines())}
    digests |= {image.name: hashlib.sha256(image.read_bytes()).hexdigest() for image in images}
    path.write_text("".join(f"{digests[name]}  {name}\n" for name in sorted(digests)))


def write_pairs(path: Path, pairs: Iterable[tuple[int, int]]) -> None:
    """Write the pair list, one `fixed,moving` row a pair."""
    rows = [f"{fixed},{moving}" for fixed, moving in pairs]
    path.write_text("\n".join(["fixed,moving", *rows, ""]), encoding="utf-8")


def write_dataset(
    path: Path,
    *,
    name: str,
    modality: dict[str, str],
    grid: tuple[int, int, int],
    pairs: Iterable[tuple[str, str]],
    lists: Iterable[str],
) -> None:
    """Write a `<Task>_dataset.json` whose `lists` all hold the same pairs of image paths.

    A list `registration_test` comes with its length as `numRegistration_test`, others likewise.
    """
    rows = [{"fixed": fixed, "moving": moving} for fixed, moving in pairs]
    content: dict[str, object] = {
        "name": name,
        "release": "phantom",
        "description": "Synthetic data with known truth",
        "tensorImageSize": "3D",
        "tensorImageShape": {"0": list(grid)},
        "modality": modality,
    }
    for key in lists:
        content["num" + key[0].upper() + key[1:]] = len(rows)
    content |= dict.fromkeys(lists, rows)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
