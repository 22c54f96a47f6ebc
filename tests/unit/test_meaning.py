"""Fields in the wrong convention are named, from small images made for it, and never others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from bench.support.mistakes import degraded_fields, identity, planted_mistakes
from harness.check.findings import FindingKind, Severity
from harness.check.meaning import PairToExamine, examine_meaning, examine_task
from harness.check.meaning.decide import judge
from harness.check.meaning.evidence import Evidence, gather
from harness.check.meaning.undo import lines_to_undo
from harness.errors import FieldError

if TYPE_CHECKING:
    from harness.check.meaning.readings import Reading

Array = NDArray[Any]

GRID = (84, 80, 84)
HALF = (42, 40, 42)
SPACING_MM = (1.5, 2.5, 3.0)


@dataclass(frozen=True, kw_only=True)
class Volume:
    """An image in memory."""

    array: Array
    affine: Array
    spacing_mm: tuple[float, float, float] = SPACING_MM


RAS = np.diag([*SPACING_MM, 1.0])
RAS[:3, 3] = [-40.0, 25.0, 60.0]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Two images and the field that made the fixed one from the moving one."""

    fixed: Volume
    moving: Volume
    field: Array


@cache
def scene(seed: int = 1, *, air: bool = False) -> Scene:
    """Blobs of many sizes, moved by some voxels; the fixed image has other grey values.

    With air they end six voxels before the border, and the moving image has an offset.
    """
    rng = np.random.default_rng(seed)

    def blobs(grid: tuple[int, ...], size: float) -> Array:
        noise = ndimage.gaussian_filter(rng.normal(size=grid), size, mode="nearest")
        blobs: Array = noise / noise.std()
        return blobs

    moving = blobs(GRID, 1.5) + blobs(GRID, 3) + blobs(GRID, 6)
    if air:
        body = moving[6:-6, 6:-6, 6:-6].copy()
        moving[:] = -5
        moving[6:-6, 6:-6, 6:-6] = body
    field = np.stack([size * blobs(HALF, 8) for size in (2.0, 2.5, 3.0)])
    everywhere = np.stack([ndimage.zoom(c, 2, order=2) for c in field])
    places = identity(GRID, GRID) + everywhere
    warped = ndimage.map_coordinates(moving, places, order=1, mode="nearest")
    grey = 1000 - 300 * np.tanh(warped / 2)  # turned over, and not in proportion
    return Scene(
        fixed=Volume(array=grey.astype(np.float32), affine=RAS),
        moving=Volume(array=(moving - 1024 * air).astype(np.float32), affine=RAS),
        field=field.astype(np.float32),
    )


def gathered(field: Array) -> Evidence:
    """The evidence on a field of the first scene, stored as the challenge stores it."""
    fixed, moving = scene().fixed, scene().moving
    return gather(field.astype(np.float16), fixed, moving)


def reading_of(evidence: Evidence) -> Reading | None:
    support = judge(evidence).support
    return None if support is None else support.reading


def kinds_of(field: Array, fixed: Volume, moving: Volume) -> list[FindingKind]:
    return [finding.kind for finding in examine_meaning(field, fixed, moving)]


def test_every_mistake_is_named_and_the_lines_undo_it() -> None:
    """The lines are executed as they are shown. Half precision costs a tenth of a voxel, corners
    that are not aligned 1.6 % here.
    """
    truth = scene().field
    wrong = {}
    for plant in planted_mistakes(truth, GRID, np.array(SPACING_MM)):
        stored = plant.field.astype(np.float16)
        reading = reading_of(gathered(stored))
        if reading is None or frozenset(reading.kinds) not in plant.names:
            wrong[plant.mistake] = reading
            continue
        lines = lines_to_undo(reading, field_grid=HALF, spacing_mm=SPACING_MM)
        names: dict[str, Any] = {
            "np": np,
            "field": stored.copy(),
            "image_shape": GRID,
            "affine": RAS,
        }
        for line in lines:
            exec(line, names)
        if FindingKind.DIRECTION_SWAPPED not in reading.kinds:
            off = np.abs(names["field"] - truth) > 0.15 + 0.02 * np.abs(truth)
            assert not off.any(), f"{plant.mistake}: {lines}"
    assert wrong == {}


def test_no_field_in_the_right_convention_is_accused() -> None:
    truth = scene().field
    rng = np.random.default_rng(5)
    accused = {
        bad.what: found
        for n, bad in enumerate(degraded_fields(truth, scene(2).field, GRID, rng))
        if n % 2 == 0  # all of them, on large images, in test_meaning_of_phantoms.py
        and (found := kinds_of(bad.field.astype(np.float16), scene().fixed, scene().moving))
    }
    assert accused == {}
    assert kinds_of(truth.astype(np.float16), scene().fixed, scene().moving) == []


def test_a_finding_says_what_was_expected_found_and_what_to_change() -> None:
    stored = (scene().field / np.array([41.5, 39.5, 41.5])[:, None, None, None])[::-1]
    (finding,) = examine_meaning(stored, scene().fixed, scene().moving, pair="task_01/0012_0012")
    assert finding.severity is Severity.WARNING
    assert (finding.kind, finding.pair) == (FindingKind.NORMALISED, "task_01/0012_0012")
    assert "full-resolution voxels" in finding.expected
    assert "normalised to -1..1, with components z, y, x" in finding.found
    assert "field = field[::-1]; field = field * (np.array(image_shape)" in finding.fix
    assert "image_shape is (84, 80, 84)" in finding.fix
    assert "Convention.GRID_SAMPLE" in finding.fix
    assert "harness convert --from grid-sample" in finding.fix


def test_a_field_on_the_image_grid_is_read_the_same_way() -> None:
    whole = np.stack([ndimage.zoom(c, 2, order=1) for c in scene().field])
    assert reading_of(gathered(whole)) is None
    reading = reading_of(gathered(whole[::-1]))
    assert reading is not None
    assert reading.kinds == (FindingKind.COMPONENTS_REVERSED,)


def test_millimetres_are_told_by_the_affine_where_axes_run_left_or_back() -> None:
    """An LPS-oriented image: millimetres of ITK are its voxels times the spacing."""
    affine = RAS @ np.diag([-1.0, -1.0, 1.0, 1.0])
    fixed, moving = (replace(v, affine=affine) for v in (scene().fixed, scene().moving))
    stored = scene().field * np.array(SPACING_MM)[:, None, None, None]
    reading = judge(gather(stored, fixed, moving)).support
    assert reading is not None
    assert reading.reading.kinds == (FindingKind.MILLIMETRES,)
    ras = stored * np.array([-1, -1, 1])[:, None, None, None]
    support = judge(gather(ras, fixed, moving)).support
    assert support is not None
    assert support.reading.kinds == (FindingKind.MILLIMETRES,)
    lines = lines_to_undo(support.reading, field_grid=HALF, spacing_mm=SPACING_MM)
    names: dict[str, Any] = {"np": np, "field": ras, "affine": affine}
    for line in lines:
        exec(line, names)
    np.testing.assert_allclose(names["field"], scene().field, atol=1e-4)


def test_where_the_spacing_is_1_mm_nothing_is_said_of_millimetres() -> None:
    affine = np.eye(4)
    fixed, moving = (
        replace(v, affine=affine, spacing_mm=(1.0, 1.0, 1.0))
        for v in (scene().fixed, scene().moving)
    )
    evidence = gather(scene().field, fixed, moving)
    readings = [support.reading for support in evidence.supports]
    assert all(FindingKind.MILLIMETRES not in reading.kinds for reading in readings)
    assert examine_meaning(scene().field, fixed, moving) == ()


@pytest.mark.parametrize(
    ("grid", "kind"),
    [("voxels", FindingKind.IDENTITY_INCLUDED), ("normalised", FindingKind.IDENTITY_INCLUDED)],
)
def test_an_identity_grid_without_displacements_is_named(grid: str, kind: FindingKind) -> None:
    """Without its grid the field is the zero field: no image can tell, its form does."""
    stored = identity(GRID, HALF)
    if grid == "normalised":
        stored = (2 * stored / (np.array(GRID) - 1)[:, None, None, None] - 1)[::-1]
    assert kinds_of(stored, scene().fixed, scene().moving) == [kind]


def test_noise_folds_and_size_are_told_from_the_field_alone() -> None:
    """Images that show nothing: only what the field looks like can be judged."""
    blank = Volume(array=np.full(GRID, 7, dtype=np.float32), affine=RAS)
    rng = np.random.default_rng(3)
    noise = rng.normal(size=(3, *HALF))
    assert kinds_of(5 * noise, blank, blank) == [FindingKind.ROUGH]
    assert kinds_of(scene().field + 1.6 * noise, blank, blank) == [FindingKind.FOLDED]
    assert kinds_of(20 * scene().field, blank, blank) == [FindingKind.WILD]
    assert kinds_of(scene().field, blank, blank) == []


def test_masks_offsets_and_air_change_nothing() -> None:
    """Air of constant value around the scene, an offset, a mask or none: the same verdicts."""
    found = scene(air=True)
    fixed, moving, truth = found.fixed, found.moving, found.field
    inside = np.zeros(GRID, dtype=np.float32)
    inside[4:-4, 4:-4, 4:-4] = 1
    for mask in (None, Volume(array=inside, affine=RAS), Volume(array=0 * inside, affine=RAS)):
        assert examine_meaning(truth, fixed, moving, fixed_mask=mask) == ()
        (finding,) = examine_meaning(-truth, fixed, moving, fixed_mask=mask)
        assert finding.kind is FindingKind.NEGATED


def pairs(*fields: Array) -> list[PairToExamine]:
    return [
        PairToExamine(pair=f"p{n}", vectors_vox=f, fixed=scene().fixed, moving=scene().moving)
        for n, f in enumerate(fields)
    ]


def test_the_pairs_of_a_task_are_judged_together() -> None:
    """One of three fields is too bad to tell by itself; the other two tell for it."""
    truth, weak = scene().field, 0.25 * scene().field
    assert examine_meaning(weak[::-1], scene().fixed, scene().moving) == ()
    found = examine_task(pairs(truth[::-1], truth[::-1], weak[::-1]))
    assert [(f.pair, f.kind) for f in found.findings] == [
        (pair, FindingKind.COMPONENTS_REVERSED) for pair in ("p0", "p1", "p2")
    ]
    assert found.summary is not None
    assert found.summary.pair is None
    assert "in all 3 pairs" in found.summary.found


def test_the_layouts_of_a_reshaped_field_are_not_mixed_up_between_pairs() -> None:
    """They share their kinds: pooled by kind alone, each hid the others."""
    stored = np.ascontiguousarray(np.moveaxis(scene().field, 0, 3)).reshape(3, *HALF)
    found = examine_task(pairs(stored, stored))
    assert [f.kind for f in found.findings] == [FindingKind.RESHAPED] * 2
    assert found.summary is not None
    assert "field.reshape(42, 40, 42, 3)" in found.summary.fix


def test_one_pair_that_went_wrong_does_not_accuse_a_task() -> None:
    truth = scene().field
    found = examine_task(pairs(truth, truth, truth, -truth))
    assert (found.summary, found.findings) == (None, ())
    assert examine_task(pairs(0 * truth, 0 * truth)).findings == ()
    assert examine_task([]).findings == ()


def test_another_shape_is_an_error() -> None:
    with pytest.raises(FieldError, match=r"expected a field on \(84, 80, 84\) or half of it"):
        examine_meaning(scene().field[:, :-1], scene().fixed, scene().moving)
    with pytest.raises(FieldError, match=r"expected a field \(3, X, Y, Z\)"):
        examine_meaning(np.moveaxis(scene().field, 0, 3), scene().fixed, scene().moving)
