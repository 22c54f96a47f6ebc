"""How Dask is set up here: nothing of it may cost a timed run, and nothing is done behind our back.

Set before a scheduler, worker or client is made, over whatever a site's own files of Dask say.
"""

from __future__ import annotations

import logging

# A heartbeat comes every 0.5 s from up to 10 workers, every 6 s from 1,000 (Dask's rule). Jobs are
# in processes of their own, so a worker that says nothing for so long is not busy but gone.
WORKER_LOST_AFTER = "120s"
_CONNECT_TIMEOUT = "10s"

SETTINGS: dict[str, object] = {
    # A task that was lost with its worker fails at once: a rerun is a recorded attempt.
    "distributed.scheduler.allowed-failures": 0,
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.worker-ttl": WORKER_LOST_AFTER,
    "distributed.scheduler.idle-timeout": None,
    "distributed.scheduler.no-workers-timeout": None,
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.scheduler.preload": [],
    "distributed.worker.preload": [],
    "distributed.client.preload": [],
    # No pages: what is left of the servers for them answers 404, on the loopback address alone.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    # The harness's own limits hold; Dask's would pause or kill a worker.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    "distributed.worker.lifetime.duration": None,
    # Looks of a worker at itself, up to a hundred a second, beside a submission that is timed.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.tick.limit": "1h",
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.admin.system-monitor.log-length": 60,
    "distributed.admin.system-monitor.disk": False,
    "distributed.admin.system-monitor.gil.enabled": False,
    "distributed.diagnostics.nvml": False,
    "distributed.comm.timeouts.connect": _CONNECT_TIMEOUT,
    "distributed.comm.compression": False,
}


def configure() -> None:
    """For this process, and as long as it lives."""
    import dask  # noqa: PLC0415 - with an extra
    import distributed  # noqa: F401, PLC0415 - its defaults come first

    dask.config.set(SETTINGS)
    # Its own lines, of every connection that ends, beside ours that say what that means.
    for name in [*logging.root.manager.loggerDict, "distributed"]:
        if name.partition(".")[0] in {"distributed", "tornado"}:
            logging.getLogger(name).setLevel(logging.CRITICAL)
