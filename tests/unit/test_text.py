"""Text of somebody else's, fit to be shown."""

from __future__ import annotations

import pytest

from harness.text import harmless, harmless_line, harmless_lines

SIGN = "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "a\tb",
        "Zoë, Δx = 3 µm, 北京, שלום",
        "e\u0301 as two characters",
        "",
        "[red]not markup[/]",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    assert harmless(text) == text


@pytest.mark.parametrize(
    "character",
    [
        *("\x00", "\x07", "\x08", "\x1b", "\x7f", "\r", "\n"),
        *("\x85", "\x9b", "\x9d"),  # C1: CSI and OSC in one character
        *("\u202e", "\u2066", "\u200f"),  # direction
        *("\u200b", "\u200d", "\u2060", "\ufeff", "\u00ad"),  # no width
        *("\u2028", "\u2029"),
        *("\u3164", "\u115f", "\uffa0", "\u2800", "\u034f", "\ufe0f", "\U000e0101"),  # no shape
        *("\U000e0041", "\ue000", "\u0378"),  # tags, private, unassigned
        *("\ud800", "\udcff"),  # halves of a pair; undecodable bytes of a file's name
    ],
    ids=lambda character: f"U+{ord(character):04X}",
)
def test_what_a_terminal_obeys_or_nobody_sees_becomes_visible(character: str) -> None:
    assert harmless(f"a{character}b") == f"a{SIGN}b"
    harmless(f"a{character}b").encode()  # can be printed


def test_pile_of_marks_is_cut() -> None:
    piled = "a" + "\u0301" * 500
    assert len(harmless(piled)) < 10


def test_line_is_the_first_and_short() -> None:
    assert harmless_line("  one\ntwo", 10) == "one"
    assert harmless_line("x" * 20, 10) == "x" * 9 + "…"
    assert harmless_line("", 10) == ""


def test_lines_of_bytes() -> None:
    raw = b"one\r\ntwo\x1b[2J\rthree\n\xff\xfe\n\xe2\x80\xaefour"
    assert harmless_lines(raw, 100) == [
        "one",
        f"two{SIGN}[2J",
        "three",
        SIGN * 2,
        f"{SIGN}four",
    ]
    assert harmless_lines(b"", 10) == []
    assert harmless_lines("a\x0bb\u2028c\n", 10) == [f"a{SIGN}b{SIGN}c"]


def test_endless_line_is_short() -> None:
    (line,) = harmless_lines("x" * 10_000_000, 50)
    assert line == "x" * 49 + "…"
