"""The reference container's entry point: ``python -m harness.runner``.

Finds the tasks and pairs in the data folder, lets the plugin register each pair, writes the fields,
and prints the runtimes that its own probe saw. Exit codes: 0 all fields written, 23 some pairs
failed, otherwise that of the error (:mod:`harness.errors`).
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from harness.challenge.pairs import Pair, TaskPairs, is_present, read_pairs
from harness.errors import HarnessError, OutputError, PairsFailed, ProbeError
from harness.probe.client import Probe
from harness.probe.spec import WatchSpec
from harness.probe.trace import Placement
from harness.runner.inside import make_report, table, write_report
from harness.runner.plugin import load_method
from harness.runner.privileges import drop_privileges
from harness.runner.settings import Settings, read_settings
from harness.runner.walk import attempted, say, walk
from harness.timing import time_pairs


def main() -> int:
    # As a container's first process Python would ignore the request to stop.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        run(read_settings())
    except HarnessError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


def run(settings: Settings) -> None:
    """Everything from the plugin's import to the table. Raises HarnessError."""
    challenge = settings.challenge
    present = [task for task in challenge.tasks if is_present(task, settings.data_dir)]
    folders = sorted({str(task.field.folder) for task in present})
    if note := drop_privileges(settings.output_dir, folders, settings.data_dir):
        say(note)
    method = load_method(settings.method_dir)
    found = read_pairs(challenge, settings.data_dir)
    tasks = attempted(method, found, (task.name for task in challenge.tasks))
    _make_folders(tasks, settings.output_dir)
    pairs = tuple(pair for task in tasks for pair in task.pairs)
    with ExitStack() as scratch:
        probe = _start_probe(settings, pairs, scratch)
        failed: dict[str, str] = {}
        try:
            failed = walk(method, tasks, data_dir=settings.data_dir, output_dir=settings.output_dir)
        finally:
            if probe is not None:
                _report(settings, pairs, probe, failed)
    if failed:
        raise PairsFailed(f"{len(failed)} of {len(pairs)} pairs failed, see above")


def _make_folders(tasks: tuple[TaskPairs, ...], output_dir: Path) -> None:
    for folder in {output_dir / pair.field.parent for task in tasks for pair in task.pairs}:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"output folder {folder}: cannot be made ({error.strerror}); is "
                f"{output_dir} mounted, and writable for user {os.geteuid()}?"
            ) from error
        if not os.access(folder, os.W_OK):
            raise OutputError(f"output folder {folder}: not writable for user {os.geteuid()}")


def _start_probe(settings: Settings, pairs: tuple[Pair, ...], scratch: ExitStack) -> Probe | None:
    """The witness inside. The harness outside has its own, so a run goes on without this one."""
    try:
        folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    except OSError as error:  # a read-only container without a /tmp
        say(f"no runtimes from inside: no folder for temporary files ({error.strerror})")
        return None
    trace = Path(scratch.enter_context(folder)) / "trace.jsonl"
    spec = WatchSpec(
        placement=Placement.CONTAINER,
        trace=trace,
        data_dir=settings.data_dir,
        output_dir=settings.output_dir,
        inputs=tuple(path for pair in pairs for path in pair.inputs),
        fields=tuple(pair.field for pair in pairs),
    )
    probe = Probe(spec)
    try:
        probe.start()
    except ProbeError as error:
        say(f"no runtimes from inside: {error}")
        return None
    return probe


def _report(
    settings: Settings, pairs: tuple[Pair, ...], probe: Probe, failed: dict[str, str]
) -> None:
    try:
        trace = probe.finish()
    except (ProbeError, OSError) as error:  # a method that tidied up /tmp, say
        say(f"no runtimes from inside: {error}")
        return
    report = make_report(trace, time_pairs(pairs, trace), failed)
    if pairs:
        say("\nRuntimes as the runner saw them, first access to field written:")
        say(table(report))
    if settings.inside_report is not None:
        try:
            write_report(report, settings.inside_report)
        except OSError as error:
            say(f"no report of the runtimes for the harness: {error}")


if __name__ == "__main__":
    sys.exit(main())
