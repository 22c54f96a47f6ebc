"""Which GPUs a run is given: ``none``, ``all``, ``auto``, or a list of indices and UUIDs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.errors import OptionError
from harness.machine.gpu import gpus, why_no_gpus

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.machine.gpu import GpuRecord

AUTO, ALL, NONE = "auto", "all", "none"
_SHORTEST_UUID = 8  # "GPU-" and four digits: fewer are none that somebody copied


@dataclass(frozen=True, kw_only=True)
class GpuChoice:
    """``uuids``: () for none. ``text``: what was chosen and why, a line for people."""

    uuids: tuple[str, ...]
    text: str


def choose_gpus(
    asked: str,
    there: Sequence[GpuRecord],
    *,
    why_none_here: Callable[[], str],
    why_not: Callable[[], str | None],
    visible: str | None = None,
    option: str = "--gpus",
) -> GpuChoice:
    """``there``: this machine's, by the driver's index. ``why_none_here``: called when there are
    none; ``why_not``: why the engine cannot hand them out, None when it can. ``visible``: what
    CUDA_VISIBLE_DEVICES has: ``auto`` goes by it, as programs do.

    Raises OptionError for one that is not there or cannot be handed out.
    """
    match asked.strip():
        case "none":
            return GpuChoice(uuids=(), text=_NOT_ASKED if there else _none_here(why_none_here()))
        case "auto":
            return _auto(there, why_none_here, why_not, visible)
        case "all":
            found = there
            if not there:
                raise OptionError(f"{option} all: expected GPUs, {_none_here(why_none_here())}")
        case _:
            found = tuple(dict.fromkeys(_find(one, there, option) for one in asked.split(",")))
    reason = why_not()
    if reason is not None:
        raise OptionError(f"{option} {asked}: {reason}")
    return _chosen(found)


def choose_here(asked: str, *, why_not: Callable[[], str | None]) -> GpuChoice:
    """Of this machine's. Raises OptionError."""
    return choose_gpus(
        asked,
        gpus(),
        why_none_here=why_no_gpus,
        why_not=why_not,
        visible=os.environ.get("CUDA_VISIBLE_DEVICES"),
    )


def one_gpu(
    asked: str | None,
    there: Sequence[GpuRecord],
    *,
    why_not: Callable[[], str | None],
    option: str = "--gpus",
) -> tuple[int, str] | None:
    """Index and UUID of the one that a campaign's place has; None for a place without. Raises
    OptionError."""
    if asked is None or asked == NONE:
        return None
    if "," in asked or asked in {ALL, AUTO}:
        raise OptionError(
            f"{option} {asked}: expected one GPU, its index or UUID, or none: a place has one"
        )
    found = _find(asked, there, option)
    reason = why_not()
    if reason is not None:
        raise OptionError(f"{option} {asked}: {reason}")
    return list(there).index(found), found.uuid


_NOT_ASKED = "none, as --gpus none asks for"


def _auto(
    there: Sequence[GpuRecord],
    why_none_here: Callable[[], str],
    why_not: Callable[[], str | None],
    visible: str | None,
) -> GpuChoice:
    if not there:
        return GpuChoice(uuids=(), text=_none_here(why_none_here()))
    reason = why_not()
    if reason is not None:
        return GpuChoice(uuids=(), text=f"none of the {len(there)} here: {reason}")
    found = there if visible is None else _visible(visible, there)
    if not found:
        return GpuChoice(uuids=(), text=f"none of the {len(there)} here: CUDA_VISIBLE_DEVICES")
    return _chosen(found)


def _visible(text: str, there: Sequence[GpuRecord]) -> tuple[GpuRecord, ...]:
    """As CUDA reads it: up to the first that is not there."""
    found: list[GpuRecord] = []
    for name in text.split(","):
        one = _named(name.strip(), there)
        if one is None:
            break
        found.append(one)
    return tuple(dict.fromkeys(found))


def _find(name: str, there: Sequence[GpuRecord], option: str) -> GpuRecord:
    found = _named(name.strip(), there)
    if found is None:
        listed = ", ".join(f"{i}: {one.uuid} ({one.name})" for i, one in enumerate(there))
        raise OptionError(
            f"{option} {name.strip()}: expected an index or UUID of this machine's GPUs "
            f"({listed or 'it has none'})"
        )
    return found


def _named(name: str, there: Sequence[GpuRecord]) -> GpuRecord | None:
    """By index, or by UUID or its beginning, where that is one's alone."""
    if name.isdecimal():
        return there[int(name)] if int(name) < len(there) else None
    if len(name) < _SHORTEST_UUID:
        return None
    found = [one for one in there if one.uuid.startswith(name)]
    return found[0] if len(found) == 1 else None


def _chosen(found: Sequence[GpuRecord]) -> GpuChoice:
    names = ", ".join(f"{one.name} ({one.uuid})" for one in found)
    return GpuChoice(uuids=tuple(one.uuid for one in found), text=names)


def _none_here(reason: str) -> str:
    return f"no GPU here: {reason}"
