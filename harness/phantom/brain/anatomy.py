"""task_03: one template brain, painted once, that every subject is a deformed copy of."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from harness.phantom.shapes import Canvas, Point, blank_canvas, smoothstep
from harness.phantom.splines import smooth_noise

if TYPE_CHECKING:
    import numpy.typing as npt

    from harness.phantom.shapes import Bool, Float32

SHAPE = (160, 192, 224)
SPACING_MM: Point = (1.0, 1.0, 1.0)


class Label(IntEnum):
    """The 19 left-sided and midline structures, numbered as in the released label maps."""

    WHITE_MATTER = 1
    CORTEX = 2
    LATERAL_VENTRICLE = 3
    INFERIOR_VENTRICLE = 4
    CEREBELLUM_WHITE = 5
    CEREBELLUM_CORTEX = 6
    THALAMUS = 7
    CAUDATE = 8
    PUTAMEN = 9
    PALLIDUM = 10
    THIRD_VENTRICLE = 11
    FOURTH_VENTRICLE = 12
    BRAIN_STEM = 13
    HIPPOCAMPUS = 14
    AMYGDALA = 15
    ACCUMBENS = 16
    VENTRAL_DC = 17
    VESSEL = 18
    CHOROID_PLEXUS = 19


MIDLINE = (Label.THIRD_VENTRICLE, Label.FOURTH_VENTRICLE, Label.BRAIN_STEM)
LABEL_COUNT = 35

# T1-weighted, arbitrary units: white matter brightest, fluid darkest.
INTENSITY: dict[int, float] = {
    0: 0,
    Label.WHITE_MATTER: 820,
    Label.CORTEX: 540,
    Label.LATERAL_VENTRICLE: 150,
    Label.INFERIOR_VENTRICLE: 170,
    Label.CEREBELLUM_WHITE: 790,
    Label.CEREBELLUM_CORTEX: 520,
    Label.THALAMUS: 660,
    Label.CAUDATE: 560,
    Label.PUTAMEN: 600,
    Label.PALLIDUM: 715,
    Label.THIRD_VENTRICLE: 160,
    Label.FOURTH_VENTRICLE: 160,
    Label.BRAIN_STEM: 760,
    Label.HIPPOCAMPUS: 520,
    Label.AMYGDALA: 545,
    Label.ACCUMBENS: 575,
    Label.VENTRAL_DC: 690,
    Label.VESSEL: 260,
    Label.CHOROID_PLEXUS: 340,
}
FLUID = 170.0
CORTEX_MM = 3.3
SULCUS_DEPTH_MM = 18.0
SULCUS_SCALE_MM = 4.8


@dataclass(frozen=True, kw_only=True)
class Brain:
    """The template: clean intensity, labels 0 to 35 and the brain mask, each (X, Y, Z)."""

    image: Float32
    labels: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8]


def paint_brain(rng: np.random.Generator) -> Brain:
    """The anatomy that all subjects of one seed share."""
    canvas = blank_canvas(rng, SHAPE, SPACING_MM, wobble_mm=1.3, scale_mm=20.0)
    hull, fluid = _paint_cerebrum(rng, canvas)
    folia = _paint_cerebellum(rng, canvas, hull)
    _paint_stem(canvas)
    for side in (-1.0, 1.0):
        _paint_deep(canvas, side)
    _paint_midline(canvas)
    labels = canvas.tissue
    mask = ndimage.binary_dilation(labels > 0, iterations=2)
    mask = ndimage.binary_closing(mask, iterations=2)

    image = np.array([INTENSITY[i] for i in range(len(INTENSITY))], dtype=np.float32)[labels]
    image[mask & (labels == 0)] = FLUID
    fluid *= np.isin(labels, (Label.CORTEX, Label.WHITE_MATTER))
    folia *= labels == Label.CEREBELLUM_CORTEX
    image += np.maximum(fluid, folia) * (FLUID - image)
    image = ndimage.gaussian_filter(image, 0.6)
    return Brain(image=image, labels=sided(labels, canvas.x > 0), mask=mask.astype(np.uint8))


def sided(labels: npt.NDArray[np.uint8], is_right: Bool) -> npt.NDArray[np.uint8]:
    """Give the structures of the right side their own numbers, 20 to 35."""
    right = np.arange(len(Label) + 1, dtype=np.uint8)
    for label in Label:
        if label not in MIDLINE:
            right[label] = label + (19 if label < Label.THIRD_VENTRICLE else 16)
    return np.where(is_right, right[labels], labels)


def _depth(canvas: Canvas, centre: Point, radii: Point, power: float = 2.0) -> Float32:
    """Approximate depth (mm) below the surface of a superellipsoid, negative outside."""
    x, y, z = (
        np.abs((a - np.float32(c)) / np.float32(r)) ** np.float32(power)
        for a, c, r in zip((canvas.x, canvas.y, canvas.z), centre, radii, strict=True)
    )
    level = (x + y + z) ** np.float32(1 / power)
    return np.asarray((1.0 - level) * min(radii), dtype=np.float32)


def _cerebrum_depth(canvas: Canvas) -> tuple[Float32, Float32]:
    """Depth (mm) below the hull of both hemispheres, and below the part of it that has sulci."""
    dome = _depth(canvas, (0.0, 0.0, 8.0), (67.0, 85.0, 62.0), 2.25)
    temporal = np.full(SHAPE, -50.0, dtype=np.float32)
    for side in (-1.0, 1.0):
        lobe = _depth(canvas, (side * 42.0, 2.0, -22.0), (23.0, 46.0, 22.0), 2.2)
        np.maximum(temporal, lobe, out=temporal)
    floor = (canvas.z + 18.0) + 0.10 * canvas.y  # the frontal and occipital lobes rest on it
    folded = np.maximum(dome - 4.0 * (canvas.z < -18.0), temporal)
    return np.maximum(np.minimum(dome, floor), temporal), folded


def _sulcus_distance(rng: np.random.Generator, canvas: Canvas) -> Float32:
    """Distance (mm) to the nearest sulcal sheet: zero levels of noise drawn along the radius."""
    x, y, z = canvas.x, canvas.y, canvas.z - np.float32(5.0)
    level = np.sqrt((x / 67.0) ** 2 + (y / 85.0) ** 2 + (z / 62.0) ** 2) + np.float32(1e-3)
    stretch = (0.75 + 0.25 * level) / level  # sheets stand upright on the surface
    half = [0.5 * (n - 1) for n in SHAPE]
    noise = smooth_noise(rng, SHAPE, SULCUS_SCALE_MM)
    slope = np.sqrt(sum(np.square(g) for g in np.gradient(noise)))
    coordinates = np.stack([x * stretch + half[0], y * stretch + half[1], z * stretch + half[2]])
    value = ndimage.map_coordinates(noise, coordinates, order=1, mode="reflect")
    steep = ndimage.map_coordinates(slope, coordinates, order=1, mode="reflect") * stretch
    return np.asarray(np.abs(value) / (steep + 0.02), dtype=np.float32)


def _fissure_distance(canvas: Canvas) -> Float32:
    """Distance (mm) to the cleft between the hemispheres and to both lateral (Sylvian) ones."""
    x, y, z = np.abs(canvas.x), canvas.y, canvas.z
    callosum = np.sqrt((y + 4.0) ** 2 / 46.0**2 + (z - 6.0) ** 2 / 25.0**2)
    medial = np.hypot(x, np.maximum((1.0 - callosum) * 25.0, 0.0))
    outside = np.maximum(34.0 - x, 0.0) + np.maximum(np.abs(y - 4.0) - 34.0, 0.0)
    lateral = np.hypot(z + 5.0 - 0.22 * y, outside)
    return np.asarray(np.minimum(medial, lateral), dtype=np.float32)


def _paint_cerebrum(rng: np.random.Generator, canvas: Canvas) -> tuple[Float32, Float32]:
    """Cortex and white matter; gives the hull's depth and the fluid's share in the folds."""
    hull, folded = _cerebrum_depth(canvas)
    sulcus = np.hypot(_sulcus_distance(rng, canvas), np.maximum(folded - SULCUS_DEPTH_MM, 0.0))
    sheet = np.minimum(sulcus, _fissure_distance(canvas))
    surface = hull - 2.2 * np.exp(-((sheet / 2.6) ** 2))  # gyri bulge between the sulci
    inside = surface > 0.0
    canvas.paint(inside, Label.WHITE_MATTER)
    canvas.paint(inside & (np.minimum(surface, sheet) < CORTEX_MM), Label.CORTEX)
    return hull, smoothstep(sheet, 1.2, 0.3)


def _paint_cerebellum(rng: np.random.Generator, canvas: Canvas, hull: Float32) -> Float32:
    """Cerebellum below the cerebrum; gives the share of fluid between its leaves."""
    centre: Point = (0.0, -50.0, -40.0)
    depth = _depth(canvas, centre, (50.0, 32.0, 25.0), 2.2)
    inside = (depth > 0) & (hull < -1.0)
    canvas.paint(inside, Label.CEREBELLUM_CORTEX)
    rough = 2.5 * smooth_noise(rng, SHAPE, 4.0)
    canvas.paint(inside & (depth + rough > 10.5), Label.CEREBELLUM_WHITE)
    radial = np.hypot(canvas.z - centre[2], 0.8 * (canvas.y - centre[1]))
    angle = np.arctan2(canvas.z - centre[2], canvas.y + 28.0)
    leaf = np.cos(26.0 * angle + 0.08 * radial + 0.5 * rough)
    return 0.55 * smoothstep(leaf, 0.6, 1.0)


def _paint_stem(canvas: Canvas) -> None:
    stem = np.array([[0, -12, -4], [0, -15, -30], [0, -26, -62], [0, -32, -84]], dtype=np.float64)
    over = (0, Label.WHITE_MATTER, Label.CORTEX, Label.CEREBELLUM_CORTEX, Label.CEREBELLUM_WHITE)
    canvas.paint_tube(stem[:2], 12.5, Label.BRAIN_STEM, over)
    canvas.paint_tube(stem[1:], 9.5, Label.BRAIN_STEM, over)
    canvas.paint_ellipsoid((0.0, -13.0, -34.0), (19.0, 14.0, 15.0), Label.BRAIN_STEM, over=over)


def _paint_deep(canvas: Canvas, side: float) -> None:
    """The nuclei and ventricles of one hemisphere; x is mirrored by `side`."""

    def at(*points: Point) -> npt.NDArray[np.float64]:
        return np.array(points, dtype=np.float64) * [side, 1.0, 1.0]

    def solid(
        label: Label, centre: Point, radii: Point, roll: float = 0.0, tilt: float = 0.0
    ) -> None:
        mirrored: Point = (side * centre[0], centre[1], centre[2])
        canvas.paint_ellipsoid(mirrored, radii, label, roll_deg=side * roll, tilt_deg=side * tilt)

    white = (Label.WHITE_MATTER, Label.CORTEX)
    canvas.paint_ellipsoid(
        (side * 24.0, 0.0, 2.0), (18.0, 34.0, 20.0), Label.WHITE_MATTER, over=white
    )
    horn = at((24, -32, 10), (33, -24, -10), (34, 0, -19))
    canvas.paint_tube(at((10, -24, -12), (28, -34, 2)), 7.0, Label.WHITE_MATTER, white)
    solid(Label.VENTRAL_DC, (10.0, -9.0, -8.0), (8.5, 10.0, 6.5))
    solid(Label.THALAMUS, (12.0, -13.0, 7.0), (9.5, 16.5, 10.5), tilt=-20)
    solid(Label.PALLIDUM, (19.5, 2.0, -1.0), (6.5, 11.5, 8.5), tilt=-15)
    box, putamen = canvas.ellipsoid(
        (side * 26.5, 4.0, 1.0), (8.5, 19.5, 12.5), tilt_deg=-12.0 * side
    )
    free = canvas.tissue[box] != Label.PALLIDUM
    canvas.tissue[box][(putamen < 1.0) & free] = Label.PUTAMEN
    canvas.paint_tube(
        at((15, 22, 6), (19, 6, 20), (24, -14, 21), (28, -28, 16)), 5.8, Label.CAUDATE
    )
    solid(Label.CAUDATE, (14.0, 23.0, 6.0), (7.5, 12.0, 10.5))
    solid(Label.ACCUMBENS, (11.0, 17.0, -8.0), (6.5, 7.5, 6.5))
    solid(Label.AMYGDALA, (24.0, 4.0, -20.0), (9.0, 9.0, 8.5))
    canvas.paint_tube(horn, 5.2, Label.INFERIOR_VENTRICLE)
    canvas.paint_tube(at((25, -5, -20), (29, -18, -17), (25, -31, -6)), 6.5, Label.HIPPOCAMPUS)
    canvas.paint_tube(
        at((7, 30, 8), (10, 8, 16), (15, -14, 18), (24, -34, 12)), 6.8, Label.LATERAL_VENTRICLE
    )
    canvas.paint_tube(at((24, -34, 12), (25, -58, 6)), 5.6, Label.LATERAL_VENTRICLE)
    canvas.paint_tube(at((19, -22, 16), (26, -36, 10)), 5.0, Label.CHOROID_PLEXUS)
    solid(Label.VESSEL, (28.0, 4.0, -11.0), (4.7, 10.0, 4.7))


def _paint_midline(canvas: Canvas) -> None:
    canvas.paint_ellipsoid((0.0, -8.0, 2.0), (3.7, 17.0, 12.0), Label.THIRD_VENTRICLE)
    canvas.paint_ellipsoid((0.0, -31.0, -36.0), (8.0, 6.5, 10.0), Label.FOURTH_VENTRICLE)
