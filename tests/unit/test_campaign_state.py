"""What the journal's events add up to, however they follow each other."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.campaign.events import AttemptStarted, Line, Opened, TeamDropped, TeamRetried
from harness.campaign.order import AttemptKind, JobEnd, Outcome, Place
from harness.campaign.state import CampaignState, Touch, replay
from harness.campaign.upload import TeamInfo
from harness.machine.contamination import MachineVerdict
from tests.campaign_story import HERE, Story, conditions, crashed, interrupted, ran, upload

if TYPE_CHECKING:
    from harness.campaign.upload import Upload

A, B = upload("alpha"), upload("beta")
OTHER = Place(name="other", machine="box", gpu="GPU-1")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([None, A, B, upload("alpha", 2)]),
            st.sampled_from([HERE, OTHER]),
            st.sampled_from([ran(), crashed(), interrupted(), None]),
            st.sampled_from(["1", "1", "2"]),
        )
    )
)
def test_what_is_kept_at_hand_is_what_a_search_would_find(
    attempts: list[tuple[Upload | None, Place, JobEnd | None, str]],
) -> None:
    story = Story()
    story.see(A, B, upload("alpha", 2))
    by_id = {one.id: one for one in (A, B, upload("alpha", 2))}
    for one, place, end, version in attempts:
        story.tell(Opened(conditions=conditions(version)))
        run_id = story.start(one, place)
        if end is not None:
            story.end(one, run_id, end)
    state = story.state
    everything = list(state.attempts.values())
    for upload_id in by_id:
        found = [one for one in everything if one.started.upload == upload_id]
        assert list(state.of_upload(upload_id)) == found
        assert state.is_under_way(upload_id) == any(one.end is None for one in found)
    for team in ("alpha", "beta", "_calibration", "nobody"):
        assert list(state.of_team(team)) == [one for one in everything if one.key[0] == team]
    for rig in ("box", "box (GPU-1)", "nowhere"):
        found = [one for one in everything if one.started.place.rig == rig]
        assert list(state.on_rig(rig)) == found
        ends = sum(one.end is not None for one in found)
        assert state.rig_changes(rig) == len(found) + ends
    assert state.under_way() == [one for one in everything if one.end is None]
    for attempt in everything:
        assert state.is_current(attempt) == (attempt.conditions == state.conditions)
    assert replay(story.lines) == state


def test_another_name_makes_no_newer_upload() -> None:
    story = Story()
    older, newer = upload("alpha", 1), upload("alpha", 2)
    story.see(older, newer)
    renamed = older.model_copy(update={"entry": "again.tar", "arrived_s": 99.0})
    story.see(renamed, info=TeamInfo(display_name="A"))
    team = story.state.teams["alpha"]
    assert team.newest == newer
    assert team.uploads[older.id].entry == "again.tar"
    assert team.uploads[older.id].arrived_s == older.arrived_s
    assert team.info.display_name == "A"


def test_of_two_uploads_of_one_moment_the_one_seen_last_is_the_newest() -> None:
    story = Story()
    first, second = (upload("alpha", number, arrived_s=5.0) for number in (1, 2))
    story.see(first, second)
    assert story.state.teams["alpha"].newest == second


def test_a_retry_takes_a_dropped_team_back() -> None:
    story = Story()
    story.tell(TeamDropped(team="alpha"))
    before = replace(story.state.teams["alpha"])
    story.tell(TeamRetried(team="alpha"))
    after = story.state.teams["alpha"]
    assert (before.dropped, before.retried_n) == ("", None)
    assert (after.dropped, after.retried_n) == (None, 3)
    assert story.state.touched == [Touch(), Touch(team="alpha"), Touch(team="alpha")]


def test_an_attempt_remembers_the_tasks_of_when_it_began() -> None:
    story = Story()
    story.see(A)
    story.run(A, ran())
    story.see(upload("alpha", tasks=("task_01",)))
    story.run(A, ran())
    assert [one.tasks for one in story.state.of_upload(A.id)] == [None, ("task_01",)]


def test_the_result_of_an_image_that_had_run() -> None:
    story = Story()
    story.see(A)
    held = story.run(A, ran())
    same = story.run(A, JobEnd(outcome=Outcome.SAME, reason="", same_as=held))
    lost = story.run(A, JobEnd(outcome=Outcome.SAME, reason="", same_as="gone"))
    attempts = story.state.attempts
    assert story.state.result_of(attempts["alpha", same]) is attempts["alpha", held]
    assert story.state.result_of(attempts["alpha", lost]) is attempts["alpha", lost]


def test_only_runtimes_can_be_doubted() -> None:
    story = Story()
    story.see(A)
    for end in (ran(), crashed()):
        noisy = end.model_copy(update={"machine_verdict": MachineVerdict.SUSPECT})
        story.run(A, noisy)
    timed, untimed = story.state.of_upload(A.id)
    assert timed.doubt == "the machine was not the submission's alone while it ran"
    assert untimed.doubt is None


def test_an_attempt_before_the_campaign_was_opened_is_an_error() -> None:
    event = AttemptStarted(
        kind=AttemptKind.SUBMISSION, team="alpha", run_id="r", place=HERE, upload=A.id
    )
    with pytest.raises(ValueError, match="before the campaign was opened"):
        CampaignState().apply(Line(n=1, at="2026-01-01T00:00:00Z", event=event))
