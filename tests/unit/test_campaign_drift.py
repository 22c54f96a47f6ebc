"""A machine that got slower makes what ran on it suspect."""

from __future__ import annotations

import pytest

from harness.campaign.calibration import drift_ratio
from harness.campaign.decide import next_work
from harness.campaign.drift import machines, new_suspicions
from harness.campaign.events import Opened
from harness.campaign.order import Place
from harness.campaign.policy import Calibration, Policy
from harness.campaign.rules import published
from harness.machine.contamination import MachineVerdict
from tests.campaign_story import HERE, Story, conditions, crashed, ran, upload

POLICY = Policy(calibration=Calibration(every=2, threshold=0.1))
A, B, C, D = (upload(team) for team in ("alpha", "beta", "gamma", "delta"))


def suspect(story: Story, policy: Policy = POLICY) -> list[str]:
    """Teams; what is found is told, so that it is found once."""
    found = new_suspicions(story.state, policy)
    for one in found:
        story.tell(one)
    return [one.team for one in found]


def test_what_ran_between_two_calibrations_within_the_threshold_is_beyond_doubt() -> None:
    story = Story()
    for one, runtime_s in ((None, 1.0), (A, 9.0), (None, 1.09), (B, 9.0), (None, 0.91)):
        story.run(one, ran(runtime_s=runtime_s))
    assert suspect(story) == []


@pytest.mark.parametrize(("runtime_s", "told"), [(1.2, "20.0% slower"), (0.8, "20.0% faster")])
def test_all_between_the_calibrations_within_the_threshold_are_suspect(
    runtime_s: float, told: str
) -> None:
    story = Story()
    for one in (None, A, None, B):
        story.run(one, ran())
    story.run(C, crashed())  # has no runtimes
    assert suspect(story) == []
    story.run(None, ran(runtime_s=runtime_s))
    (found,) = new_suspicions(story.state, POLICY)
    assert found.reason == (
        f"calibration r12 on box was {told} than the first one there, of 10% allowed"
    )
    assert suspect(story) == ["beta"]
    story.run(D, ran())
    assert suspect(story) == ["delta"]  # at once: no calibration can clear it
    story.run(None, ran())
    story.run(C, ran())
    story.run(None, ran())
    assert suspect(story) == []


def test_the_drift_is_the_median_over_the_pairs_that_both_have() -> None:
    story = Story()
    before = {"a": 1.0, "b": 1.0, "c": 1.0, "d": 1.0, "zero": 0.0}
    now = {"a": 1.02, "b": 1.04, "c": 9.0, "e": 5.0, "zero": 1.0}
    story.run(None, ran().model_copy(update={"runtimes_s": before}))
    run_id = story.run(None, ran().model_copy(update={"runtimes_s": now}))
    drift = drift_ratio(story.state, story.state.attempts["_calibration", run_id])
    assert drift == pytest.approx(0.04)


def test_no_pair_in_common_is_no_proof() -> None:
    story = Story()
    story.run(None, ran())
    story.run(A, ran())
    story.run(None, ran().model_copy(update={"runtimes_s": {"other": 1.0}}))
    (found,) = new_suspicions(story.state, POLICY)
    assert "has no pair in common" in found.reason


def test_machines_and_fingerprints_are_apart() -> None:
    other = Place(name="other", machine="box2", machine_digest="m1")
    story = Story()
    story.run(None, ran())
    story.run(None, ran(runtime_s=3.0), other)
    story.run(A, ran(), other)
    story.run(None, ran(runtime_s=3.0), other)
    assert suspect(story) == []
    story.run(None, ran(runtime_s=5.0, digest="m2"))
    assert suspect(story) == []


def test_a_machine_that_changed_before_it_was_calibrated_again() -> None:
    story = Story()
    story.run(None, ran())
    story.run(A, ran())
    story.run(None, ran(digest="m2"))
    (found,) = new_suspicions(story.state, POLICY)
    assert found.reason == "the machine changed before it was calibrated again"


def test_the_baseline_is_of_a_quiet_machine_if_there_is_one() -> None:
    story = Story()
    story.run(None, ran(runtime_s=2.0, machine_verdict=MachineVerdict.SUSPECT))
    story.run(A, ran())
    story.run(None, ran())
    assert suspect(story) == ["alpha"]
    story.run(B, ran())
    story.run(None, ran())
    assert suspect(story) == []


def test_without_a_calibration_after_it_an_attempt_is_suspect() -> None:
    story = Story()
    story.run(None, ran())
    story.run(A, ran())
    for _ in range(2):
        story.run(None, crashed())
        assert suspect(story) == []
    story.run(None, crashed())
    (found,) = new_suspicions(story.state, POLICY)
    assert found.team == "alpha"
    assert found.reason.startswith("no calibration after it: its calibration failed 3 times")


def test_other_conditions_do_not_matter() -> None:
    story = Story()
    story.run(None, ran())
    story.run(A, ran())
    story.tell(Opened(conditions=conditions("2")))
    story.run(None, ran(runtime_s=2.0))
    assert suspect(story) == []
    story.tell(Opened(conditions=conditions()))
    story.run(None, ran(runtime_s=2.0))
    assert suspect(story) == ["alpha"]


def test_without_calibrations_nothing_is_suspected() -> None:
    story = Story()
    story.run(None, ran())
    story.run(A, ran())
    story.run(None, ran(runtime_s=2.0))
    assert suspect(story, Policy(calibration=Calibration(source=None))) == []


def test_a_machine_that_drifted_is_given_time_before_anything_is_timed_there() -> None:
    story = Story()
    story.see(A)
    story.run(None, ran())
    story.run(A, ran())
    whys = []
    for _ in range(3):
        story.run(None, ran(runtime_s=2.0))
        suspect(story)
        (one,) = next_work(story.state, POLICY, frozenset({A.id}), (HERE,), {})
        whys.append((one.team, one.why))
    assert whys[:2] == [("_calibration", "again, as it drifted, on box")] * 2
    assert whys[2][0] == "alpha"  # it does not come back: it is used as it is


def test_published_runtimes_of_several_kinds_of_machines_are_told() -> None:
    story = Story()
    other = Place(name="other", machine="box2", machine_digest="m2")
    story.see(A, B, C)
    story.run(A, ran())
    story.run(B, crashed(), other)
    policy = Policy(calibration=Calibration(source=None))
    assert machines(story.state, published(story.state, policy)) == ()
    story.run(C, ran(digest="m2"), other)
    (told,) = machines(story.state, published(story.state, policy))
    assert told == (
        "runtimes of 2 kinds of machines, which must not be compared with each other: "
        "box (m1): alpha; box2 (m2): gamma"
    )


def test_equal_fingerprints_that_are_not_equally_fast_are_told() -> None:
    story = Story()
    other = Place(name="other", machine="box2", machine_digest="m1")
    story.see(A, B)
    story.run(None, ran())
    story.run(A, ran())
    story.run(None, ran(runtime_s=1.5), other)
    story.run(B, ran(), other)
    (told,) = machines(story.state, published(story.state, POLICY))
    assert told.startswith("box2 took 1.50 times as long as box for the reference image")
