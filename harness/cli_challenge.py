"""`harness challenge`: look at a challenge, and check one that somebody writes."""

from __future__ import annotations

import json
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import Annotated

import typer

from harness import console, data_lock
from harness.challenge.model import (
    DEFAULT_CHALLENGE,
    builtin_names,
    challenge_text,
    load_challenge,
)
from harness.challenge.pairs import check_data
from harness.cli_help import PlainHelp
from harness.outline import docker_line, doubts, outline

app = typer.Typer(
    name="challenge",
    cls=PlainHelp,
    help="Look at a challenge's rules, and check a challenge file that you write.",
    no_args_is_help=True,
)

_SOURCE_HELP = f"A YAML file or one of the built-in: {', '.join(builtin_names())}."


@app.command()
def show(
    source: Annotated[str, typer.Argument(metavar="NAME_OR_FILE", help=_SOURCE_HELP)] = (
        DEFAULT_CHALLENGE
    ),
    as_json: Annotated[
        bool, typer.Option("--json", help="Print it as JSON, with its digest and docker line.")
    ] = False,
    as_yaml: Annotated[
        bool, typer.Option("--yaml", help="Print its YAML file: a start for one of your own.")
    ] = False,
) -> None:
    """Say what a challenge asks for: tasks, grids, files with an example, docker line, limits."""
    if as_json and as_yaml:
        raise typer.BadParameter("--json and --yaml: ask for one of the two")
    challenge = load_challenge(source)
    if as_yaml:
        console.out.file.write(challenge_text(source))
    elif as_json:
        content = challenge.model_dump(mode="json", by_alias=True)
        content |= {"digest": challenge.digest, "docker_line": docker_line(challenge)}
        console.out.file.write(json.dumps(content, indent=1) + "\n")
    else:
        console.out.file.write(outline(challenge) + "\n")


@app.command()
def validate(
    source: Annotated[str, typer.Argument(metavar="FILE", help=_SOURCE_HELP)],
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Also check that this folder is data of the challenge."),
    ] = None,
) -> None:
    """Check a challenge file and, with --data, a data folder against it.

    Every finding names its key. Exit code 0: valid. 10: the file is not. 11: the folder does not
    fit.
    """
    challenge = load_challenge(source)
    tasks = ", ".join(
        f"{task.name} ({' x '.join(map(str, task.image_grid))})" for task in challenge.tasks
    )
    console.out.file.write(f"valid: {challenge.title} ({challenge.name}), {tasks}\n")
    for text in doubts(challenge):
        console.warn(text)
    if data is None:
        return
    with data_lock.shared(data):
        present = check_data(challenge, data.resolve())
    for found in present:
        files = {path for pair in found.pairs for path in pair.inputs}
        console.out.file.write(
            f"data fits: {found.task.name}, {_counted(len(found.pairs), 'pair')} in "
            f"{found.task.pairs.path}, {_counted(len(files), 'file')}\n"
        )
    there = {found.task.name for found in present}
    if skipped := [task.name for task in challenge.tasks if task.name not in there]:
        console.out.file.write(f"not there, skipped: {', '.join(skipped)}\n")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
