"""Which attempts are still to be scored, and doing it one at a time: heavy work, never while a run
is timed on this machine."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from harness import __version__
from harness.campaign.events import Scored
from harness.campaign.order import Outcome
from harness.errors import HarnessError, OutputError
from harness.text import harmless_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.campaign.state import Attempt, CampaignState

_log = logging.getLogger(__name__)

_MAX_PROBLEM = 500  # characters


class Scorer:
    """``score``: of one attempt that has fields; None when the machine is not free just now.
    ``truth_digest``: of the truth as it is now."""

    def __init__(self, score: Callable[[Attempt], Scored | None], truth_digest: str) -> None:
        self._score = score
        self._truth_digest = truth_digest
        self._waiting: dict[tuple[str, str], Attempt] = {}

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

    def score(self, attempt: Attempt) -> Scored | None:
        """Raises OutputError. Whatever else goes wrong is this attempt's problem alone."""
        try:
            return self._score(attempt)
        except OutputError:
            raise
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
