"""Liver, spleen and kidneys: the organs that the label maps name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.phantom.abdomen.tissue import KIDNEY, SHAPE, SPACING_MM, Tissue
from harness.phantom.trees import grow

if TYPE_CHECKING:
    from harness.phantom.shapes import Bool, Canvas, Point


def paint_liver(rng: np.random.Generator, canvas: Canvas, below: Bool) -> None:
    """A wedge under the right dome with portal and hepatic veins, cava and gallbladder."""
    x, y, z = canvas.x, canvas.y, canvas.z
    edge = 42.0 - 0.62 * (x + 45.0) - 0.15 * y + rng.uniform(-8, 8)
    bulk = ((x - 52.0) / 108.0) ** 2 + ((y - 8.0) / 92.0) ** 2 + ((z - 30.0) / 100.0) ** 2 < 1.0
    left_limit = (x > -62.0) & ((x > 8.0) | (y > 6.0 - 0.3 * x))
    spine_side = (x - 8.0) ** 2 + (y + 62.0) ** 2 > 52.0**2
    notch = ((x - 58.0) / 34.0) ** 2 + ((y + 58.0) / 34.0) ** 2 + ((z + 25.0) / 62.0) ** 2 > 1.0
    inside = below & bulk & left_limit & spine_side & notch & (z > edge)
    inside &= canvas.tissue != Tissue.AORTA
    canvas.paint(inside, Tissue.LIVER)
    canvas.paint_tube(
        np.array([[22, -28, 10], [24, -26, 60], [20, -24, 110]], dtype=np.float64),
        11.0,
        Tissue.VEIN,
    )
    canvas.paint_ellipsoid((44.0, 46.0, -6.0), (15.0, 14.0, 26.0), Tissue.GALLBLADDER, roll_deg=20)
    cells = np.argwhere(inside)
    centre = 0.5 * (np.array(SHAPE) - 1)
    for root, count, radius in (((25.0, -8.0, 20.0), 150, 6.5), ((22.0, -22.0, 72.0), 110, 6.0)):
        picked = cells[rng.integers(0, len(cells), count)]
        targets = (picked - centre + rng.uniform(-0.5, 0.5, picked.shape)) * SPACING_MM
        tree = grow(np.array(root), targets, root_radius_mm=radius, tip_radius_mm=1.2)
        for start, end, r in zip(tree.start, tree.end, tree.radius_mm, strict=True):
            canvas.paint_tube(
                np.stack([start, end]), float(r), Tissue.LIVER_VESSEL, (Tissue.LIVER,)
            )


def paint_spleen(canvas: Canvas, below: Bool) -> None:
    """A crescent behind the stomach, hollow towards the middle."""
    centre: Point = (-98.0, -36.0, 34.0)
    box, level = canvas.ellipsoid(centre, (33.0, 50.0, 60.0), roll_deg=-12.0, tilt_deg=-24.0)
    hollow_box, hollow = canvas.ellipsoid((-60.0, -16.0, 30.0), (25.0, 34.0, 60.0))
    inside = np.zeros(canvas.shape, dtype=bool)
    inside[box] = level < 1.0
    inside[hollow_box] &= hollow > 1.0
    canvas.paint(inside & below, Tissue.SPLEEN)


def paint_kidney(rng: np.random.Generator, canvas: Canvas, side: float) -> None:
    """A bean with cortex, pyramids and a fatty sinus open to the middle, in its own fat."""
    z = -26.0 if side > 0 else -8.0
    x = side * (60.0 + rng.uniform(-3, 3))
    turn = {"roll_deg": -12.0 * side, "tilt_deg": 25.0 * side}
    soft = (
        Tissue.LIVER,
        Tissue.LIVER_VESSEL,
        Tissue.SPLEEN,
        Tissue.GUT_WALL,
        Tissue.GUT_CONTENT,
        Tissue.GUT_CONTRAST,
        Tissue.GAS,
        Tissue.PANCREAS,
        Tissue.MUSCLE,
        Tissue.VISCERAL_FAT,
    )
    canvas.paint_ellipsoid(
        (x, -52.0, z), (35.0, 32.0, 66.0), Tissue.VISCERAL_FAT, over=soft, **turn
    )
    box, level = canvas.ellipsoid((x, -52.0, z), (28.0, 24.0, 56.0), **turn)
    tissue = canvas.tissue[box]
    tissue[level < 1.0] = Tissue.KIDNEY_CORTEX
    angle = np.arctan2(canvas.z[box] - z, side * (canvas.x[box] - x) + 14.0)
    pyramids = (level < 0.8) & (np.cos(9.0 * angle) > -0.35)
    tissue[pyramids] = Tissue.KIDNEY_MEDULLA
    sinus: Point = (x - side * 17.0, -46.0, z)
    canvas.paint_ellipsoid(sinus, (20.0, 12.0, 27.0), Tissue.VISCERAL_FAT, over=KIDNEY)
    canvas.paint_ellipsoid((sinus[0] - side * 4.0, -46.0, z), (12.0, 5.0, 14.0), Tissue.GUT_CONTENT)
