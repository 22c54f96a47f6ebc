"""Commands about fields, without running a submission."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from harness import console
from harness.challenge.model import DEFAULT_CHALLENGE, builtin_names, load_challenge
from harness.convert.convention import Family, FieldConvention, Order
from harness.errors import ConventionError
from harness.live import Counter

if TYPE_CHECKING:
    from harness.challenge.model import Task
    from harness.convert.batch import Batch, Outcome


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command()(convert)


def convert(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT",
            help="A field file (.npy, .npz, .nii, .nii.gz, .mha, .nrrd), or a folder with "
            "disp_FFFF_MMMM*: all of them.",
        ),
    ],
    target: Annotated[
        Path,
        typer.Argument(metavar="OUTPUT", help="The file to write; for a folder, the folder."),
    ],
    from_: Annotated[
        Family,
        typer.Option(
            "--from",
            metavar="CONVENTION",
            help="What INPUT is in: " + ", ".join(Family) + ".",
            show_default=False,
        ),
    ],
    to: Annotated[
        Family,
        typer.Option("--to", metavar="CONVENTION", help="What OUTPUT is in: one of the same."),
    ] = Family.CHALLENGE,
    order: Annotated[
        Order | None,
        typer.Option(
            "--order",
            help="grid-sample: zyx, the component along the array's last axis comes first, as "
            "PyTorch itself expects (the default); or xyz.",
            show_default=False,
        ),
    ] = None,
    align_corners: Annotated[
        bool | None,
        typer.Option(
            "--align-corners/--no-align-corners",
            help="grid-sample: what your grid_sample call gets. To be said; it has no default.",
            show_default=False,
        ),
    ] = None,
    absolute: Annotated[
        bool, typer.Option("--absolute", help="grid-sample: positions, identity included.")
    ] = False,
    fixed: Annotated[
        str | None,
        typer.Option(
            "--fixed",
            metavar="IMAGE",
            help="The fixed image, whose geometry an ITK field goes by. {fixed:04d} and "
            "{moving:04d} stand for the case ids of a field's name.",
            show_default=False,
        ),
    ] = None,
    moving: Annotated[
        str | None,
        typer.Option(
            "--moving",
            metavar="IMAGE",
            help="The moving image, where its spacing, direction or origin differs from the "
            "fixed one's.",
            show_default=False,
        ),
    ] = None,
    challenge: Annotated[
        str,
        typer.Option(
            "--challenge",
            help=f"A YAML file or one of the built-in: {', '.join(builtin_names())}.",
        ),
    ] = DEFAULT_CHALLENGE,
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            help="The challenge's task, for its grid and file format. Needed for --from or --to "
            "challenge where there are several.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
) -> None:
    """Convert displacement fields to the challenge's format, or from it.

    Conventions: challenge (the file its task asks for), voxels (components x, y, z in voxels of the
    full-resolution image), nifti (the same, X x Y x Z x 3 in a NIfTI file), grid-sample (PyTorch,
    -1..1), itk (ITK and ANTs displacement images, mm). docs/convert.md has the formula of each.

    Exit code 0: every file was converted. Otherwise that of the first file that was not, in
    docs/exit-codes.md; all others are converted nevertheless.
    """
    # Here, as it needs SciPy: a fifth of a second that other commands need not wait.
    from harness.convert.batch import Batch  # noqa: PLC0415
    from harness.convert.conversion import Conversion  # noqa: PLC0415

    conversion = Conversion(
        source=_convention(from_, to, order, align_corners, absolute=absolute),
        target=_convention(to, from_, order, align_corners, absolute=absolute),
        task=_task(challenge, task, needed=Family.CHALLENGE in (from_, to)),
    )
    batch = Batch(conversion=conversion, fixed=fixed, moving=moving, force=force)
    if source.is_dir():
        _convert_folder(batch, source, target)
    else:
        _convert_file(batch, source, target)


def _convention(
    family: Family,
    other: Family,
    order: Order | None,
    align_corners: bool | None,
    *,
    absolute: bool,
) -> FieldConvention:
    """One side's convention; the options describe the side that is grid-sample."""
    if family is not Family.GRID_SAMPLE:
        if other is not Family.GRID_SAMPLE and (
            order is not None or align_corners is not None or absolute
        ):
            raise ConventionError(
                "--order, --align-corners and --absolute describe a grid-sample field: expected "
                f"--from or --to grid-sample, found {other} and {family}"
            )
        return FieldConvention(family=family)
    if other is Family.GRID_SAMPLE:
        raise ConventionError(
            "from grid-sample to grid-sample: expected one side that is not, for the options "
            "describe one; convert to voxels first, and from there"
        )
    return FieldConvention(
        family=family, order=order or Order.ZYX, align_corners=align_corners, absolute=absolute
    )


def _task(challenge: str, name: str | None, *, needed: bool) -> Task | None:
    if name is None and not needed:
        return None
    rules = load_challenge(challenge)
    names = [task.name for task in rules.tasks]
    if name is None and len(names) > 1:
        raise ConventionError(
            f"challenge {rules.name}: expected one of its tasks, found none: --task "
            f"{' or '.join(names)}"
        )
    if name is not None and name not in names:
        raise ConventionError(
            f"challenge {rules.name}: expected one of its tasks, {', '.join(names)}, found {name!r}"
        )
    return rules.task(name or names[0])


def _convert_file(batch: Batch, source: Path, target: Path) -> None:
    outcome = batch.convert_file(source, target)
    if outcome.error is not None:
        _show_failure(outcome)
        raise typer.Exit(outcome.error.exit_code)
    console.note(f"{source} -> {outcome.target}")


def _convert_folder(batch: Batch, source: Path, target: Path) -> None:
    files = batch.find(source)
    failed: list[int] = []
    with Counter("converting", len(files)) as counter:
        for outcome in batch.convert_files(files, target):
            if outcome.error is not None:
                _show_failure(outcome)
                failed.append(outcome.error.exit_code)
            counter.step()
    done = len(files) - len(failed)
    console.note(f"{done} of {len(files)} fields converted" + (f", in {target}/" if done else ""))
    if failed:
        raise typer.Exit(failed[0])


def _show_failure(outcome: Outcome) -> None:
    message = str(outcome.error)
    name = outcome.source.name
    console.fail(message if message.startswith(name) else f"{name}: {message}")
