"""What `harness retry` and `harness drop` leave for the campaign, and how it is taken up."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from harness.campaign.breaks import Breaks
from harness.campaign.events import TeamDropped, TeamRetried
from harness.campaign.folder import CampaignFolder
from harness.campaign.journal import Journal
from harness.campaign.requests import (
    Asked,
    Request,
    ask,
    done,
    is_running,
    known_team,
    pending,
)
from harness.errors import CampaignError, OutputError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> CampaignFolder:
    """Of a campaign that knows the team alpha."""
    folder = CampaignFolder(tmp_path / "runs")
    with Journal(folder.journal_path) as journal:
        journal.append(TeamRetried(team="alpha"))
    return folder


def test_requests_come_in_their_order_and_once(folder: CampaignFolder) -> None:
    ask(folder, Request(asked=Asked.DROP, team="alpha", reason="withdrawn"))
    ask(folder, Request(asked=Asked.RETRY, team="alpha"))
    found = list(pending(folder))
    assert [request.event for _, request in found] == [
        TeamDropped(team="alpha", reason="withdrawn"),
        TeamRetried(team="alpha"),
    ]
    for path, _ in found:
        done(path)
    assert list(pending(folder)) == []


def test_a_request_cut_short_is_none_and_a_damaged_one_is_put_aside(
    folder: CampaignFolder, caplog: pytest.LogCaptureFixture
) -> None:
    path = ask(folder, Request(asked=Asked.RETRY, team="alpha"))
    path.with_name("0-retry-alpha.part").write_text('{"schema_version":1,"asked":"re')
    path.write_text('{"asked": "retry", "team": "../../etc"}')
    assert list(pending(folder)) == []
    assert "not a request that this program wrote" in caplog.text
    assert path.with_suffix(".damaged").exists()
    assert list(pending(folder)) == []


def test_an_unknown_team_is_told_with_the_one_that_was_meant(folder: CampaignFolder) -> None:
    assert known_team(folder, "alpha")[1].team == "alpha"
    with pytest.raises(CampaignError, match=r"team 'alhpa': expected one of .*alpha.*did you mean"):
        known_team(folder, "alhpa")


def test_no_campaign_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no such file"):
        known_team(CampaignFolder(tmp_path), "alpha")


def test_whether_a_campaign_runs_is_known(folder: CampaignFolder) -> None:
    assert not is_running(folder)
    with Journal(folder.journal_path):
        assert is_running(folder)
    assert not is_running(folder)


def test_asking_whether_it_runs_keeps_none_from_starting(folder: CampaignFolder) -> None:
    import fcntl  # noqa: PLC0415

    with folder.journal_path.open() as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        with pytest.raises(OutputError, match="another command has this campaign open"):
            Journal(folder.journal_path)
    with Journal(folder.journal_path) as journal:
        assert len(journal.lines) == 1


def test_a_signal_waits_until_it_may_break_something_off() -> None:
    with Breaks() as breaks:
        os.kill(os.getpid(), signal.SIGTERM)
        assert breaks.asked
        with pytest.raises(KeyboardInterrupt), breaks.allowed():
            pytest.fail("it was asked for before")


def test_a_signal_breaks_off_what_may_be() -> None:
    def work() -> None:
        with breaks.allowed():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)

    with Breaks() as breaks, pytest.raises(KeyboardInterrupt):
        work()
    assert breaks.asked


def test_signals_are_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Breaks():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
