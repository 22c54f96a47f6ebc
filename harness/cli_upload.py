"""The commands around an upload: check, pack, zero, export.

What they do needs NumPy and SciPy, which `harness run` must not wait for: imported when
one is called.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.challenge.model import DEFAULT_CHALLENGE, builtin_names
from harness.cli_options import ChallengeOption, DataOption, RunsOption  # noqa: TC001 - for typer
from harness.plan import REFERENCE_IMAGE

ChallengeOrRunsOption = Annotated[
    str | None,
    typer.Option(
        "--challenge",
        help=f"A YAML file or one of the built-in: {', '.join(builtin_names())}. "
        f"\\[default: a run's own, else {DEFAULT_CHALLENGE}]",
        show_default=False,
    ),
]
PathArgument = Annotated[
    Path,
    typer.Argument(
        help="A folder of fields, a run directory, the id of a dry run, or a zip to upload."
    ),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Overwrite what is there.")]


app = typer.Typer()


@app.command()
def check(
    path: PathArgument = Path("submission"),
    data: DataOption = Path("test"),
    challenge: ChallengeOrRunsOption = None,
    runs: RunsOption = Path("runs"),
    meaning: Annotated[
        bool,
        typer.Option(
            "--meaning/--format-only",
            help="Hold the fields against the images too: are they voxels, x before y before z, "
            "displacements, from fixed to moving?",
        ),
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Check fields before upload: every finding, with what was expected and what to change.

    Errors mean that a file would be rejected. Warnings mean that it would be accepted and is
    probably not what you meant. Exit code 0: no errors, 21: errors. docs/checks.md explains each.
    """
    from harness.upload import check as do  # noqa: PLC0415

    code = do(path, data=data, challenge=challenge, runs=runs, meaning=meaning, as_json=as_json)
    raise typer.Exit(code)


@app.command("pack")
def pack_fields(
    path: PathArgument = Path("submission"),
    output: Annotated[Path, typer.Option("--output", "-o", help="The zip to write.")] = Path(
        "submission.zip"
    ),
    data: DataOption = Path("test"),
    challenge: ChallengeOrRunsOption = None,
    runs: RunsOption = Path("runs"),
    force: Annotated[
        bool, typer.Option("--force", help="Pack fields with errors too, and overwrite the zip.")
    ] = False,
) -> None:
    """Make the zip to upload, once `harness check` finds no error.

    The same fields always make the same bytes. Only fields of the challenge's pairs go into it, and
    the file that the challenge's site wants at the top level. Exit code 21: errors, no zip; with
    --force 0, whatever they are.
    """
    from harness.upload import pack_fields as do  # noqa: PLC0415

    code = do(path, output=output, data=data, challenge=challenge, runs=runs, force=force)
    raise typer.Exit(code)


@app.command()
def zero(
    folder: Annotated[Path, typer.Argument(help="Folder that receives the fields.")] = Path("zero"),
    data: DataOption = Path("test"),
    challenge: ChallengeOption = DEFAULT_CHALLENGE,
    force: ForceOption = False,
) -> None:
    """Write the zero-field submission: the layout by example, and what every method must beat."""
    from harness.upload import zero as do  # noqa: PLC0415

    do(folder, data=data, challenge=challenge, force=force)


@app.command()
def export(
    image: Annotated[str, typer.Argument(help="Name of the image.")] = REFERENCE_IMAGE,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file. \\[default: the image's name]"),
    ] = None,
    runs: RunsOption = Path("runs"),
    force: ForceOption = False,
) -> None:
    """Write an image as the .tar.gz to upload, and a manifest with its latest dry run beside it.

    The manifest holds the image's ID, the file's digest and sizes and, as its certificate, the dry
    run of exactly this image: challenge, limits, runtimes, machine.
    """
    from harness.upload import export as do  # noqa: PLC0415

    do(image, output=output, runs=runs, force=force)
