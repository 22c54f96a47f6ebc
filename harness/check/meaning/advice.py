"""The sentences: what a verdict means to the people who wrote the field, and what to change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.check.findings import Finding, FindingKind, Severity
from harness.check.meaning.decide import MAX_FOLDED_PERCENT, WILD_SHARE
from harness.check.meaning.stored import Layout
from harness.check.meaning.structure import MIN_JUMP_SAMPLES
from harness.check.meaning.undo import lines_to_undo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.check.meaning.decide import TaskVerdict, Verdict
    from harness.check.meaning.evidence import Evidence, Support
    from harness.check.meaning.readings import Reading

EXPECTED = (
    "displacements only, components x, y, z, in full-resolution voxels, "
    "from a voxel of the fixed image to its place in the moving image"
)
NAMES = {
    FindingKind.NORMALISED: "normalised to -1..1",
    FindingKind.MILLIMETRES: "in millimetres",
    FindingKind.HALF_SIZE: "half as large as they should be (voxels of the half grid)",
    FindingKind.DOUBLE_SIZE: "twice as large as they should be",
    FindingKind.COMPONENTS_REVERSED: "with components z, y, x",
    FindingKind.AXES_SWAPPED: "with two spatial axes in each other's place",
    FindingKind.RESHAPED: "reshaped where a transpose was meant",
    FindingKind.IDENTITY_INCLUDED: "positions, the identity grid included",
    FindingKind.NEGATED: "with the sign turned round",
    FindingKind.DIRECTION_SWAPPED: "from the moving image to the fixed one",
    FindingKind.LPS: "with x and y negated, as in ITK's LPS axes",
}
PLUGIN_TIP = (
    "a method plugin may instead return DisplacementField(array=..., "
    "convention=Convention.GRID_SAMPLE) with the array still (X, Y, Z, 3)"
)
CONVERT_TIPS = {
    FindingKind.NORMALISED: "for files as PyTorch has them: harness convert --from grid-sample",
    FindingKind.LPS: "for files as ITK or ANTs write them: harness convert --from itk",
}
EXCHANGE_TIP = (
    "exchange the images where the method is called, the moving one is the one that is warped; "
    "or invert the field"
)
HALFWAY_TIP = (
    "if the unit is right, the method stops at half of the way everywhere: regularise less"
)
MESHGRID_TIP = 'np.meshgrid exchanges x and y unless it is told indexing="ij"'


def finding(evidence: Evidence, verdict: Verdict) -> Finding | None:
    """What to tell about one pair; None where there is nothing."""
    if verdict.support is not None:
        reading = verdict.support.reading
        return _warning(
            kind=reading.kinds[0],
            pair=evidence.pair,
            found=f"values that look {named(reading)}: {_why(evidence, verdict.support)}",
            fix=fix(reading, evidence),
        )
    return None if verdict.shape is None else _about_shape(evidence, verdict.shape)


def summary(verdict: TaskVerdict, evidences: Sequence[Evidence]) -> Finding | None:
    """What to tell about the task as a whole; None where its pairs share no mistake."""
    if (shared := verdict.shared) is None:
        return None
    share = "all" if verdict.agreeing == verdict.asked else f"{verdict.agreeing} of"
    return _warning(
        kind=shared.reading.kinds[0],
        pair=None,
        found=f"values that look {named(shared.reading)} in {share} {verdict.asked} pairs",
        fix=fix(shared.reading, evidences[0]),
    )


def named(reading: Reading) -> str:
    """The mistakes of a reading in words, those that give the same numbers after an "or"."""
    ways = [", ".join(NAMES[kind] for kind in kinds) for kinds in (reading.kinds, *reading.others)]
    return ", or ".join(ways)


def fix(reading: Reading, evidence: Evidence) -> str:
    """What to change: NumPy lines for the array as stored, then what lines cannot do."""
    lines = lines_to_undo(reading, field_grid=evidence.field_grid, spacing_mm=evidence.spacing_mm)
    parts = ["; ".join(lines)] if lines else []
    if any("image_shape" in line for line in lines):
        parts.append(f"here image_shape is {evidence.image_grid}")
    if any("affine" in line for line in lines):
        parts.append("here affine is that of the fixed image's file")
    if set(reading.kinds) == {FindingKind.NORMALISED, FindingKind.COMPONENTS_REVERSED}:
        parts.append(PLUGIN_TIP)
    if reading.kinds == (FindingKind.HALF_SIZE,):
        parts.append(HALFWAY_TIP)
    parts += [tip for kind, tip in CONVERT_TIPS.items() if kind in reading.kinds]
    if reading.layout is Layout.SWAPPED_XY:
        parts.append(MESHGRID_TIP)
    if FindingKind.DIRECTION_SWAPPED in reading.kinds:
        parts.append(EXCHANGE_TIP)
    return ". ".join(parts)


def _why(evidence: Evidence, support: Support) -> str:
    if support.score.value <= evidence.base:
        return "there is next to nothing but the identity grid"
    return (
        f"read so, the images are alike by {support.score.value:.2f}, as stored by "
        f"{evidence.stored.value:.2f}, without a field by {evidence.zero.value:.2f} "
        "(1 is perfect, 0 is chance)"
    )


def _about_shape(evidence: Evidence, kind: FindingKind) -> Finding:
    structure = evidence.structure
    if kind is FindingKind.WILD:
        large = ", ".join(f"{v:.3g}" for v in structure.large)
        return _warning(
            kind=kind,
            pair=evidence.pair,
            expected=f"displacements of at most {WILD_SHARE:.0%} of the image, "
            f"which has {evidence.image_grid} voxels",
            found=f"1 % of the samples are beyond {large} voxels along x, y, z",
            fix="look at the field's unit, which must be voxels, and at the scale of the output",
        )
    if kind is FindingKind.ROUGH:
        return _warning(
            kind=kind,
            pair=evidence.pair,
            expected="neighbouring displacements that resemble each other",
            found=f"neighbours that differ by {structure.jump:.1f} voxels, more than "
            f"{MIN_JUMP_SAMPLES:g} times their distance, as in noise",
            fix="look at a slice of each component: stripes are an array that was reshaped "
            "instead of transposed, or read in another memory order",
        )
    return _warning(
        kind=kind,
        pair=evidence.pair,
        expected=f"folds (Jacobian determinant <= 0) in less than {MAX_FOLDED_PERCENT:.0f} % of "
        "the voxels; next to none if the method regularises",
        found=f"folds in {evidence.folded_percent:.1f} % of the voxels",
        fix="smooth the field or regularise more; if it was smooth before it was written, look at "
        "the order of its axes and components and at its unit",
    )


def _warning(
    *, kind: FindingKind, pair: str | None, found: str, fix: str, expected: str = EXPECTED
) -> Finding:
    return Finding(
        severity=Severity.WARNING, kind=kind, pair=pair, expected=expected, found=found, fix=fix
    )
