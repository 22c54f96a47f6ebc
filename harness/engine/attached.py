"""What a container prints, as it prints it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docker.models.containers import Container


class AttachedOutput:
    """Its stdout and stderr, in chunks, until it ends or this is closed."""

    def __init__(self, container: Container) -> None:
        self._stream: Any = container.attach(stdout=True, stderr=True, stream=True, logs=False)

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._stream
        finally:
            self._stream._response.close()  # the SDK's stream leaves its connection open

    def close(self) -> None:
        """Shut the connection down, which wakes the thread that reads from it."""
        with suppress(OSError):
            self._stream.close()

    def discard(self) -> None:
        """For one that nobody reads."""
        self.close()
        self._stream._response.close()


def discard(output: AttachedOutput | None) -> None:
    """None: it was never attached to."""
    if output is not None:
        output.discard()
