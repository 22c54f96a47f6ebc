"""What `harness status` says, and the campaign's exit code."""

from __future__ import annotations

import time

import pytest

from harness.campaign.crew import Progressed
from harness.campaign.events import Closed, Opened, Scored, Suspected, TeamDropped, UploadRejected
from harness.campaign.order import JobEnd, Outcome, Place
from harness.campaign.policy import Calibration, Policy, TeamOverride
from harness.campaign.rows import campaign_status
from harness.campaign.status import RowState, StatusRecord, TaskRow
from harness.campaign.upload import TeamInfo
from harness.campaign.verdict import exit_code
from harness.errors import Blame
from harness.execute import Progress, Step
from tests.campaign_story import Story, conditions, crashed, fault, interrupted, ran, upload

PLAIN = Policy(calibration=Calibration(source=None), machine_retries=0)
CALIBRATED = Policy(machine_retries=0)
A, B, C = (upload(team) for team in ("alpha", "beta", "gamma"))


def rows(status: StatusRecord) -> dict[tuple[str, str | None], TaskRow]:
    return {(row.team, row.task): row for row in status.rows}


def test_a_row_for_each_team_and_task() -> None:
    story = Story()
    story.see(A, info=TeamInfo(display_name="Team <A>"))
    story.see(B)
    status = campaign_status(story.state, PLAIN)
    assert [(row.team, row.task, row.state) for row in status.rows] == [
        ("alpha", None, RowState.QUEUED),
        ("beta", None, RowState.QUEUED),
    ]
    assert [(one.team, one.why) for one in status.outstanding] == [
        ("alpha", "never run"),
        ("beta", "never run"),
    ]
    run_id = story.run(A, ran())
    status = campaign_status(story.state, PLAIN, tasks=("task_01", "task_02"))
    assert status.teams == {RowState.DONE: 1, RowState.QUEUED: 1}
    row = rows(status)["alpha", "task_01"]
    assert (row.verdict, row.median_runtime_s, row.run_id) == ("succeeded", 1.5, run_id)
    assert (row.display_name, row.valid_fields, row.attempts) == ("Team <A>", 2, 1)
    assert row.published == "the newest upload: its only attempt"
    assert rows(status)["alpha", "task_02"].median_runtime_s is None
    assert StatusRecord.model_validate_json(status.model_dump_json(by_alias=True)) == status


def test_only_the_tasks_that_a_team_takes_part_in() -> None:
    story = Story()
    story.see(upload("alpha", tasks=("task_02",)))
    status = campaign_status(story.state, PLAIN, tasks=("task_01", "task_02"))
    assert [row.task for row in status.rows] == ["task_02"]


def test_what_is_under_way_and_how_far() -> None:
    story = Story()
    story.see(A, B)
    first, second = story.start(A), story.start(B, Place(name="p", machine="q"))
    reports = [
        Progressed(team="alpha", run_id=first, doing="reading the image"),
        Progressed(
            team="beta",
            run_id=second,
            doing="running",
            progress=Progress(step=Step.FIELD_WRITTEN, done=3),
            pairs=8,
        ),
    ]
    status = campaign_status(story.state, PLAIN, None, reports)
    told = [(row.state, row.doing, row.place) for row in status.rows]
    assert told == [
        (RowState.IMPORTING, "reading the image", "here"),
        (RowState.RUNNING, "3/8 pairs", "p"),
    ]
    assert [one.under_way for one in status.rigs] == [("alpha",), ("beta",)]


def test_what_is_not_in_the_folder_and_who_is_dropped() -> None:
    story = Story()
    story.see(A, B)
    story.tell(TeamDropped(team="beta", reason="withdrew"))
    override = {"alpha": TeamOverride(name="The A team")}
    policy = PLAIN.model_copy(update={"teams": override})
    status = campaign_status(story.state, policy, frozenset())
    assert [(row.state, row.display_name) for row in status.rows] == [
        (RowState.ABSENT, "The A team"),
        (RowState.DROPPED, None),
    ]
    assert status.rows[1].notes == ("dropped: withdrew",)


def test_who_is_dropped_after_a_result_is_told_as_dropped() -> None:
    """It was told as done, with its result, as if nobody had asked for anything."""
    story = Story()
    story.see(A)
    run_id = story.run(A, ran())
    story.tell(TeamDropped(team="alpha", reason="withdrew"))
    (row,) = campaign_status(story.state, PLAIN).rows
    assert (row.state, row.notes, row.run_id) == (RowState.DROPPED, ("dropped: withdrew",), run_id)


def test_scores_suspicions_rejections_and_requests() -> None:
    story = Story()
    story.see(A)
    run_id = story.run(A, ran())
    story.tell(
        Scored(
            team="alpha",
            run_id=run_id,
            exit_code=0,
            findings=0,
            truth_digest=None,
            harness_version="1",
            gains={"task_01": 0.5},
            metrics={"task_01": {"dice": 0.75}},
        )
    )
    story.tell(Suspected(team="alpha", run_id=run_id, reason="drift"))
    story.tell(UploadRejected(entry="x.zip", reason="no zip"))
    story.tell(Opened(conditions=conditions("2")))
    story.tell(Closed(exit_code=3, outstanding=1))
    status = campaign_status(story.state, PLAIN, requests=("retry alpha",))
    row = rows(status)["alpha", "task_01"]
    assert (row.gain, row.metrics, row.suspect) == (0.5, {"dice": 0.75}, "drift")
    assert row.notes == (
        "alpha-1.tar: conditions changed: harness version: 1 before, 2 now",
        "made under other conditions: harness version: 1 before, 2 now",
    )
    assert [one.reason for one in status.rejected] == ["no zip"]
    assert (status.requests, status.exit_code) == (("retry alpha",), 3)


def test_the_calibrations_of_each_machine() -> None:
    story = Story()
    story.see(A)
    story.run(None, ran())
    story.run(None, ran(runtime_s=1.05))
    story.run(A, ran())
    (rig,) = campaign_status(story.state, CALIBRATED).rigs
    assert (rig.rig, rig.attempts, rig.calibrations, rig.uncalibrated) == ("box", 3, 2, 1)
    assert rig.drift_ratio == pytest.approx(0.05)
    assert rig.unusable is None


def test_what_the_teams_did_themselves_is_no_fault_of_the_campaign() -> None:
    story = Story()
    story.see(A, B)
    story.run(A, crashed())
    story.run(B, JobEnd(outcome=Outcome.REFUSED, reason="", blame=Blame.SUBMISSION, exit_code=24))
    assert exit_code(story.state, PLAIN) == 0


def test_the_configuration_before_the_machine_before_interruptions() -> None:
    story = Story()
    policy = PLAIN.model_copy(update={"interruption_retries": 0})
    assert exit_code(story.state, policy) == 0
    story.see(A, B, C)
    story.run(A, interrupted())
    assert exit_code(story.state, policy) == 130
    story.run(B, fault(exit_code=46))
    assert exit_code(story.state, policy) == 46
    story.run(C, fault(Blame.CONFIGURATION, exit_code=11))
    assert exit_code(story.state, policy) == 11
    assert campaign_status(story.state, policy).rows[2].state is RowState.GIVEN_UP
    story.tell(TeamDropped(team="gamma"))
    assert exit_code(story.state, policy) == 46


def test_of_one_kind_the_code_that_most_have() -> None:
    story = Story()
    story.see(A, B, C)
    for one, code in ((A, 46), (B, 35), (C, 35)):
        story.run(one, fault(exit_code=code))
    assert exit_code(story.state, PLAIN) == 35


def test_what_has_no_place_or_no_file() -> None:
    story = Story()
    story.see(A)
    assert exit_code(story.state, PLAIN, frozenset({A.id})) == 29
    assert exit_code(story.state, PLAIN, frozenset()) == 0
    story.start(A)
    assert exit_code(story.state, PLAIN) == 130


def test_a_reference_image_that_fails_is_the_organisers() -> None:
    story = Story()
    story.see(A)
    story.run(None, crashed())
    assert exit_code(story.state, CALIBRATED) == 15
    (rig,) = campaign_status(story.state, CALIBRATED).rigs
    assert rig.unusable is not None


@pytest.mark.parametrize(("code", "expected"), [(11, 11), (30, 30), (1, 1), (21, 0)])
def test_a_result_that_could_not_be_scored(code: int, expected: int) -> None:
    story = Story()
    story.see(A)
    run_id = story.run(A, ran())
    story.tell(
        Scored(
            team="alpha",
            run_id=run_id,
            exit_code=code,
            findings=0,
            truth_digest=None,
            harness_version="1",
            problem="no truth",
        )
    )
    assert exit_code(story.state, PLAIN) == expected


def test_a_hundred_teams_are_told_in_milliseconds() -> None:
    story = Story()
    uploads = [upload(f"t{n}") for n in range(100)]
    story.see(*uploads)
    for one in uploads * 5:
        story.run(one, ran())
    campaign_status(story.state, PLAIN)
    began = time.perf_counter()
    campaign_status(story.state, PLAIN)
    assert time.perf_counter() - began < 0.1


def test_rows_that_are_kept_follow_what_happens() -> None:
    """The same state is asked again and again, and each answer is as if it were asked first."""
    story = Story()
    policy = CALIBRATED

    def told(present: frozenset[str] | None = None) -> StatusRecord:
        kept = campaign_status(story.state, policy, present, tasks=("task_01",))
        story.state.memo.clear()
        assert campaign_status(story.state, policy, present, tasks=("task_01",)) == kept
        return campaign_status(story.state, policy, present, tasks=("task_01",))

    story.see(A, B)
    assert [row.state for row in told(frozenset({A.id})).rows] == [
        RowState.QUEUED,
        RowState.ABSENT,
    ]
    assert [row.state for row in told(frozenset({A.id, B.id})).rows] == [RowState.QUEUED] * 2
    story.run(None, ran())
    story.start(A)
    assert [row.state for row in told().rows] == [RowState.RUNNING, RowState.QUEUED]
    assert told().rigs[0].under_way == ("alpha",)
    assert [one.team for one in told().outstanding] == ["beta"]
