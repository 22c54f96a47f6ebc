"""The capped log keeps the first and the last part, and never blocks or grows."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.engine.log import CappedLog, LogPump

if TYPE_CHECKING:
    from collections.abc import Iterator

NOTE = re.compile(rb"\n?\[harness: (\d+) bytes of output left out\]\n")


def capped(path: Path, limit_bytes: int, chunks: list[bytes]) -> bytes:
    with CappedLog(path, limit_bytes) as log:
        for chunk in chunks:
            log.write(chunk)
    return path.read_bytes()


def test_short_output_is_kept_whole(tmp_path: Path) -> None:
    assert capped(tmp_path / "log", 1000, [b"one\n", b"", b"two\n"]) == b"one\ntwo\n"


def test_output_of_exactly_the_limit_is_kept_whole(tmp_path: Path) -> None:
    assert capped(tmp_path / "log", 1000, [b"x" * 400, b"y" * 600]) == b"x" * 400 + b"y" * 600


def test_long_output_keeps_both_ends_and_counts_the_rest(tmp_path: Path) -> None:
    lines = [f"line {n}\n".encode() for n in range(10_000)]
    content = capped(tmp_path / "log", 1000, lines)
    note = NOTE.search(content)
    assert note is not None
    assert len(content) <= 1000
    assert content.startswith(lines[0])
    assert content.endswith(lines[-1])
    kept = len(content) - len(note[0])
    assert int(note[1]) == sum(map(len, lines)) - kept


@given(
    chunks=st.lists(st.binary(max_size=300), max_size=20),
    limit=st.integers(min_value=0, max_value=800),
)
def test_never_more_than_the_limit_and_never_other_bytes(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes], limit: int
) -> None:
    content = capped(tmp_path_factory.mktemp("log") / "log", limit, chunks)
    everything = b"".join(chunks)
    assert len(content) <= limit
    if len(everything) <= limit:
        assert content == everything
    elif note := list(NOTE.finditer(content)):
        head, tail = content[: note[-1].start()], content[note[-1].end() :]
        assert everything.startswith(head)
        assert everything.endswith(tail)
        assert int(note[-1][1]) == len(everything) - len(head) - len(tail)
    else:  # too small an allowance for the note
        assert limit <= 80
        assert everything.startswith(content)


def test_head_is_on_disk_while_output_still_comes(tmp_path: Path) -> None:
    """`tail -f` on the log of a run shows what the method says."""
    with CappedLog(tmp_path / "log", 1000) as log:
        log.write(b"loading weights\n")
        assert (tmp_path / "log").read_bytes() == b"loading weights\n"


def test_memory_stays_bounded(tmp_path: Path) -> None:
    with CappedLog(tmp_path / "log", 1000) as log:
        for _ in range(10_000):
            log.write(b"x" * 100)
            assert len(log._tail) <= 2 * 1000 + 100


def test_a_full_disk_does_not_stop_the_submission(caplog: pytest.LogCaptureFixture) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    log = CappedLog(Path("/dev/full"), 100_000)
    log.write(b"x" * 60_000)
    log.write(b"x" * 60_000)
    log.close()
    assert "incomplete" in caplog.text


def test_pump_adds_last_words(tmp_path: Path) -> None:
    pump = LogPump([b"working\n"], CappedLog(tmp_path / "log", 1000), lambda: None)
    pump.finish(1.0, last_words="ended for its memory")
    assert (tmp_path / "log").read_bytes() == b"working\n[harness: ended for its memory]\n"


def test_pump_closes_a_source_that_does_not_end(tmp_path: Path) -> None:
    closed = threading.Event()

    def source() -> Iterator[bytes]:
        yield b"first\n"
        closed.wait()

    pump = LogPump(source(), CappedLog(tmp_path / "log", 1000), closed.set)
    pump.finish(0.1)
    assert closed.is_set()
    assert (tmp_path / "log").read_bytes() == b"first\n"
