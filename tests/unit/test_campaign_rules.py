"""The rules that decide which upload is taken, and which result is published."""

from __future__ import annotations

import math

import pytest

from harness.campaign.events import Opened, Suspected, TeamRetried
from harness.campaign.order import JobEnd, Outcome
from harness.campaign.policy import Calibration, Counted, Policy
from harness.campaign.rules import Published, admitted, gain, published
from harness.challenge.model import Metric
from harness.errors import Blame
from harness.machine.contamination import MachineVerdict
from tests.campaign_story import DAY_S, Story, conditions, crashed, fault, ran, upload

LATEST = Policy(calibration=Calibration(source=None))
BEST = LATEST.model_copy(update={"counted": Counted.BEST})
DAILY = LATEST.model_copy(update={"uploads_per_day": 2})
A = upload("alpha")


def of_alpha(story: Story, policy: Policy = LATEST) -> Published:
    return published(story.state, policy)["alpha"]


def test_the_limit_of_a_day_is_of_the_day_it_arrived_in_utc() -> None:
    story = Story()
    for number in (1, 2):
        one = upload("alpha", number, arrived_s=number * 100.0)
        assert admitted(story.state, one, DAILY) is None
        story.see(one)
    last = upload("alpha", 3, arrived_s=DAY_S - 1)
    assert admitted(story.state, last, DAILY) == (
        "alpha has 2 uploads of 1970-01-01 (UTC) already, of 2 allowed a day; hand it in again "
        "from 1970-01-02 00:00 UTC"
    )
    assert admitted(story.state, last, LATEST) is None
    assert admitted(story.state, upload("alpha", 3, arrived_s=DAY_S), DAILY) is None
    assert admitted(story.state, upload("beta", 3), DAILY) is None
    # What was taken stays so, whatever its file is called now.
    assert admitted(story.state, upload("alpha", 2), DAILY) is None


@pytest.mark.parametrize(
    ("initial", "value", "metric", "expected"),
    [
        (0.5, 0.75, Metric.DICE, 0.5),
        (0.5, 1.0, Metric.DICE30, 1.0),
        (0.5, 0.25, Metric.DICE, -0.5),
        (0.0, 0.25, Metric.DICE, 0.25),
        (8.0, 2.0, Metric.TRE, 0.75),
        (8.0, 16.0, Metric.TRE30, -1.0),
        (8.0, 0.0, Metric.TRE, 1.0),
        # The zero field is perfect already, or has no value: this says nothing.
        (1.0, 0.9, Metric.DICE, None),
        (0.0, 1.0, Metric.TRE, None),
        (None, 0.9, Metric.DICE, None),
        (math.nan, 0.9, Metric.DICE, None),
        (math.inf, 3.0, Metric.TRE, None),
        # The result has no finite value: nothing is gained.
        (0.5, None, Metric.DICE, 0.0),
        (0.5, math.nan, Metric.DICE, 0.0),
        (8.0, math.inf, Metric.TRE, 0.0),
        # Of these no perfect value is known, or they are not about accuracy.
        (8.0, 2.0, Metric.HD95, None),
        (0.5, 0.1, Metric.SDLOGJ, None),
    ],
)
def test_gain(
    initial: float | None, value: float | None, metric: Metric, expected: float | None
) -> None:
    assert gain(initial, value, metric) == expected


def test_the_newest_upload_is_published_even_while_it_waits() -> None:
    story = Story()
    story.see(A)
    story.run(A, ran())
    assert of_alpha(story).reason == "the newest upload: its only attempt"
    newer = upload("alpha", 2)
    story.see(newer)
    one = of_alpha(story)
    assert (one.upload, one.attempt, one.final) == (newer, None, False)
    assert one.reason == "the newest upload: not run yet"


def test_of_its_attempts_the_first_with_a_result_that_is_not_suspect() -> None:
    story = Story()
    story.see(A)
    story.run(A, fault())
    assert of_alpha(story).reason == "the newest upload: its last attempt, as none has a result"
    assert not of_alpha(story).final
    noisy = story.run(A, ran(machine_verdict=MachineVerdict.SUSPECT))
    one = of_alpha(story)
    assert one.attempt is story.state.attempts["alpha", noisy]
    assert one.doubt is not None
    assert one.reason == (
        "the newest upload: the first of 2 attempts that has a result, all suspect, so its "
        "runtimes are not ranked"
    )
    quiet = story.run(A, ran())
    one = of_alpha(story)
    assert one.attempt is story.state.attempts["alpha", quiet]
    assert one.reason == "the newest upload: the first of 3 attempts that is not suspect"
    story.tell(Suspected(team="alpha", run_id=quiet, reason="drift"))
    assert of_alpha(story).attempt is story.state.attempts["alpha", noisy]


def test_a_better_later_attempt_does_not_count() -> None:
    story = Story()
    story.see(A)
    story.run(A, crashed())
    story.run(A, ran())
    attempt = of_alpha(story).attempt
    assert attempt is not None
    assert attempt.end == crashed()


def test_after_a_retry_its_result_counts_once_there_is_one() -> None:
    story = Story()
    story.see(A)
    old = story.run(A, crashed())
    story.tell(TeamRetried(team="alpha"))
    story.run(A, fault())
    one = of_alpha(story)
    assert one.attempt is story.state.attempts["alpha", old]
    assert one.reason.endswith("until it is run again")
    new = story.run(A, ran())
    assert of_alpha(story).attempt is story.state.attempts["alpha", new]


def test_a_result_of_other_conditions_is_told() -> None:
    story = Story()
    story.see(A)
    story.run(A, ran())
    story.tell(Opened(conditions=conditions(processes=7)))
    one = of_alpha(story)
    assert one.final
    assert len(one.differences) == 1
    assert "made under other conditions (limit processes: " in one.reason
    story.run(A, fault())
    assert of_alpha(story).differences
    story.run(A, ran())
    assert of_alpha(story).differences == ()


def test_the_same_image_has_the_result_of_its_run() -> None:
    story = Story()
    story.see(A)
    run_id = story.run(A, ran())
    newer = upload("alpha", 2)
    story.see(newer)
    story.run(newer, JobEnd(outcome=Outcome.SAME, reason="", same_as=run_id))
    one = of_alpha(story)
    assert one.upload == newer
    assert one.result is story.state.attempts["alpha", run_id]


def test_the_best_upload_by_the_mean_gain() -> None:
    story = Story()
    uploads = [upload("alpha", number) for number in (1, 2, 3, 4)]
    story.see(*uploads)
    assert of_alpha(story, BEST).reason.startswith("the newest upload, as none has a result: ")
    runs = [story.run(one, ran()) for one in uploads[:3]]
    one = of_alpha(story, BEST)
    assert one.upload == uploads[2]
    assert one.reason.startswith("the newest upload with a result, as none was scored: ")
    story.score(uploads[0], runs[0], task_01=0.5, task_02=0.5, task_03=None)
    story.score(uploads[1], runs[1], task_01=0.9)  # as the zero field on task_02: 0.45
    story.score(uploads[2], runs[2], task_01=0.5, task_02=0.5, task_03=1.0)  # no better
    one = of_alpha(story, BEST)
    assert one.upload == uploads[0]
    assert one.reason.startswith("the best of 4 uploads, with a gain of 0.5000: ")
    assert of_alpha(story).upload == uploads[3]


def test_a_better_result_of_other_conditions_is_not_compared() -> None:
    story = Story()
    older, newer = upload("alpha", 1), upload("alpha", 2)
    story.see(older, newer)
    story.score(older, story.run(older, ran()), task_01=0.9)
    story.tell(Opened(conditions=conditions("2")))
    assert of_alpha(story, BEST).upload == older
    story.score(newer, story.run(newer, ran()), task_01=0.1)
    one = of_alpha(story, BEST)
    assert (one.upload, one.differences) == (newer, ())


def test_who_handed_in_nothing_has_a_reason() -> None:
    story = Story()
    story.tell(TeamRetried(team="alpha"))
    assert of_alpha(story).reason == "it handed in nothing that was taken"


def test_a_refusal_is_a_result() -> None:
    story = Story()
    story.see(A)
    story.run(A, JobEnd(outcome=Outcome.REFUSED, reason="no image", blame=Blame.SUBMISSION))
    assert of_alpha(story).final
