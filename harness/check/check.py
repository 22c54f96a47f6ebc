"""All that can be said of a set of fields: names first, then each file, then what it means."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from harness import __version__
from harness.challenge.field_error import FieldFileError
from harness.challenge.field_file import FieldState, read_field
from harness.challenge.model import FieldFormat
from harness.check.findings import Finding, FindingKind, Severity
from harness.check.images import FieldsInImages
from harness.check.names import match_names
from harness.check.report import CheckedPair, CheckReport
from harness.errors import FieldError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from harness.challenge.model import Challenge, FieldSpec
    from harness.challenge.pairs import Pair, TaskPairs
    from harness.check.names import Matched
    from harness.check.source import FieldSource


def check_fields(
    challenge: Challenge,
    tasks: Sequence[TaskPairs],
    source: FieldSource,
    *,
    data_dir: Path | None,
    on_progress: Callable[[str], None] = lambda _: None,
) -> CheckReport:
    """Every finding about the fields of ``source``, in one pass.

    ``data_dir``: where the images are, to look at what the fields mean; None leaves that out.
    ``on_progress`` is told the key of each pair whose file has been looked at, and then of each
    that has been held against its images. Raises DataError for an image that cannot be read.
    """
    matched = match_names(tasks, source.names, source.refused)
    findings = [*source.findings]
    if source.names or not any(one.severity is Severity.ERROR for one in findings):
        # Of what cannot be opened at all, nothing else is known.
        findings += [*_about_the_zip(challenge, source), *matched.findings]
    pairs: list[CheckedPair] = []
    for found in tasks:
        for pair in found.pairs:
            checked, problem = _check_pair(pair, found.task.field, matched, source)
            pairs.append(checked)
            findings += [problem] if problem is not None else []
            on_progress(pair.key)
    if data_dir is not None:
        in_images = FieldsInImages(
            source=source, data_dir=data_dir, checked=pairs, on_progress=on_progress
        )
        for found in tasks:
            findings += in_images.examine(found)
    return CheckReport(
        harness_version=__version__,
        source=source.label,
        challenge=challenge.name,
        challenge_digest=challenge.digest,
        meaning_checked=data_dir is not None,
        pairs=tuple(pairs),
        findings=tuple(findings),
    )


def _check_pair(
    pair: Pair, spec: FieldSpec, matched: Matched, source: FieldSource
) -> tuple[CheckedPair, Finding | None]:
    path = matched.fields.get(pair.key)
    problem: Finding | None = None
    if path is None:
        attempted = pair.task in matched.attempted
        state = FieldState.MISSING if attempted else FieldState.NOT_ATTEMPTED
        if pair.key in matched.refused:
            state = FieldState.INVALID
    else:
        try:
            with source.file(path) as file:
                read_field(file, spec)
            state = FieldState.VALID
        except FieldError as error:
            state = FieldState.INVALID
            problem = _invalid(pair, spec, error)
    return (
        CheckedPair(
            key=pair.key, task=pair.task, state=state, path=None if path is None else str(path)
        ),
        problem,
    )


def _invalid(pair: Pair, spec: FieldSpec, error: FieldError) -> Finding:
    line = "np.savez_compressed(path, field)"
    if spec.format is FieldFormat.NIFTI:
        line = "nib.save(nib.Nifti1Image(field, np.eye(4)), path)"
    if isinstance(error, FieldFileError):
        kind, expected = FindingKind(error.problem.value), error.expected
        found, fix = error.found, error.fix or f"write it with {line}"
    else:
        kind, expected = FindingKind.UNREADABLE, "a field that can be read"
        found, fix = str(error), "look at its permissions, and those of its folder"
    return Finding(
        severity=Severity.ERROR,
        kind=kind,
        pair=pair.key,
        expected=expected,
        found=found,
        fix=fix,
    )


def _about_the_zip(challenge: Challenge, source: FieldSource) -> list[Finding]:
    dummy = challenge.upload.dummy_file
    names = (*map(str, source.names), *source.refused)
    if dummy is None or not source.is_upload or any(not re.search(r"[/\\]", n) for n in names):
        return []
    return [
        Finding(
            severity=Severity.ERROR,
            kind=FindingKind.NO_DUMMY,
            pair=None,
            expected=f"a file at the zip's top level, such as {dummy}: the site wants one",
            found="folders only",
            fix="make the zip with `harness pack`, or add any file at its top level",
        )
    ]
