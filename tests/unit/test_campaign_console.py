"""What an organiser reads of a campaign: its lines, its table while it goes on, its summary."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness import console
from harness.campaign.crew import Progressed
from harness.campaign.events import AttemptEnded, Line, Scored, Suspected
from harness.campaign.order import JobEnd, Outcome
from harness.campaign.policy import Calibration, Policy
from harness.campaign.rows import campaign_status
from harness.campaign.upload import CALIBRATION
from harness.console_campaign import CampaignView
from harness.console_campaign_lines import ended, line_of
from harness.console_campaign_summary import show_campaign
from harness.execute import Progress, Step
from harness.machine.contamination import MachineVerdict
from tests.campaign_story import Story, crashed, interrupted, ran, upload

if TYPE_CHECKING:
    import pytest

    from harness.campaign.state import CampaignState

PLAIN = Policy(calibration=Calibration(source=None))
A, B, C = (upload(team) for team in ("alpha", "beta", "gamma"))
FIELDS = JobEnd(
    outcome=Outcome.FIELDS, reason="2 of 2 are valid", valid_fields=2, expected_fields=2
)


def shown(
    state: CampaignState, capsys: pytest.CaptureFixture[str], **how: bool
) -> tuple[str, list[str]]:
    """The summary, and what comes next by it."""
    show_campaign(campaign_status(state, PLAIN), ("task_01",), Path("runs"), **how)
    text = capsys.readouterr().out
    return text, [line.split(maxsplit=1)[1] for line in text.splitlines() if "  next " in line]


def test_what_has_ended_leaves_the_live_table(capsys: pytest.CaptureFixture[str]) -> None:
    """The reference image stood in it to the end of the night, as "checking, 1:25": its runs are
    not scored, and only what was scored was taken out."""
    story = Story()
    story.see(A)
    run_id = story.start(None)
    view = CampaignView(("task_01",), plain=True)
    view.refreshed(campaign_status(story.state, PLAIN))
    progress = Progress(step=Step.COLLECTING, done=2)
    view.progressed(
        Progressed(team=CALIBRATION, run_id=run_id, doing="", progress=progress, pairs=2)
    )
    console.err.print(view.table(100, 30))
    assert "reference" in capsys.readouterr().err
    event = AttemptEnded(team=CALIBRATION, run_id=run_id, end=ran())
    story.tell(event)
    view.happened(Line(n=9, at="2026-12-01T02:00:00Z", event=event), story.state)
    capsys.readouterr()
    console.err.print(view.table(100, 30))
    assert "reference" not in capsys.readouterr().err


def test_a_whole_result_is_told_once() -> None:
    assert ended(ran()) == "succeeded, 2/2 fields, median 1.500 s"
    assert ended(FIELDS) == "fields checked, 2/2 fields"
    few = FIELDS.model_copy(update={"valid_fields": 1, "reason": "1 of 2 is valid"})
    assert ended(few) == "fields checked: 1 of 2 is valid, 1/2 fields"


def test_the_table_says_what_a_zip_of_fields_came_to(capsys: pytest.CaptureFixture[str]) -> None:
    story = Story()
    story.see(A)
    story.run(A, FIELDS)
    assert "fields checked" in shown(story.state, capsys)[0]


def test_mean_that_lacks_pairs_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    """The zero field of five of six pairs had a better mean than that of all six."""
    story = Story()
    story.see(A, B)
    for one, lacking in ((A, {"task_01": 1}), (B, {})):
        run_id = story.run(one, ran())
        story.tell(
            Scored(
                team=one.team,
                run_id=run_id,
                exit_code=0,
                findings=0,
                truth_digest=None,
                harness_version="1",
                metrics={"task_01": {"DSC": 0.5}},
                lacking=lacking,
            )
        )
    text, _ = shown(story.state, capsys)
    (first,) = (line for line in text.splitlines() if line.startswith("alpha"))
    (second,) = (line for line in text.splitlines() if line.startswith("beta"))
    assert "0.500*" in first
    assert "0.500*" not in second
    assert "* some pairs have no field" in text


def test_who_waits_is_listed_in_the_order_of_the_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """By name before: with a seed, not the order in which anything happens."""
    story = Story()
    story.see(A, B, C)
    story.run(A, interrupted())  # those that took their machine down come last
    story.start(C)
    for goes_on, under_way in ((True, "gamma: under way"), (False, "gamma: was under way")):
        text, _ = shown(story.state, capsys, goes_on=goes_on)
        lines = text.partition("still to be run\n")[2].splitlines()
        assert lines[0].strip() == under_way
        assert [line.split(":")[0].strip() for line in lines[:3]] == ["gamma", "beta", "alpha"]


def test_what_comes_next_is_about_what_nothing_more_is_done_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It pointed at the run that Ctrl-C had ended, and `harness status` at itself."""
    story = Story()
    story.see(A, B)
    story.run(A, interrupted())
    run_id = story.run(B, crashed())
    show = f"harness show runs/beta/{run_id}"
    assert shown(story.state, capsys)[1] == ["harness status", show]
    assert shown(story.state, capsys, is_asked=True)[1] == [show]


def test_one_doubt_about_many_runtimes_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Five teams on a machine that drifted were five lines, with a run without any runtime."""
    story = Story()
    story.see(A, B, C)
    for one, end in ((A, ran()), (B, crashed()), (C, ran())):
        run_id = story.run(one, end)
        story.tell(Suspected(team=one.team, run_id=run_id, reason="drift"))
    text, _ = shown(story.state, capsys)
    lines = text.partition("before runtimes are compared\n")[2].splitlines()
    assert lines[0] == "  alpha, gamma: suspect: drift"
    assert "queued again; before: succeeded, suspect" in text


def test_scoring_that_waits_for_the_machine_is_told_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    view = CampaignView(("task_01",), plain=True)
    for _ in range(3):
        view.scoring("alpha", "r1")
    assert capsys.readouterr().err.count("scoring r1") == 1


def test_a_run_that_had_not_the_machine_alone_is_told_when_it_ends() -> None:
    """Its line said nothing, and the next one that it was made again."""
    story = Story()
    story.see(A)
    story.run(A, ran(machine_verdict=MachineVerdict.SUSPECT))
    told = line_of(story.lines[-1], story.state)
    assert told is not None
    assert "median 1.500 s; suspect: the machine was not the submission's alone" in told
