"""The lines of samples: written and read back, and nothing else taken for one."""

from __future__ import annotations

import pytest

from harness.errors import ProbeError
from harness.sampler.records import Busy, End, Gpu, Header, Process, Sample, parse_line, to_line

HEADER = Header(
    t_ns=5,
    driver="550.54",
    period_ns=50_000_000,
    gpus=(Gpu(uuid="GPU-1", index=3, name="H200", absent={"energy_mj": "not supported"}),),
)
SAMPLE = Sample(
    t_ns=7,
    took_ns=2,
    gpu=0,
    busy=(Busy(t_ns=6, ratio=0.25),),
    processes=(Process(pid=12, own=True, memory_bytes=9), Process(pid=13)),
    power_mw=0,
)
END = End(t_ns=9, samples=1, missed=0, cpu_s=0.5, absent={0: {"power_mw": "lost"}})


@pytest.mark.parametrize("record", [HEADER, SAMPLE, END])
def test_line_is_read_back(record: Header | Sample | End) -> None:
    line = to_line(record)
    assert line.count(b"\n") == 1
    assert parse_line(line) == record


def test_what_is_not_known_takes_no_room_and_zero_does() -> None:
    line = to_line(SAMPLE)
    assert b"energy_mj" not in line
    assert b'"power_mw":0' in line


@pytest.mark.parametrize(
    "line", [b"", b"{", b'{"kind":"sample"}', b'{"kind":"end","t_ns":1,"surprise":2}', b"\xff"]
)
def test_anything_else_is_refused(line: bytes) -> None:
    with pytest.raises(ProbeError, match="not a line of samples"):
        parse_line(line)
