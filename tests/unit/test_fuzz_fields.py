"""The real loaders on real files with something changed: FieldError or a legal field, quickly.

``tests/fuzz/fuzz_fields.py`` looks longer and further, guided by coverage.
"""

from __future__ import annotations

import struct
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.field_files import peak_bytes
from tests.fuzz.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypothesis.strategies import SearchStrategy

Mutation = tuple[str, int, int, bytes]

# What parsers trip over, in every width and byte order that the formats have.
_NUMBERS = (0, 1, 2, 3, 4, 5, 127, 128, 255, 256, 348, 352, 540, 2**15, 2**16 - 1, 2**31, 2**32 - 1)
_PACKED = tuple(
    struct.pack(order + kind, number % 256**width)
    for number in (*_NUMBERS, 2**63, 2**64 - 1)
    for order in "<>"
    for kind, width in (("B", 1), ("H", 2), ("L", 4), ("Q", 8))
)
_FLOATS = tuple(
    struct.pack(order + kind, number)
    for number in (float("nan"), float("inf"), -1.0, 0.5, 2.0, 352.0, 1e30)
    for order in "<>"
    for kind in "fd"
)
_WORDS = (
    b"PK\1\2",
    b"PK\3\4",
    b"PK\5\6",
    b"PK\6\6",
    b"PK\6\7",
    b"\x93NUMPY",
    b"\x1f\x8b",
    b"n+1\0",
)
MEMORY = 4 << 20  # bytes; the inflater's window and tables are most of it


def mutations() -> SearchStrategy[list[Mutation]]:
    kinds = st.sampled_from(["overwrite", "insert", "delete", "repeat", "flip"])
    content = st.one_of(st.sampled_from((*_PACKED, *_FLOATS, *_WORDS)), st.binary(max_size=12))
    places = st.integers(0, 1 << 14)
    return st.lists(st.tuples(kinds, places, st.integers(1, 64), content), min_size=1, max_size=6)


def mutated(raw: bytes, changes: list[Mutation]) -> bytes:
    for kind, place, length, content in changes:
        start = place % (len(raw) + 1)
        before, there, after = raw[:start], raw[start : start + length], raw[start + length :]
        match kind:
            case "overwrite":
                raw = before + content + raw[start + len(content) :]
            case "insert":
                raw = before + content + there + after
            case "delete":
                raw = before + after
            case "repeat":
                raw = before + there * 3 + after
            case _:
                flipped = bytes(byte ^ (1 << length % 8) for byte in there[:1])
                raw = before + flipped + there[1:] + after
    return raw


@pytest.mark.parametrize("name", TARGETS)
def test_legal_files_are_accepted(name: str) -> None:
    """Or the tests below would test refusals only."""
    target, seeds = TARGETS[name]
    assert all(target(seed) for seed in seeds)


@pytest.mark.parametrize("name", TARGETS)
def test_changed_file(name: str) -> None:
    target, seeds = TARGETS[name]
    _explore(target, st.sampled_from(seeds))


@pytest.mark.parametrize("name", TARGETS)
def test_pieces_of_two_files(name: str) -> None:
    target, seeds = TARGETS[name]

    @st.composite
    def spliced(draw: st.DrawFn) -> bytes:
        first, second = draw(st.sampled_from(seeds)), draw(st.sampled_from(seeds))
        return (
            first[: draw(st.integers(0, len(first)))] + second[draw(st.integers(0, len(second))) :]
        )

    _explore(target, spliced())


def _explore(target: Callable[[bytes], bool], files: SearchStrategy[bytes]) -> None:
    @given(raw=files, changes=mutations())
    @settings(deadline=timedelta(seconds=5), max_examples=150)
    def look(raw: bytes, changes: list[Mutation]) -> None:
        changed = mutated(raw, changes)
        assert _settled_peak_bytes(lambda: target(changed)) < MEMORY

    look()


def _settled_peak_bytes(call: Callable[[], object]) -> int:
    """What a library loads once, at its first use in a process, is not the file's doing."""
    first = peak_bytes(call)
    return first if first < MEMORY else peak_bytes(call)
