"""The `harness` command: parse, call, print."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness import (
    __version__,
    cli_campaign,
    cli_challenge,
    cli_cluster,
    cli_doctor,
    cli_evaluate,
    cli_fields,
    cli_import,
    cli_recover,
    cli_run,
    cli_show,
    cli_upload,
    console,
    console_runs,
    data_lock,
    interrupts,
)
from harness.challenge.model import DEFAULT_CHALLENGE, builtin_names, load_challenge
from harness.challenge.pairs import is_present
from harness.cli_help import PlainHelp
from harness.cli_options import (
    BaseImageOption,
    DataOption,
    EngineArgument,
    EngineOption,
    RunsOption,
    TruthOption,
)
from harness.compare import compare
from harness.engine.choose import choose_engine
from harness.errors import (
    BaseImageUnavailable,
    DataError,
    HarnessError,
)
from harness.live import BuildLog
from harness.plan import REFERENCE_IMAGE
from harness.store import RunDirectory

if TYPE_CHECKING:
    from types import FrameType

    from harness.probe.client import ChildProgram

IMAGE_TAG = REFERENCE_IMAGE  # the challenge's own build line uses it

app = typer.Typer(
    name="harness",
    cls=PlainHelp,
    help="Run, time and check medical image registration methods the way a challenge will.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(cli_challenge.app)


def _version(value: bool) -> None:
    if value:
        console.out.print(f"harness {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    del version


cli_run.register(app)


@app.command()
def build(
    folder: Annotated[Path, typer.Argument(help="Folder with the Dockerfile.")] = Path(),
    engine: EngineArgument = EngineOption.AUTO,
    base_image: BaseImageOption = None,
    tag: Annotated[str, typer.Option("--tag", help="Name the image gets.")] = IMAGE_TAG,
) -> None:
    """Build the submission's image; `harness run` does so too, this only says it sooner.

    With --engine auto, a machine without a container engine, or without a way to the base image, is
    not an error: `harness run` then uses the process engine.
    """
    chosen, notice = choose_engine(engine.value)
    if notice is not None:
        console.warn(notice)
    try:
        image = chosen.build(folder, tag=tag, base_image=base_image, on_output=BuildLog().add)
    except BaseImageUnavailable as error:
        if engine is EngineOption.DOCKER:
            raise
        console.warn(f"{error}\nUntil then `make run` uses the process engine, without isolation.")
        console.note("no image was built")
        return
    if chosen.info.name.value == EngineOption.DOCKER:
        console.note(f"image {tag} is ready: {image.id}")
    else:
        console.note("no image was built: the process engine runs the folder as it is")


@app.command("compare")
def compare_runs(
    first: Annotated[str, typer.Argument(help="A run directory, or the id of a dry run.")],
    second: Annotated[str, typer.Argument(help="The run to hold against it.")],
    runs: RunsOption = Path("runs"),
) -> None:
    """Show the runtimes of two runs pair by pair, and warn about what makes them incomparable.

    Warnings: other machine, challenge, cache, image or precision; a run that failed, whose witness
    missed events, or whose machine did other work.
    """
    records = [RunDirectory.find(name, runs).read_record() for name in (first, second)]
    console_runs.show_comparison(compare(*records))


@app.command()
def phantom(
    data: DataOption = Path("test"),
    truth: TruthOption = None,
    challenge: Annotated[
        str, typer.Option("--challenge", help="One of the built-in challenges.")
    ] = DEFAULT_CHALLENGE,
    pairs: Annotated[int, typer.Option("--pairs", min=1, max=500, help="Pairs a task.")] = 2,
    seed: Annotated[int, typer.Option("--seed", help="Other seed, other anatomy.")] = 2021,
    if_empty: Annotated[
        bool, typer.Option("--if-empty", help="Do nothing, silently, when there is data already.")
    ] = False,
) -> None:
    """Make synthetic data on a challenge's exact grids, and its truth in a separate folder."""
    from harness.phantom import write_phantoms  # noqa: PLC0415 - it needs SciPy: see _accuracy

    if if_empty and any(is_present(task, data) for task in load_challenge(challenge).tasks):
        return
    for other in builtin_names():
        if other != challenge:
            for task in load_challenge(other).tasks:
                if is_present(task, data):
                    raise DataError(
                        f"data folder {data}: {task.name} of {other} is there; give {challenge} a "
                        "folder of its own, with --data"
                    )
    truth = truth or data.parent / "truth"

    def say(cases: int, about_s: float) -> None:
        time = f"{about_s:.0f} s" if about_s < 120 else f"{about_s / 60:.0f} min"
        a_task = "1 pair a task" if pairs == 1 else f"{pairs} pairs a task"
        console.note(f"making phantom data ({a_task}, seed {seed}): {cases} cases, about {time}")

    with data_lock.shared(data):
        write_phantoms(
            data,
            truth,
            challenge=challenge,
            pairs_per_task=pairs,
            seed=seed,
            on_begin=say,
            on_progress=lambda line: console.note(f"  {line}"),
        )
    console.note(f"data in {data}/, truth in {truth}/")


cli_fields.register(app)
cli_recover.register(app)
cli_show.register(app)
cli_doctor.register(app)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """The end of the terminal or of the caller counts as Ctrl-C: stop, and keep what is there."""
    del number, frame
    raise KeyboardInterrupt


app.add_typer(cli_import.app)
app.add_typer(cli_upload.app)
app.add_typer(cli_evaluate.app)
app.add_typer(cli_campaign.app)
app.add_typer(cli_cluster.app)


def main(ahead: ChildProgram | None = None) -> None:
    """Every deliberate error becomes a message and its exit code. ``ahead``: a witness that was
    started already (:mod:`harness.__main__`)."""
    logging.basicConfig(level=logging.WARNING, handlers=[console.LogLines()])
    logging.getLogger(interrupts.__name__).setLevel(logging.INFO)
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    try:
        app(obj=ahead)
    except HarnessError as error:
        console.fail(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        console.fail("interrupted")
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output left. What was computed is stored; say no more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)


if __name__ == "__main__":
    main()
