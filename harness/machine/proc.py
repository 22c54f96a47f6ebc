"""Small reads of ``/proc`` and ``/sys``. What is not there, or not readable, is None."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

CPUS = Path("/sys/devices/system/cpu")


def read_text(path: Path | str) -> str | None:
    try:
        return Path(path).read_text("utf-8", "replace").strip()
    except OSError:
        return None


def read_int(path: Path | str) -> int | None:
    text = read_text(path)
    try:
        return None if text is None else int(text)
    except ValueError:
        return None


def values_of_all_cpus(name: str) -> tuple[int, ...]:
    """A number that every CPU may have below its folder in sysfs, of those that have it."""
    found = (read_int(path) for path in sorted(CPUS.glob(f"cpu[0-9]*/{name}")))
    return tuple(value for value in found if value is not None)


def common(values: Iterable[str | None]) -> str | None:
    """The distinct values on one line, None when there is none."""
    return ", ".join(sorted({value for value in values if value})) or None
