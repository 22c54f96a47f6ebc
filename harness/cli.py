"""The `harness` command: parse, call, print."""

from __future__ import annotations

import logging
import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness import (
    __version__,
    cli_challenge,
    cli_doctor,
    cli_evaluate,
    cli_fields,
    cli_import,
    cli_recover,
    cli_show,
    cli_upload,
    console,
    data_lock,
)
from harness.cache import CacheMode
from harness.challenge.limit_changes import change_limits
from harness.challenge.model import DEFAULT_CHALLENGE, builtin_names, load_challenge
from harness.challenge.pairs import check_data, is_present
from harness.cli_options import (
    BaseImageOption,
    ChallengeOption,
    DataOption,
    EngineArgument,
    EngineOption,
    LimitOption,
    ReadOnlyRootOption,
    RunsOption,
    RuntimeOption,
    TruthOption,
    options_given,
)
from harness.collect import check_writable, publish_fields
from harness.compare import compare
from harness.engine.base import Isolation
from harness.engine.choose import choose_engine
from harness.engine.process import ProcessEngine
from harness.errors import (
    BaseImageUnavailable,
    DataError,
    HarnessError,
    Interrupted,
)
from harness.first_look import look_at_accuracy, to_json
from harness.image_record import ImageRecord
from harness.live import BuildLog, RunView
from harness.plan import REFERENCE_IMAGE, Plan, WitnessChoice
from harness.repeat import EndedRun, execute_times, published, worst_exit_code
from harness.spread import summarise
from harness.store import LOCAL_SUBMISSION, RunDirectory, RunRecord, RunStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from harness.engine.base import Engine, Image
    from harness.execute import Progress
    from harness.probe.client import ChildProgram

IMAGE_TAG = REFERENCE_IMAGE  # the challenge's own build line uses it

app = typer.Typer(
    name="harness",
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


@app.command()
def run(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            help="A folder with a Dockerfile and method/, the name of an image, or its .tar file."
        ),
    ] = ".",
    engine: EngineArgument = EngineOption.AUTO,
    data: DataOption = Path("test"),
    truth: TruthOption = None,
    submission: Annotated[
        Path, typer.Option("--submission", help="Folder that receives the fields.")
    ] = Path("submission"),
    runs: RunsOption = Path("runs"),
    challenge: ChallengeOption = DEFAULT_CHALLENGE,
    base_image: BaseImageOption = None,
    cache: Annotated[
        CacheMode,
        typer.Option(
            "--cache",
            help="warm: read all inputs once before the submission starts. cold: drop them from "
            "the page cache. The record says which one applied.",
        ),
    ] = CacheMode.WARM,
    repeat: Annotated[
        int,
        typer.Option(
            "--repeat",
            min=1,
            max=100,
            help="Run it so many times, each in a fresh container, and say how runtimes vary.",
        ),
    ] = 1,
    limit: LimitOption = None,
    read_only_root: ReadOnlyRootOption = False,
    runtime: RuntimeOption = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print the run record (of several runs: their summary) as JSON, not as tables.",
        ),
    ] = False,
    witness: Annotated[
        WitnessChoice,
        typer.Option("--witness", hidden=True, help="Where the witness runs; for tests."),
    ] = WitnessChoice.AUTO,
) -> None:
    """Dry-run a submission: register all pairs, witness their runtimes, check their fields.

    Exit code 0: every field of every attempted task is valid. 40-46 and 130: how the run ended
    instead (of several runs, the highest). 10-35: why it could not begin. docs/exit-codes.md lists
    them.
    """
    rules, changed_limits = change_limits(load_challenge(challenge), limit or ())
    data = data.resolve()
    with data_lock.shared(data):
        tasks = check_data(rules, data)
    named_truth, truth = truth, (truth or data.parent / "truth").resolve()
    for folder in (truth, submission.resolve(), runs.resolve()):
        if folder.is_relative_to(data):
            raise DataError(
                f"{folder} lies in the data folder {data}, which the submission sees; put it beside"
            )
    if named_truth is not None and not truth.is_dir():
        raise DataError(f"truth folder {named_truth}: expected a folder, found none")
    check_writable(submission, (str(task.field.folder) for task in rules.tasks))
    check_writable(runs, (LOCAL_SUBMISSION,))
    isolation = Isolation(read_only_root=read_only_root, runtime=runtime)
    chosen, image = _engine_and_image(engine, source, base_image, isolation)
    for name in chosen.sweep():
        console.note(f"removed {name}, left behind by a harness that was killed")
    cli_recover.recover_dead(runs.resolve(), chosen)
    facts = chosen.image_facts(image)
    plan = Plan(
        challenge=rules,
        challenge_file=None if challenge in builtin_names() else Path(challenge).resolve(),
        data_dir=data,
        tasks=tasks,
        image=image,
        image_facts=None if facts is None else ImageRecord.of(facts),
        submission=LOCAL_SUBMISSION,
        witness=witness,
        cache=cache,
        isolation=isolation,
        changed_limits=changed_limits,
    )
    ended, failure = _execute_times(plan, chosen, runs.resolve(), repeat, context.obj)
    first, shown = ended[0], published(ended)
    accuracy = look_at_accuracy(plan, shown.record, shown.directory, truth)
    summary = None
    if repeat > 1:
        summary = summarise([one.record for one in ended], asked=repeat)
        first.directory.write_repeat(summary)
    if as_json:
        text = summary.model_dump_json(indent=1) if summary else to_json(shown.record, accuracy)
        console.out.file.write(text + "\n")
    else:
        titles = {found.task.name: found.task.title for found in tasks}
        console.show_result(shown.record, accuracy, titles)
    if shown.record.status is not RunStatus.SUCCEEDED:
        console.show_log_tail(shown.directory)
        console.note(f"  `harness show {console.relative(shown.directory.path)}` explains this end")
    console.show_ending(shown.record, accuracy, shown.directory, to_stderr=as_json)
    if summary is not None:
        console.show_repeats(summary, first.directory, shown.record.run_id, to_stderr=as_json)
    kept = shown.directory.path / "replaced"
    if publish_fields(shown.directory.fields_dir, submission, kept):
        console.note(f"  fields in {submission}/ that no run had made were moved to {kept}")
    given = options_given(challenge, data)
    console.tell(_where_fields_are(shown.record, submission, given), to_stderr=as_json)
    if failure is not None:
        raise failure
    raise typer.Exit(worst_exit_code(ended))


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
        return
    if chosen.info.name.value == EngineOption.DOCKER:
        console.note(f"image {tag} is ready: {image.id}")


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
    console.show_comparison(compare(*records))


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


def _execute_times(
    plan: Plan, engine: Engine, runs_dir: Path, times: int, ahead: ChildProgram | None
) -> tuple[list[EndedRun], HarnessError | None]:
    """The runs that ended, and why the next one could not begin, if so.

    What ended is worth showing, whatever stopped the rest. Raises when nothing did.
    """

    @contextmanager
    def view(directory: RunDirectory, index: int) -> Iterator[Callable[[Progress], None]]:
        if index == 1:
            console.show_plan(plan, engine.info, directory)
        if times > 1:
            console.show_turn(directory, index, times)
        with RunView(len(plan.pairs)) as running:
            yield running.update

    ended: list[EndedRun] = []  # filled one by one: those before an error must not be lost
    try:
        for one in execute_times(plan, engine, runs_dir, times, view, ahead):
            ended.append(one)
    except KeyboardInterrupt:
        if not ended:
            raise
        return ended, Interrupted("interrupted")
    except HarnessError as error:
        if not ended:
            raise
        return ended, error
    return ended, None


def _engine_and_image(
    choice: EngineOption, source: str, base_image: str | None, isolation: Isolation
) -> tuple[Engine, Image]:
    """The engine and the image, built when ``source`` is a folder, loaded when it is a file.

    Under ``auto`` a base image that cannot be had means the process engine, said aloud. What the
    engine cannot do of ``isolation`` is an error before it builds anything.
    """
    chosen, notice = choose_engine(choice.value)
    if notice is not None:
        console.warn(notice)
    chosen.check_isolation(isolation)
    if not Path(source).is_dir():
        return chosen, cli_import.image_to_run(chosen, source)
    folder = Path(source)
    try:
        image = chosen.build(folder, tag=IMAGE_TAG, base_image=base_image, on_output=BuildLog().add)
    except BaseImageUnavailable as error:
        if choice is EngineOption.DOCKER:
            raise
        console.warn(f"{error}\nUsing the process engine instead, without isolation.")
        chosen = ProcessEngine()
        chosen.check_isolation(isolation)
        image = chosen.build(folder, tag=IMAGE_TAG)
    return chosen, image


def _where_fields_are(record: RunRecord, submission: Path, given: str) -> str:
    if any(pair.field_sha256 is not None for pair in record.pairs):
        place = "" if submission == Path("submission") else f" {submission}"
        check, pack = (f"`harness {command}{place}{given}`" for command in ("check", "pack"))
        return (
            f"  fields  {submission}/\n"
            f"  next    {check} says whether they mean what you think, then {pack}"
        )
    return f"  fields  none; {submission}/ is as it was before this run"


def _interrupt(number: int, frame: FrameType | None) -> None:
    """The end of the terminal or of the caller counts as Ctrl-C: stop, and keep what is there."""
    del number, frame
    raise KeyboardInterrupt


app.add_typer(cli_import.app)
app.add_typer(cli_upload.app)
app.add_typer(cli_evaluate.app)


def main(ahead: ChildProgram | None = None) -> None:
    """Every deliberate error becomes a message and its exit code. ``ahead``: a witness that was
    started already (:mod:`harness.__main__`)."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
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
