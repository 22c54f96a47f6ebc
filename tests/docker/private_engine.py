"""An engine of a test's own, which it may restart: the machine's is everybody's."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import closing
from typing import TYPE_CHECKING, Self

import docker

from harness.challenge.quantity import format_bytes

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from docker import DockerClient

    from harness.engine.base import Image
    from harness.engine.docker import DockerEngine

_START_S = 60.0
_LOAD_S = 120.0
_FREE_BYTES = 2 << 30  # the base image's layers, unpacked, and room to spare


def why_none(folder: Path) -> str | None:
    """Why no engine can be started here, None where one can."""
    if os.geteuid() != 0:
        return "an engine of its own needs root"
    if shutil.which("unshare") is None:
        return "no unshare: install util-linux"
    if shutil.which("dockerd") is None:
        return "no dockerd: install docker.io"
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < _FREE_BYTES:
        return f"{folder}: {format_bytes(free_bytes)} free, {format_bytes(_FREE_BYTES)} are needed"
    return None


class PrivateEngine:
    """``dockerd`` with everything it has below ``folder``, without networks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.host = f"unix://{folder}/socket"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()
        # It mounts its folder on itself, which one that was killed leaves behind.
        subprocess.run(("umount", self._folder / "data"), check=False, capture_output=True)
        shutil.rmtree(self._folder / "data", ignore_errors=True)

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        (self._folder / "pid").unlink(missing_ok=True)  # of one that was killed
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    # In a network of its own: without a bridge it deletes that of the machine's.
                    *("unshare", "--net", "--"),
                    "dockerd",
                    f"--data-root={self._folder}/data",
                    f"--exec-root={self._folder}/exec",
                    f"--pidfile={self._folder}/pid",
                    f"--host={self.host}",
                    *("--bridge=none", "--iptables=false", "--ip6tables=false"),
                    "--containerd-namespace=l2r-test",
                    "--containerd-plugins-namespace=l2r-test-plugins",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._await_answer()

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """SIGTERM: as its service manager does; it ends its containers first."""
        if self._process is not None:
            self.send(number)
            self._process.wait(_START_S)
            self._process = None

    def docker(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ("docker", "-H", self.host, *arguments), capture_output=True, text=True, check=False
        )

    def containers(self) -> list[str]:
        return self.docker("ps", "--all", "--quiet").stdout.split()

    def client(self) -> DockerClient:
        return docker.DockerClient(base_url=self.host)

    def load(self, engine: DockerEngine, image: Image) -> None:
        """Take over an image of another engine."""
        with closing(self.client()) as client:
            # The SDK's own way leaves its connection open.
            address = f"{client.api.base_url}/images/load"
            client.api.post(address, data=engine.save(image), timeout=_LOAD_S).raise_for_status()

    def _await_answer(self) -> None:
        """Knocks by itself: where nobody answers, the SDK leaves its socket open."""
        until = time.monotonic() + _START_S
        while not self._listens():
            if time.monotonic() > until:
                raise TimeoutError((self._folder / "log").read_text("utf-8", "replace")[-2000:])
            time.sleep(0.1)
        with closing(self.client()) as client:
            client.ping()

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(str(self._folder / "socket"))
            except OSError:
                return False
            return True
