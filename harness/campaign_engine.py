"""The engine and the GPU of a campaign's machine, and whether they can run what was handed in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness import console
from harness.campaign.upload import UploadKind
from harness.engine.absent import AbsentEngine
from harness.engine.base import EngineName
from harness.engine.choose import choose_engine
from harness.engine.docker import DockerEngine
from harness.errors import EngineMissing, EngineUnreachable, ImageMissing, OptionError
from harness.gpu_choice import one_gpu
from harness.machine.gpu import gpus

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.campaign.intake import Scan
    from harness.campaigning import Request
    from harness.engine.base import Engine
    from harness.engine.choose import EngineChoice

_MAX_NAMED = 5  # entries, in one message


def engine_of(request: Request) -> Engine:
    """Raises EngineMissing or EngineUnreachable where images are run here."""
    try:
        engine, notice = _chosen(request.engine)
    except (EngineMissing, EngineUnreachable) as error:
        if request.scheduler is None:
            raise
        return AbsentEngine(error)
    if notice is not None:
        console.warn(notice)
    engine.check_isolation(request.isolation)
    if request.engine == "process":
        console.warn(
            "the process engine isolates nothing: a submission can read the truth, and change "
            "other teams' results; for your own methods only"
        )
    return engine


def _chosen(wanted: EngineChoice) -> tuple[Engine, str | None]:
    """An engine that is there and does not answer is waited for by people: others' uploads must not
    be run without isolation because it was busy, or was just started again."""
    if wanted != "auto":
        return choose_engine(wanted)
    try:
        return choose_engine("docker")
    except EngineMissing:
        return choose_engine("auto")


def gpu_of(request: Request, engine: Engine) -> str | None:
    """The UUID of the one that runs get. Raises OptionError."""
    if request.gpu is None:
        return None
    if request.scheduler is not None:
        raise OptionError(
            "--gpus: expected it with the workers of the cluster, each of which has its own: "
            "`harness cluster worker --gpus`; leave it out here"
        )
    found = one_gpu(request.gpu, gpus(), why_not=engine.why_no_gpus)
    return None if found is None else found[1]


def require_engine(request: Request, engine: Engine) -> None:
    """Raises EngineError while it does not answer. A worker of a cluster sees to its own."""
    if isinstance(engine, DockerEngine) and request.scheduler is None:
        DockerEngine.connect().close()


def image_ids(engine: Engine) -> Callable[[str], str | None]:
    def image_id(name: str) -> str | None:
        try:
            return engine.find(name).id
        except ImageMissing:
            return None

    return image_id


def check_uploads(scan: Scan, engine: Engine) -> None:
    """Raises EngineMissing for what this engine cannot run."""
    if engine.info.name is not EngineName.PROCESS:
        return
    runnable = (UploadKind.FOLDER, UploadKind.FIELDS)
    entries = [one.upload.entry for one in scan.uploads if one.upload.kind not in runnable]
    if entries:
        more = f" and {len(entries) - _MAX_NAMED} more" if len(entries) > _MAX_NAMED else ""
        raise EngineMissing(
            f"{', '.join(entries[:_MAX_NAMED])}{more}: images need Docker or Podman, and no engine "
            "for them answers or --engine process was given; only folders and zips of fields can "
            "do without"
        )
