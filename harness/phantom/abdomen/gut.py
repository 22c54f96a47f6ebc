"""Stomach, pancreas, colon and small bowel."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from harness.phantom.abdomen.tissue import Tissue

if TYPE_CHECKING:
    import numpy.typing as npt

    from harness.phantom.shapes import Bool, Canvas

SMALL_BOWEL_LOOPS = 15


def paint_stomach(rng: np.random.Generator, canvas: Canvas, below: Bool) -> None:
    """The pancreas and, before it, a stomach half full with its gas at the front."""
    pancreas = np.array(
        [[34, 2, -18], [12, 14, -4], [-20, 6, 10], [-55, -16, 20], [-85, -34, 30]], dtype=np.float64
    )
    canvas.paint_tube(_refine(pancreas, rng, 3.0), 11.0, Tissue.PANCREAS)
    body = np.array(
        [[-42, -5, 66], [-68, 4, 46], [-62, 34, 16], [-28, 52, -4], [14, 44, 0]], dtype=np.float64
    )
    path = _refine(body, rng, 4.0)
    radii = np.interp(np.linspace(0, 1, len(path)), [0, 0.3, 0.7, 1], [20, 34, 26, 14])
    for shrink, tissue in ((0.0, Tissue.GUT_WALL), (5.0, Tissue.GUT_CONTENT)):
        for start, end, radius in zip(path[:-1], path[1:], radii, strict=False):
            box, distance = canvas.segment_distance(start, end, radius + 8.0)
            inside = (distance < radius - shrink) & below[box]
            canvas.tissue[box][inside] = tissue
            if tissue == Tissue.GUT_CONTENT:
                canvas.tissue[box][inside & (canvas.y[box] > 42.0)] = Tissue.GAS


def paint_bowel(rng: np.random.Generator, canvas: Canvas, below: Bool) -> None:
    """The colon's frame and, inside it, loops of small bowel that wander at random."""
    frame = np.array(
        [
            [98, -20, -120],
            [100, -12, -60],
            [92, 20, -28],
            [50, 58, -42],
            [0, 66, -58],
            [-55, 58, -40],
            [-98, 5, -8],
            [-108, -28, -60],
            [-100, -22, -130],
        ],
        dtype=np.float64,
    )
    _paint_loop(rng, canvas, below, _refine(frame, rng, 6.0), 20.0, gas_ratio=0.5)
    for _ in range(SMALL_BOWEL_LOOPS):
        point = np.array([rng.uniform(-75, 75), rng.uniform(0, 65), rng.uniform(-185, -50)])
        heading = rng.standard_normal(3)
        path = [point]
        for _ in range(24):
            heading = 0.75 * heading + 0.7 * rng.standard_normal(3) * [1.0, 1.0, 0.7]
            heading -= 0.006 * (path[-1] - [0.0, 28.0, -108.0])
            path.append(path[-1] + 9.0 * heading / np.linalg.norm(heading))
        _paint_loop(rng, canvas, below, np.array(path), rng.uniform(10.5, 13.5), gas_ratio=0.1)


def _paint_loop(
    rng: np.random.Generator,
    canvas: Canvas,
    below: Bool,
    path: npt.NDArray[np.float64],
    radius: float,
    *,
    gas_ratio: float,
) -> None:
    """Wall and content of a piece of gut; what fills it changes along the way."""
    filling = Tissue.GUT_CONTENT
    room = below & (canvas.tissue == Tissue.VISCERAL_FAT)  # loops push each other aside
    for start, end in pairwise(path):
        box, distance = canvas.segment_distance(start, end, radius + 8.0)
        tissue, free = canvas.tissue[box], room[box]
        if rng.random() < 0.3:
            pick = rng.random()
            filling = Tissue.GUT_CONTRAST if pick > 0.7 else Tissue.GUT_CONTENT
            if pick < gas_ratio:
                filling = Tissue.GAS
        wall = (distance < radius) & free & (tissue == Tissue.VISCERAL_FAT)
        tissue[wall] = Tissue.GUT_WALL
        lumen = (distance < radius - 3.0) & free
        tissue[lumen] = Tissue.GUT_CONTENT if filling == Tissue.GAS else filling
        if filling == Tissue.GAS:  # gas rises to the front of a patient lying on the back
            level = 0.5 * (start[1] + end[1]) - 0.15 * radius
            tissue[lumen & (canvas.y[box] > level)] = Tissue.GAS


def _refine(
    path: npt.NDArray[np.float64], rng: np.random.Generator, jitter_mm: float
) -> npt.NDArray[np.float64]:
    """The polyline resampled four times finer along smooth curves, its knots jittered."""
    knots = path + rng.uniform(-jitter_mm, jitter_mm, path.shape)
    fine = np.linspace(0, len(knots) - 1, 4 * (len(knots) - 1) + 1)
    straight = np.stack([np.interp(fine, np.arange(len(knots)), c) for c in knots.T], axis=1)
    inner = (straight[:-2] + 2 * straight[1:-1] + straight[2:]) / 4
    return np.vstack([straight[:1], inner, straight[-1:]])
