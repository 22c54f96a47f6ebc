"""Finishing the runs of harnesses that were killed: on demand, and before each new run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, assert_never

import typer

from harness import console
from harness.challenge.field_file import FieldState
from harness.cli_options import RunsOption  # noqa: TC001 - typer reads the annotations
from harness.engine.base import EngineName
from harness.engine.docker import DockerEngine
from harness.engine.process import ProcessEngine
from harness.errors import HarnessError
from harness.recover import Outcome, begun_runs, recover
from harness.store import RunDirectory

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.engine.base import Engine
    from harness.recover import Recovery
    from harness.store import RunRecord


def register(app: typer.Typer) -> None:
    """Add the command of this module to the command line."""
    app.command("recover")(recover_runs)


def recover_runs(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]...",
            help="Run directories, or ids of dry runs. \\[default: every run in the runs folder]",
            show_default=False,
        ),
    ] = None,
    runs: RunsOption = Path("runs"),
) -> None:
    """Finish runs whose harness was killed: what had finished is collected, checked and recorded.

    `harness run` does so too before it starts. Their status is interrupted; their runtimes are
    shown and not ranked. A run whose harness lives is never touched.

    Exit code 0: nothing is left to do; else why a run could not be recovered (docs/exit-codes.md).
    """
    directories = [RunDirectory.find(name, runs) for name in names or ()]
    engine_of = engines(None)
    failure: HarnessError | None = None
    found = directories or begun_runs(runs)
    for directory in found:
        try:
            console.note(_line(recover(directory, engine_of)))
        except HarnessError as error:
            console.warn(_not_finished(directory, error))
            failure = failure or error
    if not found:
        console.note(f"{runs}: no unfinished run")
    if failure is not None:
        raise typer.Exit(failure.exit_code)


def recover_dead(runs: Path, engine: Engine) -> None:
    """Before a new run: what can be finished is finished, and nothing stops that run."""
    engine_of = engines(engine)
    for directory in begun_runs(runs):
        try:
            recovery = recover(directory, engine_of)
        except HarnessError as error:
            console.warn(_not_finished(directory, error))
            continue
        if recovery.outcome is not Outcome.RUNNING:
            console.note(_line(recovery))


def engines(chosen: Engine | None) -> Callable[[EngineName], Engine]:
    """Each engine once, and only when a run needs it."""
    known = {} if chosen is None else {chosen.info.name: chosen}

    def engine_of(name: EngineName) -> Engine:
        if name not in known:
            docker = name is EngineName.DOCKER
            known[name] = DockerEngine.connect() if docker else ProcessEngine()
        return known[name]

    return engine_of


def _line(recovery: Recovery) -> str:
    where = console.relative(recovery.directory.path)
    match recovery.outcome:
        case Outcome.RECOVERED:
            return f"recovered {where}: {_kept(recovery.record)}; `harness show {where}`"
        case Outcome.TIDIED:
            return f"{where}: has its record; what its harness had left is removed"
        case Outcome.RUNNING:
            pid = f" (process {recovery.start.owner.pid})" if recovery.start else ""
            return f"{where}: still running; its harness lives{pid}"
        case Outcome.UNJUDGED:
            machine = recovery.start.owner.machine if recovery.start else "another machine"
            return (
                f"{where}: left alone, as its harness ran on {machine} or in a container of its "
                "own, and may live; run `harness recover` there"
            )
        case Outcome.UNSTARTED:
            return (
                f"{where}: its submission was never started, so there is nothing to collect; "
                "remove the folder if you like"
            )
        case _:
            assert_never(recovery.outcome)


def _not_finished(directory: RunDirectory, error: HarnessError) -> str:
    return f"{console.relative(directory.path)} is not finished yet: {error}"


def _kept(record: RunRecord | None) -> str:
    pairs = record.pairs if record else ()
    valid = sum(pair.field_state is FieldState.VALID for pair in pairs)
    timed = sum(pair.runtime_s is not None for pair in pairs)
    return f"{valid} of {len(pairs)} fields kept, {timed} with a runtime"
