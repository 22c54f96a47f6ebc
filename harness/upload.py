"""What the commands around an upload do: check, pack, zero, export."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from harness import console, data_lock
from harness.challenge.field_file import FieldState, max_file_bytes
from harness.challenge.model import builtin_names, load_challenge
from harness.challenge.pairs import check_data, read_pairs
from harness.challenge.quantity import format_bytes
from harness.check.check import check_fields
from harness.check.findings import FindingKind
from harness.check.pack import pack
from harness.check.source import find_run, open_source
from harness.check.zero import write_zero_fields
from harness.cli_options import options_given
from harness.console_check import show_check, show_check_ending
from harness.engine.docker import DockerEngine
from harness.errors import ChallengeError, FieldError, OutputError
from harness.export import certify, export_image, latest_run_of, manifest_path
from harness.live import Counter

if TYPE_CHECKING:
    from harness.challenge.model import Challenge
    from harness.challenge.pairs import TaskPairs
    from harness.check.report import CheckReport
    from harness.check.source import FieldSource


def check(
    path: Path, *, data: Path, challenge: str | None, runs: Path, meaning: bool, as_json: bool
) -> int:
    """The exit code."""
    rules = _rules(challenge, path, runs)
    with data_lock.shared(data):
        tasks = check_data(rules, data) if meaning else read_pairs(rules, data)
        with open_source(path, runs, tasks) as source:
            report = _checked(rules, tasks, source, data if meaning else None)
    if as_json:
        console.out.file.write(report.model_dump_json(indent=1) + "\n")
    else:
        show_check(report)
    show_check_ending(report, to_stderr=as_json)
    return FieldError.exit_code if report.errors else 0


def pack_fields(
    path: Path, *, output: Path, data: Path, challenge: str | None, runs: Path, force: bool
) -> int:
    """The exit code."""
    _check_target(output, force=force)
    _refuse_to_pollute(output, data)
    rules = _rules(challenge, path, runs)
    with data_lock.shared(data):
        tasks = check_data(rules, data)
    with open_source(path, runs, tasks) as source:
        with data_lock.shared(data):
            report = _checked(rules, tasks, source, data)
        show_check(report)
        show_check_ending(report, to_stderr=False)
        if any(error.kind is not FindingKind.NO_DUMMY for error in report.errors) and not force:
            console.fail(f"{output} was not written: mend the errors, or say --force")
            return FieldError.exit_code
        names = [PurePosixPath(pair.path) for pair in report.pairs if pair.path is not None]
        if not names:
            raise FieldError(f"{path}: expected fields to pack, found none")
        with Counter("packing", len(names)) as counter:
            dummy = rules.upload.dummy_file
            pack(
                source,
                names,
                output,
                max_bytes=max(max_file_bytes(found.task.field) for found in tasks),
                dummy_file=dummy,
                on_progress=counter.step,
            )
    invalid = sum(pair.state is FieldState.INVALID for pair in report.pairs)
    fields = f"{len(names)} field{'s' if len(names) != 1 else ''}"
    fields += f", {invalid} of them not valid" if invalid else ""
    size = format_bytes(output.stat().st_size)
    console.tell(f"  zip     {output}  ({fields}, {size})", to_stderr=False)
    return 0


def zero(folder: Path, *, data: Path, challenge: str, force: bool) -> None:
    _refuse_to_pollute(folder, data)
    tasks = read_pairs(load_challenge(challenge), data)
    total = sum(len(found.pairs) for found in tasks)
    with Counter("writing zero fields", total) as counter:
        write_zero_fields(tasks, folder, overwrite=force, on_progress=counter.step)
    given = options_given(challenge, data)
    console.note(
        f"{total} zero field{'s' if total != 1 else ''} in {folder}/; "
        f"`harness pack {folder}{given}` makes the zip"
    )


def export(image: str, *, output: Path | None, runs: Path, force: bool) -> None:
    target = output or Path(re.sub(r"[^A-Za-z0-9._-]+", "_", image) + ".tar.gz")
    for path in (target, manifest_path(target)):
        _check_target(path, force=force)
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


def _checked(
    rules: Challenge, tasks: tuple[TaskPairs, ...], source: FieldSource, data: Path | None
) -> CheckReport:
    total = sum(len(found.pairs) for found in tasks) * (1 if data is None else 2)
    with Counter("checking fields", total) as counter:
        return check_fields(rules, tasks, source, data_dir=data, on_progress=counter.step)


def _rules(challenge: str | None, path: Path, runs: Path) -> Challenge:
    """The challenge that was named, else that of the run that ``path`` is, else the default."""
    if challenge is not None:
        return load_challenge(challenge)
    run = find_run(path, runs)
    if run is None:
        return load_challenge()
    name = run.read_challenge_name()
    if name not in builtin_names():
        raise ChallengeError(
            f"{path}: this run was under the challenge {name}, which is not built in; name its "
            "file with --challenge"
        )
    return load_challenge(name)


def _check_target(path: Path, *, force: bool) -> None:
    if path.is_dir():
        raise OutputError(f"{path}: expected the name of a file to write, found a folder")
    if not path.parent.is_dir():
        raise OutputError(f"{path}: expected its folder to be there, found none; make it first")
    if path.exists() and not force:
        raise OutputError(f"{path}: is there already; name another with --output, or --force")


def _refuse_to_pollute(path: Path, data: Path) -> None:
    """A submission sees all that lies in the data folder."""
    if path.resolve().is_relative_to(data.resolve()):
        raise OutputError(f"{path} lies in the data folder {data}; choose a place beside it")
