"""``harness run``: a dry run, or several of them."""

from __future__ import annotations

import logging
import re
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness import cli_import, cli_recover, console, console_runs, data_lock, gpu_choice
from harness.cache import CacheMode
from harness.campaign.machine_lock import MachineLock
from harness.challenge.field_file import FieldState
from harness.challenge.limit_changes import change_limits
from harness.challenge.model import DEFAULT_CHALLENGE, builtin_names, load_challenge
from harness.challenge.pairs import check_data
from harness.cli_options import (
    BaseImageOption,
    ChallengeOption,
    DataOption,
    EngineArgument,
    EngineOption,
    GpusOption,
    LimitOption,
    ReadOnlyRootOption,
    RunsOption,
    RuntimeOption,
    TruthOption,
    options_given,
)
from harness.collect import check_writable, publish_fields
from harness.engine.base import Isolation
from harness.engine.choose import choose_engine
from harness.engine.process import ProcessEngine
from harness.errors import BaseImageUnavailable, DataError, HarnessError, Interrupted, OutputError
from harness.first_look import look_at_accuracy, to_json
from harness.image_record import ImageRecord
from harness.live import BuildLog, RunView
from harness.plan import REFERENCE_IMAGE, Plan, WitnessChoice
from harness.repeat import EndedRun, execute_times, published, worst_exit_code
from harness.spread import summarise
from harness.store import LOCAL_SUBMISSION, RunDirectory, RunRecord, RunStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.engine.base import Engine, Image
    from harness.execute import Progress
    from harness.probe.client import ChildProgram

_log = logging.getLogger(__name__)


def register(app: typer.Typer) -> None:
    """Add the command of this module to the command line."""
    app.command()(run)


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
    gpus: GpusOption = gpu_choice.AUTO,
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
    context.with_resource(_unless_a_campaign_has_the_machine())  # nothing is built beside one
    chosen, image = _engine_and_image(engine, source, base_image, isolation)
    given = gpu_choice.choose_here(gpus, why_not=chosen.why_no_gpus)
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
        gpus=given.uuids,
    )
    ended, failure = _execute_times(plan, given.text, chosen, runs.resolve(), repeat, context.obj)
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
    console.show_ending(shown.record, accuracy, shown.directory, to_stderr=as_json)
    if summary is not None:
        console_runs.show_repeats(summary, first.directory, shown.record.run_id, to_stderr=as_json)
    kept = shown.directory.path / "replaced"
    if publish_fields(shown.directory.fields_dir, submission, kept):
        console.note(f"  fields in {submission}/ that no run had made were moved to {kept}")
    options = options_given(challenge, data)
    where = console.relative(shown.directory.path)
    console.tell(where_fields_are(shown.record, submission, options, where), to_stderr=as_json)
    if failure is not None:
        raise failure
    raise typer.Exit(worst_exit_code(ended))


@contextmanager
def _unless_a_campaign_has_the_machine() -> Iterator[None]:
    """Raises MachineBusy. Where this user can lock nothing, a dry run goes on without."""
    with ExitStack() as held:
        try:
            held.enter_context(MachineLock(clean_after=lambda _: None).unless_taken())
        except OutputError as error:
            _log.debug("%s", error)
        yield


def _execute_times(
    plan: Plan, gpus: str, engine: Engine, runs_dir: Path, times: int, ahead: ChildProgram | None
) -> tuple[list[EndedRun], HarnessError | None]:
    """The runs that ended, and why the next one could not begin, if so. ``gpus``: for people.

    What ended is worth showing, whatever stopped the rest. Raises when nothing did.
    """

    @contextmanager
    def view(directory: RunDirectory, index: int) -> Iterator[Callable[[Progress], None]]:
        if index == 1:
            console.show_plan(plan, engine.info, directory, gpus)
        if times > 1:
            console_runs.show_turn(directory, index, times)
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
    cli_import.check_source(source)
    if choice is EngineOption.AUTO and not Path(source).is_dir():
        choice = EngineOption.DOCKER  # no other engine runs images
    chosen, notice = choose_engine(choice.value)
    if notice is not None:
        console.warn(notice)
    chosen.check_isolation(isolation)
    if not Path(source).is_dir():
        return chosen, cli_import.image_to_run(chosen, source)
    folder = Path(source)
    try:
        image = chosen.build(
            folder, tag=_tag_of(folder), base_image=base_image, on_output=BuildLog().add
        )
    except BaseImageUnavailable as error:
        if choice is EngineOption.DOCKER:
            raise
        console.warn(f"{error}\nUsing the process engine instead, without isolation.")
        chosen = ProcessEngine()
        chosen.check_isolation(isolation)
        image = chosen.build(folder, tag=_tag_of(folder))
    return chosen, image


def _tag_of(folder: Path) -> str:
    """The challenge's name for the image of the folder one is in; another folder, which may be
    somebody else's, gets a name of its own."""
    if folder.resolve() == Path.cwd().resolve():
        return REFERENCE_IMAGE
    slug = "-".join(re.findall(r"[a-z0-9]+", folder.resolve().name.lower()))
    return f"l2r-run/{slug[:60].strip('-') or 'folder'}"


def where_fields_are(record: RunRecord, submission: Path, given: str, where: str) -> str:
    """``given``: the options that the next command needs, too; ``where``: the run directory."""
    skipped = {FieldState.NOT_ATTEMPTED} if record.exit_code == 0 else set()
    asked = [pair for pair in record.pairs if pair.field_state not in skipped]
    valid = sum(pair.field_state is FieldState.VALID for pair in asked)
    fields = f"none; {submission}/ is as it was before this run"
    if any(pair.field_sha256 is not None for pair in record.pairs):
        fields = f"{submission}/" + (f" ({valid} of {len(asked)})" if valid < len(asked) else "")
    if record.status is RunStatus.SUCCEEDED:
        place = "" if submission == Path("submission") else f" {submission}"
        check, pack = (f"`harness {command}{place}{given}`" for command in ("check", "pack"))
        following = f"{check} says whether they mean what you think, then {pack}"
    elif record.status is RunStatus.INTERRUPTED:
        following = "run it again"
    else:
        following = f"`harness show {where}` says why, and what to try"
    return f"  fields  {fields}\n  next    {following}"
