"""What to try after a run that did not go well: a pure function of its record.

Each line names what was found and one thing to do about it. The text of a submission is not quoted
here but for what the record holds of it, which is fit to be shown.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, assert_never

from harness.challenge.field_file import FieldState
from harness.challenge.quantity import format_bytes
from harness.ending import Cut
from harness.errors import Blame, MethodError
from harness.store import RunStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.ending import CutRecord, EndingRecord
    from harness.store import PairRecord, RunRecord

_SHOWN_NAMES = 3
_SIGNAL_BASE = 128
_NEAR_LIMIT_RATIO = 0.95

# What an exit code by custom means: of shells, of container runtimes, of our own runner.
_CODES = {
    1: "an error of the program itself, in Python an exception: the traceback ends the log",
    2: "mostly wrong arguments: a container of this challenge is called with those of its file, "
    "and mostly with none; give your entry point its own in ENTRYPOINT",
    126: "the entry point was found and could not be executed: `chmod +x` it in the Dockerfile, "
    "check its first line (#!), and that it is built for this machine's architecture",
    127: "the entry point, or a program it calls, was not found: check the path in ENTRYPOINT, "
    "that the file is copied into the image, and that a script has no Windows line ends (CRLF)",
    MethodError.exit_code: "the method could not be loaded: the log says which line of the "
    "plugin, or which import; a package that is missing belongs into method/requirements.txt",
}
_SIGNALS = {
    signal.SIGILL: "an instruction that this CPU does not have ({cpu}): build native code and "
    "wheels for x86-64-v2 rather than -march=native, or let the library choose at run time",
    signal.SIGSEGV: "native code touched memory that is not its own: run it with `python -X "
    "faulthandler` to see where, and check that the compiled packages' versions fit together",
    signal.SIGABRT: "the program gave up by itself (a failed assertion, an exception that nobody "
    "caught in C++, a corrupted heap): the reason is at the end of the log",
    signal.SIGBUS: "mostly shared memory that is full ({shared}): PyTorch's DataLoader passes "
    "batches through it, so use num_workers=0; or a file that shrank while it was mapped",
    signal.SIGFPE: "an integer was divided by zero in native code",
    signal.SIGXFSZ: "it wrote a single file larger than allowed ({output} of output): write fields "
    "only, and those compressed",
    signal.SIGXCPU: "it used up the CPU time that it, or a program around it, had allowed itself",
    signal.SIGSYS: "it made a system call that containers may not make: avoid what needs special "
    "rights (mounting, tracing, loading kernel modules)",
    signal.SIGPIPE: "it wrote to a pipe that nobody reads any more: one program of a pipeline "
    "ended early",
    signal.SIGTERM: "something asked it to end, and it was not the harness: a process of the "
    "submission's own (`timeout`, a supervisor), or somebody on this machine",
}


def advise(record: RunRecord, last_touched: str | None = None) -> tuple[str, ...]:
    """What to try, the likeliest first; never empty.

    ``last_touched``: the pair, or else the input, that it opened last, where the trace is at hand.
    """
    cut = None if record.ending is None else record.ending.cut
    own = _after_cut(cut, record, last_touched) if cut is not None else _by_status(record)
    return (*own, *_in_any_case(record))


def _after_cut(cut: CutRecord, record: RunRecord, last_touched: str | None) -> Iterator[str]:
    match cut.reason:
        case Cut.TIMED_OUT:
            yield from _deadline(record)
        case Cut.PAIR_TIMED_OUT:
            which = cut.subject or "one pair"
            yield (
                f"{which} took longer than {record.limits.longest_pair_s:.0f} s: run it alone, and "
                "look for what does not converge; bound the iterations or the time of a pair"
            )
        case Cut.IDLE:
            yield from _idle(record, last_touched)
        case Cut.OUTPUT_LIMIT:
            yield (
                f"write the fields and nothing else to the output folder: it may hold "
                f"{format_bytes(record.limits.output_bytes)} in {record.limits.output_files} files "
                f"and folders; what is only needed meanwhile belongs into /tmp "
                f"({format_bytes(record.limits.temporary_bytes)}), and is removed after each pair"
            )
        case Cut.OUTPUT_UNSEEN:
            what = f" ({cut.subject})" if cut.subject else ""
            yield (
                f"leave every folder of the output readable for all, and not deep in each other"
                f"{what}: no chmod 700, and no second user that writes there"
            )
        case Cut.SCRATCH_LIMIT:
            yield (
                f"it wrote more than {format_bytes(record.limits.scratch_bytes)} inside its "
                "container: do not unpack weights or cache images at run time (do so in the "
                "Dockerfile), and close files that were deleted"
            )
        case Cut.DISK_FULL if record.blame is Blame.SUBMISSION:
            yield (
                "it filled the machine's disk with files that no look could see, or faster than "
                "one could: close files without a name, pass none through sockets, and write no "
                f"more than {format_bytes(record.limits.scratch_bytes)} outside of the output"
            )
        case Cut.DISK_FULL:
            yield (
                "free space on the disk of the runs folder, or put it elsewhere with --runs, then "
                "run it again; the submission kept to its limits"
            )
        case Cut.INTERRUPTED:
            yield "run it again: nothing speaks against the submission"
        case Cut.HARNESS_DIED:
            yield from _harness_died()
        case _:
            assert_never(cut.reason)


def _by_status(record: RunRecord) -> Iterator[str]:
    match record.status:
        case RunStatus.SUCCEEDED:
            yield "nothing to mend; `harness check` says whether the fields mean what you think"
        case RunStatus.INCOMPLETE:
            yield from _incomplete(record)
        case RunStatus.CRASHED:
            yield _crashed(record)
        case RunStatus.OUT_OF_MEMORY:
            yield from _out_of_memory(record)
        case RunStatus.TIMED_OUT:
            yield from _deadline(record)
        case RunStatus.OUTPUT_LIMIT:
            yield "write the fields and nothing else to the output folder, temporary files to /tmp"
        case RunStatus.REJECTED:
            yield from _rejected(record)
        case RunStatus.INTERRUPTED:
            yield "run it again: nothing speaks against the submission"
        case RunStatus.INFRASTRUCTURE:
            yield from _infrastructure(record)
        case _:
            assert_never(record.status)


def _deadline(record: RunRecord) -> Iterator[str]:
    done = [pair for pair in record.pairs if pair.runtime_s is not None]
    total = len(record.pairs)
    limits = record.limits
    allowed = f"{limits.setup_time_s:.0f} s and {limits.pair_time_s:.0f} s a pair"
    if not done:
        yield (
            f"no pair was finished within {limits.deadline_s(total):.0f} s ({allowed}): look at "
            "the end of the log for where it waits; a download cannot succeed without a network"
        )
        return
    slowest = max(done, key=lambda pair: pair.runtime_s or 0.0)
    yield (
        f"{len(done)} of {total} pairs were finished, the slowest, {slowest.key}, in "
        f"{slowest.runtime_s:.1f} s; allowed are {allowed}: fewer iterations, a coarser grid, or "
        "the GPU"
    )
    if following := _next_pair(record):
        yield f"it was ended in, or before, {following.key}"


def _idle(record: RunRecord, last_touched: str | None) -> Iterator[str]:
    where = f", and the last that it had opened was {last_touched}" if last_touched else ""
    yield (
        f"it touched no file and used no CPU for {record.limits.idle_time_s:.0f} s{where}: look "
        "for a wait that cannot end (input from a terminal, a lock between processes, a worker "
        "that died, a connection: there is no network)"
    )
    yield "PyTorch's DataLoader with workers that died hangs so: try num_workers=0"


def _harness_died() -> Iterator[str]:
    yield (
        "run it again for times that can be ranked: what had finished is kept, and nothing speaks "
        "against the submission"
    )
    yield (
        "if nobody killed the harness: `journalctl -k | grep -i oom` says whether the machine ran "
        "out of memory, `last -x` whether it was restarted"
    )


def _incomplete(record: RunRecord) -> Iterator[str]:
    missing = _in_state(record, FieldState.MISSING)
    told = [pair for pair in missing if pair.field_problem and "failed:" in pair.field_problem]
    if told:
        yield (
            f"the method raised an error in {_names([pair.key for pair in told])}: the table above "
            "has it, the log the traceback"
        )
        return
    expected = [pair.expected_path for pair in missing if pair.expected_path]
    if expected:
        yield (
            f"expected in the output folder: {_names(expected)}; is the name right, digit for "
            "digit, and the folder there?"
        )
    else:
        yield "some fields are missing, or nothing was read: does it look at the mounted folders?"
    yield (
        "a program that finds no pairs and ends with code 0 looks like this: read the list of "
        "pairs from the data folder (`harness challenge show` prints where it lies)"
    )


def _crashed(record: RunRecord) -> str:
    code = record.exit_code
    if code is None:
        return (
            "its image cannot be started: check that ENTRYPOINT names a program that is in it, "
            "executable and of this machine's architecture, and that USER and WORKDIR exist; "
            "`docker run IMAGE` says the same"
        )
    if code in _CODES:
        return f"exit code {code}: {_CODES[code]}"
    number = code - _SIGNAL_BASE
    if number == signal.SIGKILL:
        return _killed(record.ending)
    if number in _SIGNALS:
        known = signal.Signals(number)
        text = _SIGNALS[known].format(
            cpu=record.machine.cpu_model,
            shared=format_bytes(record.limits.shared_memory_bytes),
            output=format_bytes(record.limits.output_bytes),
        )
        return f"{known.name}: {text}"
    return f"exit code {code} is the program's own choice: the end of the log should say why"


def _killed(ending: EndingRecord | None) -> str:
    if ending is not None and ending.memory_kills:
        return "SIGKILL: the kernel killed processes of it for memory; see below"
    return (
        "SIGKILL, and no limit that was reached explains it: the submission killed itself (a "
        "supervisor, `kill -9`, `timeout -s KILL`), or somebody on this machine did (`docker "
        "kill`, the machine's own memory: `journalctl -k | grep -i oom`)"
    )


def _out_of_memory(record: RunRecord) -> Iterator[str]:
    limit = format_bytes(record.limits.memory_bytes)
    peak = None if record.ending is None else record.ending.memory_peak_bytes
    used = f"its peak was {format_bytes(peak)} of {limit}" if peak is not None else f"limit {limit}"
    yield (
        f"{used}: use half precision or a coarser level, free a pair's arrays before the next, "
        "fewer workers, no image cache; files in /tmp and /dev/shm count, too"
    )
    yield (
        "to see how much it would need, run it with a higher limit (`harness run --limit "
        "memory=...`); the challenge's own stays what it is"
    )
    if record.exit_code == 0:
        yield (
            "the main process ended with code 0, as if nothing were wrong: let it check how its "
            "worker processes ended"
        )


def _rejected(record: RunRecord) -> Iterator[str]:
    invalid = _in_state(record, FieldState.INVALID)
    yield (
        f"`harness check {record.run_id}` says what is wrong with each field and how to mend it; "
        f"{_names([pair.key for pair in invalid])} first"
    )


def _infrastructure(record: RunRecord) -> Iterator[str]:
    ending = record.ending
    uncollected = _in_state(record, FieldState.UNCOLLECTED)
    if uncollected or (ending is not None and ending.disk_was_full):
        where = "; what it wrote is in output/ in the run directory" if uncollected else ""
        yield (
            "free space on the disk of the runs folder, or put it elsewhere with --runs, then run "
            f"it again{where}"
        )
        return
    if ending is not None and ending.machine_lacked_memory(record.limits.memory_bytes):
        yield (
            "the machine has less memory than its programs and the submission's limit need: end "
            "what else runs on it (`journalctl -k | grep -i oom` names what was killed), or take "
            "one with more, then run it again"
        )
        return
    if ending is not None and ending.engine_failure is not None:
        yield (
            "the container engine failed, not the submission: `harness doctor` looks at it, "
            "`journalctl -u docker` tells its side (was it restarted?); then run it again"
        )
        return
    yield (
        "the container went away while it ran: somebody removed it (`docker rm -f`, `docker system "
        "prune`, a clean-up job), or the engine was restarted; run it again"
    )


def _in_any_case(record: RunRecord) -> Iterator[str]:
    """What the counters tell beside the verdict."""
    ending = record.ending
    if ending is None or record.status is RunStatus.SUCCEEDED:
        return
    if ending.refused_processes:
        yield (
            f"{ending.refused_processes} times a process or thread was refused (the limit is "
            f"{record.limits.processes}): set OMP_NUM_THREADS and the like, and fewer workers"
        )
    peak = ending.memory_peak_bytes
    near = peak is not None and peak > _NEAR_LIMIT_RATIO * record.limits.memory_bytes
    killed = ending.memory_kills and not ending.machine_lacked_memory(record.limits.memory_bytes)
    if record.status is not RunStatus.OUT_OF_MEMORY and (killed or near):
        yield (
            f"it came to its limit of memory ({format_bytes(record.limits.memory_bytes)}), which "
            "may be what is behind this"
        )
    if ending.isolation is not None and ending.isolation.read_only_root:
        yield (
            "its container was read-only but for /tmp and the output folder: if the log says "
            "'Read-only file system', set HOME and caches (TORCH_HOME, MPLCONFIGDIR) to /tmp"
        )


def _next_pair(record: RunRecord) -> PairRecord | None:
    """The first pair without a field, in the order of the list: most methods keep to it."""
    return next(iter(_in_state(record, FieldState.MISSING)), None)


def _in_state(record: RunRecord, state: FieldState) -> list[PairRecord]:
    return [pair for pair in record.pairs if pair.field_state is state]


def _names(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return ", ".join(names[:_SHOWN_NAMES]) + more
