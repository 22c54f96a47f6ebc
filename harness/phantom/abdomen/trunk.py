"""The trunk around the organs: wall, chest, bones and great vessels; and the whole abdomen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.phantom.abdomen.gut import paint_bowel, paint_stomach
from harness.phantom.abdomen.organs import paint_kidney, paint_liver, paint_spleen
from harness.phantom.abdomen.tissue import SHAPE, SPACING_MM, Tissue
from harness.phantom.shapes import Canvas, Point, blank_canvas
from harness.phantom.skeleton import BoneTissues, paint_spine, rib_mask
from harness.phantom.trees import grow

if TYPE_CHECKING:
    from harness.phantom.shapes import Bool, Float32

BONES = BoneTissues(
    cortical=Tissue.CORTICAL, marrow=Tissue.MARROW, disc=Tissue.DISC, canal=Tissue.CANAL
)


def paint_abdomen(rng: np.random.Generator) -> Canvas:
    """One subject's abdomen on the task's grid."""
    canvas = blank_canvas(rng, SHAPE, SPACING_MM, wobble_mm=3.0, scale_mm=26.0)
    depth = _paint_trunk(rng, canvas)
    cavity = depth > 26.0
    dome = _diaphragm_height(rng, canvas)
    _paint_chest(rng, canvas, cavity, dome)
    _paint_skeleton(rng, canvas, depth)
    _paint_great_vessels(canvas)
    below = cavity & (canvas.z < dome - 5.0)
    paint_bowel(rng, canvas, below)
    paint_stomach(rng, canvas, below)
    paint_liver(rng, canvas, below)
    paint_spleen(canvas, below)
    for side in (1.0, -1.0):
        paint_kidney(rng, canvas, side)
    return canvas


def _paint_trunk(rng: np.random.Generator, canvas: Canvas) -> Float32:
    """Skin, fat, muscle wall and visceral fat; gives the depth below the skin in mm."""
    width, thickness = 152.0 + rng.uniform(-8, 8), 106.0 + rng.uniform(-6, 6)
    waist = 1.0 - 0.06 * np.exp(-(((canvas.z + 40.0) / 70.0) ** 2))
    level = (np.abs(canvas.x / (width * waist)) ** 2.4 + np.abs(canvas.y / thickness) ** 2.4) ** (
        1 / 2.4
    )
    depth = (1.0 - level) * np.float32(120.0)
    fat_mm = 11.0 + 5.0 * np.abs(canvas.x / width) ** 2
    canvas.paint(depth > 0, Tissue.SKIN)
    canvas.paint(depth > 2.0, Tissue.FAT)
    canvas.paint(depth > fat_mm, Tissue.MUSCLE)
    canvas.paint(depth > 26.0, Tissue.VISCERAL_FAT)
    for x in (-33.0, 33.0):  # the muscles along the spine
        canvas.paint_ellipsoid((x, -84.0, 0.0), (27.0, 17.0, 500.0), Tissue.MUSCLE)
        canvas.paint_ellipsoid((1.25 * x, -52.0, -130.0), (21.0, 21.0, 125.0), Tissue.MUSCLE)
    return np.asarray(depth, dtype=np.float32)


def _diaphragm_height(rng: np.random.Generator, canvas: Canvas) -> Float32:
    right, left = 98.0 + rng.uniform(-6, 6), 84.0 + rng.uniform(-6, 6)
    x, y = canvas.x, canvas.y
    right_dome = right - ((x - 62.0) / 62.0) ** 2 * 45.0 - ((y - 8.0) / 72.0) ** 2 * 55.0
    left_dome = left - ((x + 66.0) / 62.0) ** 2 * 45.0 - ((y - 8.0) / 72.0) ** 2 * 55.0
    return np.maximum(right_dome, left_dome)


def _paint_chest(rng: np.random.Generator, canvas: Canvas, cavity: Bool, dome: Float32) -> None:
    above = cavity & (canvas.z > dome)
    canvas.paint(cavity & (canvas.z > dome - 5.0), Tissue.MUSCLE)
    canvas.paint(above, Tissue.LUNG)
    mediastinum = np.abs(canvas.x + 4.0) < 20.0 + 0.15 * np.maximum(canvas.y, 0.0)
    canvas.paint(above & mediastinum, Tissue.VISCERAL_FAT)
    _paint_lung_vessels(rng, canvas, above)
    heart: Point = (-22.0, 28.0, 124.0)
    canvas.paint_ellipsoid(heart, (62.0, 50.0, 52.0), Tissue.VISCERAL_FAT, roll_deg=-25)
    canvas.paint_ellipsoid(heart, (58.0, 46.0, 48.0), Tissue.HEART_WALL, roll_deg=-25)
    canvas.paint_ellipsoid(
        (-30.0, 26.0, 121.0), (33.0, 24.0, 28.0), Tissue.HEART_BLOOD, roll_deg=-25
    )
    canvas.paint_ellipsoid((12.0, 38.0, 138.0), (27.0, 22.0, 34.0), Tissue.HEART_BLOOD)
    heart_tissues = (Tissue.HEART_WALL, Tissue.HEART_BLOOD)
    sunken = np.isin(canvas.tissue, heart_tissues) & (canvas.z < dome)
    canvas.paint(sunken, Tissue.VISCERAL_FAT)
    canvas.paint(cavity & (canvas.z < dome) & (canvas.z > dome - 5.0), Tissue.MUSCLE)


def _paint_lung_vessels(rng: np.random.Generator, canvas: Canvas, lungs: Bool) -> None:
    cells_mm = (np.argwhere(lungs) - 0.5 * (np.array(SHAPE) - 1)) * SPACING_MM
    for side in (1.0, -1.0):
        own = cells_mm[side * cells_mm[:, 0] > 25.0]
        targets = own[rng.integers(0, len(own), 130)]
        root = np.array([side * 25.0, -8.0, 165.0])
        tree = grow(root, targets, root_radius_mm=6.0, tip_radius_mm=1.3)
        for start, end, radius in zip(tree.start, tree.end, tree.radius_mm, strict=True):
            canvas.paint_tube(np.stack([start, end]), float(radius), Tissue.VEIN, (Tissue.LUNG,))


def _paint_skeleton(rng: np.random.Generator, canvas: Canvas, depth: Float32) -> None:
    phase = float(rng.uniform(0, 27))
    paint_spine(canvas, BONES, y_mm=-62.0, phase_mm=phase)
    margin = 0.55 * (canvas.y + 60.0) - 60.0  # the costal margin rises to the front
    ribs, marrow = rib_mask(canvas, depth - 22.5, phase_mm=phase)
    chest = (canvas.z > margin) & ((canvas.y < 75.0) | (np.abs(canvas.x) > 45.0))
    chest &= (canvas.y > 0) | (np.abs(canvas.x) > 26.0)
    canvas.paint(ribs & chest, Tissue.CORTICAL)
    canvas.paint(marrow & chest, Tissue.MARROW)
    for side in (1.0, -1.0):
        centre: Point = (side * 58.0, 8.0, -170.0)
        box, level = canvas.ellipsoid(centre, (66.0, 78.0, 72.0), tilt_deg=-12.0 * side)
        wing = (level > 0.86) & (level < 1.0) & (side * canvas.x[box] > 62.0)
        wing &= canvas.y[box] < 45.0
        canvas.tissue[box][wing] = Tissue.CORTICAL
        canvas.tissue[box][wing & (level > 0.9) & (level < 0.96)] = Tissue.MARROW


def _paint_great_vessels(canvas: Canvas) -> None:
    for x, y, radius, tissue in (
        (-13.0, -33.0, 10.5, Tissue.AORTA),
        (19.0, -30.0, 11.5, Tissue.VEIN),
    ):
        spine = np.array([[x, y - 4, 230.0], [x, y, 60.0], [x, y + 2, -60.0], [0.8 * x, y, -130.0]])
        canvas.paint_tube(spine, radius, tissue)
        fork = np.array([[0.8 * x, y, -130.0], [x * 2.6, y - 8.0, -230.0]])
        canvas.paint_tube(fork, 0.75 * radius, tissue)
        canvas.paint_tube(fork * [-0.9, 1, 1], 0.75 * radius, tissue)
    for side in (1.0, -1.0):  # renal veins
        run = np.array([[side * 10.0, -30.0, -8.0], [side * 52.0, -44.0, -14.0]])
        canvas.paint_tube(run, 5.0, Tissue.VEIN)
