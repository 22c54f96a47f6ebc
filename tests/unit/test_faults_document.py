"""``docs/faults.md`` says what the tests with real containers expect."""

from __future__ import annotations

from collections import Counter

from tests.docker.conftest import FAULTS
from tests.docker.fault_lists import DOCUMENT, GROUPS, with_tables

ALL = [fault for group in GROUPS.values() for fault in group]


def test_document_has_the_table_of_the_tests() -> None:
    text = DOCUMENT.read_text("utf-8")
    assert with_tables(text) == text, "make it anew: python -m tests.docker.fault_lists"


def test_every_program_is_somebody_s_fault() -> None:
    stems = {path.stem for path in FAULTS.iterdir()} - {"register"}
    used = {fault.name if fault.program is None else fault.program.split(".")[0] for fault in ALL}
    assert stems <= used
    assert used - stems == {"missing"}  # there is none, which is its fault


def test_names_are_told_apart() -> None:
    assert [name for name, count in Counter(fault.name for fault in ALL).items() if count > 1] == []
