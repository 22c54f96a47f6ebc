"""One source held against the cases: which file is whose field, and what is missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.check.findings import FindingKind, Severity
from harness.check.misnamed import accepted
from harness.check.names import match_names
from harness.check.source import open_source
from harness.evaluate.record import CaseRecord, CaseState
from harness.scoring.job import FieldPlace, SourceSpec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from harness.check.findings import Finding
    from harness.evaluate.rules import Case, TaskCases


@dataclass(frozen=True, kw_only=True)
class Source:
    """``attempted``: the tasks of which there is a field, or a file that seems to be one.
    ``problems``: what is wrong with the whole, such as a damaged zip."""

    spec: SourceSpec
    attempted: tuple[TaskCases, ...]
    not_attempted: tuple[str, ...]
    fields: dict[str, FieldPlace]
    reasons: dict[str, str]
    refused: frozenset[str]
    problems: tuple[str, ...]

    def field_of(self, case: Case) -> FieldPlace | None:
        return self.fields.get(case.pair.key)

    def without_field(self, case: Case) -> CaseRecord:
        """The result of a case that has no file to look at."""
        key = case.pair.key
        state = CaseState.INVALID if key in self.refused else CaseState.MISSING
        reason = self.reasons.get(key) or f"expected {accepted(case.pair)}, found no such file"
        return CaseRecord(key=case.key, state=state, reason=reason)


def look_at_source(
    path: Path, tasks: Sequence[TaskCases], runs_dir: Path, *, all_tasks: bool
) -> Source:
    """Names only; no field is opened. ``all_tasks``: is a task of which there is nothing at all
    one whose fields are missing, rather than one that was not attempted?

    Raises DataError when ``path`` is no folder of fields, run or zip.
    """
    pairs = tuple(task.pairs for task in tasks)
    with open_source(path, runs_dir, pairs) as opened:
        matched = match_names(pairs, opened.names, opened.refused)
        findings = (*opened.findings, *matched.findings)
        spec = SourceSpec(path=path, runs_dir=runs_dir, tasks=pairs if opened.is_upload else ())
    attempted, not_attempted = [], []
    for task in tasks:
        if all_tasks or any(case.pair.task in matched.attempted for case in task.cases):
            attempted.append(task)
        else:
            not_attempted.append(task.rules.name)
    errors = [one for one in findings if one.severity is Severity.ERROR]
    # Evaluated, not uploaded; and where every case is listed as missing, that says it all.
    unsaid = {FindingKind.NO_DUMMY, *([FindingKind.NOTHING] if all_tasks else [])}
    return Source(
        spec=spec,
        attempted=tuple(attempted),
        not_attempted=tuple(not_attempted),
        fields={key: FieldPlace(source=spec, name=name) for key, name in matched.fields.items()},
        reasons={one.pair: _sentence(one) for one in errors if one.pair is not None},
        refused=matched.refused,
        problems=tuple(
            f"expected {one.expected}, found {one.found}"
            if one.kind is FindingKind.NOTHING
            else _sentence(one)
            for one in errors
            if one.pair is None and one.kind not in unsaid
        ),
    )


def _sentence(finding: Finding) -> str:
    fix = f"; {finding.fix}" if finding.fix else ""
    return f"expected {finding.expected}, found {finding.found}{fix}"
