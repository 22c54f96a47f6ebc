"""The loop of a campaign: real uploads, real child processes, a journal on the disk."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from harness.cache import CacheMode
from harness.campaign.events import (
    AttemptStarted,
    Closed,
    Opened,
    UploadRejected,
)
from harness.campaign.job import perform
from harness.campaign.journal import Journal, read_journal
from harness.campaign.order import AttemptKind, Outcome, Place
from harness.campaign.requests import Asked, Request, ask
from harness.campaign.status import StatusRecord
from harness.campaigning import Request as CampaignRequest
from harness.campaigning import run_campaign
from harness.engine.base import Isolation
from harness.errors import CampaignError, EngineMissing, OutputError
from harness.store import RunStatus
from tests.campaign_parts import CampaignFiles
from tests.tiny import ZERO

if TYPE_CHECKING:
    from pathlib import Path

    from harness.campaign.order import JobEnd, JobOrder
    from harness.scoring.pool import Pool

MOVED = ZERO.replace("np.zeros((3, 8, 6, 10)", "np.ones((3, 8, 6, 10)")
CRASHES = "os._exit(3)"


class Lent:
    """Workers that run already, and outlive the campaign. ``told`` of what is done with them."""

    def __init__(self, pool: Pool, told: list[str] | None = None) -> None:
        self.run = pool.run
        self._told = [] if told is None else told
        self._told.append("opened")

    def close(self) -> None:
        self._told.append("closed")

    def stop(self) -> None: ...


@pytest.fixture
def files(tmp_path: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> CampaignFiles:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_LOCK_DIR", str(tmp_path / "locks"))
    monkeypatch.setattr("harness.campaign.scorer.Pool", lambda *_: Lent(pool))
    return CampaignFiles(tmp_path)


def conduct(files: CampaignFiles, **changes: object) -> int:
    options: dict[str, object] = {
        "submissions": files.submissions,
        "data": files.path / "test",
        "truth": None,
        "runs": files.path / "runs",
        "policy": files.path / "campaign.yaml",
        "challenge": str(files.path / "tiny.yaml"),
        "engine": "process",
        "base_image": None,
        "cache": CacheMode.WARM,
        "gpu": None,
        "limits": (),
        "isolation": Isolation(),
        "seed": None,
        "watch": False,
        "scheduler": None,
        "tls_files": (None, None, None),
        "plain": True,
    }
    return run_campaign(CampaignRequest(**{**options, **changes}))  # type: ignore[arg-type]


def attempts(files: CampaignFiles) -> list[tuple[str, str]]:
    return [
        (one.started.team, "under way" if one.end is None else str(one.end.status))
        for one in files.state().attempts.values()
    ]


def test_every_team_is_run_and_scored_once(files: CampaignFiles) -> None:
    files.add("alpha")
    files.add("bravo", CRASHES)
    files.settle()
    assert conduct(files) == 0
    assert attempts(files) == [("alpha", "succeeded"), ("bravo", "crashed")]
    state = files.state()
    good, bad = state.attempts.values()
    assert good.scored is not None
    assert good.scored.exit_code == 0
    assert good.scored.metrics["task_01"]["DSC"] == pytest.approx(1.0)
    assert bad.scored is not None
    assert bad.scored.exit_code == 21
    assert state.closed == Closed(exit_code=0, outstanding=0)
    status = StatusRecord.model_validate_json(files.folder.status_path.read_bytes())
    assert status.exit_code == 0
    assert {(row.team, row.task, row.verdict) for row in status.rows} == {
        (team, task, verdict)
        for team, verdict in (("alpha", "succeeded"), ("bravo", "crashed"))
        for task in ("task_01", "task_02")
    }


def test_the_same_command_again_does_nothing(files: CampaignFiles) -> None:
    files.add("alpha")
    files.settle()
    conduct(files)
    before = read_journal(files.folder.journal_path)
    assert conduct(files) == 0
    added = read_journal(files.folder.journal_path)[len(before) :]
    assert [line.event.event for line in added] == ["opened", "closed"]


def test_what_was_under_way_is_found_out_and_made_again(files: CampaignFiles) -> None:
    """As a SIGKILL between the journal and the run leaves it."""
    files.add("alpha")
    files.settle()
    conduct(files)
    state = files.state()
    (upload,) = state.teams["alpha"].uploads
    with Journal(files.folder.journal_path) as journal:
        journal.append(
            AttemptStarted(
                kind=AttemptKind.SUBMISSION,
                team="alpha",
                run_id="20260101-000000",
                place=Place(name="here", machine="here"),
                upload=upload,
                number=2,
            )
        )
        ask(files.folder, Request(asked=Asked.RETRY, team="alpha"))
    assert conduct(files) == 0
    first, second, third = files.state().attempts.values()
    assert second.end is not None
    assert second.end.outcome is Outcome.NEVER_STARTED
    assert third.end is not None
    assert third.end.status is RunStatus.SUCCEEDED
    assert len({one.started.run_id for one in (first, second, third)}) == 3


def test_a_changed_limit_runs_everything_again_and_says_why(
    files: CampaignFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    files.add("alpha")
    files.settle()
    conduct(files)
    capsys.readouterr()
    conduct(files, limits=("pair_time=9s",))
    told = capsys.readouterr().err
    assert "changed since the last command: limit pair_time: 10.0 before, 9.0 now" in told
    assert "alpha          is run again: limits changed: limit pair_time" in told
    assert attempts(files) == [("alpha", "succeeded")] * 2


def test_another_truth_scores_again_and_runs_nothing(files: CampaignFiles) -> None:
    files.add("alpha")
    files.settle()
    conduct(files)
    files.write_truth(shift=1)
    assert conduct(files) == 0
    events = [line.event for line in read_journal(files.folder.journal_path)]
    scored = [one for one in events if one.event == "scored"]
    assert len(scored) == 2
    assert scored[0].truth_digest != scored[1].truth_digest
    assert attempts(files) == [("alpha", "succeeded")]


def test_one_pool_scores_what_waits_and_is_closed_before_a_run(
    files: CampaignFiles, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def noted(order: JobOrder, *given: Any) -> JobEnd:  # noqa: ANN401 - passed on
        told.append(order.team)
        return perform(order, *given)

    told: list[str] = []
    monkeypatch.setattr("harness.campaign.scorer.Pool", lambda *_: Lent(pool, told))
    monkeypatch.setattr("harness.campaign.local_crew.perform", noted)
    files.add("alpha")
    files.add("bravo")
    files.settle()
    conduct(files, seed=1)
    assert told[1:3] == told[4:] == ["opened", "closed"]
    files.write_truth(shift=1)
    files.add("charlie")
    files.settle()
    told.clear()
    conduct(files, seed=1)
    assert told == ["charlie", "opened", "closed"]
    assert all(one.scored is not None for one in files.state().attempts.values())
    files.write_truth(shift=2)
    files.add("delta")
    files.add("echo")
    files.settle()
    told.clear()
    conduct(files, seed=1)
    first, *between, second = told[:4]
    assert {first, second} == {"delta", "echo"}
    assert between == ["opened", "closed"]
    assert told[4:] == ["opened", "closed"]


def test_requests_are_taken_up_and_removed(files: CampaignFiles) -> None:
    files.add("alpha")
    files.add("bravo")
    files.settle()
    conduct(files)
    ask(files.folder, Request(asked=Asked.RETRY, team="alpha"))
    ask(files.folder, Request(asked=Asked.DROP, team="bravo", reason="withdrew"))
    conduct(files, limits=("pair_time=9s",))
    assert list(files.folder.requests_dir.iterdir()) == []
    assert [team for team, _ in attempts(files)] == ["alpha", "bravo", "alpha"]
    assert files.state().teams["bravo"].dropped == "withdrew"


def test_an_upload_beyond_the_limit_a_day_is_told_once(files: CampaignFiles) -> None:
    files.write_policy("uploads_per_day: 1\n")
    files.add("alpha")
    files.settle()
    conduct(files)
    (files.submissions / "alpha/method/more.py").write_text("")
    files.settle()
    conduct(files)
    conduct(files)
    rejected = [
        line.event
        for line in read_journal(files.folder.journal_path)
        if isinstance(line.event, UploadRejected)
    ]
    assert len(rejected) == 1
    assert "of 1 allowed a day" in rejected[0].reason
    assert len(attempts(files)) == 1


def test_what_is_no_upload_stops_nobody(files: CampaignFiles) -> None:
    (files.submissions / "notes.txt").write_text("hello")
    (files.submissions / "link.tar").symlink_to("/etc/passwd")
    files.add("alpha")
    files.settle()
    assert conduct(files) == 0
    assert attempts(files) == [("alpha", "succeeded")]
    assert {one.entry for one in files.state().rejected} == {"notes.txt", "link.tar"}


def test_a_calibration_comes_before_and_after(files: CampaignFiles) -> None:
    reference = files.add("alpha").rename(files.path / "reference")
    files.write_policy("")
    text = (files.path / "campaign.yaml").read_text().replace("null", str(reference))
    (files.path / "campaign.yaml").write_text(text)
    files.add("bravo", MOVED)
    files.settle()
    assert conduct(files) == 0
    assert [team for team, _ in attempts(files)] == ["_calibration", "bravo", "_calibration"]


def test_what_can_be_checked_is_before_anything_begins(files: CampaignFiles) -> None:
    files.add("alpha")
    (files.submissions / "bravo.tar").write_bytes(b"an image")
    files.settle()
    with pytest.raises(EngineMissing, match=r"bravo\.tar: images need Docker"):
        conduct(files)
    with pytest.raises(CampaignError, match="so it would be taken for an upload"):
        conduct(files, runs=files.submissions / "runs")
    assert not files.folder.journal_path.exists()


def test_a_folder_that_cannot_be_written_stops_it_and_nothing_is_lost(
    files: CampaignFiles,
) -> None:
    files.add("alpha")
    files.settle()
    files.folder.status_path.mkdir(parents=True)
    with pytest.raises(OutputError, match="status"):
        conduct(files)
    files.folder.status_path.rmdir()
    assert conduct(files) == 0
    assert attempts(files) == [("alpha", "succeeded")]


def test_after_each_is_run_and_may_fail(
    files: CampaignFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    script = 'cp "$HARNESS_CAMPAIGN_STATUS" copied.json; echo [bold]no >&2; exit 3'
    files.write_policy(f"after_each: {json.dumps(['sh', '-c', script])}\n")
    files.add("alpha")
    files.settle()
    assert conduct(files) == 0
    copied = StatusRecord.model_validate_json((files.path / "copied.json").read_bytes())
    assert copied.rows[0].verdict == "succeeded"
    assert "after_each: sh: exit code 3: [bold]no" in capsys.readouterr().err


def test_the_seed_is_in_the_journal(files: CampaignFiles) -> None:
    files.add("alpha")
    files.settle()
    conduct(files, seed=7)
    opened = read_journal(files.folder.journal_path)[0].event
    assert isinstance(opened, Opened)
    assert opened.seed == 7
