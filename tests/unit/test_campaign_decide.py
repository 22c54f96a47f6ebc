"""What is to be run next, decided from what happened alone."""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.campaign.decide import next_work, outstanding, unusable
from harness.campaign.drift import new_suspicions
from harness.campaign.events import Opened, Suspected, TeamDropped, TeamRetried
from harness.campaign.order import AttemptKind, JobEnd, Outcome, Place
from harness.campaign.policy import Calibration, Counted, Exclusive, Policy, TeamOverride
from harness.campaign.rows import campaign_status
from harness.campaign.rules import published
from harness.campaign.state import replay
from harness.campaign.upload import CALIBRATION, UploadKind
from harness.errors import Blame
from harness.machine.contamination import MachineVerdict
from harness.store import RunStatus
from tests.campaign_story import (
    HERE,
    Story,
    conditions,
    crashed,
    fault,
    interrupted,
    ran,
    upload,
)

if TYPE_CHECKING:
    from harness.campaign.decide import Assignment

PLAIN = Policy(calibration=Calibration(source=None))
CALIBRATED = Policy(calibration=Calibration(every=2))
A, B, C = (upload(team) for team in ("alpha", "beta", "gamma"))
BOXES = tuple(Place(name=f"p{n}", machine=f"box{n}", machine_digest="m1") for n in range(3))
GPUS = tuple(
    Place(name=f"box/{n}", machine="box", gpu=f"GPU-{n}", machine_digest="m1") for n in range(2)
)


def work(
    story: Story, policy: Policy = PLAIN, places: tuple[Place, ...] = (HERE,)
) -> tuple[Assignment, ...]:
    """All that was seen is in the folder, and what was started is under way."""
    present = {one for team in story.state.teams.values() for one in team.uploads}
    busy = {one.started.place.name: one.key for one in story.state.under_way()}
    return next_work(story.state, policy, frozenset(present), places, busy)


def first(story: Story, policy: Policy = PLAIN, places: tuple[Place, ...] = (HERE,)) -> Assignment:
    return work(story, policy, places)[0]


def teams(assignments: tuple[Assignment, ...]) -> list[str]:
    return [one.team for one in assignments]


def test_what_never_ran_is_run_once_in_the_order_of_names() -> None:
    story = Story()
    story.see(B, A)
    assert (first(story).team, first(story).why, first(story).number) == ("alpha", "never run", 1)
    story.run(A, ran())
    assert teams(work(story)) == ["beta"]
    story.run(B, crashed())
    assert work(story) == ()


@pytest.mark.parametrize(
    "end",
    [
        ran(),
        crashed(),
        JobEnd(outcome=Outcome.REFUSED, reason="no image", blame=Blame.SUBMISSION, exit_code=24),
        JobEnd(outcome=Outcome.FIELDS, reason="checked"),
        JobEnd(outcome=Outcome.SAME, reason="its image ran", same_as="r0"),
    ],
)
def test_a_result_is_not_had_again(end: JobEnd) -> None:
    story = Story()
    story.see(A)
    story.run(A, end)
    assert work(story) == ()


def test_what_is_not_in_the_folder_waits() -> None:
    story = Story()
    story.see(A, B)
    assert teams(next_work(story.state, PLAIN, frozenset({B.id}), (HERE,), {})) == ["beta"]
    assert [one.upload for one in outstanding(story.state, PLAIN)] == [A, B]


def test_only_the_newest_upload_counts_unless_the_best_does() -> None:
    story = Story()
    older, newer = upload("alpha", 1), upload("alpha", 2)
    story.see(newer, older)
    assert first(story).upload == newer
    best = Policy(calibration=Calibration(source=None), counted=Counted.BEST)
    assert [one.upload for one in work(story, best, BOXES)] == [older, newer]


def test_changed_limits_are_a_reason_and_named() -> None:
    story = Story()
    story.see(A)
    story.run(A, crashed())
    story.tell(Opened(conditions=conditions(processes=7)))
    assert first(story).why.startswith("limits changed: limit processes: ")
    assert first(story).number == 2
    story.tell(Opened(conditions=conditions("2")))
    assert first(story).why == "conditions changed: harness version: 1 before, 2 now"
    story.tell(Opened(conditions=conditions()))
    assert work(story) == ()  # as they were when it ran


def test_other_tasks_are_a_reason() -> None:
    story = Story()
    story.see(A)
    story.run(A, ran())
    story.see(upload("alpha", tasks=("task_01",)))
    assert first(story).why == "tasks changed: all before, task_01 now"


def test_a_machines_fault_is_tried_again_as_often_as_is_allowed() -> None:
    story = Story()
    story.see(A)
    story.run(A, fault())
    assert first(story).why == "the machine's fault: the engine went away (attempt 2 of 3)"
    story.run(A, JobEnd(outcome=Outcome.FAILED, reason="no space", blame=Blame.CONFIGURATION))
    assert first(story).why == "the configuration's fault: no space (attempt 3 of 3)"
    story.run(A, interrupted())  # is none of the three
    assert first(story).why == "interrupted: the harness died"
    story.run(A, fault())
    assert work(story) == ()
    story.tell(TeamRetried(team="alpha"))
    assert first(story).why == "asked for by `harness retry`"
    assert first(story).number == 5


def test_interruptions_have_a_bound_of_their_own() -> None:
    """Or a submission that takes its worker down would have every worker that comes."""
    story = Story()
    story.see(A)
    policy = PLAIN.model_copy(update={"interruption_retries": 1})
    story.run(A, interrupted())
    assert teams(work(story, policy)) == ["alpha"]
    story.run(A, interrupted())
    assert work(story, policy) == ()


def test_who_was_interrupted_comes_after_the_others() -> None:
    story = Story()
    story.see(A, B)
    story.run(A, interrupted())
    assert teams(work(story)) == ["beta"]
    story.run(B, interrupted())
    story.run(B, interrupted())
    assert teams(work(story)) == ["alpha"]


def test_a_retry_is_made_once_even_of_a_result() -> None:
    story = Story()
    story.see(A)
    story.run(A, ran())
    story.tell(TeamRetried(team="alpha"))
    story.run(A, crashed())
    assert work(story) == ()


def test_a_team_that_is_dropped_is_not_run() -> None:
    story = Story()
    story.see(A, B)
    story.tell(TeamDropped(team="alpha"))
    assert teams(work(story)) == ["beta"]
    override = {"beta": TeamOverride(drop="withdrew")}
    assert work(story, PLAIN.model_copy(update={"teams": override})) == ()
    story.tell(TeamRetried(team="alpha"))
    assert teams(work(story)) == ["alpha"]


def test_suspect_runs_are_repeated_as_often_as_is_allowed() -> None:
    story = Story()
    story.see(A, B)
    run_id = story.run(A, ran())
    story.tell(Suspected(team="alpha", run_id=run_id, reason="drift of 20 %"))
    assert first(story).why == "suspect: drift of 20 %"
    story.run(A, ran(machine_verdict=MachineVerdict.SUSPECT))
    assert teams(work(story)) == ["beta"]
    story.run(B, ran(machine_verdict=MachineVerdict.SUSPECT))
    assert first(story).why.startswith("suspect: the machine was not the submission's alone")
    story.run(B, ran())
    assert work(story) == ()


@pytest.mark.parametrize(
    ("status", "again"),
    [
        (RunStatus.CRASHED, False),
        (RunStatus.INCOMPLETE, False),
        (RunStatus.OUT_OF_MEMORY, False),
        (RunStatus.REJECTED, False),
        (RunStatus.OUTPUT_LIMIT, False),
        (RunStatus.TIMED_OUT, True),
    ],
)
def test_a_teams_own_fault_is_not_repeated_for_a_busy_machine_unless_that_can_cause_it(
    status: RunStatus, again: bool
) -> None:
    story = Story()
    story.see(A)
    key = story.run(A, ran(status=status, blame=Blame.SUBMISSION, exit_code=status.exit_code))
    story.tell(Suspected(team="alpha", run_id=key, reason="drift of 20 %"))
    assert [one.why for one in work(story)] == ["suspect: drift of 20 %"] * again
    assert published(story.state, PLAIN)["alpha"].doubt == "drift of 20 %"


def test_the_same_image_is_as_suspect_as_the_run_it_has() -> None:
    story = Story()
    older, newer = upload("alpha", 1), upload("alpha", 2)
    story.see(older)
    run_id = story.run(older, ran())
    story.see(newer)
    story.run(newer, JobEnd(outcome=Outcome.SAME, reason="", same_as=run_id))
    assert work(story) == ()
    story.tell(Suspected(team="alpha", run_id=run_id, reason="drift"))
    assert first(story).upload == newer


def test_a_run_without_runtimes_is_not_repeated_for_a_busy_machine() -> None:
    story = Story()
    story.see(A)
    noisy = crashed().model_copy(update={"machine_verdict": MachineVerdict.SUSPECT})
    story.run(A, noisy)
    assert work(story) == ()


def test_a_retry_goes_to_another_machine_if_there_is_one() -> None:
    story = Story()
    story.see(A)
    story.run(A, fault(), BOXES[0])
    assert first(story, places=BOXES).place == BOXES[1]
    story.run(A, fault(), BOXES[1])
    assert first(story, places=BOXES).place == BOXES[2]
    assert first(story, places=BOXES[:2]).place == BOXES[0]
    # One that is busy now will be free.
    story.see(B)
    story.start(B, BOXES[2])
    assert work(story, places=BOXES) == ()


def test_one_attempt_a_place_and_none_twice() -> None:
    story = Story()
    story.see(A, B, C)
    assert [(one.team, one.place) for one in work(story, places=BOXES[:2])] == [
        ("alpha", BOXES[0]),
        ("beta", BOXES[1]),
    ]
    story.start(A, BOXES[0])
    assert teams(work(story, places=BOXES)) == ["beta", "gamma"]
    busy = {place.name: ("x", "y") for place in BOXES}
    assert next_work(story.state, PLAIN, frozenset({B.id}), BOXES, busy) == ()


def test_a_machine_alone_or_a_gpu_alone() -> None:
    story = Story()
    story.see(A, B, C)
    assert teams(work(story, places=GPUS)) == ["alpha"]
    shared = PLAIN.model_copy(update={"exclusive": Exclusive.GPU})
    assert teams(work(story, shared, GPUS)) == ["alpha", "beta"]
    story.start(A, GPUS[0])
    assert work(story, places=GPUS) == ()
    assert [one.place for one in work(story, shared, GPUS)] == [GPUS[1]]


def test_the_order_of_the_file_then_a_shuffle_that_others_do_not_change() -> None:
    names = [f"t{n}" for n in range(20)]
    story = Story()
    story.see(*(upload(name) for name in names))
    plain = PLAIN.model_copy(update={"order": ("t7", "t3")})
    order = [one.upload.team for one in outstanding(story.state, plain)]
    assert order == ["t7", "t3", *sorted(set(names) - {"t7", "t3"})]
    shuffled = [
        [one.upload.team for one in outstanding(story.state, plain.model_copy(update={"seed": n}))]
        for n in (1, 2, 1)
    ]
    assert shuffled[0] == shuffled[2] != shuffled[1]
    assert shuffled[0][:2] == ["t7", "t3"]
    assert shuffled[0] != order
    fewer = Story()
    fewer.see(*(upload(name) for name in names[:10]))
    assert [
        one.upload.team for one in outstanding(fewer.state, plain.model_copy(update={"seed": 1}))
    ] == [team for team in shuffled[0] if team in names[:10]]


def test_calibrations_before_between_and_after() -> None:
    story = Story()
    story.see(A, B, C)
    told = []
    while assignments := work(story, CALIBRATED):
        (one,) = assignments
        told.append((one.team, one.why))
        story.end(one.upload, story.begin(one), ran())
    assert told == [
        (CALIBRATION, "before the first attempt on box"),
        ("alpha", "never run"),
        ("beta", "never run"),
        (CALIBRATION, "after 2 attempts on box"),
        ("gamma", "never run"),
        (CALIBRATION, "after the last attempt on box"),
    ]


def test_each_machine_and_each_new_fingerprint_is_calibrated() -> None:
    story = Story()
    story.see(A, B)
    assert teams(work(story, CALIBRATED, BOXES[:2])) == [CALIBRATION, CALIBRATION]
    story.run(None, ran())
    changed = HERE.model_copy(update={"machine_digest": "m2"})
    assert first(story, CALIBRATED).team == "alpha"
    assert first(story, CALIBRATED, (changed,)).why == "the machine is not what it was on box"
    story.tell(Opened(conditions=conditions("2")))
    assert first(story, CALIBRATED).why == "before the first attempt on box"


def test_each_gpu_is_calibrated() -> None:
    story = Story()
    story.see(A)
    policy = CALIBRATED.model_copy(update={"exclusive": Exclusive.GPU})
    story.run(None, ran(), GPUS[0])
    assert work(story, policy, GPUS[1:])[0].kind is AttemptKind.CALIBRATION
    assert first(story, policy, GPUS).team == "alpha"


def test_nothing_starts_beside_a_calibration_of_the_same_machine() -> None:
    two = tuple(HERE.model_copy(update={"name": name}) for name in ("one", "two"))
    story = Story()
    story.see(A, B)
    policy = CALIBRATED.model_copy(update={"exclusive": Exclusive.GPU})
    assert teams(work(story, policy, two)) == [CALIBRATION]
    run_id = story.start(None, two[0])
    assert work(story, policy, two) == ()
    story.end(None, run_id, ran())
    assert teams(work(story, policy, two)) == ["alpha", "beta"]


def test_a_place_whose_calibration_fails_is_given_up() -> None:
    story = Story()
    story.see(A)
    for number in range(3):
        assert unusable(story.state, CALIBRATED, (HERE,)) == {}
        one = first(story, CALIBRATED)
        assert (one.kind, one.number) == (AttemptKind.CALIBRATION, number + 1)
        story.end(None, story.begin(one), crashed())
    assert work(story, CALIBRATED) == ()
    reason = "its calibration failed 3 times in a row: exit code 1; see the log"
    assert unusable(story.state, CALIBRATED, (HERE, BOXES[0])) == {"here": reason}
    assert work(story, CALIBRATED, (HERE, BOXES[0]))[0].place == BOXES[0]
    # Fields are checked, not timed.
    zipped = upload("delta", kind=UploadKind.FIELDS)
    story.see(zipped)
    assert teams(work(story, CALIBRATED)) == ["delta"]
    # Whoever takes the campaign up again has mended it.
    story.tell(Opened(conditions=conditions()))
    assert first(story, CALIBRATED).kind is AttemptKind.CALIBRATION


ENDS = st.sampled_from(
    [
        *[ran(), ran(runtime_s=1.5), crashed(), fault(), interrupted()],
        ran(machine_verdict=MachineVerdict.SUSPECT),
        JobEnd(outcome=Outcome.FAILED, reason="disk", blame=Blame.CONFIGURATION, exit_code=12),
        ran(status=RunStatus.INTERRUPTED, blame=Blame.MACHINE, recovered=True, is_timed=False),
    ]
)
PLACES = (*BOXES[:2], *GPUS)


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    policy=st.builds(
        Policy,
        counted=st.sampled_from(Counted),
        exclusive=st.sampled_from(Exclusive),
        seed=st.sampled_from([None, 1]),
        suspect_reruns=st.integers(0, 2),
        machine_retries=st.integers(0, 2),
        interruption_retries=st.integers(0, 3),
        calibration=st.builds(
            Calibration, source=st.sampled_from([None, "."]), every=st.integers(1, 3)
        ),
    ),
    kinds=st.lists(st.sampled_from(UploadKind), min_size=1, max_size=6),
)
def test_any_campaign_ends_with_a_reason_for_each_team(
    data: st.DataObject, policy: Policy, kinds: list[UploadKind]
) -> None:
    """Random ends, and a harness that dies at random and takes the campaign up again."""
    story = Story()
    uploads = [upload(f"t{n % 4}", n + 1, kind=kind) for n, kind in enumerate(kinds)]
    story.see(*uploads)
    for _ in range(2000):
        for one in work(story, policy, PLACES):
            check_assignment(story, policy, one)
            story.begin(one)
        under_way = story.state.under_way()
        if not under_way:
            break
        if data.draw(st.integers(0, 9), label="died") == 0:
            for attempt in under_way:
                finish(story, attempt.key, interrupted())
            story.tell(Opened(conditions=conditions()))
            check_replayed(story, policy)
        else:
            attempt = data.draw(st.sampled_from(under_way), label="ended")
            finish(story, attempt.key, data.draw(ENDS, label="end"))
        for suspected in new_suspicions(story.state, policy):
            story.tell(suspected)
    else:
        raise AssertionError("it does not end")
    check_replayed(story, policy)
    check_end(story, policy)


def finish(story: Story, key: tuple[str, str], end: JobEnd) -> None:
    attempt = story.state.attempts[key]
    one = None
    if attempt.started.upload is not None:
        one = story.state.teams[key[0]].uploads[attempt.started.upload]
    if one is not None and one.kind is UploadKind.FIELDS and end.is_final:
        end = JobEnd(outcome=Outcome.FIELDS, reason="checked")
    story.end(one, key[1], end)


def check_assignment(story: Story, policy: Policy, one: Assignment) -> None:
    state = story.state
    beside = state.under_way()
    assert one.place.name not in {other.started.place.name for other in beside}
    if policy.exclusive is Exclusive.MACHINE:
        assert one.place.machine not in {other.started.place.machine for other in beside}
    if one.upload is None:
        assert policy.calibration.source is not None
        return
    assert not state.is_under_way(one.upload.id)
    finals = [past for past in state.of_upload(one.upload.id) if past.is_final]
    assert all(past.doubt is not None for past in finals), "it has a result"
    assert len(finals) <= policy.suspect_reruns
    if policy.calibration.source is not None and one.upload.kind is not UploadKind.FIELDS:
        check_bracket(story, policy, one.place)


def check_bracket(story: Story, policy: Policy, place: Place) -> None:
    """The last calibration here ended well, with fewer timed attempts since than are allowed."""
    since = 0
    for past in reversed(story.state.on_rig(place.rig)):
        if past.is_calibration:
            assert past.end is not None
            assert past.end.status is RunStatus.SUCCEEDED
            assert since < policy.calibration.every
            return
        since += past.is_timed
    raise AssertionError("no calibration before it")


def check_replayed(story: Story, policy: Policy) -> None:
    """Whoever reads the journal anew decides the same as who was there all the time."""
    anew = Story()
    anew.lines, anew.state = story.lines, replay(story.lines)
    assert anew.state == story.state
    assert new_suspicions(anew.state, policy) == new_suspicions(story.state, policy)
    assert work(anew, policy, PLACES) == work(story, policy, PLACES)
    assert outstanding(anew.state, policy) == outstanding(story.state, policy)
    assert campaign_status(anew.state, policy) == campaign_status(story.state, policy)


def check_end(story: Story, policy: Policy) -> None:
    """Nothing is left but what no place can run; what was timed last was calibrated after."""
    dead = unusable(story.state, policy, PLACES)
    for one in outstanding(story.state, policy):
        assert one.upload.kind is not UploadKind.FIELDS
        assert set(dead) == {place.name for place in PLACES}
    for name, counts in published(story.state, policy).items():
        assert counts.reason
        assert counts.final or counts.attempt is None or not counts.attempt.is_final
        if name not in {one.upload.team for one in outstanding(story.state, policy)}:
            assert counts.attempt is not None
            assert counts.differences == ()
    if policy.calibration.source is None:
        return
    for place in PLACES:
        timed = [past for past in story.state.on_rig(place.rig) if past.is_timed]
        if timed and place.name not in dead:
            assert timed[-1].is_calibration


def test_after_ten_thousand_attempts_the_next_are_decided_in_milliseconds() -> None:
    story = Story()
    uploads = [upload(f"t{n}") for n in range(10_200)]
    story.see(*uploads)
    places = tuple(Place(name=f"p{n}", machine=f"b{n}", machine_digest="m") for n in range(64))
    for number, one in enumerate(uploads[:10_000]):
        if number % 320 < 64:  # each machine after five attempts
            story.run(None, ran(), places[number % 64])
        story.run(one, ran(), places[number % 64])
    present = frozenset(one.id for one in uploads)
    under_way: dict[str, tuple[str, Assignment]] = {}
    policy = Policy()
    took_s: list[float] = []
    ended = 0
    while under_way or not took_s:
        busy = {place: (given.team, run_id) for place, (run_id, given) in under_way.items()}
        began = time.perf_counter()
        assignments = next_work(story.state, policy, present, places, busy)
        suspicions = new_suspicions(story.state, policy)
        took_s.append(time.perf_counter() - began)
        assert suspicions == ()
        for assigned in assignments:
            under_way[assigned.place.name] = story.begin(assigned), assigned
        if not under_way:
            break
        run_id, made = under_way.pop(next(iter(under_way)))
        story.end(made.upload, run_id, ran())
        ended += made.upload is not None
    assert ended == 200
    # Ten times what it takes on a slow core, so that only a scan of everything fails; the first
    # call looks at every team.
    assert median(took_s[1:]) < 0.01
