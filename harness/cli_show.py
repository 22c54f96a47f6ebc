"""``harness show``: a run's verdict explained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness import console, console_show
from harness.cli_options import RunsOption  # noqa: TC001 - typer reads the annotations
from harness.errors import OutputError
from harness.explain import explain
from harness.probe.salvage import salvage_trace
from harness.started import read_start
from harness.store import RunDirectory

if TYPE_CHECKING:
    from harness.probe.salvage import Salvaged

_HOW = "`harness recover` collects what it had finished"


def register(app: typer.Typer) -> None:
    """Add the command of this module to the command line."""
    app.command()(show)


def show(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN]",
            help="A run directory, or the id of a dry run. \\[default: the latest run]",
            show_default=False,
        ),
    ] = None,
    runs: RunsOption = Path("runs"),
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the run record, run.json, and nothing else.")
    ] = False,
    log_lines: Annotated[
        int, typer.Option("--log-lines", min=0, help="So many lines of the log's end.")
    ] = 25,
) -> None:
    """Explain how a run ended: whose turn it is, what happened when, the evidence, what to try.

    The exit code is 0 whatever became of the run, 12 when there is no such run or its record cannot
    be read (docs/verdicts.md). Of an upload of a campaign that was not run, it says why.
    """
    directory = latest_run(runs) if name is None else _found(name, runs)
    if directory.refused_path.exists():
        _show_refused(directory, as_json=as_json)
        return
    if directory.fields_record_path.exists():
        _show_fields(directory, as_json=as_json)
        return
    if not directory.record_path.exists():
        _show_unfinished(directory, as_json=as_json, log_lines=log_lines)
        return
    record = directory.read_record()
    if as_json:
        console.out.file.write(record.model_dump_json(indent=1, by_alias=True) + "\n")
        return
    console_show.show_explanation(record, explain(record, _seen(directory)), directory)
    console_show.show_log(directory, log_lines)


def latest_run(runs: Path) -> RunDirectory:
    """The run that began last, of whatever submission. Raises OutputError when there is none."""
    found = [path for path in runs.glob("*/*") if path.is_dir() and _is_run(path)]
    if not found:
        raise OutputError(f"{runs}/: no run in it; name a run directory, or its folder with --runs")
    return RunDirectory(max(found, key=lambda path: (path.name, path.stat().st_mtime_ns)))


def _found(name: str, runs: Path) -> RunDirectory:
    """By its path, the id of a dry run, or a team of a campaign, whose latest it is."""
    for folder in (Path(name), runs / name):
        if folder.is_dir() and not _is_run(folder):
            found = [path for path in folder.iterdir() if path.is_dir() and _is_run(path)]
            if found:
                return RunDirectory(max(found, key=lambda path: path.name))
    return RunDirectory.find(name, runs)


def _is_run(path: Path) -> bool:
    directory = RunDirectory(path)
    parts = (
        *(directory.record_path, directory.started_path, directory.log_path),
        *(directory.growing_trace, directory.output_dir),
        *(directory.refused_path, directory.fields_record_path),
    )
    return any(part.exists() for part in parts)


def _seen(directory: RunDirectory) -> Salvaged | None:
    paths = (directory.trace_path, directory.growing_trace)
    found = next((path for path in paths if path.exists()), None)
    return None if found is None else salvage_trace(found)


def _show_unfinished(directory: RunDirectory, *, as_json: bool, log_lines: int) -> None:
    if as_json:
        raise OutputError(f"{directory.path}: no run.json, so this run did not end; {_HOW}")
    where = console.relative(directory.path)
    if not directory.started_path.exists():
        text = "has no run.json and never started its submission: there is nothing to explain"
    else:
        start = read_start(directory)
        if start.owner.is_dead():
            text = f"did not end: its harness was killed, or its machine went down; {_HOW}"
        elif start.owner.can_be_judged:
            text = f"still runs, since {start.started} (process {start.owner.pid})"
        else:
            text = f"has not ended, and its harness may live on {start.owner.machine}"
    console.tell(f"{where}: {text}", to_stderr=False)
    console_show.show_log(directory, log_lines)


def _show_refused(directory: RunDirectory, *, as_json: bool) -> None:
    record = directory.read_refusal()
    if as_json:
        console.out.file.write(record.model_dump_json(indent=1) + "\n")
        return
    console.tell(f"refused, and never run: {record.reason}", to_stderr=False)
    where = console.relative(directory.path)
    console.tell(f"  {where}/, {record.entry}, {record.created}", to_stderr=False)
    console.tell("  it is the team's turn: the upload has to change", to_stderr=False)
    for text in record.findings:
        console.tell(f"  - {text}", to_stderr=False)
    for line in record.log_tail:
        console.tell(f"  | {line}", to_stderr=False)


def _show_fields(directory: RunDirectory, *, as_json: bool) -> None:
    record = directory.read_fields_record()
    if as_json:
        console.out.file.write(record.model_dump_json(indent=1) + "\n")
        return
    valid = sum(task.valid_fields for task in record.tasks)
    pairs = sum(task.pairs for task in record.tasks)
    console.tell(f"fields handed in, and never run: {valid} of {pairs} valid", to_stderr=False)
    where = console.relative(directory.path)
    console.tell(f"  {where}/, {record.entry}, {record.created}", to_stderr=False)
    for finding in record.findings:
        console.tell(
            f"  - {finding.pair or record.entry}: expected {finding.expected}, found "
            f"{finding.found}; {finding.fix}",
            to_stderr=False,
        )
    for pair in record.pairs:
        if pair.field_problem is not None:
            console.tell(f"  - {pair.key}: {pair.field_problem}", to_stderr=False)
