"""Which tests may run beside each other, for ``make test``: pytest in several processes at first,
in one of them alone at the end.

Runtimes, deadlines and what other programs do to a run are looked at by tests that must have the
machine to themselves. Among the unit tests it is the modules of ``ALONE``: whoever writes a test
that would fail, or could not fail, beside a busy program puts its module there. All others, those
with real containers first of all, run alone as well, but for the modules of ``BESIDE``, which take
long and look at no time.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

UNIT = "tests/unit/"
ALONE = frozenset(
    {
        f"{UNIT}test_contamination.py",
        f"{UNIT}test_data_lock.py",
        f"{UNIT}test_doctor.py",
        f"{UNIT}test_edition_contracts.py",
        f"{UNIT}test_execute.py",
        f"{UNIT}test_gpu_run.py",
        f"{UNIT}test_interrupts.py",
        f"{UNIT}test_paced.py",
        f"{UNIT}test_probe.py",
        f"{UNIT}test_process_engine.py",
        f"{UNIT}test_scoring.py",
        f"{UNIT}test_start.py",
        f"{UNIT}test_watchdog.py",
        f"{UNIT}test_witness.py",
    }
)
BESIDE = frozenset(
    {
        "tests/docker/test_campaign_attempts.py",
        "tests/docker/test_editions_full_size.py",
        "tests/docker/test_evaluation_image.py",
        "tests/docker/test_export.py",
        "tests/docker/test_faults_of_intent.py",
        "tests/docker/test_image.py",
        "tests/docker/test_import.py",
    }
)
LONGEST = (  # of those that run beside each other, the longest first
    "tests/docker/test_evaluation_image.py",
    f"{UNIT}test_meaning_of_phantoms.py",
    "tests/docker/test_faults_of_intent.py",
    f"{UNIT}test_phantom.py",
    f"{UNIT}test_phantom_editions.py",
    "tests/docker/test_editions_full_size.py",
    "tests/docker/test_image.py",
    f"{UNIT}test_meaning.py",
    f"{UNIT}test_cli.py",
    f"{UNIT}test_evaluate_reference.py",
)
LAST = "alone"


def scope_of(test_id: str) -> str:
    """What stays together in one process: a module, for its fixtures, and all that runs alone."""
    module = test_id.split("::", 1)[0]
    is_beside = module in BESIDE or (module.startswith(UNIT) and module not in ALONE)
    return module if is_beside else LAST


def turn_of(scope: str) -> int:
    """The longest first, so that no process waits for the end of one; what runs alone last."""
    if scope == LAST:
        return len(LONGEST) + 1
    return LONGEST.index(scope) if scope in LONGEST else len(LONGEST)


class SideBySide(LoadScopeScheduling):  # type: ignore[misc]  # xdist tells no types
    """Hands out modules until only what runs alone is left. That is for the first process, once
    all others have ended."""

    workqueue: OrderedDict[str, dict[str, bool]]

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)

    def _assign_work_unit(self, node: WorkerController) -> None:
        in_turn = sorted(self.workqueue.items(), key=lambda unit: turn_of(unit[0]))
        self.workqueue = OrderedDict(in_turn)
        if next(iter(self.workqueue)) != LAST or self.nodes == [node]:
            super()._assign_work_unit(node)
        elif node is not self.nodes[0]:
            node.shutdown()

    def remove_node(self, node: WorkerController) -> str | None:
        crashed: str | None = super().remove_node(node)
        for left in self.nodes:
            self._reschedule(left)
        return crashed
