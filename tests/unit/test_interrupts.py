"""Which Ctrl-C is obeyed at once, and which waits."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from harness.interrupts import Interrupts


def press(number: signal.Signals = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


def test_the_first_is_obeyed_the_second_waits_the_third_is_obeyed() -> None:
    with Interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt):
            press()
        assert not interrupts.asked_again()
        press(signal.SIGTERM)
        assert interrupts.asked_again()
        with pytest.raises(KeyboardInterrupt):
            press(signal.SIGHUP)


def test_each_is_answered_with_a_line_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    """The first and the third were obeyed without a word."""
    caplog.set_level("INFO")
    with Interrupts():
        with pytest.raises(KeyboardInterrupt):
            press()
        press()
        with pytest.raises(KeyboardInterrupt):
            press()
    first, second, third = caplog.messages
    assert "ending the submission" in first
    assert "interrupt once more" in second
    assert "harness recover" in third


def test_at_the_end_the_first_waits() -> None:
    with Interrupts() as interrupts:
        interrupts.closing()
        press()
        assert interrupts.asked_again()


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt), Interrupts():
        press()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_used_again_it_begins_anew() -> None:
    interrupts = Interrupts()
    with interrupts:
        interrupts.closing()
    with interrupts, pytest.raises(KeyboardInterrupt):
        press()


def test_in_another_thread_it_does_nothing() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def use() -> None:
        with Interrupts():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert seen == [before]
