"""Spine and ribs, shared by the abdomen and the chest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from harness.phantom.shapes import Bool, Canvas, Float32


@dataclass(frozen=True, kw_only=True)
class BoneTissues:
    """The tissue codes that bones are painted with."""

    cortical: int
    marrow: int
    disc: int
    canal: int


VERTEBRA_MM = 32.0  # one vertebral body and its disc
DISC_MM = 8.0
RIB_PERIOD_MM = 27.0  # a rib and the space below it
RIB_SLOPE = 0.45  # ribs fall towards the front


def paint_spine(canvas: Canvas, bones: BoneTissues, *, y_mm: float, phase_mm: float = 0.0) -> None:
    """Paint a vertebral column whose bodies are centred on x = 0, y = `y_mm`."""
    half_width, depth = 23.0, 17.0
    columns = canvas.box((0.0, y_mm - 25.0, 0.0), (50.0, 60.0, 1e4))
    x, y, z = canvas.x[columns], canvas.y[columns], canvas.z[columns]
    tissue = canvas.tissue[columns]
    height = np.mod(z + np.float32(phase_mm), np.float32(VERTEBRA_MM))
    body = np.sqrt((x / half_width) ** 2 + ((y - y_mm) / depth) ** 2)
    is_disc = height < DISC_MM
    endplate = ~is_disc & ((height < DISC_MM + 2.5) | (height > VERTEBRA_MM - 2.5))
    tissue[body < 1.0] = bones.cortical
    tissue[(body < 0.87) & ~endplate] = bones.marrow
    tissue[(body < 0.98) & is_disc] = bones.disc

    canal = np.sqrt((x / 10.0) ** 2 + ((y - (y_mm - depth - 9.0)) / 8.5) ** 2)
    arch = (canal < 1.65) & (canal >= 1.0) & (body >= 1.0) & (height > 6.0)
    tissue[arch] = bones.cortical
    tissue[(canal < 1.0) & (body >= 1.0)] = bones.canal
    behind = y_mm - depth - 18.0
    spinous = (np.abs(x) < 3.8) & (y < behind) & (y > behind - 22.0) & (height > 10.0)
    spinous &= height < 26.0
    transverse = (np.abs(y - (y_mm - depth - 4.0)) < 4.5) & (np.abs(x) < 40.0) & (np.abs(x) > 12.0)
    transverse &= (height > 14.0) & (height < 24.0)
    tissue[spinous | transverse] = bones.cortical


def rib_mask(canvas: Canvas, shell: Float32, *, phase_mm: float = 0.0) -> tuple[Bool, Bool]:
    """Cortical and marrow masks of ribs in a shell given by its depth in mm (0 = its middle)."""
    position = np.mod(canvas.z + RIB_SLOPE * canvas.y + phase_mm, np.float32(RIB_PERIOD_MM))
    across = (position - np.float32(0.5 * RIB_PERIOD_MM)) / np.float32(6.5)
    level = across**2 + (shell / np.float32(4.5)) ** 2
    return level < 1.0, level < 0.36
