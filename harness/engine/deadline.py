"""Deadlines of our own around requests to the engine.

The SDK's timeouts hold for one read from the connection, not for the request, and an engine that
accepts connections and never answers would hold up a run for minutes at every step.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Generic, TypeVar

from harness.engine.api import API_FAILURES
from harness.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

Answer = TypeVar("Answer")


class Request(Generic[Answer]):
    """A request under way in a thread of its own, which an interrupt does not cut off.

    ``when_late`` is called in that thread with an answer nobody waits for any more.
    """

    def __init__(
        self, ask: Callable[[], Answer], *, when_late: Callable[[Answer], object] | None = None
    ) -> None:
        self._ask = ask
        self._when_late = when_late
        self._answers: list[Answer] = []
        self._failure: BaseException | None = None
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._given_up = False
        threading.Thread(target=self._run, name="harness-request", daemon=True).start()

    def _run(self) -> None:
        try:
            answer = self._ask()
            with self._lock:
                late = self._given_up
                self._answers.append(answer)
            if late and self._when_late is not None:
                self._when_late(answer)
        except (*API_FAILURES, EngineError, OSError, ValueError) as error:
            self._failure = error
        finally:
            self._over.set()

    def answer(self, timeout_s: float, doing: str) -> Answer:
        """Raises what the request raises, and EngineError when it takes longer than that."""
        over = False
        try:
            over = self._over.wait(timeout_s)
        finally:  # an interrupt as well
            with self._lock:
                self._given_up = not (over or self._answers)
        if not over:
            raise EngineError(
                f"{doing}: the container engine did not answer within {timeout_s:.0f} s; does "
                "`docker ps` answer? Restart it if not (`sudo systemctl restart docker`)"
            )
        if self._failure is not None:
            raise self._failure
        return self._answers[0]

    def is_over(self, timeout_s: float) -> bool:
        return self._over.wait(timeout_s)


def within(timeout_s: float, doing: str, ask: Callable[[], Answer]) -> Answer:
    """The answer to a request that may take so long and no longer; see :class:`Request`."""
    return Request(ask).answer(timeout_s, doing)
