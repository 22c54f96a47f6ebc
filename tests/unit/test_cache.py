"""Warm and cold page caches: real files, and the kernel's own word for what is in memory."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cache import (
    CacheMode,
    CacheRecord,
    CacheState,
    cached_ratio,
    drop,
    prepare_cache,
    read_through,
)

PAGE = os.sysconf("SC_PAGESIZE")
SHM = Path("/dev/shm")


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two files of 300 pages and a bit, never synced: some pages are dirty when a test begins."""
    paths = [tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"]
    for path in paths:
        path.write_bytes(os.urandom(300 * PAGE + 17))
    return paths


@pytest.fixture
def droppable(files: list[Path]) -> list[Path]:
    """The files, where their file system lets go of pages."""
    drop(files[:1])
    if cached_ratio(files[:1]) != 0.0:
        pytest.skip("this file system keeps the pages of its files in memory")
    return files


def test_cold_means_that_no_page_is_left(droppable: list[Path]) -> None:
    record = prepare_cache(CacheMode.COLD, droppable)
    assert record == CacheRecord(asked=CacheMode.COLD, applied=CacheState.COLD, cached_ratio=0.0)
    assert record.warning is None
    assert cached_ratio(droppable) == 0.0  # looking brings nothing back


def test_warm_means_that_every_page_is_there(droppable: list[Path]) -> None:
    drop(droppable)
    record = prepare_cache(CacheMode.WARM, droppable)
    assert record == CacheRecord(asked=CacheMode.WARM, applied=CacheState.WARM, cached_ratio=1.0)
    assert record.warning is None


def test_part_of_the_pages(droppable: list[Path]) -> None:
    drop(droppable)
    read_through(droppable[1])
    assert cached_ratio(droppable) == 0.5


def test_content_survives_being_dropped(files: list[Path]) -> None:
    before = [path.read_bytes() for path in files]
    prepare_cache(CacheMode.COLD, files)
    assert [path.read_bytes() for path in files] == before


@pytest.mark.skipif(not os.access(SHM, os.W_OK), reason="no /dev/shm to write to")
def test_file_system_in_memory_refuses_and_says_so() -> None:
    with tempfile.NamedTemporaryFile(dir=SHM) as file:
        file.write(bytes(10 * PAGE))
        file.flush()
        record = prepare_cache(CacheMode.COLD, [Path(file.name)])
    assert record.applied is CacheState.WARM
    assert "to be cold, but 100.0 %" in (record.warning or "")


def test_empty_files_and_no_files(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    assert cached_ratio([]) is None
    assert cached_ratio([empty]) is None
    assert prepare_cache(CacheMode.COLD, [empty]).applied is CacheState.UNKNOWN
    assert prepare_cache(CacheMode.WARM, [empty]).applied is CacheState.WARM


@given(asked=st.sampled_from(CacheMode), applied=st.sampled_from(CacheState))
def test_warning_exactly_when_another_state_applied(asked: CacheMode, applied: CacheState) -> None:
    record = CacheRecord(asked=asked, applied=applied, cached_ratio=0.25)
    assert (record.warning is None) == (asked.value == applied.value)
