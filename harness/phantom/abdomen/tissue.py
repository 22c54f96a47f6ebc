"""What an abdomen is made of, and what CT and MR make of it."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from harness.phantom.shapes import Point

SHAPE = (192, 160, 192)
SPACING_MM: Point = (2.0, 2.0, 2.0)


class Tissue(IntEnum):
    """What a voxel of the canvas is made of."""

    AIR = 0
    SKIN = 1
    FAT = 2
    MUSCLE = 3
    VISCERAL_FAT = 4
    LUNG = 5
    LIVER = 6
    LIVER_VESSEL = 7
    SPLEEN = 8
    KIDNEY_CORTEX = 9
    KIDNEY_MEDULLA = 10
    CORTICAL = 11
    MARROW = 12
    DISC = 13
    CANAL = 14
    AORTA = 15
    VEIN = 16
    GUT_WALL = 17
    GUT_CONTENT = 18
    GUT_CONTRAST = 19
    GAS = 20
    GALLBLADDER = 21
    PANCREAS = 22
    HEART_WALL = 23
    HEART_BLOOD = 24


class Contrast(NamedTuple):
    """A tissue's mean intensity in both modalities and how mottled it is, as a share of 1."""

    ct_hu: float
    mr: float
    mottle: float


# CT: venous phase, Hounsfield units. MR: T1-weighted, arbitrary units; fat is bright, fast blood
# and bone are dark, so that no monotonic map leads from one to the other.
CONTRASTS: dict[Tissue, Contrast] = {
    Tissue.AIR: Contrast(-1000, 0, 0),
    Tissue.SKIN: Contrast(20, 260, 0.2),
    Tissue.FAT: Contrast(-105, 900, 0.3),
    Tissue.MUSCLE: Contrast(58, 300, 0.8),
    Tissue.VISCERAL_FAT: Contrast(-95, 800, 1.2),
    Tissue.LUNG: Contrast(-830, 45, 0.8),
    Tissue.LIVER: Contrast(112, 500, 0.4),
    Tissue.LIVER_VESSEL: Contrast(178, 230, 0.1),
    Tissue.SPLEEN: Contrast(128, 285, 0.3),
    Tissue.KIDNEY_CORTEX: Contrast(205, 410, 0.3),
    Tissue.KIDNEY_MEDULLA: Contrast(150, 240, 0.3),
    Tissue.CORTICAL: Contrast(620, 70, 0.5),
    Tissue.MARROW: Contrast(210, 560, 1.0),
    Tissue.DISC: Contrast(85, 200, 0.3),
    Tissue.CANAL: Contrast(30, 150, 0.2),
    Tissue.AORTA: Contrast(185, 60, 0.1),
    Tissue.VEIN: Contrast(165, 170, 0.1),
    Tissue.GUT_WALL: Contrast(72, 350, 0.3),
    Tissue.GUT_CONTENT: Contrast(22, 180, 1.0),
    Tissue.GUT_CONTRAST: Contrast(260, 420, 1.0),
    Tissue.GAS: Contrast(-960, 5, 0),
    Tissue.GALLBLADDER: Contrast(8, 130, 0.1),
    Tissue.PANCREAS: Contrast(92, 470, 0.8),
    Tissue.HEART_WALL: Contrast(105, 330, 0.3),
    Tissue.HEART_BLOOD: Contrast(165, 90, 0.2),
}

LABELS: dict[int, tuple[Tissue, ...]] = {
    1: (Tissue.LIVER, Tissue.LIVER_VESSEL),
    2: (Tissue.SPLEEN,),
}
KIDNEY = (Tissue.KIDNEY_CORTEX, Tissue.KIDNEY_MEDULLA)  # label 3 right of x = 0, 4 left of it


def label_map(tissue: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """1 liver, 2 spleen, 3 right kidney, 4 left kidney, 0 elsewhere; (X, Y, Z)."""
    labels = np.zeros(tissue.shape, dtype=np.uint8)
    for label, tissues in LABELS.items():
        labels[np.isin(tissue, tissues)] = label
    kidneys = np.isin(tissue, KIDNEY)
    middle = tissue.shape[0] // 2
    labels[middle:][kidneys[middle:]] = 3
    labels[:middle][kidneys[:middle]] = 4
    return labels
