"""The journal keeps what was written, whatever cut it short."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.campaign.conditions import Conditions
from harness.campaign.events import AttemptStarted, Opened, TeamRetried
from harness.campaign.journal import Journal, read_journal
from harness.campaign.order import AttemptKind, Place
from harness.campaign.state import replay
from harness.challenge.model import load_challenge
from harness.engine.base import EngineName
from harness.errors import OutputError

if TYPE_CHECKING:
    from pathlib import Path


def opened() -> Opened:
    challenge = load_challenge()
    return Opened(
        conditions=Conditions(
            harness_version="1",
            challenge=challenge.name,
            challenge_digest=challenge.digest,
            limits=challenge.limits,
            data_digest=challenge.digest,
            engine=EngineName.DOCKER,
        )
    )


def started(run_id: str) -> AttemptStarted:
    return AttemptStarted(
        kind=AttemptKind.SUBMISSION,
        team="alpha",
        run_id=run_id,
        place=Place(name="here", machine="box"),
        upload="alpha/archive-1",
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "_campaign" / "journal.jsonl"
    with Journal(path) as journal:
        journal.append(opened())
        journal.append(started("one"))
        journal.append(TeamRetried(team="alpha"))
    return path


def test_what_was_written_is_read_back(path: Path) -> None:
    lines = read_journal(path)
    assert [line.n for line in lines] == [1, 2, 3]
    assert lines[1].event == started("one")
    assert replay(lines).teams["alpha"].retried_n == 3


def test_a_line_cut_anywhere_is_left_out_and_the_journal_goes_on(path: Path) -> None:
    whole = path.read_bytes()
    second = whole.index(b"\n") + 1
    third = whole.index(b"\n", second) + 1
    for length in range(third, len(whole)):
        path.write_bytes(whole[:length])
        assert len(read_journal(path)) == 2
    with Journal(path) as journal:
        assert len(journal.lines) == 2
        assert journal.append(started("two")).n == 3
    assert [line.n for line in read_journal(path)] == [1, 2, 3]


def test_zeros_after_a_power_loss_are_no_line(path: Path) -> None:
    """Some file systems keep the new length of a file whose bytes never came to the disk."""
    with path.open("ab") as file:
        file.write(bytes(700))
    with Journal(path) as journal:
        assert len(journal.lines) == 3
    assert path.read_bytes().endswith(b"}\n")


@pytest.mark.parametrize("at", [0, 40, 100])
def test_damage_before_the_last_line_is_told(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(OutputError, match="line 1 is damaged"):
        read_journal(path)
    with pytest.raises(OutputError, match="line 1 is damaged"):
        Journal(path)
    assert path.read_bytes() == bytes(content)


def test_a_line_that_is_lacking_is_damage(path: Path) -> None:
    first, _, third = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + third + third)
    with pytest.raises(OutputError, match="line 2 is damaged"):
        read_journal(path)


def test_two_commands_cannot_write_it(path: Path) -> None:
    with Journal(path), pytest.raises(OutputError, match="another command has this campaign open"):
        Journal(path)
    with Journal(path) as journal:
        assert len(journal.lines) == 3


def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    """RLIMIT_FSIZE stands for it: a write that does not fit is cut short, as on a full disk."""
    import resource  # noqa: PLC0415 - not on every system
    import signal  # noqa: PLC0415

    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.append(opened())
        before = path.read_bytes()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 20, hard))
            with pytest.raises(OutputError, match="make room, and the same command goes on"):
                journal.append(started("one"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, handler)
        assert path.read_bytes() == before
        assert journal.append(started("one")).n == 2


def test_a_campaign_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no such file"):
        read_journal(tmp_path / "journal.jsonl")
