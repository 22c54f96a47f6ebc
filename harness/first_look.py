"""A first look at how accurate a run's fields are, where the truth is at hand."""

from __future__ import annotations

import json
import math
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from harness import console, data_lock
from harness.challenge.field_file import FieldState, read_field
from harness.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.evaluate.accuracy import PairAccuracy
    from harness.plan import Plan
    from harness.store import PairRecord, RunDirectory, RunRecord


def look_at_accuracy(
    plan: Plan, record: RunRecord, run_dir: RunDirectory, truth: Path
) -> list[tuple[PairRecord, PairAccuracy]]:
    """Accuracy of every valid field whose pair has truth."""
    if not truth.is_dir() or not any(p.field_state is FieldState.VALID for p in record.pairs):
        return []
    try:  # the run is done and stored; only its figures are lost
        with data_lock.shared(plan.data_dir):
            return list(_accuracies(plan, record, run_dir, truth))
    except DataError as error:
        console.warn(str(error))
        return []


def _accuracies(
    plan: Plan, record: RunRecord, run_dir: RunDirectory, truth: Path
) -> Iterator[tuple[PairRecord, PairAccuracy]]:
    # Here, as it needs SciPy: a fifth of a second that a run without the truth need not wait.
    from harness.evaluate.accuracy import pair_accuracy  # noqa: PLC0415

    console.note("  comparing the fields with the truth")
    pairs = {pair.key: pair for pair in plan.pairs}
    for pair in record.pairs:
        if pair.field_state is FieldState.VALID:
            task = plan.challenge.task(pair.task)
            path = PurePosixPath(pair.field_path) if pair.field_path else pairs[pair.key].field
            field = read_field(run_dir.field_path(path), task.field)
            try:
                value = pair_accuracy(
                    task,
                    truth,
                    pair=pairs[pair.key],
                    field=field,
                    data_dir=plan.data_dir,
                )
            except DataError as error:  # only this figure is lost
                console.warn(str(error))
                continue
            if value is not None:
                yield pair, value


def to_json(record: RunRecord, accuracy: list[tuple[PairRecord, PairAccuracy]]) -> str:
    """``run.json`` with the accuracies added; null for one that is no number."""
    content = record.model_dump(mode="json", by_alias=True)
    content["accuracy"] = [
        {
            "pair": pair.key,
            "metric": value.metric.value,
            "initial": _number(value.initial),
            "value": _number(value.value),
            "folded_percent": _number(value.folded_percent),
        }
        for pair, value in accuracy
    ]
    return json.dumps(content, indent=1)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
