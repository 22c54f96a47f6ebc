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


def peak_bytes(action: Callable[[], object]) -> int:
    """The most memory that ``action`` held at a time, as far as Python and NumPy allocated it."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
