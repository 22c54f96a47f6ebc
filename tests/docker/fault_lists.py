"""All faults, in the groups of ``docs/faults.md``; those from outside are here."""

from __future__ import annotations

from pathlib import Path

from harness.errors import Blame
from harness.store import RunStatus
from tests.docker.fault import ALL_VALID, Fault, table
from tests.docker.faults_of_intent import FIELDS, PRYING
from tests.docker.faults_of_resources import ENDS, MEMORY_AND_DISK

OUTSIDE = (
    Fault(
        name="container_removed",
        what="somebody removes the container",
        status=RunStatus.INFRASTRUCTURE,
        reason="the container vanished while it ran",
        blame=Blame.MACHINE,
        valid=1,
        program="waits.sh",
        outside=True,
    ),
    Fault(
        name="container_stopped",
        what="somebody stops the container",
        status=RunStatus.INFRASTRUCTURE,
        reason="the container was ended from outside",
        blame=Blame.MACHINE,
        valid=1,
        program="waits.sh",
        outside=True,
    ),
    Fault(
        name="engine_restarted",
        what="the engine is restarted",
        status=RunStatus.INFRASTRUCTURE,
        reason="the engine failed",
        blame=Blame.MACHINE,
        valid=1,
        program="waits.sh",
        outside=True,
    ),
    Fault(
        name="interrupted",
        what="Ctrl-C",
        status=RunStatus.INTERRUPTED,
        reason="ended because the harness was asked to stop",
        blame=Blame.MACHINE,
        valid=1,
        program="waits.sh",
        outside=True,
    ),
    Fault(
        name="interrupted_twice",
        what="Ctrl-C twice, of one that ignores SIGTERM",
        status=RunStatus.INTERRUPTED,
        reason="ended because the harness was asked to stop",
        blame=Blame.MACHINE,
        valid=1,
        program="waits_stubbornly.py",
        outside=True,
    ),
    Fault(
        name="harness_killed",
        what="the harness is killed (SIGKILL), and started again",
        status=RunStatus.INTERRUPTED,
        reason="ended because the harness was killed, or its machine went down",
        blame=Blame.MACHINE,
        valid=1,
        timed=False,
        program="waits.sh",
        outside=True,
        warning="the harness ended before the run did",
    ),
    Fault(
        name="after_a_killed_harness",
        what="the run after that",
        status=RunStatus.SUCCEEDED,
        reason=ALL_VALID,
        exit_code=0,
        program="succeeds.sh",
        outside=True,
    ),
    Fault(
        name="disk_full",
        what="the disk of the run directory is full",
        status=RunStatus.INFRASTRUCTURE,
        reason="the machine's disk is full",
        blame=Blame.MACHINE,
        valid=1,
        program="fills_the_disk.sh",
        outside=True,
    ),
    Fault(
        name="hides_files",
        what="fills that disk with files that are on their way through sockets, unseen",
        status=RunStatus.OUTPUT_LIMIT,
        reason="that it had hidden from every look were free again when its container was gone",
        valid=1,
        outside=True,
    ),
)

GROUPS = {
    "Ends": ENDS,
    "Memory, disk and log": MEMORY_AND_DISK,
    "What it must not reach": PRYING,
    "Fields": FIELDS,
    "From outside": OUTSIDE,
}
OF_RESOURCES = tuple(fault for fault in (*ENDS, *MEMORY_AND_DISK) if not fault.outside)
OF_INTENT = tuple(fault for fault in (*PRYING, *FIELDS) if not fault.outside)
DOCUMENT = Path(__file__).parents[2] / "docs" / "faults.md"
_BEGIN, _END = "<!-- the table of tests/docker/fault_lists.py -->", "<!-- end of the table -->"


def with_tables(text: str) -> str:
    """The document with its tables made anew."""
    start, _, rest = text.partition(_BEGIN)
    _, _, end = rest.partition(_END)
    tables = "\n\n".join(f"## {title}\n\n{table(faults)}" for title, faults in GROUPS.items())
    return f"{start}{_BEGIN}\n\n{tables}\n\n{_END}{end}"


if __name__ == "__main__":  # python -m tests.docker.fault_lists
    DOCUMENT.write_text(with_tables(DOCUMENT.read_text("utf-8")), "utf-8")
