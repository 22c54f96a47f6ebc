"""`harness evaluate`. What it does needs NumPy, SciPy and Numba: imported when it is called."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from harness import data_lock
from harness.cli_options import RunsOption  # noqa: TC001 - for typer
from harness.cli_upload import ChallengeOrRunsOption  # noqa: TC001

_OFFICIAL = "In place of the official evaluation script"

app = typer.Typer()


@app.command()
def evaluate(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="PATH",
            help="Folders of fields, zips, run directories or ids of dry runs. "
            "\\[default: submission]",
            show_default=False,
        ),
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option(
            "--truth",
            "--ground-truth",
            "-d",
            help="Folder with labels, landmarks and masks. \\[default: beside the data]",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="The challenge's data, for its lists of pairs and the images' spacing; beside -c "
            "the same as -d. \\[default: the truth folder if that has them, else test]",
            show_default=False,
        ),
    ] = None,
    challenge: ChallengeOrRunsOption = None,
    task: Annotated[
        list[str] | None,
        typer.Option("--task", help="Only this task; may be said several times."),
    ] = None,
    given: Annotated[
        Path | None,
        typer.Option("--input", "-i", help=f"{_OFFICIAL}: the folder of fields, or a zip."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help=f"{_OFFICIAL}: a public *_evaluation_config.json."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The file to write; of several PATHs, a folder. \\[default: evaluation.json in a "
            "run directory, else metrics.json; of several, evaluation/]",
            show_default=False,
        ),
    ] = None,
    runs: RunsOption = Path("runs"),
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            min=1,
            max=1024,
            help="Cases at a time, each in a process of its own. \\[default: one a core]",
            show_default=False,
        ),
    ] = None,
    extras: Annotated[
        bool,
        typer.Option(
            "--extras",
            help="Also what no official result has: HD95 and mean surface distance in mm, NDV.",
        ),
    ] = False,
    initial: Annotated[
        bool,
        typer.Option("--initial/--no-initial", help="Evaluate the zero field too, once a pair."),
    ] = True,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the results as JSON, not as tables.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print every case, not the tasks alone.")
    ] = False,
) -> None:
    """Score fields against the truth, with the official numbers: DSC, HD95, TRE, SDlogJ.

    What was computed before is not computed again: results are kept beside the output, case by
    case, until a field, the truth, the rules or the harness changes.

    In place of the official script: harness evaluate -i FIELDS -d GROUND_TRUTH -c CONFIG.json -o
    OUT.json

    Exit code 0: every field of every attempted task was scored. 21: some are missing or invalid,
    and the others were scored. 11: some truth cannot be used. docs/evaluate.md explains the rest.
    """
    from harness.evaluation import Request, evaluate_all  # noqa: PLC0415

    sources = [*(paths or []), *([given] if given is not None else [])]
    with nullcontext() if data is None else data_lock.shared(data):
        code = evaluate_all(
            Request(
                paths=tuple(sources) or (Path("submission"),),
                truth=truth,
                data=data,
                challenge=challenge,
                tasks=tuple(task or ()),
                config=config,
                output=output,
                runs=runs,
                workers=workers,
                extras=extras,
                initial=initial,
            ),
            as_json=as_json,
            verbose=verbose,
        )
    raise typer.Exit(code)
