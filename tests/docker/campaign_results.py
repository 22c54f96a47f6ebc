"""What a campaign came to, and whether all of it is there: for campaigns that must be alike."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.campaign.folder import CampaignFolder
from harness.campaign.journal import read_journal
from harness.campaign.order import Outcome
from harness.campaign.state import Attempt, CampaignState, replay
from harness.challenge.field_file import FieldState
from harness.evaluate.record import EvaluationRecord
from harness.store import RunDirectory, RunRecord
from tests.docker.campaign_command import RECORDS

if TYPE_CHECKING:
    from pathlib import Path

# What runs that did the same may tell otherwise: times, names that are times, digests of records
# that hold times.
_VARYING = re.compile(r"\d{8}-\d{6}(-\d+)?|\d+(\.\d+)? (ms|s|min)\b")
_VARYING_KEYS = frozenset({"run_id", "created", "source", "ended", "arrived_s", "at", "duration_s"})


@dataclass(frozen=True, kw_only=True)
class Result:
    """All of an attempt that must not depend on when it was made, or how often.

    ``timed``: keys of the pairs whose runtime may be ranked. ``fields``: of each pair its state,
    its problem and its file's SHA-256. ``metrics``: the whole evaluation. ``record``: fields.json
    or refused.json.
    """

    outcome: Outcome
    status: str | None
    reason: str
    blame: str | None
    exit_code: int
    valid_fields: int | None
    timed: tuple[str, ...] = ()
    fields: tuple[tuple[str, str, str | None, str | None], ...] = ()
    metrics: str | None = None
    record: str | None = None
    scored: tuple[int, int] | None = None


@dataclass(kw_only=True)
class CampaignResults:
    """``folder``: of the campaign, which counts a team's latest upload; ``runs``: its --out.
    ``dropped``: teams of which nothing is run. Everything is read anew from the disk."""

    folder: Path
    runs: str = "runs"
    dropped: frozenset[str] = frozenset()
    state: CampaignState = field(init=False)

    def __post_init__(self) -> None:
        self.state = replay(read_journal(CampaignFolder(self.runs_dir).journal_path))

    @property
    def runs_dir(self) -> Path:
        return self.folder / self.runs

    def final(self) -> dict[str, Result]:
        """Of each upload, under the conditions now, its one final attempt's result."""
        found = {}
        for team in self.state.teams.values():
            for upload in team.uploads:
                finals = self.finals_of(upload)
                if finals:
                    assert len(finals) == 1, (upload, [one.key for one in finals])
                    found[upload] = self._result(finals[0])
        return found

    def finals_of(self, upload: str) -> list[Attempt]:
        return [
            one
            for one in self.state.of_upload(upload)
            if one.end is not None and one.end.is_final and one.conditions == self.state.conditions
        ]

    def rejected(self) -> set[tuple[str, str | None, str]]:
        """What is no upload: each entry and why, once."""
        told = [(one.entry, one.team, self._alike(one.reason)) for one in self.state.rejected]
        assert len(told) == len(set(told)), told
        return set(told)

    def _result(self, attempt: Attempt) -> Result:
        end = attempt.end
        assert end is not None
        folder = RunDirectory(self.runs_dir.joinpath(*attempt.key))
        record = folder.read_record() if end.outcome is Outcome.RAN else None
        if record is not None:
            check_agrees(attempt, record)
        scored = attempt.scored
        return Result(
            outcome=end.outcome,
            status=end.status,
            reason=self._alike(end.reason),
            blame=end.blame,
            exit_code=end.exit_code,
            valid_fields=end.valid_fields,
            timed=tuple(sorted(end.runtimes_s)),
            fields=() if record is None else _fields(record),
            metrics=_metrics(folder),
            record=self._other_record(folder, end.outcome),
            scored=None if scored is None else (scored.exit_code, scored.findings),
        )

    def _other_record(self, folder: RunDirectory, outcome: Outcome) -> str | None:
        name = {Outcome.FIELDS: "fields.json", Outcome.REFUSED: "refused.json"}.get(outcome)
        if name is None:
            return None
        content = json.loads((folder.path / name).read_bytes())
        return self._alike(json.dumps(_without_times(content), sort_keys=True))

    def _alike(self, text: str) -> str:
        return _VARYING.sub("...", text.replace(str(self.folder), "HERE"))

    def faults(self) -> list[str]:
        """What is lost, doubled or left behind; nothing of it in a campaign that has ended."""
        return [
            *self._unfinished(),
            *self._directories(),
            *self._litter(),
            *(f"attempt {one.key} did not end" for one in self.state.under_way()),
        ]

    def _unfinished(self) -> list[str]:
        return [
            f"upload {upload} has {len(finals)} final attempts"
            for upload in self._to_be_run()
            if len(finals := self.finals_of(upload)) != 1
        ]

    def _to_be_run(self) -> list[str]:
        """Each team's latest upload, but for teams that were dropped."""
        return [
            max(team.uploads.values(), key=lambda upload: upload.arrived_s).id
            for team in self.state.teams.values()
            if team.uploads and team.team not in self.dropped
        ]

    def _directories(self) -> list[str]:
        there = {
            (path.parent.name, path.name)
            for path in self.runs_dir.glob("*/*")
            if path.is_dir() and path.parent.name != CampaignFolder(self.runs_dir).path.name
        }
        known = set(self.state.attempts)
        with_record = {
            key
            for key, one in self.state.attempts.items()
            if one.end is not None
            and one.end.outcome in {Outcome.RAN, Outcome.FIELDS, Outcome.REFUSED}
        }
        return [
            *(f"directory {key} of no attempt" for key in sorted(there - known)),
            *(f"attempt {key} without its directory" for key in sorted(with_record - there)),
            *(
                f"attempt {key} has {len(found)} records"
                for key in sorted(with_record)
                if len(found := self._records(key)) != 1
            ),
        ]

    def _records(self, key: tuple[str, str]) -> list[Path]:
        folder = self.runs_dir.joinpath(*key)
        return [folder / name for name in RECORDS if (folder / name).exists()]

    def _litter(self) -> list[str]:
        """Names that only something unfinished has."""
        names = Counter(
            str(path.relative_to(self.runs_dir))
            for path in self.runs_dir.rglob("*")
            if path.suffix in {".part", ".tmp"}
            or path.name in {"output", ".reserve", "started.json", "trace.jsonl"}
        )
        return [f"left: {name}" for name in sorted(names)]


def check_agrees(attempt: Attempt, record: RunRecord) -> None:
    """The journal tells of the run what its own record tells."""
    end = attempt.end
    assert end is not None
    assert (end.status, end.blame) == (record.status, record.blame), attempt.key
    ranked = {
        pair.key: runtime_s
        for pair in record.pairs
        if (runtime_s := record.ranked_runtime_s(pair)) is not None
    }
    assert end.runtimes_s == ranked, attempt.key
    valid = [pair for pair in record.pairs if pair.field_state is FieldState.VALID]
    assert end.valid_fields == len(valid), attempt.key
    assert record.submission == attempt.started.team
    assert record.run_id == attempt.started.run_id


def _fields(record: RunRecord) -> tuple[tuple[str, str, str | None, str | None], ...]:
    return tuple(
        (pair.key, pair.field_state, pair.field_problem, pair.field_sha256) for pair in record.pairs
    )


def _metrics(folder: RunDirectory) -> str | None:
    if not folder.evaluation_path.exists():
        return None
    record = EvaluationRecord.model_validate_json(folder.evaluation_path.read_bytes())
    return record.model_dump_json(exclude={"created", "source"})


def _without_times(content: Any) -> Any:  # noqa: ANN401 - any JSON
    if isinstance(content, dict):
        return {
            key: _without_times(value) for key, value in content.items() if key not in _VARYING_KEYS
        }
    return [_without_times(one) for one in content] if isinstance(content, list) else content
