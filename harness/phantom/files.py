"""Writing the phantom's files with bytes that depend on their content only."""

from __future__ import annotations

import hashlib
import zlib
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import numpy.typing as npt

GZIP_WINDOW_BITS = 31  # zlib's number for "a gzip header": no file name, no modification time
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


def write_landmarks(path: Path, landmarks_vox: npt.NDArray[np.float64]) -> None:
    """Write (N, 3) voxel coordinates as `x,y,z` lines without a header."""
    np.savetxt(path, landmarks_vox, fmt="%.5f", delimiter=",")


def write_digests(path: Path, images: Iterable[Path]) -> None:
    """Write which images the truth belongs to, as `sha256sum` does."""
    digests = {image.name: hashlib.sha256(image.read_bytes()).hexdigest() for image in images}
    path.write_text("".join(f"{digests[name]}  {name}\n" for name in sorted(digests)))


def write_pairs(path: Path, pairs: Iterable[tuple[int, int]]) -> None:
    """Write the pair list, one `fixed,moving` row a pair."""
    rows = [f"{fixed},{moving}" for fixed, moving in pairs]
    path.write_text("\n".join(["fixed,moving", *rows, ""]), encoding="utf-8")
