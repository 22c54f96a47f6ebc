"""Two runs side by side, and what speaks against comparing them: a pure function."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from harness.challenge.field_file import FieldState
from harness.machine.contamination import MachineVerdict
from harness.machine.fingerprint import differences
from harness.store import PairRecord, RunRecord, RunStatus

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, kw_only=True)
class ComparedPair:
    """Runtimes of one pair; None where the run has none with a valid field."""

    key: str
    first_s: float | None
    second_s: float | None

    @property
    def ratio(self) -> float | None:
        """The second over the first."""
        if not self.first_s or self.second_s is None:
            return None
        return self.second_s / self.first_s


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """``differences`` says what makes the runtimes incomparable, ``doubts`` what is wrong with one
    of the runs."""

    pairs: tuple[ComparedPair, ...]
    differences: tuple[str, ...]
    doubts: tuple[str, ...]

    @property
    def median_ratio(self) -> float | None:
        """Over the pairs that both runs have."""
        ratios = [pair.ratio for pair in self.pairs if pair.ratio is not None]
        return median(ratios) if ratios else None


def compare(first: RunRecord, second: RunRecord) -> Comparison:
    ours, theirs = ({pair.key: pair for pair in run.pairs} for run in (first, second))
    return Comparison(
        pairs=tuple(
            ComparedPair(
                key=key, first_s=_runtime_s(ours.get(key)), second_s=_runtime_s(theirs.get(key))
            )
            for key in {**ours, **theirs}
        ),
        differences=tuple(_differences(first, second)),
        doubts=(*_doubts("first", first), *_doubts("second", second)),
    )


def _runtime_s(pair: PairRecord | None) -> float | None:
    return pair.runtime_s if pair is not None and pair.field_state is FieldState.VALID else None


def _differences(first: RunRecord, second: RunRecord) -> Iterator[str]:
    if first.challenge_digest != second.challenge_digest:
        yield f"challenge: {_challenge(first)} | {_challenge(second)}"
    if first.machine_digest != second.machine_digest:
        yield from differences(first.machine, second.machine)
    models = _gpu_models(first), _gpu_models(second)
    if models[0] != models[1]:
        yield f"GPUs of the run: {models[0]} | {models[1]}"
    if first.cache.applied is not second.cache.applied:
        yield f"cache: {first.cache.applied} | {second.cache.applied}"
    if first.witness.precision is not second.witness.precision:
        yield f"witness: {first.witness.precision} | {second.witness.precision}"
    if first.image_id != second.image_id:
        yield f"image: {_image(first)} | {_image(second)}"
    if first.harness_version != second.harness_version:
        yield f"harness: {first.harness_version} | {second.harness_version}"


def _gpu_models(run: RunRecord) -> str:
    """Which the run was given: of several in a machine, not each is as fast."""
    if run.gpus is not None:
        return ", ".join(sorted(device.name for device in run.gpus.devices)) or "none"
    known = [gpu.name for gpu in run.machine.gpus if gpu.uuid == run.gpu]
    if known:
        return known[0]
    return "not chosen" if run.machine.gpus else "none"


def _doubts(which: str, run: RunRecord) -> Iterator[str]:
    if run.status is not RunStatus.SUCCEEDED:
        yield f"the {which} run: {run.status.replace('_', ' ')}: {run.reason}"
    if not run.witness.complete:
        yield f"the {which} run: the witness missed events: {'; '.join(run.witness.lost)}"
    if run.contamination.verdict is MachineVerdict.SUSPECT:
        yield (
            f"the {which} run: the machine was not the submission's alone: "
            f"{'; '.join(run.contamination.evidence)}"
        )


def _challenge(run: RunRecord) -> str:
    return f"{run.challenge} {run.challenge_digest.removeprefix('sha256:')[:12]}"


def _image(run: RunRecord) -> str:
    return f"{run.image_reference} {run.image_id.removeprefix('sha256:')[:12]}"
