"""What `harness status`, `retry` and `drop` do, whether the campaign goes on meanwhile or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness import console
from harness.campaign.folder import CampaignFolder
from harness.campaign.journal import read_journal
from harness.campaign.requests import Asked, Request, ask, is_running, known_team, pending
from harness.campaign.rows import campaign_status
from harness.campaign.setting import read_setting
from harness.campaign.state import replay
from harness.console_campaign_summary import out_option, show_attempts, show_campaign

if TYPE_CHECKING:
    from pathlib import Path


def show_status(runs: Path, *, as_json: bool, all_attempts: bool) -> None:
    folder = CampaignFolder(runs)
    state, setting = replay(read_journal(folder.journal_path)), read_setting(folder)
    asked = [f"{request.asked} {request.team}" for _, request in pending(folder)]
    status = campaign_status(state, setting.policy, tasks=setting.tasks, requests=asked)
    if as_json:
        console.out.file.write(status.model_dump_json(indent=1, by_alias=True) + "\n")
        return
    goes_on = is_running(folder)
    show_campaign(status, setting.tasks, runs, goes_on=goes_on, is_asked=True)
    if all_attempts:
        show_attempts(state, runs)


def ask_retry(team: str, runs: Path) -> None:
    folder = CampaignFolder(runs)
    known_team(folder, team)
    ask(folder, Request(asked=Asked.RETRY, team=team))
    console.note(f"{team}: its latest upload will be run once more: taken up {_when(folder)}")


def ask_drop(team: str, reason: str | None, runs: Path) -> None:
    folder = CampaignFolder(runs)
    known_team(folder, team)
    ask(folder, Request(asked=Asked.DROP, team=team, reason=reason))
    option = out_option(runs)
    console.note(
        f"{team}: nothing more of it will be run: taken up {_when(folder)}; what there is stays, "
        f"and `harness retry {team}{option}` takes it back"
    )


def _when(folder: CampaignFolder) -> str:
    if is_running(folder):
        return "as soon as the run under way has ended"
    return "when `harness campaign` is started again"
