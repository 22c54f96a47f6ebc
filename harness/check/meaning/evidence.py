"""What one pair says for and against every reading of its field."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.check.findings import FindingKind
from harness.check.meaning.likeness import Likeness, Score
from harness.check.meaning.readings import (
    Reading,
    plain_readings,
    position_readings,
    reshaped_readings,
)
from harness.check.meaning.stored import Layout, Sampler, relaid
from harness.check.meaning.structure import Structure, folded_share, is_noise, look_at
from harness.errors import FieldError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.challenge.field import FloatArray
    from harness.challenge.model import Grid
    from harness.check.meaning.likeness import Image

Array = NDArray[Any]

SUSPECT_ROUGHNESS = 0.2  # along the roughest axis; true fields have 0.06, the mildest reshape 0.28
POSITION_SLOPE_ERROR = 0.35  # of the unit; what registration itself adds is 0.1 at most
OTHER_SIZES = (0.7, 1.4)  # a size that is right does better than these parts of it
FACTORS = frozenset({FindingKind.HALF_SIZE, FindingKind.DOUBLE_SIZE})


@dataclass(frozen=True, kw_only=True)
class Support:
    """How alike the images are under one reading.

    ``better_share``: in which share of the blocks that it moves most it does better than both the
    field as stored and no field. ``right_size_share``: in which share its size does better than a
    smaller and a larger one; None where size is not in question.
    """

    reading: Reading
    score: Score
    better_share: float
    right_size_share: float | None


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One pair's field, as far as its images tell.

    ``stored`` and ``zero`` are the scores of the field as it is and of no field; ``supports`` those
    of all other readings, none for a zero field and where the images show nothing.
    ``folded_percent`` is None where the field is noise and folds were not counted.
    ``image_grid`` is that of the fixed image, ``field_grid`` the file's. ``n_points``: how much of
    the image was looked at; 0 where it shows nothing.
    """

    pair: str | None
    structure: Structure
    stored: Score
    zero: Score
    supports: tuple[Support, ...]
    folded_percent: float | None
    image_grid: Grid
    field_grid: Grid
    spacing_mm: tuple[float, float, float]
    n_points: int

    @property
    def base(self) -> float:
        """What a reading has to beat: the field as it is, or no field, whichever is better."""
        return max(self.stored.value, self.zero.value)


def gather(
    vectors_vox: FloatArray,
    fixed: Image,
    moving: Image,
    *,
    fixed_mask: Image | None = None,
    pair: str | None = None,
    likeness: Likeness | None = None,
) -> Evidence:
    """Score every reading of a field. Parameters as in :func:`examine_meaning`.

    ``likeness`` is that of the same images, for who asks about several fields of one pair.
    """
    image_grid, field_grid = _grids(vectors_vox, fixed)
    stored = vectors_vox.astype(np.float32, copy=False)
    structure = look_at(stored, image_grid)
    noise = is_noise(structure, field_grid, image_grid)
    likeness = likeness or make_likeness(fixed, moving, fixed_mask)
    points = likeness.points_vox
    samplers = _Samplers(stored, image_grid)
    as_stored = samplers[Layout.STORED].at(points)
    of_stored, of_zero = likeness.score(as_stored), likeness.score(np.zeros_like(as_stored))
    supports: list[Support] = []
    if points.size and not structure.is_zero:
        for reading in _readings(structure, fixed, moving):
            vectors = _read(samplers[reading.layout], reading, points)
            score = likeness.score(vectors)
            right_size_share = None
            if reading.kinds == (FindingKind.MILLIMETRES,) or FACTORS & set(reading.kinds):
                others = [likeness.score(np.float32(s) * vectors) for s in OTHER_SIZES]
                right_size_share = score.share_better_than(*others)
            supports.append(
                Support(
                    reading=reading,
                    score=score,
                    better_share=score.share_better_than(of_stored, of_zero),
                    right_size_share=right_size_share,
                )
            )
    return Evidence(
        pair=pair,
        structure=structure,
        stored=of_stored,
        zero=of_zero,
        supports=tuple(supports),
        folded_percent=None if noise else folded_share(stored, image_grid),
        image_grid=image_grid,
        field_grid=field_grid,
        spacing_mm=fixed.spacing_mm,
        n_points=points.shape[1],
    )


def make_likeness(fixed: Image, moving: Image, fixed_mask: Image | None) -> Likeness:
    """The images of a pair made ready for comparison: half of the work of judging a field."""
    return Likeness(fixed.array, moving.array, None if fixed_mask is None else fixed_mask.array)


def pool(evidences: Sequence[Evidence]) -> Evidence:
    """Several pairs of one task as if they were one, for readings that all of them were scored on.

    At least one pair. What is not a score is that of the first.
    """
    found = [{s.reading.key: s for s in e.supports} for e in evidences]
    supports = []
    for support in evidences[0].supports:
        same = [its.get(support.reading.key) for its in found]
        present = [s for s in same if s is not None]
        if len(present) < len(evidences):
            continue
        sizes = [s.right_size_share for s in present if s.right_size_share is not None]
        supports.append(
            Support(
                reading=support.reading,
                score=_pooled([s.score for s in present]),
                better_share=float(np.mean([s.better_share for s in present])),
                right_size_share=float(np.mean(sizes)) if sizes else None,
            )
        )
    return replace(
        evidences[0],
        pair=None,
        stored=_pooled([e.stored for e in evidences]),
        zero=_pooled([e.zero for e in evidences]),
        supports=tuple(supports),
    )


def _pooled(scores: Sequence[Score]) -> Score:
    return Score(
        value=float(np.mean([s.value for s in scores])),
        blocks=np.concatenate([s.blocks for s in scores]),
        moved_vox=np.concatenate([s.moved_vox for s in scores]),
    )


def position_slope_error(structure: Structure, reading: Reading) -> float:
    """How far the field's trend is from that of the identity grid, relative to the grid's own."""
    unit = reading.stored_from_voxels
    return float(np.linalg.norm(structure.slope - unit) / np.linalg.norm(unit))


def _readings(structure: Structure, fixed: Image, moving: Image) -> Iterator[Reading]:
    """All but the convention itself. The rarer ones only where the field looks like them."""
    x, y, z = moving.array.shape
    moving_grid = (x, y, z)
    yield from plain_readings(fixed, moving_grid)[1:]
    for reading in position_readings(fixed, moving_grid):
        if position_slope_error(structure, reading) < POSITION_SLOPE_ERROR:
            yield reading
    if structure.roughest > SUSPECT_ROUGHNESS:
        yield from reshaped_readings(moving_grid)


class _Samplers(dict[Layout, Sampler]):
    """The field in each layout, laid out when it is first asked for."""

    def __init__(self, stored: Array, image_grid: Grid) -> None:
        super().__init__()
        self._stored, self._image_grid = stored, image_grid

    def __missing__(self, layout: Layout) -> Sampler:
        self[layout] = Sampler(relaid(self._stored, layout), self._image_grid)
        return self[layout]


def _read(sampler: Sampler, reading: Reading, points_vox: Array) -> Array:
    """Displacements (3, N) in voxels at the points, if the file is to be read like that."""
    matrix = reading.voxels_from_stored
    if reading.backwards:
        return sampler.inverse_at(points_vox, matrix)
    values = sampler.at(points_vox)
    if reading.origin is None:
        return (matrix @ values).astype(np.float32)
    positions = matrix @ (values - reading.origin[:, None])
    return (positions - points_vox).astype(np.float32)


def _grids(vectors_vox: FloatArray, fixed: Image) -> tuple[Grid, Grid]:
    if vectors_vox.ndim != 4 or vectors_vox.shape[0] != 3 or fixed.array.ndim != 3:
        raise FieldError(
            "expected a field (3, X, Y, Z) and an image (X, Y, Z), "
            f"found {vectors_vox.shape} and {fixed.array.shape}"
        )
    x, y, z = fixed.array.shape
    _, *grid = vectors_vox.shape
    if tuple(grid) not in {(x, y, z), (x // 2, y // 2, z // 2)}:
        raise FieldError(f"expected a field on {(x, y, z)} or half of it, found {tuple(grid)}")
    return (x, y, z), (grid[0], grid[1], grid[2])
