"""The way in: fields and images to findings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.check.meaning.advice import finding, summary
from harness.check.meaning.decide import judge, judge_task
from harness.check.meaning.evidence import gather

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.challenge.field import FloatArray
    from harness.check.findings import Finding
    from harness.check.meaning.decide import TaskVerdict
    from harness.check.meaning.evidence import Evidence
    from harness.check.meaning.likeness import Image


@dataclass(frozen=True, kw_only=True)
class PairToExamine:
    """One pair of a task; parameters as in :func:`examine_meaning`."""

    pair: str
    vectors_vox: FloatArray
    fixed: Image
    moving: Image
    fixed_mask: Image | None = None


@dataclass(frozen=True, kw_only=True)
class TaskMeaning:
    """What the fields of one task mean.

    ``summary`` is one finding about the task (its ``pair`` is None) where its pairs share a
    mistake; ``findings`` are those about single pairs, in the order of the pairs.
    """

    summary: Finding | None
    findings: tuple[Finding, ...]
    verdict: TaskVerdict
    evidences: tuple[Evidence, ...]


def examine_meaning(
    vectors_vox: FloatArray,
    fixed: Image,
    moving: Image,
    *,
    fixed_mask: Image | None = None,
    pair: str | None = None,
) -> tuple[Finding, ...]:
    """Whether a valid field probably does not mean what the challenge will take it for.

    ``vectors_vox`` is (3, X, Y, Z) as the file stores it, finite, of any floating type, on the
    fixed image's grid or on half of it. The images alone decide, never truth. No finding for the
    zero field, for a field that is only inaccurate, and where the images show nothing. At most one
    finding, the most probable; it is always a warning. Raises FieldError for any other shape.
    About 1.5 s and 400 MB for a pair of 200^3 voxels.
    """
    evidence = gather(vectors_vox, fixed, moving, fixed_mask=fixed_mask, pair=pair)
    found = finding(evidence, judge(evidence))
    return () if found is None else (found,)


def examine_task(pairs: Iterable[PairToExamine]) -> TaskMeaning:
    """The same for all pairs of one task, which bear witness together.

    Surer than pair by pair: all pairs were written by the same code. The pairs are looked at one by
    one, so an iterator that reads each when asked keeps memory at that of one pair.
    """
    evidences = tuple(
        gather(p.vectors_vox, p.fixed, p.moving, fixed_mask=p.fixed_mask, pair=p.pair)
        for p in pairs
    )
    verdict = judge_task(evidences)
    both = zip(evidences, verdict.verdicts, strict=True)
    findings = tuple(f for e, v in both if (f := finding(e, v)) is not None)
    return TaskMeaning(
        summary=summary(verdict, evidences),
        findings=findings,
        verdict=verdict,
        evidences=evidences,
    )
