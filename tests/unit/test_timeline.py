"""The picture of a run: what it shows, worked out by hand, and that it is drawn at all."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from harness.challenge.field_file import FieldState
from harness.probe.trace import Event, FileEvent, Root
from harness.sampler.records import Busy, Gpu, Header, Sample
from harness.store import PairRecord, RunRecord, RunStatus, TaskRecord
from harness.timeline.draw import draw
from harness.timeline.layout import Curve, Timeline, lay_out, slowest, thinned, ticks_apart
from harness.timing import Flag
from tests.tiny import ZERO, write_challenge, write_data, write_method
from tests.unit.test_store import RECORD

if TYPE_CHECKING:
    from pathlib import Path

_S = 10**9
START_NS = 500 * _S
SVG = "{http://www.w3.org/2000/svg}"
Stretch = tuple[str, float, float]  # a pair's task, and its clock's start and end


def made_up(stretches: list[Stretch], *, duration_s: float) -> tuple[RunRecord, list[FileEvent]]:
    """A run of pairs at these times, and its trace: an input read, then the field written."""
    pairs, events = [], []
    for number, (task, start_s, end_s) in enumerate(stretches, 1):
        field = f"{task}/disp_{number:04}_{number:04}.npz"
        pairs.append(
            PairRecord(
                key=f"{task}/{number:04}_{number:04}",
                task=task,
                fixed_id=number,
                moving_id=number,
                field_state=FieldState.VALID,
                field_path=field,
                runtime_s=end_s - start_s,
            )
        )
        moments = (
            (start_s, Event.OPEN, f"{task}/img{number:04}.nii.gz"),
            (end_s, Event.CLOSED, field),
        )
        for t_s, event, path in moments:
            root = Root.DATA if event is Event.OPEN else Root.OUTPUT
            t_ns = START_NS + round(t_s * _S)
            events.append(FileEvent(t_ns=t_ns, event=event, root=root, path=path))
    events.sort(key=lambda one: one.t_ns)
    names = list(dict.fromkeys(task for task, _, _ in stretches)) or ["task_01"]
    tasks = tuple(
        TaskRecord(name=name, attempted=True, pairs=len(pairs), valid_fields=0) for name in names
    )
    changes = {"pairs": tuple(pairs), "tasks": tasks, "duration_s": duration_s}
    return RECORD.model_copy(update=changes), events


def gpu_samples(duration_s: float, *, gpus: int = 1) -> tuple[Header, list[Sample]]:
    made = tuple(
        Gpu(uuid=f"GPU-{n}", index=n, name="made up", power_limit_mw=700_000, absent={})
        for n in range(gpus)
    )
    header = Header(t_ns=START_NS, driver=None, period_ns=_S // 20, gpus=made)
    samples = [
        Sample(
            t_ns=START_NS + look * _S // 20,
            took_ns=1,
            gpu=place,
            busy=(Busy(t_ns=START_NS + look * _S // 20, ratio=(look + place) % 2),),
            power_mw=100_000 + 1000 * (look % 400),
            memory_used_bytes=look << 20,
        )
        for look, place in itertools.product(range(int(20 * duration_s)), range(gpus))
    ]
    return header, samples


def shown(stretches: list[Stretch], *, duration_s: float) -> Timeline:
    record, events = made_up(stretches, duration_s=duration_s)
    return lay_out(record, events, START_NS)


def test_bars_lie_where_the_clocks_ran() -> None:
    found = shown([("task_01", 2, 3), ("task_01", 3.5, 5), ("task_03", 6, 7)], duration_s=8)
    assert [(row.task, row.lanes) for row in found.rows] == [("task_01", 1), ("task_03", 1)]
    assert [bar.start_s for bar in found.bars] == pytest.approx([2, 3.5, 6])
    assert [bar.end_s for bar in found.bars] == pytest.approx([3, 5, 7])
    assert found.rows[0].reads_s == pytest.approx((2, 3.5))
    assert found.rows[0].writes_s == pytest.approx((3, 5))
    assert list(itertools.chain(*found.idle)) == pytest.approx([0, 2, 3, 3.5, 5, 6, 7, 8])
    assert "3 of 3 pairs timed" in found.subtitle


def test_pairs_that_overlap_have_lanes_of_their_own() -> None:
    """Bars on top of each other would hide what a prefetching loader does."""
    found = shown([("task_01", 1, 4), ("task_01", 2, 5), ("task_01", 4, 6)], duration_s=6)
    (row,) = found.rows
    assert row.lanes == 2
    assert [bar.lane for bar in row.bars] == [0, 1, 0]
    assert list(itertools.chain(*found.idle)) == pytest.approx([0, 1])


def test_pair_without_a_runtime_has_no_bar() -> None:
    record, events = made_up([("task_01", 1, 2), ("task_01", 2, 3)], duration_s=3)
    missing = record.pairs[1].model_copy(update={"runtime_s": None})
    found = lay_out(
        record.model_copy(update={"pairs": (record.pairs[0], missing)}), events, START_NS
    )
    assert [bar.key for bar in found.bars] == ["task_01/0001_0001"]
    assert len(found.rows[0].writes_s) == 2


def test_no_line_is_drawn_over_what_nobody_saw() -> None:
    record, events = made_up([("task_01", 1, 9)], duration_s=10)
    header, samples = gpu_samples(10)
    seen = [one for one in samples if not 4 < (one.t_ns - START_NS) / _S < 6]
    panels = lay_out(record, events, START_NS, header=header, samples=seen).panels
    assert [panel.title for panel in panels] == ["GPU busy (%)", "power (W)", "memory (MiB)"]
    (power,) = panels[1].curves
    assert panels[1].highest == pytest.approx(700)
    holes = [t_s for t_s, v in zip(power.t_s, power.values, strict=True) if math.isnan(v)]
    assert holes == pytest.approx([5.0], abs=0.1)


def test_counter_that_is_absent_has_no_panel() -> None:
    record, events = made_up([("task_01", 1, 2)], duration_s=2)
    header, _ = gpu_samples(2)
    samples = [Sample(t_ns=START_NS + n, took_ns=1, gpu=0, power_mw=5) for n in range(3)]
    panels = lay_out(record, events, START_NS, header=header, samples=samples).panels
    assert [panel.title for panel in panels] == ["power (W)"]


def test_ticks_that_would_be_one_are_one() -> None:
    assert ticks_apart([3.0, 0.0, 0.05, 0.11, 0.1], 0.1) == pytest.approx((0.0, 0.1, 3.0))
    assert ticks_apart([], 1.0) == ()


def test_long_curve_keeps_its_course_its_extremes_and_its_holes() -> None:
    values = [float(n % 10) for n in range(1000)]
    values[500:520] = [math.nan] * 20
    curve = Curve(gpu="GPU 0", t_s=tuple(map(float, range(1000))), values=tuple(values))
    drawn = thinned(curve, 100)
    assert len(drawn.t_s) == 100
    assert drawn.values[0] == pytest.approx(4.5)
    assert drawn.band is not None
    assert (drawn.band[0][0], drawn.band[1][0]) == (0.0, 9.0)
    holes = [t_s for t_s, value in zip(drawn.t_s, drawn.values, strict=True) if math.isnan(value)]
    assert holes == pytest.approx([504.5, 514.5])
    assert thinned(curve, 1000).values[:500] == curve.values[:500]


def test_slowest_come_first() -> None:
    bars = shown([("t", 0, 1), ("t", 1, 4), ("t", 4, 6)], duration_s=6).bars
    assert [bar.runtime_s for bar in slowest(bars, 2)] == pytest.approx([3, 2])


def evenly(count: int) -> list[Stretch]:
    tasks = ("task_01", "task_02", "task_03")
    return [(tasks[3 * n // count], 5 + n, 5 + n + 0.8 + 0.1 * (n % 3 == 0)) for n in range(count)]


def texts(path: Path) -> str:
    return " ".join("".join(node.itertext()).strip() for node in ET.parse(path).iter(f"{SVG}text"))


@pytest.mark.parametrize("count", [0, 1, 6, 600])
def test_picture_of_few_and_of_many(tmp_path: Path, count: int) -> None:
    record, events = made_up(evenly(count), duration_s=count + 7.0)
    header, samples = gpu_samples(count + 7.0, gpus=2)
    drawn = lay_out(record, events, START_NS, header=header, samples=samples)
    for name in ("picture.svg", "picture.png"):
        draw(drawn, tmp_path / name)
    said = texts(tmp_path / "picture.svg")
    assert "seconds since the start" in said
    assert ("no pair was timed" in said) is (count == 0)
    assert ("0001_0001 0.9 s" in said) is (count in {1, 6})  # with room, in its bar
    assert ("runtime (s)" in said) is (count == 600)  # and without, the slowest are named
    with Image.open(tmp_path / "picture.png") as image:
        assert 1000 < image.width < 4000
        assert 300 < image.height < 2000
        assert len(image.convert("RGB").getcolors(1 << 24) or ()) > 10
    assert (tmp_path / "picture.svg").stat().st_size < 4 << 20
    assert sorted(path.name for path in tmp_path.iterdir()) == ["picture.png", "picture.svg"]


def test_flags_and_bad_fields_have_their_colours_explained(tmp_path: Path) -> None:
    record, events = made_up([("task_01", 1, 2), ("task_01", 2, 3)], duration_s=3)
    first = record.pairs[0].model_copy(update={"flags": (Flag.PRELOADED,)})
    second = record.pairs[1].model_copy(update={"field_state": FieldState.INVALID})
    changed = record.model_copy(update={"pairs": (first, second)})
    draw(lay_out(changed, events, START_NS), tmp_path / "t.svg")
    assert "flagged" in texts(tmp_path / "t.svg")
    assert "its field is not valid" in texts(tmp_path / "t.svg")


def test_name_of_a_submission_is_text_and_nothing_else(tmp_path: Path) -> None:
    record, events = made_up([("task_01", 1, 2)], duration_s=3)
    hostile = "<script>alert(1)</script> $\\frac{1}{$ & co"
    draw(
        lay_out(record.model_copy(update={"submission": hostile}), events, START_NS),
        tmp_path / "t.svg",
    )
    assert hostile in texts(tmp_path / "t.svg")
    assert not list(ET.parse(tmp_path / "t.svg").iter(f"{SVG}script"))


def test_same_run_gives_the_same_file(tmp_path: Path) -> None:
    drawn = shown(evenly(6), duration_s=13)
    draw(drawn, tmp_path / "a.svg")
    draw(drawn, tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "harness", *arguments]
    return subprocess.run(line, cwd=cwd, capture_output=True, text=True, check=False)


def test_command_draws_a_real_run(tmp_path: Path) -> None:
    write_method(tmp_path, ZERO)
    write_data(tmp_path / "test")
    write_challenge(tmp_path / "tiny.yaml")
    run = command("run", "--engine", "process", "--challenge", "tiny.yaml", cwd=tmp_path)
    assert run.returncode == RunStatus.SUCCEEDED.exit_code, run.stderr
    done = command("show", "--timeline", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (picture,) = (tmp_path / "runs/local").glob("*/timeline.svg")
    assert f"{picture.relative_to(tmp_path)}: the run's course" in done.stdout
    assert "4 of 4 pairs timed" in texts(picture)
    done = command("show", "--timeline", "-o", "run.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "run.png") as image:
        assert image.width > 1000
    for arguments, what in (
        (("--timeline", "-o", "run.bmp"), "run.bmp: expected a name that ends in .svg or .png"),
        (("-o", "run.png"), "add --timeline"),
        (("--timeline", "-o", "nowhere/run.png"), "nowhere/run.png: cannot be written"),
    ):
        done = command("show", *arguments, cwd=tmp_path)
        assert done.returncode != 0
        assert what in " ".join(done.stderr.split())
