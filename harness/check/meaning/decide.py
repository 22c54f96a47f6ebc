"""From evidence to a verdict: is there a reading that explains the images clearly better?

Every limit was set on phantom pairs of one seed and then measured on others; see docs/checks.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.check.findings import FindingKind
from harness.check.meaning.evidence import pool, position_slope_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.check.meaning.evidence import Evidence, Support

MIN_GAIN = 0.03  # of likeness, beyond the field as stored and beyond no field
MIN_GAIN_RATIO = 0.15  # of what is missing to a perfect likeness
MIN_BLOCKS = 24  # that bear witness; fewer, in a small image, may agree by chance
MIN_BETTER_SHARE = 0.75  # of the blocks; chance is a third
# Where only the size is in question, a registration that stops short looks much like a wrong unit.
MIN_BETTER_SHARE_OF_SIZE = 0.8
MIN_RIGHT_SIZE_SHARE = 0.48  # of the blocks want just this size; chance is a third
SIMPLER_WITHIN = 0.01  # of likeness: a reading of fewer mistakes is believed first
BARE_GRID_REST = 0.02  # of the identity grid's own spread: nothing but the grid was stored

WILD_SHARE = 0.5  # of the image's length, exceeded by 1 % of the samples
MAX_FOLDED_PERCENT = 20.0


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a pair's field is taken for.

    ``support`` is the reading that explains it better than the challenge's convention, None when
    none does. ``shape`` is what else is remarkable about a field that is in the convention.
    """

    support: Support | None
    shape: FindingKind | None = None


@dataclass(frozen=True, kw_only=True)
class TaskVerdict:
    """The verdicts on a task's pairs, in their order, and what they are taken for together.

    ``shared`` is the pooled support of the reading that fits the pairs together, None when the
    convention does. ``agreeing`` pairs of those ``asked``, which leaves out zero fields and images
    that show nothing, are taken for it.
    """

    verdicts: tuple[Verdict, ...]
    shared: Support | None = None
    agreeing: int = 0
    asked: int = 0


def judge(evidence: Evidence) -> Verdict:
    """The verdict on one pair by itself."""
    return _judged_by(evidence, bare_grid(evidence) or best_reading(evidence))


def best_reading(evidence: Evidence) -> Support | None:
    """The reading that explains the pair best, if that is clear.

    Where the best one does not convince, a worse one that does would be the wrong name.
    """
    best = max((s.score.value for s in evidence.supports), default=0.0)
    close = [s for s in evidence.supports if s.score.value >= best - SIMPLER_WITHIN]
    convincing = [s for s in close if is_convincing(evidence, s)]
    if not convincing:
        return None
    return min(convincing, key=lambda s: (len(s.reading.kinds), -s.score.value))


def is_convincing(evidence: Evidence, support: Support) -> bool:
    """Clearly better than the field as stored and than none: by enough, and nearly everywhere."""
    gain = support.score.value - evidence.base
    clear = gain >= max(MIN_GAIN, MIN_GAIN_RATIO * (1 - evidence.base))
    if not clear or support.score.blocks.size < MIN_BLOCKS:
        return False
    if support.right_size_share is None:
        return support.better_share >= MIN_BETTER_SHARE
    return (
        support.better_share >= MIN_BETTER_SHARE_OF_SIZE
        and support.right_size_share >= MIN_RIGHT_SIZE_SHARE
    )


def bare_grid(evidence: Evidence) -> Support | None:
    """The reading as positions of a field that is next to nothing but the identity grid.

    No image can tell: without its grid the field is no better than none. But no registration
    moves every voxel in proportion to where it lies.
    """
    found = []
    for support in evidence.supports:
        reading = support.reading
        if reading.origin is None:
            continue
        spread = float(np.linalg.norm(reading.stored_from_voxels @ np.array(evidence.image_grid)))
        if evidence.structure.rest <= BARE_GRID_REST * spread:
            off = np.abs(evidence.structure.offset - reading.origin).max() / spread
            found.append((position_slope_error(evidence.structure, reading) + off, support))
    return min(found, key=lambda pair: pair[0])[1] if found else None


def remarkable_shape(evidence: Evidence) -> FindingKind | None:
    """What no reading explains and no registration should look like; the gravest first."""
    structure = evidence.structure
    if (structure.large > WILD_SHARE * np.array(evidence.image_grid)).any():
        return FindingKind.WILD
    if evidence.folded_percent is None:
        return FindingKind.ROUGH
    return FindingKind.FOLDED if evidence.folded_percent > MAX_FOLDED_PERCENT else None


def judge_task(evidences: Sequence[Evidence]) -> TaskVerdict:
    """The verdicts on the pairs of one task, which share a convention since they share the code.

    What the pairs together are taken for is believed of every pair that it fits better than what is
    stored. Without that no pair is accused: one of many that fits another reading is a registration
    that went wrong, not a convention. A bare identity grid needs no images and stays.
    """
    asked = [e for e in evidences if e.supports and e.n_points]
    shared = best_reading(pool(asked)) if asked else None
    if shared is None:
        return TaskVerdict(verdicts=tuple(_judged_by(e, bare_grid(e)) for e in evidences))
    key = shared.reading.key
    verdicts = []
    for evidence in evidences:
        own = next((s for s in evidence.supports if s.reading.key == key), None)
        fits = own is not None and own.score.value > evidence.stored.value
        verdicts.append(_judged_by(evidence, bare_grid(evidence) or (own if fits else None)))
    return TaskVerdict(
        verdicts=tuple(verdicts),
        shared=shared,
        agreeing=sum(v.support is not None and v.support.reading.key == key for v in verdicts),
        asked=len(asked),
    )


def _judged_by(evidence: Evidence, support: Support | None) -> Verdict:
    return Verdict(support=support, shape=None if support else remarkable_shape(evidence))
