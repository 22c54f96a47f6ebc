"""Work that takes a share of the time at most."""

from __future__ import annotations

import pytest

from harness.campaign.pace import Pace


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def is_due(pace: Pace) -> bool:
    """Asked anew: mypy takes a property for what does not change by itself."""
    return pace.is_due


@pytest.mark.parametrize(("took_s", "pause_s"), [(0.1, 2.0), (0.2, 4.0), (60.0, 5.0)])
def test_it_is_due_again_after_a_multiple_of_what_it_took(took_s: float, pause_s: float) -> None:
    """An upload of 40 GB, read once, would have kept all others away for twenty minutes."""
    clock = Clock()
    pace = Pace(pauses=20.0, most_s=5.0, now_s=clock)
    assert is_due(pace)
    with pace.measured():
        clock.now_s += took_s
    assert not is_due(pace)
    clock.now_s += pause_s - 0.01
    assert not is_due(pace)
    clock.now_s += 0.02
    assert is_due(pace)


def test_what_fails_has_taken_its_time() -> None:
    clock = Clock()
    pace = Pace(pauses=20.0, now_s=clock)

    def fail() -> None:
        with pace.measured():
            clock.now_s += 1.0
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert not is_due(pace)
