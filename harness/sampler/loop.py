"""The looks themselves: at fixed times, written as they come."""

from __future__ import annotations

import os
import select
import time
from typing import IO, TYPE_CHECKING

from harness.sampler.driver import driver_version, open_driver
from harness.sampler.records import End, Header, to_line
from harness.sampler.spec import own_from_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.sampler.driver import Device
    from harness.sampler.spec import SampleSpec

_CHUNK_BYTES = 1 << 16


class Sampling:
    """Looks at GPUs until the control descriptor is closed by the other side.

    Look k is due k periods after the first, however long the others took. One whose time passes
    while another is under way is missed, and counted.
    """

    def __init__(self, spec: SampleSpec, *, heard: bytes = b"") -> None:
        """``heard``: what the other side has said after the line with ``spec``."""
        self._spec = spec
        self._samples = 0
        self._missed = 0
        self._heard = heard
        self._complaint: str | None = None

    def run(self, control: int, announce: IO[bytes]) -> None:
        """Writes the samples; one line to ``announce``, the header, once it looks.

        Raises DriverError where there is nothing to look at, and OSError.
        """
        # Unbuffered: what is written is in the file, whatever the driver does to this process.
        with open_driver(self._spec.uuids) as devices, self._spec.file.open("wb", 0) as file:
            header = to_line(
                Header(
                    t_ns=time.monotonic_ns(),
                    driver=driver_version(),
                    period_ns=self._spec.period_ns,
                    gpus=tuple(device.gpu for device in devices),
                )
            )
            file.write(header)
            announce.write(header)
            announce.flush()
            self._hear(b"", devices)
            problem = self._sample(devices, control, file)
            gone = {place: device.gone() for place, device in enumerate(devices)}
            end = End(
                t_ns=time.monotonic_ns(),
                samples=self._samples,
                missed=self._missed,
                cpu_s=time.process_time(),
                absent={place: counters for place, counters in gone.items() if counters},
                problem=problem or self._complaint,
            )
            file.write(to_line(end))

    def _sample(self, devices: tuple[Device, ...], control: int, file: IO[bytes]) -> str | None:
        """Returns why it ended unasked."""
        for _ in self._due(devices, control):
            looked_at = [device for device in devices if not device.is_lost]
            lines = [to_line(device.look()) for device in looked_at]
            room = self._spec.max_samples - self._samples
            file.write(b"".join(lines[:room]))
            self._samples += len(lines[:room])
            if len(lines) > room:
                return f"more than {self._spec.max_samples} samples; the rest was left out"
        return None

    def _due(self, devices: tuple[Device, ...], control: int) -> Iterator[None]:
        """Once for each look, when its time has come, until it is told to end."""
        period_ns = self._spec.period_ns
        next_ns = time.monotonic_ns()
        while True:
            left_ns = next_ns - time.monotonic_ns()
            ready, _, _ = select.select([control], [], [], max(left_ns, 0) / 1e9)
            if ready:
                heard = os.read(control, _CHUNK_BYTES)
                if not heard:
                    return
                self._hear(heard, devices)
            elif left_ns <= 0 or time.monotonic_ns() >= next_ns:
                yield
                passed = max((time.monotonic_ns() - next_ns) // period_ns, 0)
                self._missed += passed
                next_ns += (passed + 1) * period_ns

    def _hear(self, heard: bytes, devices: tuple[Device, ...]) -> None:
        """Further lines say whose processes are the submission's."""
        *lines, self._heard = (self._heard + heard).split(b"\n")
        for line in lines:
            try:
                own = own_from_line(line)
            except ValueError as error:  # it goes on: all else that it samples is as good
                self._complaint = f"it was told what it does not understand: {error}"
                continue
            for device in devices:
                device.set_own(own)
