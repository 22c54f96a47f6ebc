"""What an evaluation writes: ``metrics.json`` in the official shape, and all that lies behind it.

JSON has no NaN and no infinity. A value that is absent (no field, a label that one of the maps
lacks) is ``null``; one that is infinite (the HD95 of a label that vanished in warping) is the
string ``"Infinity"``, which ``float`` and JavaScript's ``Number`` read as what it is.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field

EVALUATION_VERSION = "2.0"  # the official code's whose rules these are


def _absent_if_nan(value: object) -> object:
    return None if isinstance(value, float) and math.isnan(value) else value


# NaN comes out of a formula that has no answer, and becomes absent at this border.
Number = Annotated[float | None, BeforeValidator(_absent_if_nan)]


class Record(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        ser_json_inf_nan="strings",
        serialize_by_alias=True,
    )


class CaseState(StrEnum):
    """What became of one case.

    SCORED: its field is valid. MISSING, INVALID: by rule it has no values, and a ranking gives it
    the lowest. NOT_EVALUATED: its truth cannot be used or its worker died; not the team's fault,
    and not a result.
    """

    SCORED = "scored"
    MISSING = "missing"
    INVALID = "invalid"
    NOT_EVALUATED = "not_evaluated"


class Score(Record):
    """One metric of one case: its mean, and the value of each label or landmark it is the mean of;
    of a metric that has one value, the value itself."""

    mean: Number = None
    detailed: Number | tuple[Number, ...] = None


class JacobianScore(Record):
    """The determinant of the Jacobian, which SDlogJ's ``log(det + 3)`` hides: where SDlogJ looks.

    ``folded_voxels`` have det <= 0. ``p01`` and ``p99`` are percentiles.
    """

    folded_voxels: int
    folded_percent: Number = None
    minimum: Number = None
    p01: Number = None
    p99: Number = None
    maximum: Number = None


class CaseRecord(Record):
    """One case. ``reason``: why it has no values. ``inputs_digest``: of everything the values were
    computed from; None when nothing was computed. ``labels``: of each metric of labels, what its
    detailed values belong to."""

    key: str
    state: CaseState
    reason: str | None = None
    field: str | None = None
    field_sha256: str | None = None
    inputs_digest: str | None = None
    scores: dict[str, Score] = Field(default_factory=dict)
    extras: dict[str, Score] = Field(default_factory=dict)
    labels: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    jacobian: JacobianScore | None = None
    warnings: tuple[str, ...] = ()


class Aggregate(Record):
    """Of the case means: mean, population standard deviation, and the quantile that the challenge
    calls robustness: 0.3 where more is better or of HD95, 0.7 of SDlogJ and TRE."""

    mean: Number = None
    std: Number = None
    q30: Number = Field(
        default=None, validation_alias=AliasChoices("30", "q30"), serialization_alias="30"
    )


class CaseDetail(Record):
    """What the official shape has no place for."""

    state: CaseState
    reason: str | None = None
    field: str | None = None
    field_sha256: str | None = None
    extras: dict[str, Score] = Field(default_factory=dict)
    labels: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    jacobian: JacobianScore | None = None
    initial: dict[str, Score] = Field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, case: CaseRecord, initial: CaseRecord | None) -> CaseDetail:
        return cls(
            **{name: getattr(case, name) for name in cls.model_fields if name != "initial"},
            initial=initial.scores if initial is not None else {},
        )


class TaskDetail(Record):
    """``metrics``: of each name the metric it is. ``initial``: the aggregates of the zero field
    over all cases. ``scored`` of ``expected`` cases went into the aggregates."""

    harness_version: str
    rules_digest: str
    expected: int
    scored: int
    metrics: dict[str, str]
    initial: dict[str, Aggregate]
    extras: dict[str, Aggregate]
    cases: dict[str, CaseDetail]


class TaskMetrics(Record):
    """One task in the official shape, and beside it what else is known: ``detail``."""

    name: str
    aggregates: dict[str, Aggregate]
    cases: dict[str, dict[str, Score]]
    eval_version: str = EVALUATION_VERSION
    detail: TaskDetail

    def has(self, *states: CaseState) -> bool:
        return any(case.state in states for case in self.detail.cases.values())


class EvaluationRecord(Record):
    """All tasks of one submission. ``not_attempted``: tasks of which there is no field at all.
    ``problems``: what is wrong with the submission as a whole."""

    schema_version: Literal[1] = 1
    harness_version: str
    created: str
    source: str
    challenge: str
    challenge_digest: str
    tasks: dict[str, TaskMetrics]
    not_attempted: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    def has(self, *states: CaseState) -> bool:
        return any(task.has(*states) for task in self.tasks.values())
