"""The sampler beside one run: there where the run is given GPUs, and no trouble of the run's."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

from harness.gpu_record import Sampled
from harness.sampler.client import Sampler
from harness.sampler.spec import SampleSpec

if TYPE_CHECKING:
    from types import TracebackType

    from harness.plan import Plan
    from harness.sampler.spec import Own
    from harness.store import RunDirectory

# What a counter says of the run's last moments it says when it moves next: every 20 to 170 ms.
_LAST_LOOKS_S = 0.3


class GpuWatch:
    """Does nothing for a run without GPUs."""

    def __init__(self, plan: Plan, run_dir: RunDirectory) -> None:
        self._sampler: Sampler | None = None
        if plan.gpus:
            spec = SampleSpec(uuids=plan.gpus, file=run_dir.growing_samples)
            self._sampler = Sampler(spec)

    def __enter__(self) -> Self:
        if self._sampler is not None:
            self._sampler.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._sampler is not None:
            self._sampler.__exit__(kind, error, trace)

    def own(self, own: Own | None) -> None:
        """Whose processes are the submission's, once it has started."""
        if self._sampler is not None and own is not None:
            self._sampler.own(own)

    def finish(self, started_ns: int) -> Sampled | None:
        """``started_ns``: when the submission started. None for a run without GPUs."""
        if self._sampler is None:
            return None
        if self._sampler.header is not None:
            time.sleep(_LAST_LOOKS_S)
        return Sampled(samples=self._sampler.finish(), started_ns=started_ns)
