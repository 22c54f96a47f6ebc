"""The memory of a whole process that reads a field, as the kernel counts it."""

from __future__ import annotations

import gzip
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest

from harness.challenge.model import FieldDtype, FieldFormat, FieldSpec, Layout

GRID = (112, 120, 128)

READ = """
import sys
from pathlib import Path
import numpy as np
from harness.challenge import field_file
from harness.challenge.model import FieldSpec
from harness.errors import FieldError

def kilobytes(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])

small, path, spec = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
read = getattr(field_file, sys.argv[4])
spec = FieldSpec.model_validate_json(spec)
try:
    read(small, spec)  # so that all modules are there
except FieldError:
    pass
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
before = kilobytes("VmRSS")
try:
    read(path, spec)
    print("read", end=" ")
except FieldError as error:
    print("refused", end=" ")
print((kilobytes("VmHWM") - before) * 1024)
"""


def spec_of(kind: FieldFormat) -> FieldSpec:
    packed = kind is FieldFormat.NIFTI
    return FieldSpec.model_validate(
        {
            "path": "disp_{fixed:04d}_{moving:04d}" + kind.suffixes[0],
            "format": kind,
            "layout": Layout.CHANNELS_LAST if packed else Layout.CHANNELS_FIRST,
            "resolution": "half",
            "shape": (*GRID, 3) if packed else (3, *GRID),
            "dtype": FieldDtype.FLOAT32 if packed else FieldDtype.FLOAT16,
        }
    )


def zeros_behind(start: bytes, n_megabytes: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    zeros = bytes(1 << 20)
    body = b"".join(packer.compress(zeros) for _ in range(n_megabytes))
    return packer.compress(start) + body + packer.flush()


def write(path: Path, kind: FieldFormat, spec: FieldSpec, *, bomb: bool) -> None:
    """Noise, whose file is as large as the array, or zeros without an end."""
    dtype: npt.DTypeLike = spec.dtype.value
    array: npt.NDArray[Any] = np.zeros(spec.shape, dtype)
    if kind is FieldFormat.NPZ:
        if bomb:
            array = np.zeros((40, *spec.shape), dtype)
        else:
            bits = np.random.default_rng(0).integers(0, 0x7C00, spec.shape, np.uint16)
            array = bits.view(np.float16)
        np.savez_compressed(path, array)
        return
    image = nib.nifti1.Nifti1Image(array, np.eye(4))
    if bomb:
        path.write_bytes(zeros_behind(image.to_bytes(), 300))
    else:
        array[:] = np.random.default_rng(0).normal(0, 5, spec.shape)
        path.write_bytes(gzip.compress(nib.nifti1.Nifti1Image(array, np.eye(4)).to_bytes(), 1))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("bomb", [False, True], ids=["noise", "bomb"])
@pytest.mark.parametrize("kind", FieldFormat)
@pytest.mark.parametrize("read", ["read_field", "check_field"])
def test_peak_memory_of_a_process(tmp_path: Path, kind: FieldFormat, bomb: bool, read: str) -> None:
    """At most twice the legal field, and in fact little more than once."""
    spec = spec_of(kind)
    small, path = (tmp_path / f"{name}{kind.suffixes[0]}" for name in ("small", "field"))
    small.write_bytes(b"\x1f\x8b")
    write(path, kind, spec, bomb=bomb)
    command = [sys.executable, "-c", READ, str(small), str(path), spec.model_dump_json(), read]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    outcome, peak = done.stdout.split()
    assert outcome == ("refused" if bomb else "read")
    assert int(peak) < 1.5 * spec.nbytes
    if not bomb:
        assert int(peak) > 0.9 * spec.nbytes  # or it measures nothing
