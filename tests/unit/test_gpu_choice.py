"""Which GPUs a run is given, from what was asked for and what is there."""

from __future__ import annotations

import pytest

from harness.errors import OptionError
from harness.gpu_choice import GpuChoice, choose_gpus, one_gpu
from harness.machine.gpu import GpuRecord

A, B = "GPU-aaaa1111", "GPU-bbbb2222"
THERE = (GpuRecord(name="Big", uuid=A), GpuRecord(name="Small", uuid=B))


def choose(
    asked: str,
    there: tuple[GpuRecord, ...] = THERE,
    *,
    why_not: str | None = None,
    visible: str | None = None,
) -> GpuChoice:
    return choose_gpus(
        asked,
        there,
        why_none_here=lambda: "the driver is not installed",
        why_not=lambda: why_not,
        visible=visible,
    )


@pytest.mark.parametrize(
    ("asked", "uuids"),
    [
        ("none", ()),
        ("all", (A, B)),
        ("auto", (A, B)),
        ("1", (B,)),
        ("1,0", (B, A)),
        ("0, 0", (A,)),
        (B, (B,)),
        ("GPU-bbbb", (B,)),
        (f"{A},1", (A, B)),
    ],
)
def test_gpus_by_word_index_and_uuid(asked: str, uuids: tuple[str, ...]) -> None:
    assert choose(asked).uuids == uuids


@pytest.mark.parametrize("asked", ["2", "GPU-", "GPU-cccc3333", "", "0,", "-1", "gpu"])
def test_one_that_is_not_there_is_an_error_that_names_those_that_are(asked: str) -> None:
    with pytest.raises(OptionError, match=rf"0: {A} \(Big\), 1: {B} \(Small\)"):
        choose(asked)


def test_a_machine_without_gpus() -> None:
    """Says so once, and quietly; only who asks for one is refused."""
    for asked in ("auto", "none"):
        found = choose(asked, ())
        assert (found.uuids, found.text) == ((), "no GPU here: the driver is not installed")
    for asked in ("all", "0", A):
        with pytest.raises(OptionError, match=r"it has none|no GPU here"):
            choose(asked, ())


def test_an_engine_that_cannot_hand_them_out() -> None:
    found = choose("auto", why_not="it lacks the runtime")
    assert (found.uuids, found.text) == ((), "none of the 2 here: it lacks the runtime")
    assert choose("none", why_not="it lacks the runtime").uuids == ()
    for asked in ("all", "0"):
        with pytest.raises(OptionError, match="it lacks the runtime"):
            choose(asked, why_not="it lacks the runtime")


@pytest.mark.parametrize(
    ("visible", "uuids"),
    [("1", (B,)), ("1,0", (B, A)), (A, (A,)), ("", ()), ("-1", ()), ("0,7,1", (A,))],
)
def test_auto_goes_by_what_programs_may_see(visible: str, uuids: tuple[str, ...]) -> None:
    """A batch system hands out GPUs by this variable."""
    assert choose("auto", visible=visible).uuids == uuids
    assert choose("all", visible=visible).uuids == (A, B)


def test_a_place_of_a_campaign_has_one() -> None:
    def one(asked: str | None) -> tuple[int, str] | None:
        return one_gpu(asked, THERE, why_not=lambda: None)

    assert (one(None), one("none"), one("1"), one(A)) == (None, None, (1, B), (0, A))
    for asked in ("0,1", "all", "auto"):
        with pytest.raises(OptionError, match="a place has one"):
            one(asked)
    with pytest.raises(OptionError, match="it lacks"):
        one_gpu("0", THERE, why_not=lambda: "it lacks the runtime")
