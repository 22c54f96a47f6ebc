"""What the tests of field files share: a refusal's message, and the memory that reading takes."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import pytest

from harness.challenge.field_file import check_field, read_field
from harness.errors import FieldError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.challenge.model import FieldSpec


def field_refusal(path: Path, spec: FieldSpec, raw: bytes | None = None) -> str:
    """Why the file, with ``raw`` for its content if given, is refused; fit for a terminal."""
    if raw is not None:
        path.write_bytes(raw)
    with pytest.raises(FieldError) as caught:
        read_field(path, spec)
    message = str(caught.value)
    del caught  # with its traceback, which holds what was read
    with pytest.raises(FieldError) as checked:
        check_field(path, spec)
    assert str(checked.value) == message
    assert message.isprintable()
    assert len(message) < 400
    return message


def incomplete_deflate(content: bytes) -> bytes:
    """One deflate block (RFC 1951, 3.2.7) whose codes, of 9 bits each, are half of those there are.

    zlib refuses such a set of codes; ISA-L inflates it to ``content``.
    """
    start = "10100000000001100"  # last, dynamic, 257 literals, 1 distance, 7 lengths
    lengths = "000" * 3 + "100" + "000" * 2 + "100"  # of the codes for 16, 17, 18, 0, 8, 7, 9
    literals = "".join(f"{symbol:09b}" for symbol in (*content, 256))
    bits = start + lengths + "1" * 257 + "0" + literals
    return int(bits[::-1], 2).to_bytes(-(-len(bits) // 8), "little")


def peak_bytes(action: Callable[[], object]) -> int:
    """The most memory that ``action`` held at a time, as far as Python and NumPy allocated it."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
