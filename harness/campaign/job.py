"""The job function: one attempt, from its order to its end. The same here and on a cluster.

Whatever goes wrong is an end, but for what must stop the whole campaign: an engine that is gone, a
folder that cannot be written, and Ctrl-C before a run began. When :func:`perform` returns, all that
its end refers to is on the disk.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from harness import __version__, data_lock
from harness.campaign.aftermath import find_out
from harness.campaign.crew import Progressed
from harness.campaign.ends import (
    end_of_failure,
    end_of_fields,
    end_of_run,
    shortened,
)
from harness.campaign.idle_gpu import require_idle
from harness.campaign.obtain import BuildTail, check_unchanged, obtain
from harness.campaign.order import AttemptKind, JobEnd, Outcome
from harness.campaign.policy import Exclusive
from harness.campaign.refusal import refuse
from harness.campaign.unfinished import remove_unfinished
from harness.campaign.upload import UploadKind
from harness.challenge.model import builtin_names
from harness.challenge.pairs import check_data
from harness.engine.base import NVIDIA_RUNTIME
from harness.engine.owner import Owner
from harness.errors import (
    Blame,
    CampaignError,
    ConfigurationError,
    DataError,
    EngineError,
    EngineMissing,
    EngineUnreachable,
    HarnessError,
    Interrupted,
    MachineError,
    OutputError,
    SubmissionError,
)
from harness.execute import execute
from harness.image_record import ImageRecord
from harness.plan import Plan
from harness.store import RunDirectory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.campaign.order import JobOrder
    from harness.campaign.site import Site
    from harness.challenge.pairs import TaskPairs
    from harness.engine.base import Image
    from harness.execute import Progress
    from harness.interrupts import Interrupts

_log = logging.getLogger(__name__)

# They stop the campaign: no other attempt would fare better.
_STOPS = (EngineMissing, EngineUnreachable, OutputError, Interrupted)


def perform(
    order: JobOrder,
    site: Site,
    on_progress: Callable[[Progressed], None] = lambda _: None,
    interrupts: Interrupts | None = None,
) -> JobEnd:
    """Make one attempt. ``interrupts`` tells whether one was put off until the run was stored.

    A run that is interrupted ends as such, by Outcome.RAN and RunStatus.INTERRUPTED. Raises
    EngineMissing, EngineUnreachable or OutputError for what stops the campaign, and
    KeyboardInterrupt when nothing has begun; nothing of the attempt is left then, unless it is a
    run that :mod:`.aftermath` finishes.
    """
    return _Attempt(order, site, on_progress, interrupts).make()


class _Attempt:
    def __init__(
        self,
        order: JobOrder,
        site: Site,
        on_progress: Callable[[Progressed], None],
        interrupts: Interrupts | None,
    ) -> None:
        self._interrupts = interrupts
        self._order = order
        self._site = site
        self._on_progress = on_progress
        self._tail = BuildTail()
        self._run_dir: RunDirectory | None = None

    def make(self) -> JobEnd:
        try:
            return self._make()
        except SubmissionError as error:
            self._take_back()
            return refuse(self._order, error, self._site.runs_dir, self._tail.lines)
        except _STOPS:
            self._take_back()
            raise
        except (MachineError, ConfigurationError) as error:
            self._take_back()
            return end_of_failure(error)
        except Exception as error:  # the boundary of one attempt: the night goes on
            _log.exception("%s: the attempt %s failed", self._order.team, self._order.run_id)
            return self._after_our_own_fault(error)
        except BaseException:  # Ctrl-C before the run began
            self._take_back()
            raise

    def _make(self) -> JobEnd:
        order, site = self._order, self._site
        self._check_order()
        site.engine.check_isolation(order.conditions.isolation)
        if order.source.kind is UploadKind.FIELDS:
            return self._store_fields()
        with site.lock.heavy(
            f"preparing {order.team}", patience_s=site.lock_patience_s, on_wait=self._tell
        ):
            self._tell("preparing the image")
            is_upload = order.kind is AttemptKind.SUBMISSION
            image = obtain(
                site.engine,
                order.source,
                order.team,
                site.image_limits,
                base_image=site.base_image,
                build_limits=site.build_limits,
                folder_digest=site.folder_digest if is_upload else None,
                on_output=self._tail.add,
            )
            for known in order.known:
                if known.image_id == image.id:
                    return _same(image, known.run_id)
            tasks = self._checked_data()
            plan = self._plan(image, tasks)
        return self._run(plan)

    def _run(self, plan: Plan) -> JobEnd:
        order, site = self._order, self._site
        with site.lock.timed(
            f"a campaign's timed run, of {order.team}",
            exclusive=order.exclusive,
            gpu=order.gpu,
            patience_s=site.lock_patience_s,
            on_wait=self._tell,
        ):
            self._see_that_nothing_runs()
            if order.gpu is not None:
                self._tell("waiting for an empty GPU")
                require_idle(order.gpu, patience_s=site.gpu_patience_s)
            self._run_dir = self._new_directory()
            try:
                execute(
                    plan,
                    site.engine,
                    self._run_dir,
                    self._tell_of_run(len(plan.pairs)),
                    interrupts=self._interrupts,
                )
            except DataError as error:  # it was checked: somebody has it open
                raise MachineError(str(error)) from error
        self._run_dir.sync()
        return end_of_run(self._run_dir)

    def _see_that_nothing_runs(self) -> None:
        """Raises EngineError for what an earlier attempt of this process left and could not be
        removed: where a GPU is all that a run has, it may be another one's."""
        engine = self._site.engine
        for name in engine.sweep():
            _log.warning("removed %s, left behind by a harness that was killed", name)
        left = engine.left_of(Owner.current())
        if left and self._order.exclusive is Exclusive.MACHINE:
            raise EngineError(
                f"{', '.join(left)}: left behind by an earlier attempt, and could not be removed; "
                "nothing is timed beside it"
            )

    def _store_fields(self) -> JobEnd:
        # For zips alone: it checks fields with SciPy, which takes as long to import as all else of
        # an attempt's process on a cluster.
        from harness.campaign.hand_in import store_fields  # noqa: PLC0415

        order, site = self._order, self._site
        with site.lock.heavy(
            f"checking the fields of {order.team}",
            patience_s=site.lock_patience_s,
            on_wait=self._tell,
        ):
            self._tell("checking the fields")
            tasks = self._checked_data()
            stamp = check_unchanged(order.source)
            self._run_dir = self._new_directory()
            store_fields(order, tasks, self._run_dir, stamp)
        self._run_dir.sync()
        return end_of_fields(self._run_dir)

    def _check_order(self) -> None:
        """Raises CampaignError where this machine would run it under other conditions."""
        order, asked = self._order, self._order.conditions
        facts = (
            ("harness", asked.harness_version, __version__),
            ("challenge", asked.challenge_digest, order.challenge.digest),
            ("engine", asked.engine, self._site.engine.info.name),
            ("GPU", order.gpu, self._site.place.gpu),
        )
        for what, expected, found in facts:
            if expected != found:
                raise CampaignError(
                    f"{self._site.place.name}: {what}: expected {expected}, as the campaign has "
                    f"it, found {found} here"
                )

    def _checked_data(self) -> tuple[TaskPairs, ...]:
        """The pairs that the team is asked for. Raises DataError, CampaignError."""
        order, site = self._order, self._site
        with data_lock.shared(site.data_dir):
            found = check_data(order.challenge, site.data_dir)
            digest = site.data_digest(site.data_dir, found)
        if digest != order.conditions.data_digest:
            raise CampaignError(
                f"data folder {site.data_dir}: expected the content that the campaign has "
                f"({order.conditions.data_digest}), found another ({digest}); copy it anew"
            )
        tasks = tuple(one for one in found if order.tasks is None or one.task.name in order.tasks)
        if not tasks:
            raise CampaignError(
                f"{order.team} takes part in {', '.join(order.tasks or ()) or 'no task'}, of which "
                f"the data folder {site.data_dir} has none"
            )
        return tasks

    def _plan(self, image: Image, tasks: tuple[TaskPairs, ...]) -> Plan:
        order, site = self._order, self._site
        facts = site.engine.image_facts(image)
        return Plan(
            challenge=order.challenge,
            challenge_file=self._challenge_file(),
            data_dir=site.data_dir,
            tasks=tasks,
            image=image,
            image_facts=None if facts is None else ImageRecord.of(facts),
            submission=order.team,
            cache=order.conditions.cache,
            isolation=order.conditions.isolation,
            changed_limits=order.changed_limits,
            gpus=_gpus(order),
        )

    def _challenge_file(self) -> Path | None:
        """What the submission is told of the challenge: the file as it was when the campaign took
        it up, whatever became of that."""
        order = self._order
        if order.challenge_text is None:
            if order.challenge.name not in builtin_names():
                raise CampaignError(
                    f"challenge {order.challenge.name}: expected its file's text with the order, "
                    "as it is not built in, found none"
                )
            return None
        digest = order.challenge.digest.removeprefix("sha256:")[:16]
        path = (self._site.scratch / f"challenge-{digest}.yaml").resolve()
        try:
            if not path.is_file() or path.read_text("utf-8") != order.challenge_text:
                path.parent.mkdir(parents=True, exist_ok=True)
                part = path.with_suffix(f".{self._site.place.name}.part")
                part.write_text(order.challenge_text, "utf-8")
                part.chmod(0o644)
                part.replace(path)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written ({error.strerror})") from error
        return path

    def _after_our_own_fault(self, error: Exception) -> JobEnd:
        """What a submission has finished is kept, where a run had begun."""
        run_dir = self._run_dir
        if run_dir is not None and not remove_unfinished(run_dir):
            return find_out(run_dir, lambda _: self._site.engine)
        return JobEnd(
            outcome=Outcome.FAILED,
            reason=shortened(RuntimeError(f"the harness failed: {type(error).__name__}: {error}")),
            blame=Blame.MACHINE,
            exit_code=HarnessError.exit_code,
        )

    def _new_directory(self) -> RunDirectory:
        order = self._order
        return RunDirectory.make(self._site.runs_dir, order.team, order.run_id)

    def _take_back(self) -> None:
        """Leave nothing half-made, nor touch what a run has made."""
        run_dir, self._run_dir = self._run_dir, None
        if run_dir is not None:
            remove_unfinished(run_dir)

    def _tell(self, doing: str) -> None:
        self._on_progress(Progressed(team=self._order.team, run_id=self._order.run_id, doing=doing))

    def _tell_of_run(self, pairs: int) -> Callable[[Progress], None]:
        def tell(progress: Progress) -> None:
            self._on_progress(
                Progressed(
                    team=self._order.team,
                    run_id=self._order.run_id,
                    doing="running",
                    progress=progress,
                    pairs=pairs,
                )
            )

        return tell


def _gpus(order: JobOrder) -> tuple[str, ...] | None:
    """The place's; none where it has none, but for NVIDIA's runtime, which an organiser chose to
    have all of them handed out."""
    if order.gpu is not None:
        return (order.gpu,)
    return None if order.conditions.isolation.runtime == NVIDIA_RUNTIME else ()


def _same(image: Image, run_id: str) -> JobEnd:
    return JobEnd(
        outcome=Outcome.SAME,
        reason=f"the same image as that of the run {run_id}, under the same conditions",
        image_id=image.id,
        same_as=run_id,
    )
