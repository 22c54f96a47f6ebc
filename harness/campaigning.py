"""What `harness campaign` does: from options to the loop, and what is shown of it."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from harness import __version__, console, data_lock
from harness.campaign.aftermath import find_out
from harness.campaign.breaks import Breaks
from harness.campaign.conditions import Conditions
from harness.campaign.conduct import Conductor
from harness.campaign.content import Contents
from harness.campaign.folder import CampaignFolder
from harness.campaign.intake import Intake
from harness.campaign.local_crew import LocalCrew
from harness.campaign.means import Campaign, Means
from harness.campaign.order import Place
from harness.campaign.policy_file import load_policy
from harness.campaign.readiness import require_isolation_as_before
from harness.campaign.rules import gain
from harness.campaign.score import score_attempt
from harness.campaign.scorer import Scorer
from harness.campaign.site import Site
from harness.campaign.upload import CALIBRATION
from harness.campaign_engine import (
    check_uploads,
    engine_of,
    gpu_of,
    image_ids,
    require_engine,
)
from harness.campaign_reference import reference_image, with_reference
from harness.challenge.limit_changes import change_limits
from harness.challenge.model import builtin_names, challenge_text, load_challenge
from harness.challenge.pairs import check_data
from harness.cli_cluster import require_extra
from harness.cli_recover import engines
from harness.collect import check_writable
from harness.console_campaign import CampaignView
from harness.console_campaign_summary import show_campaign
from harness.engine.base import BuildLimits
from harness.errors import (
    CampaignError,
    DataError,
    Interrupted,
    MachineBusy,
)
from harness.imports.limits import ImportLimits
from harness.machine.fingerprint import take_fingerprint
from harness.scoring.cases import cases_of_challenge, check_images
from harness.scoring.evaluate import ZeroFields, check_truth
from harness.scoring.results import initial_cases_path
from harness.store import RunDirectory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.cache import CacheMode
    from harness.campaign.crew import Crew
    from harness.campaign.events import Scored
    from harness.campaign.policy import Policy
    from harness.campaign.state import Attempt
    from harness.challenge.model import Challenge
    from harness.engine.base import Engine, Isolation
    from harness.scoring.pool import Pool

_LOCK_PATIENCE_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Request:
    """The command's options; None where one was not given."""

    submissions: Path
    data: Path
    truth: Path | None
    runs: Path
    policy: Path | None
    challenge: str
    engine: Literal["auto", "docker", "process"]
    base_image: str | None
    cache: CacheMode
    gpu: str | None
    limits: tuple[str, ...]
    isolation: Isolation
    seed: int | None
    watch: bool
    scheduler: str | None
    tls_files: tuple[Path | None, Path | None, Path | None]
    plain: bool


@dataclass(frozen=True, kw_only=True)
class _Rules:
    """``text``: of the challenge's file; None for a built-in one."""

    challenge: Challenge
    text: str | None
    changed_limits: tuple[str, ...]
    policy: Policy


@dataclass(frozen=True, kw_only=True)
class _Places:
    """Absolute."""

    submissions: Path
    data: Path
    truth: Path
    runs: Path


def run_campaign(request: Request) -> int:
    """The exit code. Everything that can be checked is, before anything is begun."""
    rules, places = _rules(request), _places(request)
    with data_lock.shared(places.data):
        tasks = check_data(rules.challenge, places.data)
    cases = cases_of_challenge(rules.challenge, places.truth, [places.data])
    check_truth(cases)
    check_images(cases, places.truth, places.data)
    check_writable(places.runs, ("_campaign", CALIBRATION))
    engine = engine_of(request)
    gpu = gpu_of(request, engine)
    folder = CampaignFolder(places.runs)
    if request.engine == "auto":
        require_isolation_as_before(folder, engine.info.name)
    contents = Contents(folder.contents_path)
    intake = Intake(places.submissions, rules.policy, contents, rules.challenge, image_ids(engine))
    check_uploads(intake.scan(watching=request.watch, now_s=time.time()), engine)
    calibration = reference_image(rules.policy, engine, request.base_image)
    with data_lock.shared(places.data):
        data_digest = contents.data_digest(places.data, tasks)
    campaign = Campaign(
        folder=folder,
        policy=with_reference(rules.policy, calibration),
        conditions=Conditions(
            harness_version=__version__,
            challenge=rules.challenge.name,
            challenge_digest=rules.challenge.digest,
            limits=rules.challenge.limits,
            data_digest=data_digest,
            engine=engine.info.name,
            cache=request.cache,
            isolation=request.isolation,
        ),
        challenge=rules.challenge,
        challenge_text=rules.text,
        changed_limits=rules.changed_limits,
        calibration=calibration,
        watch=request.watch,
    )
    truth_digest = contents.truth_digest(places.truth)
    return _conduct(request, campaign, places, engine, gpu, contents, intake, truth_digest)


def _conduct(
    request: Request,
    campaign: Campaign,
    places: _Places,
    engine: Engine,
    gpu: str | None,
    contents: Contents,
    intake: Intake,
    truth_digest: str,
) -> int:
    breaks = Breaks()
    with CampaignView(campaign.task_names, plain=request.plain) as view:
        site = _site(campaign, places, engine, gpu, contents, request)
        crew = _crew(request, campaign, site, view, breaks)
        is_elsewhere = request.scheduler is not None
        score = _scoring(campaign, places, site, truth_digest)
        scorer = Scorer(score, truth_digest, aside=is_elsewhere)
        means = Means(
            crew=crew,
            intake=intake,
            scorer=scorer,
            ready=lambda: require_engine(request, engine),
            find_out=lambda directory: find_out(directory, engines(engine)),
        )
        conductor = Conductor(campaign, means, view, breaks)
        try:
            code = conductor.conduct()
        finally:
            scorer.close()
            crew.close()
    show_campaign(conductor.status(), campaign.task_names, places.runs)
    if code == Interrupted.exit_code:
        text = "interrupted; what is done is kept, and the same command goes on"
        console.tell(text, to_stderr=True)
    return code


# What a command is asked for.


def _rules(request: Request) -> _Rules:
    challenge, changed = change_limits(load_challenge(request.challenge), request.limits)
    is_builtin = request.challenge in builtin_names()
    policy = load_policy(request.policy)
    if request.seed is not None:
        policy = policy.model_copy(update={"seed": request.seed})
    return _Rules(
        challenge=challenge,
        text=None if is_builtin else challenge_text(request.challenge),
        changed_limits=changed,
        policy=policy,
    )


def _places(request: Request) -> _Places:
    data = request.data.resolve()
    truth = (request.truth or data.parent / "truth").resolve()
    places = _Places(
        submissions=request.submissions.resolve(),
        data=data,
        truth=truth,
        runs=request.runs.resolve(),
    )
    if not places.submissions.is_dir():
        raise CampaignError(
            f"submissions {request.submissions}: expected a folder of uploads, found none"
        )
    for folder in (places.truth, places.runs, places.submissions):
        if folder.is_relative_to(data):
            raise DataError(
                f"{folder} lies in the data folder {data}, which the submissions see; put it beside"
            )
    for folder in (data, places.truth, places.runs):
        if folder.is_relative_to(places.submissions):
            raise CampaignError(
                f"{folder} lies in the submissions folder {places.submissions}, so it would be "
                "taken for an upload; put it beside"
            )
    return places


# Where it is done.


def _crew(
    request: Request, campaign: Campaign, site: Site, view: CampaignView, breaks: Breaks
) -> Crew:
    """Raises OptionError or MachineError for a scheduler that cannot be used."""
    if request.scheduler is None:
        return LocalCrew(site, view.progressed, breaks)
    require_extra()
    from harness.cluster.crew import DaskCrew  # noqa: PLC0415 - with an extra
    from harness.cluster.errand import Patience  # noqa: PLC0415
    from harness.cluster.images import Images  # noqa: PLC0415
    from harness.cluster.security import scheduler_address, tls_of  # noqa: PLC0415

    def pause(for_s: float) -> None:
        with breaks.allowed():
            time.sleep(for_s)

    tls = tls_of(*request.tls_files)
    images = Images(
        campaign.folder.path / "images",
        limits=site.image_limits,
        base_image=request.base_image,
        build_limits=site.build_limits,
    )
    address = scheduler_address(request.scheduler, tls)
    patience = Patience(for_ever=campaign.watch)
    return DaskCrew(address, tls, site.runs_dir, images=images, patience=patience, pause=pause)


def _site(
    campaign: Campaign,
    places: _Places,
    engine: Engine,
    gpu: str | None,
    contents: Contents,
    request: Request,
) -> Site:
    """This machine. It scores; where there is a cluster, it makes no attempts, and scoring waits
    for no worker that has the machine."""
    machine = platform.node() or "here"
    fingerprint = take_fingerprint(f"{engine.info.name} {engine.info.version}")
    place = Place(name=machine, machine=machine, gpu=gpu, machine_digest=fingerprint.digest)
    return Site(
        place=place,
        runs_dir=places.runs,
        data_dir=places.data,
        engine=engine,
        data_digest=contents.data_digest,
        image_limits=ImportLimits.of_size(campaign.policy.image_size_bytes),
        base_image=request.base_image,
        build_limits=BuildLimits(
            time_s=campaign.policy.build_time_s, memory_bytes=campaign.policy.build_memory_bytes
        ),
        lock_patience_s=None if request.scheduler is None else _LOCK_PATIENCE_S,
    )


def _scoring(
    campaign: Campaign, places: _Places, site: Site, truth_digest: str
) -> Callable[[Attempt, Pool], Scored | None]:
    zero = ZeroFields(initial_cases_path(places.runs))

    def score(attempt: Attempt, pool: Pool) -> Scored | None:
        directory = RunDirectory(places.runs.joinpath(*attempt.key))
        try:
            return score_attempt(
                directory,
                campaign.challenge,
                places.truth,
                places.data,
                lock=site.lock,
                truth_digest=truth_digest,
                gain=gain,
                pool=pool,
                patience_s=site.lock_patience_s,
                zero=zero,
            )
        except MachineBusy:
            return None

    return score
