"""task_02: a chest at full inspiration as a canvas of tissues with its vessel trees."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from harness.phantom.shapes import Canvas, Point, blank_canvas
from harness.phantom.skeleton import BoneTissues, paint_spine, rib_mask
from harness.phantom.trees import Tree, grow

if TYPE_CHECKING:
    import numpy.typing as npt

    from harness.phantom.shapes import Bool, Float32

SHAPE = (192, 192, 208)
SPACING_MM: Point = (1.75, 1.25, 1.75)


class Tissue(IntEnum):
    """What a voxel of the canvas is made of."""

    AIR = 0
    SKIN = 1
    FAT = 2
    MUSCLE = 3
    LUNG = 4
    FISSURE = 5
    SOFT = 6
    BLOOD = 7
    CORTICAL = 8
    MARROW = 9
    DISC = 10
    FLUID = 11
    AIRWAY = 12
    AIRWAY_WALL = 13
    LIVER = 14
    SPLEEN = 15
    GAS = 16


HOUNSFIELD: dict[Tissue, float] = {
    Tissue.AIR: -1000,
    Tissue.SKIN: 10,
    Tissue.FAT: -100,
    Tissue.MUSCLE: 55,
    Tissue.LUNG: -865,
    Tissue.FISSURE: -760,
    Tissue.SOFT: -70,
    Tissue.BLOOD: 45,
    Tissue.CORTICAL: 560,
    Tissue.MARROW: 190,
    Tissue.DISC: 85,
    Tissue.FLUID: 28,
    Tissue.AIRWAY: -995,
    Tissue.AIRWAY_WALL: -180,
    Tissue.LIVER: 68,
    Tissue.SPLEEN: 52,
    Tissue.GAS: -960,
}
BONES = BoneTissues(
    cortical=Tissue.CORTICAL, marrow=Tissue.MARROW, disc=Tissue.DISC, canal=Tissue.FLUID
)
HILA: dict[float, Point] = {1.0: (40.0, -14.0, 24.0), -1.0: (-42.0, -14.0, 28.0)}
CARINA: Point = (0.0, -18.0, 46.0)
TIPS_PER_TREE = 620


@dataclass(frozen=True, kw_only=True)
class Chest:
    """A painted chest, its lung mask (X, Y, Z) and the share of vessel in each voxel, 0 to 1."""

    canvas: Canvas
    lungs: Bool
    vessel: Float32


def paint_chest(rng: np.random.Generator) -> Chest:
    """One subject's chest at full inspiration on the task's grid."""
    canvas = blank_canvas(rng, SHAPE, SPACING_MM, wobble_mm=2.5, scale_mm=28.0)
    wall = _paint_wall(rng, canvas)
    dome = _diaphragm_height(rng, canvas)
    _paint_below(canvas, wall, dome)
    lungs = _paint_lungs(canvas, wall, dome)
    _paint_mediastinum(canvas)
    paint_spine(canvas, BONES, y_mm=-56.0, phase_mm=float(rng.uniform(0, 27)))
    lungs &= canvas.tissue == Tissue.LUNG
    vessel = _paint_trees(rng, canvas, lungs)
    lungs &= np.isin(
        canvas.tissue, (Tissue.LUNG, Tissue.FISSURE, Tissue.AIRWAY, Tissue.AIRWAY_WALL)
    )
    return Chest(canvas=canvas, lungs=lungs, vessel=vessel)


def _paint_wall(rng: np.random.Generator, canvas: Canvas) -> Float32:
    """Skin to pleura; gives the distance from the pleura in mm, positive inside the thorax."""
    x, y, z = canvas.x, canvas.y, canvas.z
    shoulder = 1.0 / (1.0 + np.exp(-(z - 120.0) / 14.0))
    outer = np.sqrt(
        ((x / (154.0 + 30.0 * shoulder)) ** 2) ** 1.2 + ((y / (103.0 - 8 * shoulder)) ** 2) ** 1.2
    )
    depth = (1.0 - outer) * np.float32(115.0)
    canvas.paint(depth > 0, Tissue.SKIN)
    canvas.paint(depth > 2.0, Tissue.FAT)
    canvas.paint(depth > 10.0 + 4.0 * np.abs(x / 150.0), Tissue.MUSCLE)

    taper = np.clip((z + 20.0) / 178.0, 0.0, 0.985)
    narrowing = np.sqrt(1.0 - taper**2.6)
    width = (122.0 + rng.uniform(-4, 4)) * narrowing
    thickness = (84.0 + rng.uniform(-3, 3)) * (0.25 + 0.75 * narrowing)
    level = np.sqrt((x / width) ** 2 + ((y + 8.0 * taper) / thickness) ** 2)
    wall = np.asarray((1.0 - level) * np.minimum(width, 90.0), dtype=np.float32)
    ribs, marrow = rib_mask(canvas, wall + 8.0, phase_mm=float(rng.uniform(0, 27)))
    chest = (z > -150.0 + 0.9 * (y + 20.0)) & ((np.abs(x) > 24.0) | (y < 0.0)) & (z < 150.0)
    chest &= (np.abs(x) > 34.0) | (y > 0.0)
    canvas.paint(ribs & chest, Tissue.CORTICAL)
    canvas.paint(marrow & chest, Tissue.MARROW)
    sternum = (np.abs(x) < 17.0) & (np.abs(wall + 8.0) < 5.0) & (y > 0) & (z > -60.0) & (z < 110.0)
    canvas.paint(sternum, Tissue.CORTICAL)
    canvas.paint(sternum & (np.abs(x) < 14.5) & (np.abs(wall + 8.0) < 2.8), Tissue.MARROW)
    for side in (1.0, -1.0):
        blade = np.array([[side * 96, -78, 132], [side * 84, -86, 60], [side * 78, -86, 20]], float)
        canvas.paint_tube(blade, 5.0, Tissue.CORTICAL, (Tissue.MUSCLE, Tissue.FAT))
        collar = np.array(
            [[side * 16, 56, 128], [side * 70, 40, 142], [side * 130, -10, 150]], float
        )
        canvas.paint_tube(collar, 6.5, Tissue.CORTICAL)
        canvas.paint_tube(collar, 4.0, Tissue.MARROW)
    return wall


def _diaphragm_height(rng: np.random.Generator, canvas: Canvas) -> Float32:
    right, left = -72.0 + rng.uniform(-6, 6), -84.0 + rng.uniform(-6, 6)
    x, y = canvas.x, canvas.y
    right_dome = right - ((x - 60.0) / 62.0) ** 2 * 34.0 - ((y - 12.0) / 66.0) ** 2 * 38.0
    left_dome = left - ((x + 62.0) / 62.0) ** 2 * 34.0 - ((y - 12.0) / 66.0) ** 2 * 38.0
    return np.maximum(np.maximum(right_dome, left_dome), np.float32(-150.0))


def _paint_below(canvas: Canvas, wall: Float32, dome: Float32) -> None:
    x, y, z = canvas.x, canvas.y, canvas.z
    below = (wall > -2.0) & (z < dome)
    canvas.paint(below, Tissue.MUSCLE)
    room = below & (z < dome - 4.0) & (wall > 3.0)
    canvas.paint(room, Tissue.FAT)
    canvas.paint(room & (x + 0.4 * y > -8.0), Tissue.LIVER)
    canvas.paint_ellipsoid(
        (-88.0, -34.0, -135.0), (22.0, 34.0, 34.0), Tissue.SPLEEN, over=(Tissue.FAT,)
    )
    box, level = canvas.ellipsoid((-50.0, 24.0, -122.0), (36.0, 34.0, 34.0))
    tissue = canvas.tissue[box]
    free = tissue == Tissue.FAT
    tissue[free & (level < 1.0)] = Tissue.MUSCLE
    tissue[free & (level < 0.88)] = Tissue.FLUID
    tissue[free & (level < 0.88) & (y[box] > 26.0)] = Tissue.GAS


def _paint_lungs(canvas: Canvas, wall: Float32, dome: Float32) -> Bool:
    x, y, z = canvas.x, canvas.y, canvas.z
    middle = 26.0 - 16.0 * np.clip((z - 60.0) / 60.0, 0, 1)
    middle -= 16.0 * np.clip((y - 30.0) / 30.0, 0, 1)
    thorax = (wall > 0) & (z >= dome) & (z < 156.0)
    canvas.paint(thorax, Tissue.SOFT)
    lungs = thorax & (np.abs(x + 3.0) > middle)
    canvas.paint(lungs, Tissue.LUNG)
    return np.asarray(lungs)


def _paint_mediastinum(canvas: Canvas) -> None:
    heart: Point = (-24.0, 26.0, -44.0)
    canvas.paint_ellipsoid(
        (-20.0, 26.0, -44.0), (56.0, 44.0, 56.0), Tissue.SOFT, roll_deg=-28, over=(Tissue.LUNG,)
    )
    canvas.paint_ellipsoid(
        heart, (50.0, 39.0, 50.0), Tissue.BLOOD, roll_deg=-28, over=(Tissue.SOFT, Tissue.LUNG)
    )
    canvas.paint_ellipsoid(
        (16.0, 26.0, -18.0), (26.0, 28.0, 40.0), Tissue.BLOOD, over=(Tissue.SOFT, Tissue.LUNG)
    )
    soft = (Tissue.SOFT, Tissue.LUNG, Tissue.MUSCLE, Tissue.FAT)
    arch = np.array(
        [
            [8, 14, 10],
            [12, 14, 50],
            [2, 4, 74],
            [-14, -18, 78],
            [-22, -38, 62],
            [-22, -42, 0],
            [-14, -38, -90],
            [-8, -38, -190],
        ],
        dtype=np.float64,
    )
    canvas.paint_tube(arch, 13.0, Tissue.BLOOD, soft)
    cava = np.array([[22, 10, 0], [22, 10, 60], [18, 8, 110]], dtype=np.float64)
    canvas.paint_tube(cava, 9.0, Tissue.BLOOD, soft)
    for x in (-10.0, 12.0):
        carotid = np.array([[0.5 * x, 0, 74], [x * 1.6, -2, 190]], dtype=np.float64)
        canvas.paint_tube(carotid, 5.0, Tissue.BLOOD, soft)
    for side, hilum in HILA.items():
        artery = np.array([[-8.0, 8.0, 34.0], [side * 20.0, -6.0, 34.0], hilum])
        canvas.paint_tube(artery, 10.0, Tissue.BLOOD, soft)
    throat = np.array([[0, -4, 190], [0, -12, 120], CARINA], dtype=np.float64)
    bronchi = [np.array([CARINA, hilum]) for hilum in HILA.values()]
    for path, radius in ((throat, 9.0), *((b, 6.5) for b in bronchi)):
        canvas.paint_tube(path, radius + 2.0, Tissue.AIRWAY_WALL, (*soft, Tissue.BLOOD))
    for path, radius in ((throat, 9.0), *((b, 6.5) for b in bronchi)):
        canvas.paint_tube(path, radius, Tissue.AIRWAY)


def _paint_trees(rng: np.random.Generator, canvas: Canvas, lungs: Bool) -> Float32:
    """Fissures, bronchi, arteries and veins of both lungs; gives the vessel share a voxel."""
    x, y, z = canvas.x, canvas.y, canvas.z
    oblique = np.abs(0.82 * (z - 10.0) + 0.57 * (y + 10.0))
    horizontal = np.abs(z - 22.0 - 0.1 * y)
    front = (x > 0) & (0.82 * (z - 10.0) + 0.57 * (y + 10.0) > 0)
    canvas.paint(lungs & ((oblique < 0.9) | (front & (horizontal < 0.8))), Tissue.FISSURE)
    vessel = np.zeros(SHAPE, dtype=np.float32)
    cells = np.argwhere(lungs)
    centre = 0.5 * (np.array(SHAPE) - 1)
    cells_mm = (cells - centre) * SPACING_MM
    for side, hilum in HILA.items():
        own = cells_mm[np.sign(cells_mm[:, 0]) == side]
        root = np.array(hilum)
        airways = grow(root, _pick(rng, own, 45), root_radius_mm=5.2, tip_radius_mm=1.0)
        _paint_airways(canvas, airways)
        for shift, radius in (((0.0, 6.0, 8.0), 7.0), ((-4.0 * side, -2.0, -12.0), 6.5)):
            targets = _pick(rng, own, TIPS_PER_TREE)
            tree = grow(root + shift, targets, root_radius_mm=radius, tip_radius_mm=0.7)
            _draw(vessel, canvas, tree)
    vessel[~lungs] = 0.0
    return vessel


def _pick(
    rng: np.random.Generator, points: npt.NDArray[np.float64], count: int
) -> npt.NDArray[np.float64]:
    chosen = points[rng.integers(0, len(points), count)]
    return np.asarray(chosen + rng.uniform(-0.8, 0.8, chosen.shape))


def _paint_airways(canvas: Canvas, tree: Tree) -> None:
    wide = (tree.radius_mm > 1.9) & (np.linalg.norm(tree.start - tree.start[0], axis=1) < 55.0)
    branches = list(zip(tree.start[wide], tree.end[wide], tree.radius_mm[wide], strict=True))
    lung = (Tissue.LUNG, Tissue.FISSURE, Tissue.AIRWAY_WALL)
    for start, end, radius in branches:
        canvas.paint_tube(np.stack([start, end]), float(radius) + 1.2, Tissue.AIRWAY_WALL, lung)
    for start, end, radius in branches:
        canvas.paint_tube(np.stack([start, end]), float(radius), Tissue.AIRWAY, lung)


def _draw(vessel: Float32, canvas: Canvas, tree: Tree) -> None:
    """Add the tree's tubes to the vessel share with soft, subvoxel-true walls."""
    voxel_mm = np.float32(1.5)
    for start, end, radius in zip(tree.start, tree.end, tree.radius_mm, strict=True):
        box, distance = canvas.segment_distance(start, end, float(radius) + 5.0)
        share = np.clip((np.float32(radius) - distance) / voxel_mm + np.float32(0.5), 0, 1)
        np.maximum(vessel[box], share, out=vessel[box])
