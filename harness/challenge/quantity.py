"""Sizes and durations as people write them (``8GiB``, ``10min``), parsed once at the edge."""

from __future__ import annotations

import math
import re
from typing import Annotated

from pydantic import BeforeValidator

_BYTES = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")

_NEGATIVE = re.compile(r"\s*-\s*[0-9.]")


def _parse(text: object, units: dict[str, float] | dict[str, int], example: str) -> float:
    if _NEGATIVE.match(str(text)):
        raise ValueError(f"expected more than 0, found {text!r}")
    match = _QUANTITY.fullmatch(str(text))
    unit = str(match[2]).lower() if match else ""
    number = float(match[1]) * units[unit] if match and unit in units else math.nan
    if not math.isfinite(number):
        known = ", ".join(units)
        raise ValueError(
            f"expected a number with a unit ({known}) such as {example}, found {text!r}"
        )
    return number


def parse_bytes(text: object) -> int:
    """Bytes in a text such as ``"8GiB"``; a plain integer counts bytes."""
    if isinstance(text, int) and not isinstance(text, bool) and text >= 0:
        return text
    return round(_parse(text, _BYTES, "8GiB"))


def parse_seconds(text: object) -> float:
    """Seconds in a text such as ``"10min"``; a plain number counts seconds."""
    if isinstance(text, int | float) and not isinstance(text, bool) and 0 <= text < math.inf:
        return float(text)
    return _parse(text, _SECONDS, "10min")


def format_bytes(size_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size_bytes) < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"


Bytes = Annotated[int, BeforeValidator(parse_bytes)]
Seconds = Annotated[float, BeforeValidator(parse_seconds)]
