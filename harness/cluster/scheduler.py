"""The scheduler of a campaign on several machines: Dask's, set up so that it does nothing by
itself."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

from distributed import Scheduler

from harness.cluster.security import LOOPBACK, security_of
from harness.errors import MachineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.cluster.security import Tls


async def run_scheduler(
    host: str, port: int, tls: Tls | None, on_ready: Callable[[str], None]
) -> None:
    """Until SIGTERM or Ctrl-C. ``on_ready`` gets its address. Raises MachineError when it cannot
    listen there."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, ended.set)
    scheduler = Scheduler(
        host=host,
        port=port,
        protocol="tcp" if tls is None else "tls",
        security=security_of(tls),
        allowed_failures=0,
        dashboard=False,
        dashboard_address=f"{LOOPBACK}:0",
    )
    try:
        await scheduler
    except (OSError, RuntimeError) as error:
        raise MachineError(f"{host}:{port}: cannot listen there: {error}") from error
    try:
        on_ready(scheduler.address)
        await ended.wait()
    finally:
        await scheduler.close(reason="the harness ends it")
