"""Text that came from a submission, made fit to be shown."""

from __future__ import annotations


def harmless(text: str) -> str:
    """The text without what a terminal would obey: control and format characters."""
    return "".join(c if c.isprintable() or c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def harmless_line(text: str, limit: int) -> str:
    """The first line of it, at most ``limit`` characters."""
    first = harmless(next(iter(text.strip().splitlines()), ""))
    return first if len(first) <= limit else first[: limit - 1] + "…"
