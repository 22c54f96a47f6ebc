"""One attempt as the conductor sees it: send the source, have it made, fetch the result."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.campaign.order import JobEnd, Outcome
from harness.campaign.refusal import refuse
from harness.campaign.upload import UploadKind
from harness.cluster import tasks
from harness.cluster.bench import failed
from harness.cluster.link import Lost
from harness.cluster.parcel import Incoming, Manifest, is_complete
from harness.errors import (
    Blame,
    ConfigurationError,
    MachineError,
    OutputError,
    SubmissionError,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.campaign.order import JobOrder, Source
    from harness.cluster.images import Images
    from harness.cluster.link import Link, SeenWorker

_log = logging.getLogger(__name__)

CHUNK_BYTES = 8 << 20  # Dask warns of tasks that hold more than 10 MB
_MAX_LOSSES = 20  # of one worker, while it makes one attempt
_MAX_TRANSFERS = 3
_LOOK_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long is waited for what was lost, before it is given up. ``scheduler_s``: then the
    campaign stops, to be taken up again, unless it is to go on ``for_ever``. ``worker_s``: then the
    attempt has failed, to be made elsewhere."""

    scheduler_s: float = 600.0
    worker_s: float = 60.0
    for_ever: bool = False

    @property
    def campaign_s(self) -> float:
        return math.inf if self.for_ever else self.scheduler_s


class Errand:
    """``tell``: what is being done, for the table. Raises MachineError when the scheduler is gone,
    OutputError when the result, or the upload's image, cannot be kept here."""

    def __init__(
        self,
        order: JobOrder,
        place: str,
        *,
        link: Link,
        images: Images,
        runs_dir: Path,
        patience: Patience,
        tell: Callable[[str], None],
    ) -> None:
        self._order = order
        self._place = place
        self._link = link
        self._images = images
        self._runs_dir = runs_dir
        self._target = runs_dir / order.team / order.run_id
        self._patience = patience
        self._tell = tell

    def run(self) -> JobEnd:
        """Its end, with its run directory complete in the campaign's folder; raises Lost only when
        the link was closed."""
        for _ in range(_MAX_LOSSES):
            worker = self._await_worker()
            if worker is None:
                break
            try:
                return self._attempt(worker)
            except Lost as error:
                if self._link.is_closed:
                    raise
                _log.info("%s: %s", self._place, error)
        return failed(f"worker {self._place} was lost", exit_code=MachineError.exit_code)

    def _await_worker(self) -> SeenWorker | None:
        """The worker, or None when the scheduler has not seen it for a while."""
        until_s = time.monotonic() + self._patience.worker_s
        while True:
            try:
                found = self._link.workers().get(self._place)
            except Lost:
                self._link.reconnect()
                # Workers come back by themselves, after a pause.
                until_s = time.monotonic() + self._patience.worker_s
                found = None
            if found is not None:
                return found
            if time.monotonic() > until_s:
                return None
            self._link.pause(_LOOK_S)

    def _attempt(self, worker: SeenWorker) -> JobEnd:
        key = (self._order.team, self._order.run_id)
        is_known = any(one.key == key for one in worker.news.attempts)
        order, source_path = self._order, None
        if not is_known:
            try:  # here, so nothing of it is the worker's fault
                source = self._images.portable(order, self._tell)
            except SubmissionError as error:
                return refuse(order, error, self._runs_dir)
            except OutputError:
                raise
            except (MachineError, ConfigurationError) as error:
                return failed(f"{order.source.entry}: {error}", error.blame, error.exit_code)
            order = order.model_copy(update={"source": source})
        try:
            if not is_known:
                source_path = self._send_source(worker, order.source)
            text = self._link.call(worker, tasks.make, order.model_dump_json(), source_path)
            end = JobEnd.model_validate_json(text)
        except (MachineError, OutputError) as error:  # the worker's: its disk, say
            return failed(f"worker {worker.name}: {error}", exit_code=error.exit_code)
        return self._fetch(worker, end)

    def _send_source(self, worker: SeenWorker, source: Source) -> str | None:
        """Where the upload is on this worker; None where the order says so."""
        if source.kind is UploadKind.FOLDER:  # for the process engine: shared, or not at all
            return None
        found = self._link.call(worker, tasks.find_source, source.model_dump_json())
        if found is None:
            found = self._push(worker, source.sha256, source.path)
        return found

    def _push(self, worker: SeenWorker, sha256: str, path: Path | None) -> str:
        if path is None:
            raise MachineError(f"{self._order.source.entry}: its file is not here")
        for _ in range(_MAX_TRANSFERS):
            offset = self._link.call(worker, tasks.received_bytes, sha256)
            try:
                size_bytes = path.stat().st_size
                with path.open("rb") as file:
                    offset = min(offset, size_bytes)
                    file.seek(offset)
                    while chunk := file.read(CHUNK_BYTES):
                        self._link.call(worker, tasks.add_bytes, sha256, offset, chunk)
                        offset += len(chunk)
                        percent = 100 * offset // max(size_bytes, 1)
                        self._tell(f"sending the upload to {worker.name}: {percent} %")
            except OSError as error:
                raise MachineError(f"{path}: {error.strerror}") from error
            if found := self._link.call(worker, tasks.accept_upload, sha256):
                return found
            _log.warning("%s: did not come to %s as it is here", path, worker.name)
        raise MachineError(
            f"{path}: does not come to the worker as it is here, {_MAX_TRANSFERS} times; was it "
            "changed after it was taken up?"
        )

    def _fetch(self, worker: SeenWorker, end: JobEnd) -> JobEnd:
        """The run directory, below the campaign's runs. Raises OutputError when it cannot be kept:
        then it stays on the worker, and is fetched when the campaign is taken up again."""
        order = self._order
        for _ in range(_MAX_TRANSFERS):
            try:
                text = self._link.call(worker, tasks.list_files, order.team, order.run_id)
                if text is None:
                    return self._without_directory(worker, end)
                manifest = Manifest.model_validate_json(text)
                self._receive(worker, end, text, manifest)
            except (MachineError, ValueError) as error:
                _log.warning("worker %s: %s", worker.name, error)
                reason = str(error)
                continue
            if manifest.left_out:
                _log.warning(
                    "%s: %s stay on worker %s", self._target, manifest.left_out[:5], worker.name
                )
            return end
        return failed(f"worker {worker.name}: its result does not come through: {reason}")

    def _receive(self, worker: SeenWorker, end: JobEnd, text: str, manifest: Manifest) -> None:
        order = self._order
        digests = {file.sha256 for file in manifest.files if "/" not in file.name}
        if end.record_sha256 is not None and end.record_sha256 not in digests:
            raise MachineError(f"{order.team}/{order.run_id}: its record is not among its files")
        if self._target.exists():
            if is_complete(self._target, manifest):
                return  # fetched before, by a conductor that died before it said so
            raise OutputError(
                f"{self._target}: is in the way of the result that worker {worker.name} has; move "
                "it elsewhere, and the same command goes on"
            )
        self._tell(f"fetching the result from {worker.name}")
        with Incoming(self._target, manifest) as incoming:
            while incoming.received_bytes < manifest.size_bytes:
                chunk = self._link.call(
                    worker,
                    tasks.read_bytes,
                    order.team,
                    order.run_id,
                    text,
                    incoming.received_bytes,
                    CHUNK_BYTES,
                )
                if not chunk:
                    raise MachineError(f"{order.team}/{order.run_id}: its files became shorter")
                incoming.add(chunk)
            incoming.accept()

    def _without_directory(self, worker: SeenWorker, end: JobEnd) -> JobEnd:
        if end.outcome in {Outcome.RAN, Outcome.FIELDS, Outcome.REFUSED}:
            return failed(
                f"worker {worker.name}: it made the run, and its directory is not there any more",
                Blame.MACHINE,
            )
        return end
