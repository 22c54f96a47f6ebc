"""Other limits than the challenge's, from the command line."""

from __future__ import annotations

import pytest

from harness.challenge.limit_changes import change_limits
from harness.errors import ChallengeError
from tests.tiny import tiny_challenge


def test_limits_are_changed_and_named() -> None:
    before = tiny_challenge()
    after, changed = change_limits(
        before, ["memory=1GiB", "pair_time=2min", "processes=17", "setup_time=60s"]
    )
    assert changed == ("memory", "processes", "pair_time")  # the last is the challenge's own
    assert after.limits.memory_bytes == 1 << 30
    assert after.limits.deadline_s(1) == 180
    assert after.limits.processes == 17
    assert after.tasks == before.tasks
    assert before.limits.memory_bytes == 2 << 30
    assert change_limits(before, []) == (before, ())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("memory", r"expected NAME=VALUE, such as memory=8GiB"),
        ("memroy=1GiB", r"limit 'memroy': expected one of memory, .*did you mean.*memory"),
        ("memory=1Gib2", r"memory.*expected a number with a unit"),
        ("memory=0", r"memory.*0"),
        ("memory=1MiB", r"expected at most memory, 1\.0 MiB"),
        ("open_files=15", r"open_files: expected .*16.*15"),
        ("processes=many", r"processes.*'many'"),
    ],
)
def test_what_is_no_limit_is_refused(change: str, message: str) -> None:
    with pytest.raises(ChallengeError, match=f"(?s){message}"):
        change_limits(tiny_challenge(), [change])
