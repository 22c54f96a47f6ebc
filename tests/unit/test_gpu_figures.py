"""How figures of GPUs are shown, and what becomes of samples that are none of the pairs'."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from harness.challenge.model import DEFAULT_CHALLENGE, load_challenge
from harness.console_gpu import gpu_lines, has_figures, pair_cells, why_missing
from harness.engine.base import Image
from harness.gpu_figures import GpuDevice, GpuFigures, GpusRecord, GpuStretch
from harness.gpu_record import Sampled, gpu_warnings, record_gpus
from harness.machine.gpu import Driver
from harness.plan import Plan
from harness.probe.trace import Placement
from harness.sampler.samples import GpuSamples
from tests.unit.test_gpu_timing import END, GPU, HEADER, PAIRS, look_at
from tests.unit.test_store import MACHINE, RECORD

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from harness.store import RunRecord

SHORT = "too short for the counters of this GPU, which move every 160 ms"
OTHERS = "memory, clocks, power and temperature"
DEVICE = GpuDevice(
    uuid="GPU-a",
    index=3,
    name="Big",
    memory_bytes=1 << 34,
    power_limit_w=700,
    absent={"busy": "no"},
)


def stretch(**figures: object) -> GpuStretch:
    one = GpuFigures.model_validate({"gpu": 0, "looks": 3, **figures})
    known = {
        name: getattr(one, name)
        for name in ("busy_s", "busy_uncertainty_s", "busy_ratio", "energy_j")
    }
    return GpuStretch(
        duration_s=2.0,
        **known,
        energy_uncertainty_j=one.energy_uncertainty_j,
        peak_memory_bytes=one.peak_memory_bytes,
        gpus=(one,),
    )


FULL = stretch(
    busy_s=1.5,
    busy_uncertainty_s=0.1,
    busy_ratio=0.75,
    energy_j=300.0,
    energy_uncertainty_j=12.0,
    energy_source="power",
    peak_memory_bytes=1 << 30,
    device_peak_bytes=3 << 30,
    mean_power_w=150.0,
    mean_sm_clock_mhz=1980.0,
    highest_temperature_c=61,
    throttled_s=0.5,
)
EMPTY = stretch(absent={"busy_s": SHORT, "looks": SHORT})


def with_gpus(*pairs: GpuStretch | None, gpus: GpusRecord | None = None) -> RunRecord:
    first = RECORD.pairs[0]
    shown = tuple(
        first.model_copy(update={"key": f"task_01/{n}", "gpu": gpu}) for n, gpu in enumerate(pairs)
    )
    return RECORD.model_copy(update={"pairs": shown, "gpus": gpus})


def test_columns_are_there_only_where_there_was_a_gpu() -> None:
    assert not has_figures(RECORD)
    assert not has_figures(with_gpus(None))
    record = with_gpus(None, FULL, EMPTY)
    assert has_figures(record)
    assert [pair_cells(pair) for pair in record.pairs] == [
        ("-", "-", "-"),
        ("75 ± 5 %", "1.0 GiB", "300 ± 12 J"),
        ("-", "-", "-"),
    ]


def test_reasons_are_told_once_for_all_pairs() -> None:
    found = list(why_missing(with_gpus(*[EMPTY] * 5, FULL)))
    assert found == [
        f"no busy time of task_01/0, task_01/1, task_01/2 and 2 more: {SHORT}",
        f"no {OTHERS} of task_01/0, task_01/1, task_01/2 and 2 more: {SHORT}",
    ]


def test_section_of_a_run() -> None:
    gpus = GpusRecord(
        devices=(DEVICE,), period_s=0.05, looks=40, missed=2, cpu_s=0.3, problem="hung", run=FULL
    )
    assert list(gpu_lines(with_gpus(FULL, gpus=gpus))) == [
        "3: Big (GPU-a), 16.0 GiB, limit 700 W",
        "   no busy: no",
        (
            "   whole run     2.00 s, busy 1.50 ± 0.10 s, 300.0 ± 12.0 J (from power), 150 W, "
            "1980 MHz, up to 61 °C, peak 3.0 GiB, slowed down for 0.50 s"
        ),
        "sampled by 40 looks, one in 50 ms asked for, 2 missed, 0.30 s of CPU time; hung",
    ]
    assert list(gpu_lines(RECORD)) == []
    assert list(gpu_lines(with_gpus(gpus=GpusRecord(devices=())))) == ["none were given"]


def plan(tmp_path: Path, gpus: tuple[str, ...] | None) -> Plan:
    return Plan(
        challenge=load_challenge(DEFAULT_CHALLENGE),
        challenge_file=None,
        data_dir=tmp_path,
        tasks=(),
        image=Image(id="sha256:0", reference="image"),
        submission="team",
        gpus=gpus,
    )


SAMPLES = GpuSamples(
    header=HEADER, samples=tuple(look_at(GPU, i) for i in range(-20, 240)), end=END
)


def test_a_clock_that_may_be_another_gives_no_pair_figures(tmp_path: Path) -> None:
    asked, sampled = plan(tmp_path, ("GPU-a",)), Sampled(samples=SAMPLES, started_ns=0)
    there = record_gpus(asked, sampled, 10.0, PAIRS, Placement.HOST, MACHINE)
    assert there is not None
    assert sorted(there.pairs) == ["a", "b"]
    assert list(gpu_warnings(there)) == []
    beside = record_gpus(asked, sampled, 10.0, PAIRS, Placement.SIDECAR, MACHINE)
    assert beside is not None
    assert beside.pairs == {}
    assert "may not be this machine's" in str(beside.record.problem)
    assert beside.record.run is not None
    assert beside.record.run.busy_s == pytest.approx(3)


def test_a_sampler_that_never_started_leaves_a_reason(tmp_path: Path) -> None:
    asked = plan(tmp_path, ("GPU-a",))
    failed = Sampled(samples=GpuSamples(problem="the driver hung"), started_ns=0)
    found = record_gpus(asked, failed, 10.0, PAIRS, Placement.HOST, MACHINE)
    assert found is not None
    assert (found.pairs, found.record.run) == ({}, None)
    (warning,) = gpu_warnings(found)
    assert warning.endswith("missing, or not of the whole run: the driver hung")


def test_runs_without_gpus(tmp_path: Path) -> None:
    nobody = record_gpus(plan(tmp_path, None), None, 1.0, PAIRS, Placement.HOST, MACHINE)
    none = record_gpus(plan(tmp_path, ()), None, 1.0, PAIRS, Placement.HOST, MACHINE)
    assert nobody is None
    assert none is not None
    assert (none.record, none.pairs) == (GpusRecord(devices=()), {})


def test_a_driver_that_does_not_answer_is_asked_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A hung driver made every run wait for ever, before it began and after its end."""
    monkeypatch.setattr("harness.machine.gpu._nvml", lambda: pytest)
    driver = Driver(answer_s=0.05)

    def hang(_: ModuleType) -> str:
        time.sleep(1.0)
        return "late"

    assert driver.ask(lambda _: "there", "nothing") == "there"
    assert driver.ask(hang, "nothing") == "nothing"
    assert "did not answer within 0.05 s" in caplog.text
    assert driver.ask(lambda _: "there", "nothing") == "nothing"


def test_what_a_question_raises_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.machine.gpu._nvml", lambda: pytest)

    def fail(_: ModuleType) -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Driver().ask(fail, "nothing")
