"""The commands around an upload: check, pack, zero, export."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Annotated

import typer

from harness import console
from harness.challenge.field_file import FieldState
from harness.challenge.model import DEFAULT_CHALLENGE, load_challenge
from harness.challenge.pairs import read_pairs
from harness.challenge.quantity import format_bytes
from harness.check.check import check_fields
from harness.check.pack import pack
from harness.check.source import open_source
from harness.check.zero import write_zero_fields
from harness.cli_options import ChallengeOption, DataOption, RunsOption  # noqa: TC001 - for typer
from harness.console_check import show_check, show_check_ending
from harness.engine.docker import DockerEngine
from harness.errors import FieldError, OutputError
from harness.export import certify, export_image, latest_run_of, manifest_path
from harness.live import Counter
from harness.plan import REFERENCE_IMAGE

ForceOption = Annotated[bool, typer.Option("--force", help="Overwrite what is there.")]


app = typer.Typer()


@app.command()
def check(
    path: Annotated[
        Path, typer.Argument(help="A folder of fields, a run directory, or the zip to upload.")
    ] = Path("submission"),
    data: DataOption = Path("test"),
    challenge: ChallengeOption = DEFAULT_CHALLENGE,
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
    rules = load_challenge(challenge)
    tasks = read_pairs(rules, data)
    with open_source(path, runs) as source:
        total = sum(len(found.pairs) for found in tasks) * (2 if meaning else 1)
        with Counter("checking fields", total) as counter:
            report = check_fields(
                rules, tasks, source, data_dir=data if meaning else None, on_progress=counter.step
            )
    if as_json:
        console.out.file.write(report.model_dump_json(indent=1) + "\n")
    else:
        show_check(report)
    show_check_ending(report, to_stderr=as_json)
    raise typer.Exit(FieldError.exit_code if report.errors else 0)


@app.command("pack")
def pack_fields(
    path: Annotated[Path, typer.Argument(help="A folder of fields or a run directory.")] = Path(
        "submission"
    ),
    output: Annotated[Path, typer.Option("--output", "-o", help="The zip to write.")] = Path(
        "submission.zip"
    ),
    data: DataOption = Path("test"),
    challenge: ChallengeOption = DEFAULT_CHALLENGE,
    runs: RunsOption = Path("runs"),
    force: Annotated[
        bool, typer.Option("--force", help="Pack fields with errors too, and overwrite the zip.")
    ] = False,
) -> None:
    """Make the zip to upload, once `harness check` finds no error.

    The same fields always make the same bytes. Only fields of the challenge's pairs go into it, and
    the file that the challenge's site wants at the top level. Exit code 21: errors, no zip.
    """
    if output.exists() and not force:
        raise OutputError(f"{output}: is there already; name another with --output, or --force")
    rules = load_challenge(challenge)
    tasks = read_pairs(rules, data)
    with open_source(path, runs) as source:
        total = sum(len(found.pairs) for found in tasks) * 2
        with Counter("checking fields", total) as counter:
            report = check_fields(rules, tasks, source, data_dir=data, on_progress=counter.step)
        show_check(report)
        show_check_ending(report, to_stderr=False)
        if report.errors and not force:
            console.fail(f"{output} was not written: mend the errors, or say --force")
            raise typer.Exit(FieldError.exit_code)
        names = [PurePosixPath(pair.path) for pair in report.pairs if pair.path is not None]
        if not names:
            raise FieldError(f"{path}: expected fields to pack, found none")
        dummy = rules.upload.dummy_file
        with Counter("packing", len(names)) as counter:
            pack(source, names, output, dummy_file=dummy, on_progress=counter.step)
    valid = sum(pair.state is FieldState.VALID for pair in report.pairs)
    console.tell(
        f"  zip     {output}  ({valid} valid fields, {format_bytes(output.stat().st_size)})",
        to_stderr=False,
    )


@app.command()
def zero(
    folder: Annotated[Path, typer.Argument(help="Folder that receives the fields.")] = Path("zero"),
    data: DataOption = Path("test"),
    challenge: ChallengeOption = DEFAULT_CHALLENGE,
    force: ForceOption = False,
) -> None:
    """Write the zero-field submission: the layout by example, and what every method must beat."""
    rules = load_challenge(challenge)
    tasks = read_pairs(rules, data)
    total = sum(len(found.pairs) for found in tasks)
    with Counter("writing zero fields", total) as counter:
        write_zero_fields(tasks, folder, overwrite=force, on_progress=counter.step)
    console.note(
        f"{total} zero fields in {folder}/; `harness pack {folder}` makes the upload of it"
    )


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
    target = output or Path(re.sub(r"[^A-Za-z0-9._-]+", "_", image) + ".tar.gz")
    for path in (target, manifest_path(target)):
        if path.exists() and not force:
            raise OutputError(f"{path}: is there already; name another with --output, or --force")
    engine = DockerEngine.connect()
    found = engine.find(image)
    run = latest_run_of(found, runs)
    if run is None:
        console.warn(
            f"no dry run of {image} ({found.id[:19]}) in {runs}/: the manifest has no certificate; "
            f"`harness run {image}` makes one"
        )
    with Counter(f"exporting {image}", engine.size_bytes(found), in_bytes=True) as counter:
        manifest = export_image(
            engine,
            found,
            target,
            certificate=None if run is None else certify(run),
            on_progress=counter.reach,
        )
    console.tell(
        f"image     {manifest.image_reference}  {manifest.image_id}\n"
        f"file      {target}  ({format_bytes(manifest.file_size_bytes)}, "
        f"{format_bytes(manifest.tar_size_bytes)} unpacked)\n"
        f"manifest  {manifest_path(target)}",
        to_stderr=False,
    )
    if run is not None:
        console.tell(f"dry run   {run.run_id}: {run.status}, {run.reason}", to_stderr=False)
