"""Which attempts are still to be scored, and doing it one at a time: heavy work, never while a run
is timed on this machine."""

from __future__ import annotations

import logging
import queue
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness import __version__
from harness.campaign.events import Scored
from harness.campaign.order import Outcome
from harness.errors import HarnessError, Interrupted, OutputError
from harness.scoring.capacity import workers_that_fit
from harness.scoring.pool import Pool
from harness.text import harmless_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.campaign.state import Attempt, CampaignState

    Score = Callable[[Attempt, Pool], Scored | None]

_log = logging.getLogger(__name__)

_MAX_PROBLEM = 500  # characters
_CLOSE_S = 5.0  # for a thread whose pool was stopped; what it does then is done again


@dataclass(frozen=True, kw_only=True)
class Result:
    """``scored`` None: the machine was not free, so it still waits."""

    attempt: Attempt
    scored: Scored | None


class Scorer:
    """``score``: of one attempt that has fields, with the processes of a pool; None when the
    machine is not free just now. ``truth_digest``: of the truth as it is now. ``aside``: in a
    thread, for a conductor that has something else to do meanwhile.

    The pool's processes take a second to start and some hundred MiB each. They are kept for the
    next attempt until :meth:`rest`, or, not aside, until none waits.
    """

    def __init__(self, score: Score, truth_digest: str, *, aside: bool = False) -> None:
        self._score = score
        self._truth_digest = truth_digest
        self.is_aside = aside
        self._waiting: dict[tuple[str, str], Attempt] = {}
        self._pool: Pool | None = None
        self._under_way: Attempt | None = None
        self._thread: threading.Thread | None = None
        self._results: queue.SimpleQueue[Scored | HarnessError | None] = queue.SimpleQueue()

    def begin(self, state: CampaignState) -> None:
        """A command takes the campaign up: also what was scored by another truth or version, or
        could not be, is scored again."""
        for attempt in state.attempts.values():
            self.look_at(state, attempt)

    def look_at(self, state: CampaignState, attempt: Attempt) -> None:
        """It ended."""
        if state.is_current(attempt) and self._is_to_be_scored(attempt):
            self._waiting[attempt.key] = attempt

    def next(self) -> Attempt | None:
        return next(iter(self._waiting.values()), None)

    def done(self, attempt: Attempt) -> None:
        self._waiting.pop(attempt.key, None)
        if not self._waiting and not self.is_aside:
            self.rest()

    @property
    def is_busy(self) -> bool:
        """One was handed over, and its result not yet taken."""
        return self._under_way is not None

    def hand_over(self, attempt: Attempt) -> None:
        """The next to be scored; only when none is."""
        if self._under_way is not None:
            raise ValueError(f"{self._under_way.key}: is being scored")
        self._under_way = attempt
        if self.is_aside:
            self._thread = threading.Thread(
                target=self._work, args=(attempt, self._kept_pool()), name="scoring", daemon=True
            )
            self._thread.start()

    def result(self, timeout_s: float) -> Result | None:
        """Of the one that was handed over; None when it is not done by then. Not aside, it is
        scored now, however long that takes.

        Raises OutputError, or Interrupted when its pool was stopped: it still waits then. What else
        goes wrong is this attempt's problem alone, and its result.
        """
        attempt = self._under_way
        if attempt is None:
            return None
        if self.is_aside:
            try:
                found = self._results.get(timeout=timeout_s)
            except queue.Empty:
                return None
        else:
            found = self._found(attempt, self._kept_pool())
        self._under_way = None
        if isinstance(found, HarnessError) or (found is not None and found.problem is not None):
            self.rest()  # its processes may be in the middle of something
        if isinstance(found, HarnessError):
            raise found
        return Result(attempt=attempt, scored=found)

    def rest(self) -> None:
        """Nothing is scored for a while: no process idles beside what is timed."""
        if self._under_way is None and self._pool is not None:
            pool, self._pool = self._pool, None
            pool.close()

    def close(self) -> None:
        """What is being scored is broken off, without a result."""
        if self._pool is not None:
            self._pool.stop()
        if self._thread is not None:
            self._thread.join(_CLOSE_S)
        self._under_way = None
        self.rest()

    def _kept_pool(self) -> Pool:
        if self._pool is None:
            self._pool = Pool(workers_that_fit())
        return self._pool

    def _work(self, attempt: Attempt, pool: Pool) -> None:
        self._results.put(self._found(attempt, pool))

    def _found(self, attempt: Attempt, pool: Pool) -> Scored | HarnessError | None:
        """An error is what stops more than this attempt."""
        try:
            return self._score(attempt, pool)
        except (OutputError, Interrupted) as error:
            return error
        except HarnessError as error:
            return self._failed(attempt, str(error), error.exit_code)
        except Exception as error:  # the boundary of one attempt: the night goes on
            _log.exception("%s/%s: not scored", *attempt.key)
            text = f"the harness failed: {type(error).__name__}: {error}"
            return self._failed(attempt, text, HarnessError.exit_code)

    def _is_to_be_scored(self, attempt: Attempt) -> bool:
        end, scored = attempt.end, attempt.scored
        if end is None or attempt.is_calibration or not end.is_final:
            return False
        if end.outcome not in {Outcome.RAN, Outcome.FIELDS}:
            return False
        return scored is None or (
            scored.problem is not None
            or scored.truth_digest != self._truth_digest
            or scored.harness_version != __version__
        )

    def _failed(self, attempt: Attempt, problem: str, exit_code: int) -> Scored:
        team, run_id = attempt.key
        return Scored(
            team=team,
            run_id=run_id,
            exit_code=exit_code,
            findings=0,
            truth_digest=self._truth_digest,
            harness_version=__version__,
            problem=harmless_line(" ".join(problem.split()), _MAX_PROBLEM),
        )
