"""Attempts whose process died: what they left is finished, whatever it is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from harness.campaign.aftermath import find_out
from harness.cluster.bench import AttemptFolder, failed
from harness.engine.base import EngineName
from harness.engine.docker import DockerEngine
from harness.engine.process import ProcessEngine
from harness.errors import HarnessError, OutputError
from harness.store import RunDirectory

if TYPE_CHECKING:
    from harness.campaign.order import JobEnd, JobOrder
    from harness.cluster.bench import JobSettings
    from harness.engine.base import Engine

_PATIENCE_S = 10.0  # for the kernel to end a process whose worker was killed
_POLL_S = 0.5


def finish_dead(order: JobOrder, settings: JobSettings, how: str) -> JobEnd:
    """What came of it. ``how`` its process ended, for an attempt of which nothing is left."""
    run_dir = RunDirectory(AttemptFolder(settings, (order.team, order.run_id)).run_dir)
    if not run_dir.path.exists():
        return failed(f"worker {settings.place.name}: {how}, before the run began")
    until_s = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return find_out(run_dir, engine_of)
        except OutputError as error:
            if time.monotonic() > until_s:
                return _lost(settings, how, error)
        except HarnessError as error:
            return _lost(settings, how, error)
        time.sleep(_POLL_S)


def engine_of(name: EngineName) -> Engine:
    """Raises EngineError."""
    return DockerEngine.connect() if name is EngineName.DOCKER else ProcessEngine()


def _lost(settings: JobSettings, how: str, error: HarnessError) -> JobEnd:
    return failed(f"worker {settings.place.name}: {how}, and the run is not finished: {error}")
