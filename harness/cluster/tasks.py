"""What a conductor asks of a worker: functions that Dask runs there, in its one thread.

Arguments and results are texts and bytes. Each may be asked for again at any time: after a lost
connection nobody knows whether the first was heard.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from distributed import get_worker
from distributed.core import Status

from harness.campaign.order import JobOrder, Source
from harness.cluster.bench import AttemptFolder
from harness.cluster.parcel import Manifest, make_manifest, read_parcel
from harness.cluster.worker import BenchWorker
from harness.errors import MachineError, OutputError

if TYPE_CHECKING:
    from harness.cluster.bench import Bench

_LOOK_S = 0.25  # how soon a task sees that its worker has let go of the scheduler


class LetGo(Exception):
    """The worker lost the scheduler while an attempt was made, which goes on."""


def find_source(source_text: str) -> str | None:
    """Where the file is on the worker, if its bytes are the right ones; None when it must be
    sent, for which there is room then."""
    source, uploads = Source.model_validate_json(source_text), _bench().uploads
    found = uploads.find(source.sha256, source.path)
    if found is None:
        uploads.make_room(source.sha256, source.size_bytes or 0)
        return None
    return str(found)


def received_bytes(sha256: str) -> int:
    return _bench().uploads.received_bytes(sha256)


def add_bytes(sha256: str, offset: int, chunk: bytes) -> None:
    _bench().uploads.add(sha256, offset, chunk)


def accept_upload(sha256: str) -> str | None:
    """Where the file is now; None when its bytes are not the right ones, and are gone."""
    path = _bench().uploads.accept(sha256)
    return None if path is None else str(path)


def make(order_text: str, source_path: str | None) -> str:
    """Make the attempt, or wait for it if it is being made; its JobEnd. ``source_path``: where the
    upload is on this machine."""
    worker, order = _worker(), JobOrder.model_validate_json(order_text)
    if source_path is not None:
        here = order.source.model_copy(update={"path": Path(source_path)})
        order = order.model_copy(update={"source": here})
    key = (order.team, order.run_id)
    worker.bench.begin(order)
    while (end := worker.bench.wait(key, _LOOK_S)) is None:
        if worker.status is not Status.running:
            raise LetGo(f"{order.team}/{order.run_id}")
    return end.model_dump_json()


def list_files(team: str, run_id: str) -> str | None:
    """The Manifest of its run directory; None when there is no such directory."""
    folder = AttemptFolder(_bench().settings, (team, run_id))
    if not folder.run_dir.is_dir():
        return None
    try:
        return make_manifest(folder.run_dir).model_dump_json()
    except OutputError as error:  # the worker's folder, not the conductor's
        raise MachineError(str(error)) from error


def read_bytes(team: str, run_id: str, manifest_text: str, offset: int, length: int) -> bytes:
    folder = AttemptFolder(_bench().settings, (team, run_id))
    try:
        return read_parcel(
            folder.run_dir, Manifest.model_validate_json(manifest_text), offset, length
        )
    except OSError as error:
        raise MachineError(f"{folder.run_dir}: {error.strerror}") from error


def forget(team: str, run_id: str) -> None:
    _bench().forget((team, run_id))


def _worker() -> BenchWorker:
    worker = get_worker()
    if not isinstance(worker, BenchWorker):
        raise MachineError(f"{worker.address}: expected a worker of `harness cluster worker`")
    return worker


def _bench() -> Bench:
    return _worker().bench
