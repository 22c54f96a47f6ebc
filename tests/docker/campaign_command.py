"""``harness campaign`` in a process of its own, watched from outside to kill it where it hurts."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psutil

from harness.campaign.folder import CampaignFolder
from harness.campaign.journal import read_journal
from harness.campaign.machine_lock import LOCK_DIR_VARIABLE
from harness.campaign.order import Outcome
from harness.campaign.state import CampaignState, replay
from harness.store import RunDirectory

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from harness.campaign.state import Attempt

REPOSITORY = Path(__file__).parents[2]
RECORDS = ("run.json", "fields.json", "refused.json")  # one of them in each complete attempt
LOCKS = "locks"  # of the machine's, so that no other campaign here is waited for
_PATIENCE_S = 300.0  # a machine that is busy with others takes many times as long
_LOOK_S = 0.005
_CHILDREN_S = 10.0  # by then what the command had started has ended by itself


class Phase(StrEnum):
    """What the command is at, as far as its files tell."""

    OPENING = "opening"  # nothing of this command is in the journal yet
    IMPORT = "import"  # an attempt has begun, and its submission has not
    RUN = "run"
    RECORD = "record"  # its record is there, and the journal does not say so
    SCORING = "scoring"
    BETWEEN = "between"


def harness(
    folder: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "harness", *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env=_environment(folder, environment),
        timeout=_PATIENCE_S,
    )


def _environment(folder: Path, more: Mapping[str, str] | None) -> dict[str, str]:
    ours = {"PYTHONPATH": str(REPOSITORY), LOCK_DIR_VARIABLE: str(folder / LOCKS)}
    return {**os.environ, **ours, **(more or {})}


def arguments_of(runs: str = "runs", *options: str) -> list[str]:
    """Of a campaign in a folder as :mod:`.campaign_uploads` makes it."""
    return [
        *("campaign", "submissions", "--data", "test", "--truth", "truth", "--out", runs),
        *("--challenge", "tiny.yaml", "--campaign", "campaign.yaml", "--plain", *options),
    ]


class CampaignCommand:
    """``harness campaign`` in ``folder``, its runs in ``folder / runs``."""

    def __init__(
        self,
        folder: Path,
        runs: str = "runs",
        *options: str,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.runs_dir = folder / runs
        self._journal = CampaignFolder(self.runs_dir).journal_path
        self._seen_bytes = -1
        self._state = CampaignState()
        self._first_n = len(read_journal(self._journal)) if self._journal.exists() else 0
        self._told = folder / f"told-{time.monotonic_ns()}"
        with self._told.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "harness", *arguments_of(runs, *options)],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
                env=_environment(folder, environment),
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    @property
    def told(self) -> str:
        """All that it has printed."""
        return self._told.read_bytes().decode("utf-8", "replace")

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def state(self) -> CampaignState:
        """What its journal says now."""
        size_bytes = self._journal.stat().st_size if self._journal.exists() else 0
        if size_bytes and size_bytes != self._seen_bytes:
            self._state = replay(read_journal(self._journal))
            self._seen_bytes = size_bytes
        return self._state

    def attempts(self) -> list[Attempt]:
        """Of uploads, not of the reference image."""
        return [one for one in self.state().attempts.values() if not one.is_calibration]

    def phase(self) -> Phase:
        state = self.state()
        if state.last_n <= self._first_n:
            return Phase.OPENING
        under_way = [one for one in state.under_way() if one.n > self._first_n]
        if under_way:
            return self._phase_of_attempt(under_way[-1])
        waiting = any(_is_to_be_scored(one) for one in state.attempts.values())
        return Phase.SCORING if waiting else Phase.BETWEEN

    def _phase_of_attempt(self, attempt: Attempt) -> Phase:
        run_dir = RunDirectory(self.runs_dir.joinpath(*attempt.key))
        if any((run_dir.path / name).exists() for name in RECORDS):
            return Phase.RECORD
        return Phase.RUN if run_dir.started_path.exists() else Phase.IMPORT

    def wait_until(self, condition: Callable[[], bool], patience_s: float = _PATIENCE_S) -> bool:
        """Whether it holds before the command ends."""
        until = time.monotonic() + patience_s
        while not self.has_ended:
            if condition():
                return True
            assert time.monotonic() < until, self.told
            time.sleep(_LOOK_S)
        return False

    def kill(self) -> None:
        """SIGKILL for it alone; what it had started must end by itself."""
        children = psutil.Process(self._process.pid).children(recursive=True)
        self._process.kill()
        self._process.wait()
        _, alive = psutil.wait_procs(children, timeout=_CHILDREN_S)
        left = [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]
        assert left == [], [one.cmdline() for one in left]

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self, timeout_s: float = _PATIENCE_S) -> int:
        """Its exit code."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"still there after {timeout_s} s: {self.told}") from error


def _is_to_be_scored(attempt: Attempt) -> bool:
    """It has fields, and is no calibration."""
    if attempt.end is None or attempt.scored is not None or attempt.is_calibration:
        return False
    return attempt.end.outcome in {Outcome.RAN, Outcome.FIELDS} and attempt.end.is_final
