"""Register two images by a translation, found by phase correlation, and write the field.

The reference: Kuglin and Hines, The phase correlation image alignment method, 1975. Nothing in here
knows of the harness: it stands for any program with a command line.
"""

import argparse
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("fixed", "moving", "output"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args()

    fixed, moving = read(args.fixed), read(args.moving)
    shift_vox = translation(fixed, moving)
    print(f"translation in voxels: {shift_vox}", flush=True)
    half_grid = [n // 2 for n in fixed.shape]
    field = np.broadcast_to(shift_vox.reshape(3, 1, 1, 1), (3, *half_grid))
    np.savez_compressed(args.output, field.astype(np.float32))


def read(path: Path) -> NDArray[np.float32]:
    return np.asarray(nib.nifti1.Nifti1Image.from_filename(path).dataobj, dtype=np.float32)


def translation(fixed: NDArray[np.float32], moving: NDArray[np.float32]) -> NDArray[np.float32]:
    """The whole-voxel d for which moving(p + d) looks most like fixed(p)."""
    # An image is taken as periodic: fade it out towards its borders, or they dominate.
    fixed, moving = fixed - fixed.mean(), moving - moving.mean()
    for axis, n in enumerate(fixed.shape):
        window = np.hanning(n + 2)[1:-1].astype(np.float32)
        window = window.reshape([-1 if a == axis else 1 for a in range(3)])
        fixed, moving = fixed * window, moving * window
    cross = np.conj(np.fft.rfftn(fixed)) * np.fft.rfftn(moving)
    cross /= np.maximum(np.abs(cross), 1e-9)
    correlation = np.fft.irfftn(cross, fixed.shape, axes=(0, 1, 2))
    peak = np.unravel_index(int(correlation.argmax()), correlation.shape)
    # The far half of each axis stands for negative shifts.
    shift = [p - n if p > n // 2 else p for p, n in zip(peak, fixed.shape, strict=True)]
    return np.array(shift, dtype=np.float32)


if __name__ == "__main__":
    main()
