"""Text that came from a submission, made fit to be shown.

A terminal obeys control sequences: they move the cursor, hide what was printed, set its title. A
reader is deceived by what cannot be seen: text that runs backwards, names that differ by a
character without width. All of these become one visible sign.
"""

from __future__ import annotations

import re

_SIGN = "\N{REPLACEMENT CHARACTER}"
_MAX_MARKS = 4  # on one letter: some languages need three, and a hundred cover the lines around

# Letters, marks and signs that nobody sees, which str.isprintable() lets pass: fillers of Hangul,
# Khmer vowels inherent in others, Mongolian and other variation selectors, an empty Braille cell,
# the grapheme joiner.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\uffa0"
    "\ufe00-\ufe0f\U000e0100-\U000e01ef]"
)
_MARK = r"[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]"
_MARKS = re.compile(f"({_MARK}{{{_MAX_MARKS}}}){_MARK}+")


def harmless(text: str) -> str:
    """One line of it: every control character (line feeds, too, but not tabs), override of the
    direction of text, character without width or shape, and half of a surrogate pair becomes a
    replacement character."""
    if text.isascii() and text.isprintable():
        return text
    seen = "".join(c if c.isprintable() or c == "\t" else _SIGN for c in text)
    return _MARKS.sub(rf"\1{_SIGN}", _UNSEEN.sub(_SIGN, seen))


def harmless_line(text: str, limit: int) -> str:
    """The first line of it, at most ``limit`` characters."""
    return _shortened(next(iter(text.strip().splitlines()), ""), limit)


def harmless_lines(raw: bytes | str, limit: int) -> list[str]:
    """All its lines, each at most ``limit`` characters; bytes are taken for UTF-8.

    A line ends where a program meant it to: at a line feed or a carriage return. What else Python
    or a terminal may take for an end of line is a control character like others.
    """
    text = raw.decode("utf-8", errors="replace") if isinstance(raw, bytes) else raw
    lines = re.split(r"\r\n|[\r\n]", text)
    if lines and not lines[-1]:
        lines.pop()
    return [_shortened(line, limit) for line in lines]


def _shortened(line: str, limit: int) -> str:
    if len(line) <= limit:
        return harmless(line)
    return harmless(line[: limit - 1]) + "…"
