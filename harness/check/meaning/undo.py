"""NumPy lines that turn a field stored under a mistaken convention into the challenge's own.

They run as they are, one after the other, where ``np`` is NumPy, ``field`` the array as stored,
(3, X, Y, Z), ``image_shape`` the full-resolution shape and ``affine`` the fixed image's, (4, 4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

import numpy as np

from harness.check.findings import FindingKind
from harness.check.meaning.stored import SWAPS, Layout

if TYPE_CHECKING:
    from harness.challenge.model import Grid
    from harness.check.meaning.readings import Reading

COLUMN = "[:, None, None, None]"
PLACES = "*map(np.linspace, (0, 0, 0), np.array(image_shape) - 1, field.shape[1:])"
GRID = f'np.stack(np.meshgrid({PLACES}, indexing="ij"))'


def lines_to_undo(
    reading: Reading, *, field_grid: Grid, spacing_mm: tuple[float, float, float]
) -> tuple[str, ...]:
    """The lines, in the order they are to be done; none for the challenge's own convention.

    A field that goes backwards is left going backwards: to invert it takes more than a line.
    """
    kinds, positions = set(reading.kinds), reading.origin is not None
    lines = _layout(reading.layout, field_grid)
    if FindingKind.COMPONENTS_REVERSED in kinds:
        lines.append(_reversal(reading.layout))
    if FindingKind.NORMALISED in kinds:
        shifted = "(field + 1)" if positions else "field"
        lines.append(f"field = {shifted} * (np.array(image_shape){COLUMN} - 1) / 2")
    if FindingKind.LPS in kinds:
        lines.append("field[:2] *= -1")
    if FindingKind.MILLIMETRES in kinds:
        lines += _millimetres(reading, spacing_mm)
    if FindingKind.HALF_SIZE in kinds:
        lines.append("field = field * 2")
    if FindingKind.DOUBLE_SIZE in kinds:
        lines.append("field = field / 2")
    if positions:
        lines.append(f"field = field - {GRID}")
    if FindingKind.NEGATED in kinds:
        lines.append("field = -field")
    return tuple(lines)


def _layout(layout: Layout, field_grid: Grid) -> list[str]:
    x, y, z = field_grid
    match layout:
        case Layout.STORED:
            return []
        case Layout.SWAPPED_XY | Layout.SWAPPED_XZ | Layout.SWAPPED_YZ:
            first, second = SWAPS[layout]
            return [f"field = field.swapaxes({1 + first}, {1 + second})"]
        case Layout.LAST:
            return [f"field = field.reshape({x}, {y}, {z}, 3).transpose(3, 0, 1, 2)"]
        case Layout.LAST_ZYX:
            return [f"field = field.reshape({z}, {y}, {x}, 3).transpose(3, 2, 1, 0)"]
        case Layout.FIRST_ZYX:
            return [f"field = field.reshape(3, {z}, {y}, {x}).transpose(0, 3, 2, 1)"]
        case _:
            assert_never(layout)


def _reversal(layout: Layout) -> str:
    """Components go with the axes that were exchanged; otherwise all three are turned round."""
    if layout is Layout.SWAPPED_XY:
        return "field = field[[1, 0, 2]]"
    if layout is Layout.SWAPPED_YZ:
        return "field = field[[0, 2, 1]]"
    return "field = field[::-1]"


def _millimetres(reading: Reading, spacing_mm: tuple[float, float, float]) -> list[str]:
    """Division by the spacing where axes and world agree, else the inverse of the affine."""
    matrix = reading.stored_from_voxels
    if FindingKind.COMPONENTS_REVERSED in reading.kinds:
        matrix = matrix[::-1]
    if FindingKind.LPS in reading.kinds:
        matrix = np.diag([-1.0, -1.0, 1.0]) @ matrix
    if FindingKind.NEGATED in reading.kinds:
        matrix = -matrix
    lines = []
    if reading.origin is not None and reading.origin.any():
        lines.append(f"field = field - affine[:3, 3]{COLUMN}")
    if np.allclose(matrix, np.diag(spacing_mm), rtol=1e-3, atol=1e-3):
        spacing = ", ".join(f"{s:.6g}" for s in spacing_mm)
        lines.append(f"field = field / np.array([{spacing}]){COLUMN}")
    else:
        inverse = "np.linalg.inv(affine[:3, :3])"
        lines.append(f'field = np.einsum("ij,jxyz->ixyz", {inverse}, field)')
    return lines
