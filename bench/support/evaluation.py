"""Full-size cases to evaluate, and evaluating one: by the harness, and in the straightforward way.

Both read the field and the truth from their files each time.
"""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np

from harness.challenge.field_file import read_field
from harness.challenge.model import FieldDtype, FieldFormat, Layout, load_challenge

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from harness.challenge.model import FieldSpec

WRONG_VOX = (25, 0, 0)  # how far a grossly wrong field is off everywhere
KEYPOINTS = 2000  # of a case of lungs, beside its landmarks
_GZIP_LEVEL = 1  # NiBabel's


class Kind(StrEnum):
    """How a field is stored: full resolution, float16 or float32; or half, by the 2021 rule."""

    NPZ = "npz"
    HALF = "half npz"
    NII = "nii"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One field file and its truth; ``labels`` empty means landmarks and a mask."""

    task: str
    kind: Kind
    field: Path
    fixed: Path
    moving: Path
    mask: Path | None
    labels: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Wall seconds of one case, the worker's peak memory so far, and a few of the numbers."""

    seconds: float
    peak_bytes: int
    numbers: tuple[float, ...]


def make_cases(
    truth: Path, folder: Path, task_name: str, *, wrong: bool, kinds: Sequence[Kind] = tuple(Kind)
) -> dict[Kind, list[Case]]:
    """Field files of these kinds for the phantoms whose truth is in ``truth``; written once."""
    task = load_challenge().task(task_name)
    found: dict[Kind, list[Case]] = {kind: [] for kind in kinds}
    for path in sorted((truth / task_name).glob("disp_*.npz")):
        fixed_id, moving_id = (int(part) for part in path.stem.split("_")[1:])
        names = {"fixed": fixed_id, "moving": moving_id}
        rule = task.truth
        fixed, moving = (
            truth / str(pattern).format(**names)
            for pattern in (
                (rule.fixed_labels, rule.moving_labels)
                if rule.labels
                else (rule.fixed_landmarks, rule.moving_landmarks)
            )
        )
        mask = truth / str(rule.fixed_mask).format(**names) if rule.fixed_mask else None
        if not rule.labels and mask is not None:
            fixed, moving = _with_keypoints(fixed, moving, mask, folder)
        files = _field_files(path, folder / ("wrong" if wrong else "good"), kinds, wrong=wrong)
        for kind, file in files.items():
            found[kind].append(
                Case(
                    task=task_name,
                    kind=kind,
                    field=file,
                    fixed=fixed,
                    moving=moving,
                    mask=mask,
                    labels=tuple(rule.labels or ()),
                )
            )
    return found


def _with_keypoints(fixed: Path, moving: Path, mask: Path, folder: Path) -> tuple[Path, Path]:
    """The landmarks and as many points in the mask as the challenge has keypoints."""
    rng = np.random.default_rng(2021)
    inside = np.argwhere(np.asarray(nib.nifti1.Nifti1Image.from_filename(mask).dataobj) == 1)
    points = inside[rng.integers(0, len(inside), KEYPOINTS)] + rng.uniform(0, 0.9, (KEYPOINTS, 3))
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for path in (fixed, moving):
        made.append(folder / path.name)
        rows = np.loadtxt(path, delimiter=",", ndmin=2)
        np.savetxt(made[-1], np.concatenate([rows, points]), delimiter=",")
    return made[0], made[1]


def _field_files(
    half_path: Path, folder: Path, kinds: Sequence[Kind], *, wrong: bool
) -> dict[Kind, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    name = half_path.stem
    files = {
        Kind.NPZ: folder / f"{name}.npz",
        Kind.HALF: folder / f"{name}_half.npz",
        Kind.NII: folder / f"{name}.nii.gz",
    }
    files = {kind: files[kind] for kind in kinds}
    if all(path.exists() for path in files.values()):
        return files
    from scipy import ndimage  # noqa: PLC0415 - only who makes the files needs it

    with np.load(half_path) as arrays:
        half = arrays[arrays.files[0]].astype(np.float32)
    if wrong:
        half += np.array(WRONG_VOX, np.float32)[:, None, None, None]
    full = np.stack([ndimage.zoom(component, 2, order=2) for component in half], axis=3)
    for kind, path in files.items():
        if kind is Kind.NII:
            nib.openers.Opener.default_compresslevel = _GZIP_LEVEL
            image = nib.nifti1.Nifti1Image(full.astype(np.float16).astype(np.float32), np.eye(4))
            image.to_filename(path)
        else:
            vectors = half if kind is Kind.HALF else full
            np.savez_compressed(path, vectors.astype(np.float16))
    return files


@cache
def field_spec(task_name: str, kind: Kind) -> FieldSpec:
    spec = load_challenge().task(task_name).field
    if kind is Kind.HALF:
        return spec
    is_npz = kind is Kind.NPZ
    return spec.model_copy(
        update={
            "path": spec.path if is_npz else "disp_{fixed:04d}_{moving:04d}.nii.gz",
            "format": FieldFormat.NPZ if is_npz else FieldFormat.NIFTI,
            "layout": Layout.CHANNELS_LAST,
            "resolution": "full",
            "shape": (*(2 * n for n in spec.grid), 3),
            "dtype": FieldDtype.FLOAT16 if is_npz else FieldDtype.FLOAT32,
            "other_dtypes": (),
        }
    )


def _map(path: Path) -> NDArray[Any]:
    return np.asarray(nib.nifti1.Nifti1Image.from_filename(path).dataobj)


def evaluate_ours(case: Case) -> Outcome:
    from harness.evaluate.memory import give_back_memory  # noqa: PLC0415 - as below
    from harness.evaluate.metrics import (  # noqa: PLC0415 - not in a worker that has no use for it
        FieldVolumes,
        jacobian_metrics,
        label_metrics,
        landmark_errors,
    )

    start_s = time.perf_counter()
    spec = field_spec(case.task, case.kind)
    array = read_field(case.field, spec)
    field = FieldVolumes.from_array(array, Layout.CHANNELS_FIRST, file_format=spec.format)
    del array
    if case.kind is Kind.HALF:
        field = field.upsampled()
    numbers = [jacobian_metrics(field, _map(case.mask) if case.mask else None).sdlogj]
    if case.labels:
        found = label_metrics(_map(case.fixed), _map(case.moving), field, case.labels)
        numbers.append(float(np.nanmean(found.dice)))
        if found.hd95_vox is not None:
            numbers.append(float(np.nanmean(found.hd95_vox)))
    else:
        start, end = (np.loadtxt(path, delimiter=",") for path in (case.fixed, case.moving))
        numbers.append(float(landmark_errors(field, start, end, _spacing(case.mask)).mean()))
    del field
    give_back_memory()
    return _outcome(start_s, numbers)


def evaluate_plainly(case: Case) -> Outcome:
    from bench.support import reference  # noqa: PLC0415 - not in a worker that has no use for it

    start_s = time.perf_counter()
    field = reference.load_field(case.field)
    mask = reference.load_map(case.mask) if case.mask else None
    numbers = [reference.sdlogj(field, mask)]
    if case.labels:
        fixed, moving = reference.load_map(case.fixed), reference.load_map(case.moving)
        warped = reference.warp(moving, field)
        numbers.append(float(np.nanmean(reference.dice(fixed, moving, warped, case.labels))))
        numbers.append(float(np.nanmean(reference.hd95(fixed, moving, warped, case.labels))))
    else:
        start, end = (np.loadtxt(path, delimiter=",") for path in (case.fixed, case.moving))
        numbers.append(
            float(reference.landmark_errors(start, end, field, _spacing(case.mask)).mean())
        )
    return _outcome(start_s, numbers)


def _spacing(image: Path | None) -> tuple[float, float, float]:
    if image is None:
        raise ValueError("expected a mask, whose spacing is that of the images")
    x, y, z = nib.nifti1.Nifti1Image.from_filename(image).header.get_zooms()
    return float(x), float(y), float(z)


def _outcome(start_s: float, numbers: list[float]) -> Outcome:
    return Outcome(
        seconds=time.perf_counter() - start_s,
        peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        numbers=tuple(numbers),
    )
