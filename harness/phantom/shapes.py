"""A canvas of tissue codes and the few solids that anatomy is painted with.

World frame of a canvas: millimetres from the grid's centre, x to the patient's right, y to the
front, z to the head (RAS+). Its coordinates carry a small random wobble, so that every solid
painted with them comes out organic and no two subjects look alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from harness.phantom.splines import Shape, smooth_noise

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    Float32 = npt.NDArray[np.float32]
    Bool = npt.NDArray[np.bool_]

Point = tuple[float, float, float]
Box = tuple[slice, slice, slice]

WOBBLE_MARGIN_MM = 8.0  # how much larger than a solid its box is: the wobble stays below it


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """Tissue codes on a grid with the world coordinates (mm) of every voxel."""

    spacing_mm: Point
    tissue: npt.NDArray[np.uint8]  # (X, Y, Z)
    x: Float32  # (X, Y, Z) mm, wobbled; likewise y and z
    y: Float32
    z: Float32

    @property
    def shape(self) -> Shape:
        """The grid's shape."""
        nx, ny, nz = self.tissue.shape
        return nx, ny, nz

    def paint(self, inside: Bool, tissue: int) -> None:
        """Set the tissue of every voxel of a whole-grid mask."""
        self.tissue[inside] = tissue

    def box(self, centre: Point, reach_mm: float | Point) -> Box:
        """The voxels within `reach_mm` of a point along each axis, clipped to the grid."""
        reach = (reach_mm,) * 3 if isinstance(reach_mm, int | float) else reach_mm
        ranges = zip(centre, reach, self.spacing_mm, self.shape, strict=True)
        spans = [
            (int((c - r) / s + 0.5 * (n - 1)), int((c + r) / s + 0.5 * (n - 1)) + 2, n)
            for c, r, s, n in ranges
        ]
        i, j, k = (slice(min(max(a, 0), n), min(max(b, 0), n)) for a, b, n in spans)
        return i, j, k

    def ellipsoid(
        self, centre: Point, radii: Point, *, roll_deg: float = 0.0, tilt_deg: float = 0.0
    ) -> tuple[Box, Float32]:
        """A box and, in it, the ellipsoid's level: 0 at its centre, 1 on its surface.

        `roll_deg` turns about y (in the coronal plane), `tilt_deg` about z (in the axial plane).
        """
        turned = roll_deg != 0.0 or tilt_deg != 0.0
        reach = (max(radii),) * 3 if turned else radii
        margin = WOBBLE_MARGIN_MM
        box = self.box(centre, (reach[0] + margin, reach[1] + margin, reach[2] + margin))
        x, y, z = (
            a[box] - np.float32(c) for a, c in zip((self.x, self.y, self.z), centre, strict=True)
        )
        if roll_deg:
            c, s = np.cos(np.radians(roll_deg)), np.sin(np.radians(roll_deg))
            x, z = np.float32(c) * x + np.float32(s) * z, np.float32(c) * z - np.float32(s) * x
        if tilt_deg:
            c, s = np.cos(np.radians(tilt_deg)), np.sin(np.radians(tilt_deg))
            x, y = np.float32(c) * x + np.float32(s) * y, np.float32(c) * y - np.float32(s) * x
        rx, ry, rz = (np.float32(r) for r in radii)
        return box, np.sqrt((x / rx) ** 2 + (y / ry) ** 2 + (z / rz) ** 2)

    def paint_ellipsoid(
        self,
        centre: Point,
        radii: Point,
        tissue: int,
        *,
        roll_deg: float = 0.0,
        tilt_deg: float = 0.0,
        over: Iterable[int] | None = None,
    ) -> None:
        """Paint a solid ellipsoid, where `over` is given only onto those tissues."""
        box, level = self.ellipsoid(centre, radii, roll_deg=roll_deg, tilt_deg=tilt_deg)
        inside = level < 1.0
        if over is not None:
            inside &= np.isin(self.tissue[box], list(over))
        self.tissue[box][inside] = tissue

    def paint_tube(
        self,
        points: npt.NDArray[np.float64],
        radius_mm: float,
        tissue: int,
        over: Iterable[int] | None = None,
    ) -> None:
        """Paint a round tube along the polyline `points`, (N, 3) mm."""
        for start, end in pairwise(points):
            box, distance = self.segment_distance(start, end, radius_mm + WOBBLE_MARGIN_MM)
            inside = distance < radius_mm
            if over is not None:
                inside &= np.isin(self.tissue[box], list(over))
            self.tissue[box][inside] = tissue

    def segment_distance(
        self, start: npt.NDArray[np.float64], end: npt.NDArray[np.float64], reach_mm: float
    ) -> tuple[Box, Float32]:
        """A box around a line segment and, in it, the distance to the segment in wobbled mm."""
        middle = 0.5 * (start + end)
        half = 0.5 * np.abs(end - start) + reach_mm
        box = self.box((middle[0], middle[1], middle[2]), (half[0], half[1], half[2]))
        along = (end - start).astype(np.float32)
        length2 = max(float(along @ along), 1e-6)
        x, y, z = (
            a[box] - np.float32(c) for a, c in zip((self.x, self.y, self.z), start, strict=True)
        )
        t = np.clip((x * along[0] + y * along[1] + z * along[2]) / np.float32(length2), 0, 1)
        x -= t * along[0]
        y -= t * along[1]
        z -= t * along[2]
        return box, np.sqrt(x * x + y * y + z * z)


def blank_canvas(
    rng: np.random.Generator, shape: Shape, spacing_mm: Point, *, wobble_mm: float, scale_mm: float
) -> Canvas:
    """An empty canvas (tissue 0) with coordinates that wobble by `wobble_mm` over `scale_mm`."""
    coordinates = []
    for axis, (n, s) in enumerate(zip(shape, spacing_mm, strict=True)):
        ramp = (np.arange(n, dtype=np.float32) - 0.5 * (n - 1)) * np.float32(s)
        view = [1, 1, 1]
        view[axis] = n
        noise = smooth_noise(rng, shape, scale_mm / min(spacing_mm))
        coordinates.append(ramp.reshape(view) + np.float32(wobble_mm) * noise)
    x, y, z = coordinates
    return Canvas(spacing_mm=spacing_mm, tissue=np.zeros(shape, dtype=np.uint8), x=x, y=y, z=z)


def smoothstep(value: Float32, low: float, high: float) -> Float32:
    """0 below `low`, 1 above `high`, a smooth ramp between (high < low ramps downwards)."""
    t = np.clip((value - np.float32(low)) / np.float32(high - low), 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t), dtype=np.float32)
