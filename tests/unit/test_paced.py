"""A slow look beside a loop that must not wait for it."""

from __future__ import annotations

import time

import pytest

from harness.paced import PacedLook


def test_the_loop_does_not_wait_for_a_slow_look() -> None:
    def look() -> int:
        time.sleep(0.3)
        return 7

    looks = PacedLook(look, every_s=0.0, share=1.0, pause_s=60.0)
    started = time.monotonic()
    assert looks.poll() is None
    assert time.monotonic() - started < 0.2
    assert looks.finish() == 7
    assert looks.poll() is None


def test_looks_are_as_seldom_as_they_are_slow() -> None:
    taken = []

    def look() -> int:
        time.sleep(0.02)
        taken.append(time.monotonic())
        return len(taken)

    looks = PacedLook(look, every_s=0.0, share=0.1, pause_s=60.0)
    end = time.monotonic() + 0.5
    found = []
    while time.monotonic() < end:
        if (value := looks.poll()) is not None:
            found.append(value)
        time.sleep(0.001)
    assert 1 <= len(taken) <= 3
    assert found == sorted(found)


def test_what_a_look_raises_reaches_the_loop() -> None:
    def fail() -> int:
        raise OSError("gone")

    looks = PacedLook(fail, every_s=0.0, share=1.0, pause_s=60.0)

    def poll() -> None:
        looks.poll()
        looks.finish()

    with pytest.raises(OSError, match="gone"):
        poll()


def test_no_pause_is_longer_than_it_may_be_however_slow_the_look() -> None:
    begun = []

    def look() -> None:
        begun.append(time.monotonic())
        time.sleep(0.2)

    looks = PacedLook(look, every_s=0.0, share=0.01, pause_s=0.1)
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        looks.poll()
        time.sleep(0.001)
    assert len(begun) >= 3


def test_a_look_is_taken_at_once_when_it_must_be() -> None:
    taken = []
    looks = PacedLook(lambda: taken.append(time.monotonic()), every_s=60.0, share=1.0, pause_s=60.0)
    looks.poll()
    looks.finish()
    looks.poll()
    looks.finish()
    assert len(taken) == 1
    looks.hurry()
    looks.poll()
    looks.finish()
    assert len(taken) == 2
