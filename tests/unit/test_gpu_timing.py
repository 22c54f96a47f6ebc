"""The figures of GPUs, on simulated ones of which the truth is known: kernels that run from one
time to another, power that follows, and a driver that tells both late and in steps."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.gpu_bounds import Bounded, BusyTime, EnergyCounter, PowerIntegral, Span
from harness.gpu_figures import EnergySource, GpuStretch
from harness.gpu_timing import POWER_BRAKE, POWER_CAP, GpuTiming, time_gpus
from harness.sampler.records import Busy, End, Gpu, Header, Process, Sample
from harness.timing import PairTiming

MS = 1_000_000
S = 1000 * MS
IDLE_W, BUSY_W = 70, 600


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """A GPU on which a kernel runs in each of ``kernels``, which do not overlap."""

    kernels: tuple[tuple[int, int], ...]

    def busy_ns(self, start_ns: int, end_ns: int) -> int:
        return sum(max(0, min(b, end_ns) - max(a, start_ns)) for a, b in self.kernels)

    def energy_mj(self, start_ns: int, end_ns: int) -> float:
        busy_ns = self.busy_ns(start_ns, end_ns)
        return (IDLE_W * (end_ns - start_ns) + (BUSY_W - IDLE_W) * busy_ns) / MS

    def entries(self, ends_ns: list[int]) -> list[Busy]:
        """In whole percents, as the driver tells it."""
        return [
            Busy(t_ns=b, ratio=int(100 * self.busy_ns(a, b) / (b - a)) / 100)
            for a, b in itertools.pairwise([ends_ns[0] - 100 * MS, *ends_ns])
        ]

    def readings(self, looks_ns: list[int], moves_ns: list[int]) -> list[Sample]:
        """Of a counter that moves at ``moves_ns``, seen by looks at some time within them."""
        begin = moves_ns[0]
        return [
            Sample(
                t_ns=t_ns,
                took_ns=2 * MS,
                gpu=0,
                energy_mj=5000 + int(self.energy_mj(begin, max(m for m in moves_ns if m <= t_ns))),
            )
            for t_ns in looks_ns
        ]


def busy_time(entries: list[Busy]) -> BusyTime:
    """As told at one look."""
    return BusyTime([Sample(t_ns=entries[-1].t_ns, took_ns=0, gpu=0, busy=tuple(entries))])


@st.composite
def _steps(draw: st.DrawFn, *, shortest: int, longest: int, until: int = 4000) -> list[int]:
    """Times of something that happens now and then, in ns from -1 s to ``until`` ms."""
    lengths = draw(st.lists(st.integers(shortest, longest), min_size=3, max_size=12))
    times, cycle = [-1000 * MS], itertools.cycle(lengths)
    while times[-1] < until * MS:
        times.append(times[-1] + next(cycle) * MS)
    return times


@st.composite
def _simulated(draw: st.DrawFn) -> Simulated:
    edges = draw(st.lists(st.integers(-1000, 4000), unique=True, max_size=20).map(sorted))
    return Simulated(
        kernels=tuple((a * MS, b * MS) for a, b in zip(edges[::2], edges[1::2], strict=False))
    )


@st.composite
def _cuts(draw: st.DrawFn) -> list[int]:
    """Where a run of 3 s begins, is cut and ends."""
    inner = draw(st.lists(st.integers(1, 2_999_999), unique=True, max_size=4).map(sorted))
    return [0, *(1000 * cut for cut in inner), 3 * S]


def _spans(cuts: list[int]) -> list[Span]:
    return [Span(a, b) for a, b in itertools.pairwise(cuts)]


@settings(max_examples=300, deadline=None)
@given(gpu=_simulated(), ends=_steps(shortest=80, longest=170), cuts=_cuts())
def test_the_true_busy_time_is_within_its_bounds(
    gpu: Simulated, ends: list[int], cuts: list[int]
) -> None:
    series = busy_time(gpu.entries(ends))
    for span in _spans(cuts):
        found = series.over([span])
        if isinstance(found, Bounded):
            true_s = gpu.busy_ns(*span) / 1e9
            assert abs(found.value - true_s) <= found.uncertainty + 1e-9
            assert found.uncertainty <= 0.5 * (span.end_ns - span.start_ns) / 1e9 + 1e-9


@settings(max_examples=300, deadline=None)
@given(
    gpu=_simulated(),
    looks=_steps(shortest=10, longest=60, until=5000),
    moves=_steps(shortest=20, longest=110, until=5000),
    cuts=_cuts(),
)
def test_the_true_energy_is_within_its_bounds(
    gpu: Simulated, looks: list[int], moves: list[int], cuts: list[int]
) -> None:
    series = EnergyCounter(gpu.readings(looks, moves))
    for span in _spans(cuts):
        found = series.over([span])
        if isinstance(found, Bounded):
            true_j = gpu.energy_mj(*span) / 1000
            assert abs(found.value - true_j) <= found.uncertainty + 1e-6


@settings(max_examples=100, deadline=None)
@given(gpu=_simulated(), ends=_steps(shortest=80, longest=170), cuts=_cuts())
def test_sums_of_parts_are_the_sum_of_the_whole(
    gpu: Simulated, ends: list[int], cuts: list[int]
) -> None:
    """Where a part is too short to be told, all parts together are not."""
    looks = gpu.readings([t // 2 for t in ends], [t // 2 for t in ends])
    shown = [replace(look, t_ns=2 * look.t_ns) for look in looks]
    for series in (busy_time(gpu.entries(ends)), EnergyCounter(shown)):
        whole = series.over([Span(0, 3 * S)])
        together = series.over(_spans(cuts))
        parts = [series.over([span]) for span in _spans(cuts)]
        if isinstance(whole, Bounded) and isinstance(together, Bounded):
            assert together.value == pytest.approx(whole.value, abs=1e-9)
            if known := [part.value for part in parts if isinstance(part, Bounded)]:
                assert len(known) < len(parts) or sum(known) == pytest.approx(whole.value, abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(
    gpu=_simulated(),
    ends=_steps(shortest=80, longest=170),
    shift=st.integers(-(10**17), 10**17),
)
def test_figures_do_not_depend_on_when_the_clock_began(
    gpu: Simulated, ends: list[int], shift: int
) -> None:
    samples = gpu.readings(ends, ends)
    entries = gpu.entries(ends)
    moved = [replace(one, t_ns=one.t_ns + shift) for one in samples]
    moved_entries = [replace(one, t_ns=one.t_ns + shift) for one in entries]
    here, there = Span(200 * MS, 2 * S), Span(200 * MS + shift, 2 * S + shift)
    assert busy_time(moved_entries).over([there]) == busy_time(entries).over([here])
    first, second = EnergyCounter(samples).over([here]), EnergyCounter(moved).over([there])
    assert type(first) is type(second)
    if isinstance(first, Bounded) and isinstance(second, Bounded):
        assert second.value == pytest.approx(first.value, rel=1e-4)  # borders between looks, halved


def test_a_busy_gpu_by_hand() -> None:
    """Entries every 100 ms, a kernel from 0.25 s to 1.25 s, a stretch from 0.2 s to 1.2 s."""
    gpu = Simulated(kernels=((250 * MS, 1250 * MS),))
    series = busy_time(gpu.entries([100 * MS * i for i in range(20)]))
    found = series.over([Span(200 * MS, 1200 * MS)])
    assert isinstance(found, Bounded)
    assert found.value == pytest.approx(0.95)
    assert 0 < found.uncertainty <= 0.011  # no entry is cut: what whole percents leave open


def test_a_stretch_that_cuts_entries_is_less_certain() -> None:
    gpu = Simulated(kernels=((250 * MS, 1250 * MS),))
    series = busy_time(gpu.entries([100 * MS * i for i in range(20)]))
    found = series.over([Span(270 * MS, 1230 * MS)])
    assert isinstance(found, Bounded)
    # Each of the two that are cut was busy for 50 ms, and has 30 ms inside: all of them, or none.
    assert found.value == pytest.approx(0.90 + 2 * 0.3 * 0.05)
    assert 0.03 < found.uncertainty < 0.06


def test_the_idle_part_of_a_busy_entry_may_be_what_is_inside() -> None:
    """All busy but for 10 ms, which are within the 30 ms that the stretch has of that entry."""
    gpu = Simulated(kernels=((0, 500 * MS), (510 * MS, 2 * S)))
    found = busy_time(gpu.entries([100 * MS * i for i in range(20)])).over(
        [Span(200 * MS, 530 * MS)]
    )
    assert isinstance(found, Bounded)
    assert found.value == pytest.approx(0.327)
    assert found.value - found.uncertainty <= 0.320


@pytest.mark.parametrize("length_ms", [40, 150, 290])
def test_a_quick_pair_has_no_figures_and_a_reason(length_ms: int) -> None:
    gpu = Simulated(kernels=((0, 3 * S),))
    ends = [160 * MS * i for i in range(-10, 30)]
    span = Span(1010 * MS, (1010 + length_ms) * MS)
    assert busy_time(gpu.entries(ends)).over([span]) == (
        "too short for the counters of this GPU, which move every 160 ms"
    )
    assert EnergyCounter(gpu.readings(ends, ends)).over([span]) == (
        "too short for the energy counter of this GPU, which move every 160 ms"
    )


def test_a_driver_that_hung_leaves_a_gap() -> None:
    """Of 3 s in 10 nothing is known: no number, whatever the driver says of them afterwards."""
    gpu = Simulated(kernels=((0, 10 * S),))
    ends = [100 * MS * i for i in range(100) if not 40 <= i < 70]
    series = busy_time(gpu.entries(ends))
    assert series.over([Span(3 * S, 8 * S)]) == "nothing was told for 3.1 s of it"
    assert isinstance(series.over([Span(S, 3 * S)]), Bounded)


def test_where_an_entry_begins_is_not_known_after_a_look_that_told_none() -> None:
    """The clock was set, say: the time up to the next entry but one is unknown, and bounded so."""
    gpu = Simulated(kernels=((0, 10 * S),))
    entries = gpu.entries([100 * MS * i for i in range(50)])
    looks = [Sample(t_ns=e.t_ns, took_ns=0, gpu=0, busy=(e,)) for e in entries]
    known = BusyTime(looks).over([Span(S, 3 * S)])
    looks[20] = replace(looks[20], busy=None)
    found = BusyTime(looks).over([Span(S, 3 * S)])
    assert isinstance(known, Bounded)
    assert isinstance(found, Bounded)
    # Entries 20 and 21 are lost: half of 0.2 s is taken for busy.
    assert found.uncertainty == pytest.approx(known.uncertainty + 0.1, abs=0.01)
    assert found.value == pytest.approx(2 - 0.1)


def test_an_energy_counter_survives_a_gap_within() -> None:
    """It goes on counting while nobody looks."""
    gpu = Simulated(kernels=((4 * S, 6 * S),))
    looks = [20 * MS * i for i in range(500) if not 200 <= i < 350]
    series = EnergyCounter(gpu.readings(looks, [100 * MS * i for i in range(100)]))
    found = series.over([Span(S, 9 * S)])
    assert isinstance(found, Bounded)
    assert found.value == pytest.approx(gpu.energy_mj(S, 9 * S) / 1000, abs=found.uncertainty)
    assert found.uncertainty < 0.05 * found.value


def test_a_counter_that_goes_back_is_none() -> None:
    looks = [Sample(t_ns=i * MS, took_ns=0, gpu=0, energy_mj=e) for i, e in enumerate((5, 9, 2))]
    assert not EnergyCounter(looks).is_there


def test_power_stands_in_for_a_counter() -> None:
    """Readings that are averages of the second before: the truth is within the bounds."""
    gpu = Simulated(kernels=((4 * S, 8 * S),))
    looks = [
        Sample(t_ns=t, took_ns=0, gpu=0, power_mw=int(gpu.energy_mj(t - S, t)))
        for t in range(0, 15 * S, 50 * MS)
    ]
    found = PowerIntegral(looks, 700_000).over([Span(3500 * MS, 12 * S)])
    assert isinstance(found, Bounded)
    true_j = gpu.energy_mj(3500 * MS, 12 * S) / 1000
    assert found.value == pytest.approx(true_j, abs=found.uncertainty)
    assert found.uncertainty < 0.5 * found.value
    assert PowerIntegral(looks, 700_000).over([Span(4 * S, 4500 * MS)]) == (
        "too short for power readings, which may be averages of a second"
    )


# What a run's record says.

HEADER = Header(
    t_ns=-S,
    driver="550.54",
    period_ns=50 * MS,
    gpus=(Gpu(uuid="GPU-a", index=3, name="Simulated", power_limit_mw=700_000, absent={}),),
)
END = End(t_ns=12 * S, samples=1, missed=2, cpu_s=0.25, absent={})
OWN, STRANGER = 100, 200


def look_at(gpu: Simulated, i: int, *, place: int = 0, **changes: object) -> Sample:
    """Every 50 ms, of counters that move every 100 ms."""
    t_ns = 50 * MS * i
    step = t_ns // (100 * MS) * 100 * MS
    sample = Sample(
        t_ns=t_ns,
        took_ns=MS,
        gpu=place,
        busy=tuple(gpu.entries([step - 100 * MS, step]))[1:] if i % 2 == 0 else (),
        memory_used_bytes=1000 + i,
        processes=(Process(pid=OWN, own=True, memory_bytes=500 + i),),
        power_mw=IDLE_W * 1000,
        energy_mj=int(gpu.energy_mj(-S, step)),
        sm_clock_mhz=1980,
        memory_clock_mhz=2619,
        temperature_c=40 + i // 20,
        events=0,
    )
    return replace(sample, **changes)  # type: ignore[arg-type]


def _pair(key: str, started_s: float, finished_s: float) -> PairTiming:
    return PairTiming(
        key=key,
        task="task_01",
        started_ns=round(started_s * S),
        finished_ns=round(finished_s * S),
        exclusive_ns=None,
    )


PAIRS = (_pair("a", 2, 4), _pair("b", 4.5, 7))
RUN = Span(0, 10 * S)
GPU = Simulated(kernels=((2 * S, 3 * S), (5 * S, 7 * S)))


def _timed(looks: list[Sample] | None = None, timings: tuple[PairTiming, ...] = PAIRS) -> GpuTiming:
    looks = [look_at(GPU, i) for i in range(-20, 240)] if looks is None else looks
    return time_gpus(HEADER, looks, END, timings, RUN)


def test_each_pair_has_its_figures() -> None:
    timed = _timed()
    a, b = timed.pairs["a"], timed.pairs["b"]
    assert a.duration_s == 2
    assert [a.busy_s, a.busy_ratio] == pytest.approx([1, 0.5])
    assert b.busy_ratio == pytest.approx(0.8)
    assert a.energy_j == pytest.approx(2 * IDLE_W + (BUSY_W - IDLE_W), abs=a.energy_uncertainty_j)
    figures = a.gpus[0]
    assert figures.energy_source is EnergySource.COUNTER
    assert (figures.peak_memory_bytes, figures.device_peak_bytes) == (580, 1080)
    assert (figures.mean_sm_clock_mhz, figures.highest_temperature_c) == (1980, 44)
    assert (figures.mean_power_w, figures.throttled_s, figures.looks) == (70, 0, 41)
    assert figures.absent == {}


def test_the_parts_of_a_run_add_up() -> None:
    record = _timed().record
    parts = [record.before, record.pairs, record.between, record.after]
    known = [part for part in parts if part is not None]
    assert [part.duration_s for part in known] == pytest.approx([2, 4.5, 0.5, 3])
    run = record.run
    assert run is not None
    for name in ("duration_s", "busy_s", "energy_j"):
        values = [getattr(part, name) for part in known]
        assert sum(values) == pytest.approx(getattr(run, name))
    assert run.busy_s == pytest.approx(3)
    assert (record.missed, record.cpu_s, record.problem) == (2, 0.25, None)
    device = record.devices[0]
    assert (device.index, device.power_limit_w) == (3, 700)
    assert [device.busy_step_s, device.energy_step_s] == pytest.approx([0.1, 0.1])


def test_a_run_without_pairs_is_all_before() -> None:
    record = _timed(timings=(replace(PAIRS[0], started_ns=None),)).record
    assert record.before == record.run
    assert (record.pairs, record.between, record.after) == (None, None, None)


def test_pairs_that_overlap_are_marked_and_counted_once_in_the_sum() -> None:
    timed = _timed(timings=(_pair("a", 2, 5), _pair("b", 4, 7), _pair("c", 8, 9)))
    assert [timed.pairs[key].overlaps for key in "abc"] == [True, True, False]
    assert timed.pairs["a"].busy_s == pytest.approx(1)
    assert timed.pairs["b"].busy_s == pytest.approx(2)
    assert timed.record.pairs is not None
    assert timed.record.pairs.duration_s == pytest.approx(6)
    assert timed.record.pairs.busy_s == pytest.approx(3)


def test_throttling_counts_heat_and_brakes_and_not_idling_or_the_power_limit() -> None:
    def events(i: int) -> int:
        return {20: 0x40, 21: POWER_BRAKE, 22: POWER_CAP, 23: 0x1, 24: 0x8}.get(i // 2, 0)

    looks = [look_at(GPU, i, events=events(i)) for i in range(-20, 240)]
    figures = _timed(looks).pairs["a"].gpus[0]
    assert figures.thermal_s == pytest.approx(0.075)  # half of its first look's time is before
    assert figures.power_brake_s == pytest.approx(0.2)  # as a slowdown of no other reason
    assert figures.throttled_s == pytest.approx(0.275)
    assert figures.power_cap_s == pytest.approx(0.1)


def test_several_gpus_are_summed_and_kept_apart() -> None:
    header = replace(HEADER, gpus=(*HEADER.gpus, replace(HEADER.gpus[0], uuid="GPU-b")))
    idle = Simulated(kernels=())
    looks = [look for i in range(-20, 240) for look in (look_at(GPU, i), look_at(idle, i, place=1))]
    pair = time_gpus(header, looks, END, PAIRS, RUN).pairs["a"]
    assert [one.busy_ratio for one in pair.gpus] == pytest.approx([0.5, 0])
    assert [pair.busy_s, pair.busy_ratio] == pytest.approx([1, 0.25])
    assert pair.peak_memory_bytes == 1160


def test_a_gpu_without_a_counter_says_so_once() -> None:
    """On the device, and not again for each of hundreds of pairs."""
    gone = {"busy": "MIG has none", "energy_mj": "Not Supported", "processes": "hidden"}
    header = replace(HEADER, gpus=(replace(HEADER.gpus[0], absent=gone),))
    looks = [
        look_at(GPU, i, busy=None, energy_mj=None, processes=None, power_mw=100_000)
        for i in range(-20, 240)
    ]
    timed = time_gpus(header, looks, END, (_pair("a", 1, 9),), RUN)
    figures = timed.pairs["a"].gpus[0]
    assert (figures.busy_s, figures.peak_memory_bytes) == (None, None)
    assert figures.energy_j == pytest.approx(800)
    assert figures.energy_source is EnergySource.POWER
    assert figures.absent == {}
    assert timed.record.devices[0].absent == gone


def test_a_process_of_unknown_owner_leaves_the_memory_open() -> None:
    unknown = (Process(pid=OWN, memory_bytes=500),)
    figures = (
        _timed([look_at(GPU, i, processes=unknown) for i in range(-20, 240)]).pairs["a"].gpus[0]
    )
    assert figures.peak_memory_bytes is None
    assert "submission's" in figures.absent["peak_memory_bytes"]
    assert figures.device_peak_bytes == 1080


def test_foreign_processes_are_named_with_the_time_they_were_there() -> None:
    def processes(i: int) -> tuple[Process, ...]:
        own = Process(pid=OWN, own=True, memory_bytes=500)
        stranger = Process(pid=STRANGER, own=False, memory_bytes=70 + i)
        return (own, stranger) if 100 <= i < 120 else (own,)

    looks = [look_at(GPU, i, processes=processes(i)) for i in range(-20, 240)]
    timed = _timed(looks)
    (found,) = timed.record.foreign
    assert (found.pid, found.gpu, found.memory_bytes) == (STRANGER, 0, 189)
    assert found.seen_s == pytest.approx(1)
    assert timed.pairs["b"].peak_memory_bytes == 500


def test_a_sampler_that_died_leaves_what_it_saw() -> None:
    looks = [look_at(GPU, i) for i in range(-20, 100)]  # until 5 s
    timed = time_gpus(HEADER, looks, None, PAIRS, RUN, problem="it died")
    assert timed.pairs["a"].busy_ratio == pytest.approx(0.5)
    lost: GpuStretch = timed.pairs["b"]
    assert (lost.busy_s, lost.energy_j, lost.peak_memory_bytes) == (None, None, None)
    reasons = lost.gpus[0].absent
    assert reasons["busy_s"].startswith("nothing was told for 2.")
    assert reasons["looks"].startswith("nothing was told for")
    assert (timed.record.problem, timed.record.missed) == ("it died", None)
