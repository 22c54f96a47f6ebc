"""What became of an attempt whose maker is gone: read from what it left on the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from harness.campaign.ends import end_of_fields, end_of_refusal, end_of_run
from harness.campaign.order import JobEnd, Outcome
from harness.campaign.unfinished import remove_unfinished
from harness.engine.owner import Owner
from harness.errors import Blame, Interrupted, OutputError
from harness.recover import Outcome as Recovered
from harness.recover import recover

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.engine.base import Engine, EngineName
    from harness.store import RunDirectory


def find_out(run_dir: RunDirectory, engine_of: Callable[[EngineName], Engine]) -> JobEnd:
    """Its end; a run that had started is finished, with all that it has. Of one that had not,
    nothing is left.

    For an attempt that this process is not making now, though it may have left it unfinished.
    Raises OutputError where another process still makes it, or that cannot be told from here, and
    EngineError when what still runs of it cannot be ended.
    """
    if run_dir.refused_path.exists():
        return end_of_refusal(run_dir)
    if run_dir.fields_record_path.exists():
        return end_of_fields(run_dir)
    if run_dir.record_path.exists() or run_dir.started_path.exists():
        return _run(run_dir, engine_of)
    if not remove_unfinished(run_dir):
        raise OutputError(
            f"{run_dir.path}: expected a run, or what one that did not start leaves, found other "
            "files; look at them, and move the folder away"
        )
    return JobEnd(
        outcome=Outcome.NEVER_STARTED,
        reason="the harness ended before the submission started",
        blame=Blame.MACHINE,
        exit_code=Interrupted.exit_code,
    )


def _run(run_dir: RunDirectory, engine_of: Callable[[EngineName], Engine]) -> JobEnd:
    found = recover(run_dir, engine_of, given_up=Owner.current())
    match found.outcome:
        case Recovered.RECOVERED | Recovered.TIDIED:
            run_dir.sync()
            return end_of_run(run_dir, recovered=found.outcome is Recovered.RECOVERED)
        case Recovered.RUNNING:
            pid = f" (process {found.start.owner.pid})" if found.start is not None else ""
            raise OutputError(
                f"{run_dir.path}: another harness{pid} still makes this run; wait until it has "
                "ended, and start again"
            )
        case Recovered.UNJUDGED:
            machine = found.start.owner.machine if found.start is not None else "another machine"
            raise OutputError(
                f"{run_dir.path}: its harness ran on {machine}, or in a container of its own, and "
                "may live; run `harness recover` there"
            )
        case Recovered.UNSTARTED:
            raise OutputError(f"{run_dir.path}: changed while it was looked at; start again")
        case _:
            assert_never(found.outcome)
